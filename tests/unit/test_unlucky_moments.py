"""Unlucky moments: code that runs where a call did not expect it, and a user at his limits."""

from __future__ import annotations

import subprocess
import sys

PRELUDE = """
import fcntl, os, random, select, shmpipe, signal, sys, threading, time, _thread
shmpipe._native.lib.shmp_backstop_ns = 10**9  # a sleeper looks around that often
"""


def run(program: str, *, environment: dict[str, str] | None = None) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        timeout=40,
        text=True,
    )
    return done.returncode, done.stdout.strip()


def test_an_index_that_closes_the_end() -> None:
    """base_read loads the end, then runs __index__, which frees it: use after free (SIGSEGV)."""
    program = """
r, w = shmpipe.pipe()
class Size:
    def __index__(self):
        r.close(); w.close()
        return 10
try: print(r.read(Size()))
except ValueError: print("closed")
"""
    assert run(program) == (0, "closed")


def test_none_keeps_its_references() -> None:
    """Built with the headers of Python 3.12, run by 3.11: "deallocating None" after a while."""
    program = """
r, w = shmpipe.pipe(os.O_NONBLOCK)
before = sys.getrefcount(None)
for _ in range(1000): r.read(1)
print(sys.getrefcount(None) > before - 100)
"""
    assert run(program) == (0, "True")


def test_interrupt_main_in_readv() -> None:
    """on_tick's handler raises inside a cffi call, which then returns a result with an exception
    set.
    """
    program = """
r, w = shmpipe.pipe()
def poke():
    time.sleep(0.3)
    _thread.interrupt_main()
threading.Thread(target=poke).start()
try: r.readv([bytearray(10)])
except BaseException as error: print(type(error).__name__)
"""
    assert run(program) == (0, "KeyboardInterrupt")


INTERRUPTED = """
class Interrupt(Exception): pass
def handler(*_): raise Interrupt
signal.signal(signal.SIGALRM, handler)
leaks = 0
until = time.monotonic() + 3
while time.monotonic() < until and not leaks:
    try: r, w = shmpipe.pipe()
    except Interrupt: continue
    armed = done = False
    while not done:  # the one signal comes in here, and nowhere else
        try:
            if not armed:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, random.uniform(2e-6, 40e-6))
            WHAT
            signal.setitimer(signal.ITIMER_REAL, 0)
            # CPython may overlook it (a signal while it takes the interpreter lock) until the
            # lock is taken again.
            time.sleep(0)
            [None for _ in range(100)]
            done = True
        except Interrupt: pass
    w.close()
    r.nonblocking = True
    leaks += r.read(1) is None
    r.close()
print(leaks)
"""


def test_an_exception_in_close_does_not_keep_the_end_open() -> None:
    """A handler that raises between `_detach()` and `_lib.close()`: the address is lost, the end
    stays open for the life of the process, the reader never sees end of file.
    """
    program = INTERRUPTED.replace("WHAT", "w.close(); [None for _ in range(3000)]")
    assert run(program) == (0, "0")


def test_an_exception_around_a_hold_does_not_keep_the_end_open() -> None:
    """The same in _lib.call, between `_hold()` and `try`."""
    program = INTERRUPTED.replace("WHAT", "[w.capacity for _ in range(1000)]")
    assert run(program) == (0, "0")


# A thread that has been joined is listed until the kernel has put it away.
IS_ALONE = """
def is_alone():
    until = time.monotonic() + 5
    while len(os.listdir('/proc/self/task')) > 1:
        if time.monotonic() > until: return False
        os.sched_yield()
    return True
"""


def test_an_exception_around_a_notifier_leaves_none_behind() -> None:
    """Between the core's notifier and the object that owns it, and between "closed" and closing:
    the eventfd and the relay's thread stayed for the life of the process.
    """
    program = INTERRUPTED.replace("WHAT", "[r.notifier().close() for _ in range(20)]")
    program = program.replace("40e-6", "400e-6").replace("+ 5", "+ 2")
    program = program.replace("r.read(1) is None", "not is_alone()")
    program = IS_ALONE + "sys.unraisablehook = lambda _: None  # raised in __del__\n" + program
    assert run(program) == (0, "0")


def test_pollout_for_a_user_with_many_pipes() -> None:
    """Above pipe-user-pages-soft the companion has two slots: 4096 edges fill it, and the pollers
    of a pipe with 14 free slots are told that it is full.
    """
    program = """
import resource, shmpipe.inspect
if os.geteuid() != 0: print("True"); sys.exit()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
os.setgid(65534); os.setuid(65534)
kept = []
while not kept or fcntl.fcntl(kept[-1][0], fcntl.F_GETPIPE_SZ) == 65536: kept.append(os.pipe())
r, w = shmpipe.pipe(os.O_NONBLOCK)
poller = select.poll()
poller.register(w.fileno(), select.POLLOUT)
written = 0
while poller.poll(0) and written < 20000:
    w.write(b"x")
    written += 1
print(written == 20000)
"""
    assert run(program) == (0, "True")
