"""Without the fast calls: signals that come when nothing sleeps yet, and arguments."""

from __future__ import annotations

import os
import subprocess
import sys

PRELUDE = """
import _thread, io, signal, threading, time
import shmpipe
from shmpipe import _base, _slow
from shmpipe._native import lib
lib.shmp_backstop_ns = 10**9  # a sleeper looks around that often

assert _base.EndBase is _slow.EndBase

r, w = shmpipe.pipe()

class Raised(Exception):
    pass

def handle(number, frame):
    raise Raised

def poke(seconds, times=1):
    # No signal is sent, so no sleep is interrupted: as if the signal had come just before it.
    def later():
        for _ in range(times):
            time.sleep(seconds)
            _thread.interrupt_main(signal.SIGALRM)
    threading.Thread(target=later, daemon=True).start()
"""


def run(program: str) -> list[str]:
    """Runs it in a Python of its own, without the fast calls: what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "SHMPIPE_NO_FASTCALL": "1"},
        timeout=50,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.split()


def test_a_handler_that_writes_ends_the_read() -> None:
    """The timer is over when the sleep's slice is: in user space as often as not."""
    program = """
signal.signal(signal.SIGALRM, lambda *_: w.write(b"bar"))
for _ in range(3):
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 1)
    assert r.read(3) == b"bar"
    print(time.monotonic() - start < 2.5)
"""
    assert run(program) == ["True"] * 3


def test_a_handler_runs_though_nothing_interrupts_the_sleep() -> None:
    program = """
signal.signal(signal.SIGALRM, lambda *_: w.write(b"bar"))
for _ in range(3):
    poke(0.2)
    start = time.monotonic()
    print(r.read(3).decode(), time.monotonic() - start < 2.5)
"""
    assert run(program) == ["bar", "True"] * 3


def test_a_handler_that_raises_ends_the_call() -> None:
    program = """
signal.signal(signal.SIGALRM, handle)
def fill():
    w.write(bytes(1 << 20))
for call in (
    lambda: r.read(1), lambda: r.readinto(bytearray(1)), lambda: r.readv([bytearray(1)]), fill,
):
    poke(0.2)
    try:
        call()
    except Raised as raised:
        frames = []
        trace = raised.__traceback__
        while trace:
            frames.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        print(frames[-1], raised.__context__)
print(_slow._raised)
r.nonblocking = True
print(len(r.read(1 << 20)))
"""
    assert run(program) == ["handle", "None"] * 4 + ["{}", "65536"]


def test_a_tick_does_not_cut_a_write_short() -> None:
    program = """
signal.signal(signal.SIGALRM, lambda *_: print("handler", flush=True))
def drain():
    time.sleep(2.5)
    while r.read(1 << 16):
        pass
reader = threading.Thread(target=drain)
reader.start()
poke(0.2)
print(w.write(bytes(200000)))
w.close()
reader.join()
"""
    assert run(program) == ["handler", "200000"]


def test_only_the_main_thread_runs_handlers() -> None:
    """A sleeper in another thread neither runs nor gets what the main thread's handler raises."""
    program = """
signal.signal(signal.SIGALRM, handle)
other, mouth = shmpipe.pipe()
def sleep():
    print(other.read(3).decode(), flush=True)
sleeper = threading.Thread(target=sleep)
sleeper.start()
poke(1.2)
try:
    r.read(1)
except Raised:
    print("raised", flush=True)
mouth.write(b"foo")
sleeper.join()
"""
    assert run(program) == ["raised", "foo"]


def test_a_handler_that_sleeps_itself() -> None:
    """What its own call raises is the handler's; what the handler raises, the outer call's."""
    program = """
class Inner(Exception):
    pass
inner, _mouth = shmpipe.pipe()
def nest(number, frame):
    signal.signal(signal.SIGUSR1, inner_handler)
    threading.Timer(0.2, _thread.interrupt_main, [signal.SIGUSR1]).start()
    try:
        inner.read(1)
    except Inner:
        print("inner", flush=True)
    raise Raised
def inner_handler(number, frame):
    raise Inner
signal.signal(signal.SIGALRM, nest)
poke(0.2)
try:
    r.read(1)
except Raised as raised:
    print("outer")
print(_slow._raised)
"""
    assert run(program) == ["inner", "outer", "{}"]


def test_the_fast_calls_keep_their_own_tick() -> None:
    program = """
from shmpipe._native import ffi, lib
print(lib.shmp_on_tick == lib.shmpy_tick)
"""
    assert run(program) == ["True"]
    done = subprocess.run(
        [sys.executable, "-c", "import shmpipe" + program],
        stdout=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "SHMPIPE_NO_FASTCALL"},
        timeout=50,
        text=True,
    )
    fast = sys.implementation.name == "cpython"
    assert done.stdout.split() == ["False" if fast else "True"]


def test_a_fast_call_that_has_just_looked_sleeps_without_another_look() -> None:
    """A look takes the interpreter lock.  Each call slept at least once without one (and may be
    kept from running now and then for longer than a look is fresh).
    """
    program = """
import os, shmpipe, time
from shmpipe._native import ffi, lib
looks = 0
@ffi.callback("int(void)")
def look():
    global looks
    looks += 1
    return 0
r, w = shmpipe.pipe()
child = os.fork()
if child == 0:
    while True:
        while w.stat().read_waiters == 0: os.sched_yield()
        until = time.monotonic() + 0.001  # no dialogue, in which nobody looks
        while time.monotonic() < until: pass
        w.write(b"x")
lib.shmp_on_tick = look
for call in (r.read, lambda n: r.readinto(bytearray(n)), lambda n: r.readv([bytearray(n)])):
    least = 99
    slept = 0
    while slept < 20:
        before, looks = r.stat().read_sleeps, 0
        call(1)
        if r.stat().read_sleeps > before:
            slept += 1
            least = min(least, looks)
    print(least)
os.kill(child, 9)
os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "SHMPIPE_NO_FASTCALL"},
        timeout=50,
        text=True,
    )
    if sys.implementation.name == "cpython":
        assert done.stdout.split() == ["0"] * 3


def test_sizes_and_buffers() -> None:
    """Beyond what tests/stdlib compares: the limits, and a buffer that is free after an error."""
    program = """
w.write(b"abc")
for size in (2**63, -2**63 - 1):
    try:
        r.read(size)
    except OverflowError:
        print("overflow")
print(r.read(2**63 - 1).decode())
try:
    r.readinto(b"read-only")
except TypeError:
    print("type")
w.nonblocking = True
buffered = io.BufferedWriter(w, 10)
try:
    buffered.write(bytes(1 << 20))
    buffered.flush()
except BlockingIOError as error:
    print(error.errno)
r.read(1 << 20)
buffered.detach()
r.close()
data = bytearray(100)
try:
    w.write(data)
except BrokenPipeError as error:
    data.append(1)
    print("free")
"""
    assert run(program) == ["overflow", "overflow", "abc", "type", "11", "free"]
