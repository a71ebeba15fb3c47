"""Deaths and stops at chosen instants: each of these once hung or lost something.

The instants are chosen by a shared object that is loaded before libc: it kills or halts the
process at the n-th system call of a kind.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { WAKE = 1, SLEEP = 2, DRAIN = 3 };
static long (*real_syscall)(long, ...);
static int point;
static volatile int *gate;
void review_arm(int where, volatile int *at) { gate = at; point = where; }
static void here(int where)
{
    if (point != where)
        return;
    point = 0;
    if (gate == 0)
        for (;;)
            real_syscall(SYS_kill, getpid(), SIGKILL);
    for (*gate = 1; *gate != 2;)
        sched_yield();
}
long syscall(long n, ...)
{
    long x[6];
    va_list a;
    if (real_syscall == 0) /* not in a constructor: Python 3.13 comes here from an earlier one */
        real_syscall = dlsym(RTLD_NEXT, "syscall");
    va_start(a, n);
    for (int i = 0; i < 6; i++)
        x[i] = va_arg(a, long);
    va_end(a);
    if (n == SYS_futex && x[1] == 1) /* between processes: not the interpreter's own */
        here(WAKE);
    if (n == 449)
        here(SLEEP);
    return real_syscall(n, x[0], x[1], x[2], x[3], x[4], x[5]);
}
ssize_t read(int fd, void *buffer, size_t n)
{
    static ssize_t (*real_read)(int, void *, size_t);
    if (real_read == 0)
        real_read = dlsym(RTLD_NEXT, "read");
    here(DRAIN);
    return real_read(fd, buffer, n);
}
"""

PRELUDE = """
import ctypes, mmap, os, select, shmpipe, signal, struct, sys, threading, time
WAKE, SLEEP, DRAIN = 1, 2, 3
library = ctypes.CDLL(None)
page = mmap.mmap(-1, 4096)
gate = (ctypes.c_int).from_buffer(page)
def die_at(where): library.review_arm(where, None)
def halt_at(where): library.review_arm(where, ctypes.byref(gate))
def forked(body):
    pid = os.fork()
    if pid == 0:
        try:
            body()
        finally:
            os._exit(0)
    return pid
def watch(pid, state):
    # Polls the kernel's own word, the test's watchdog is the deadline.
    while not state(pid): os.sched_yield()
def asleep(pid):
    # Twice the same sleeping call, no switch in between: futex (202) or futex_waitv (449).
    def look():
        call = open(f"/proc/{pid}/syscall").read().split()[0]
        status = open(f"/proc/{pid}/status").read()
        return call, status.split("\\nvoluntary_ctxt_switches:")[1].split()[0]
    def state(_):
        first = look()
        os.sched_yield()
        return first[0] in ("202", "449") and look() == first
    watch(pid, state)
def stopped_now(pid):
    watch(pid, lambda _: open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "T")
def killed(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    source, library = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return library


def run(program: str, shim: Path | None = None, *, seconds: float = 20) -> str:
    """What a program prints; a failure to end is a hang."""
    environment = dict(os.environ)
    if shim is not None:
        environment["LD_PRELOAD"] = str(shim)
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + program],
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
        text=True,
    )
    try:
        return process.communicate(timeout=seconds)[0].strip()
    except subprocess.TimeoutExpired:
        pytest.fail("hangs")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.communicate()


@pytest.mark.parametrize("call", ["read(10)", "readinto(bytearray(10))"])
def test_a_reader_killed_in_its_lock_does_not_hang_the_next(call: str) -> None:
    """read() only tries the lock (read_now: wait == false), so it never takes it from the dead."""
    program = f"""
r, w = shmpipe.pipe()
w.write(b"0123456789")
def torn(): # the copy touches memory that is not there any more
    file = os.memfd_create("short")
    os.truncate(file, 4096)
    memory = mmap.mmap(file, 4096)
    os.truncate(file, 0)
    r.readinto(memory)
pid = forked(torn)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGBUS
assert r.stat().read_lock_owner
result = r.{call}
print(result if isinstance(result, int) else len(result))
"""
    assert run(program) == "10"


def test_a_newcomer_killed_before_it_wakes(shim: Path) -> None:
    """Who wakes takes the count down, then wakes. Dead in between: the sleepers do not watch a
    newcomer, they are counted no more, and no later write wakes them.
    """
    program = """
r, w = shmpipe.pipe()
answers, answer = os.pipe()
def sleeper():
    w.close()
    r.read(10)
    os.write(answer, struct.pack("d", time.monotonic()))
asleep(forked(sleeper))
def newcomer():
    die_at(WAKE)
    w.write(b"never")
killed(forked(newcomer))
start = time.monotonic()
w.write(b"data")
print(struct.unpack("d", os.read(answers, 8))[0] - start)
"""
    assert float(run(program, shim)) < 0.3


def test_a_newcomer_that_slept_first_is_chosen_and_killed(shim: Path) -> None:
    """One that only sleeps does not stand behind us if it goes to sleep between our gathering and
    our futex_waitv. It is chosen first then, and we do not watch it.
    """
    program = """
r, w = shmpipe.pipe()
answers, answer = os.pipe()
def sleeper():
    w.close()
    halt_at(SLEEP)
    r.read(10)
    os.write(answer, struct.pack("d", time.monotonic()))
halted = forked(sleeper)
while gate.value != 1: os.sched_yield()
def newcomer():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    r.read(10)
pid = forked(newcomer)
asleep(pid)
gate.value = 2
asleep(halted)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
try: # nor does a busy machine let it run between the two
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
except PermissionError:
    pass
start = time.monotonic()
w.write(b"data")
os.kill(pid, signal.SIGKILL)
killed(pid)
print(struct.unpack("d", os.read(answers, 8))[0] - start)
"""
    assert float(run(program, shim)) < 0.3


def test_a_living_process_is_never_judged_dead() -> None:
    """The thread that made the record has ended (words marked), another thread closes a descriptor
    of the segment (snapshot by name: for a moment no record lock), a third one writes: its lock
    is taken and its entry reaped. Two writers in one lock, torn messages.
    """
    program = """
name = f"review-{os.getpid()}"
MB = 1 << 20
shmpipe.mkfifo(name, capacity=64 * MB)
def victim():
    made = []
    maker = threading.Thread(target=lambda: made.append(shmpipe.open(name, "r+")))
    maker.start()
    maker.join()
    made[0].nonblocking = True
    def look():
        while True: shmpipe.snapshot(name)
    threading.Thread(target=look, daemon=True).start()
    while True: made[0].write(b"A" * (32 * MB))
def rival():
    end = shmpipe.open(name, "r+")
    while True: end.write(b"B" * 4096)
children = [forked(victim), forked(rival)]
try:
    reader = shmpipe.open(name, "r")
    torn = 0
    until = time.monotonic() + 5
    while time.monotonic() < until and not torn:
        message = reader.read(4096)
        torn += message.count(message[:1]) != 4096
    state = reader.stat()
finally:
    for each in children: os.kill(each, signal.SIGKILL)
    shmpipe.unlink(name)
print(torn, state.recoveries, state.reaped)
"""
    assert run(program) == "0 0 0"


def test_ctrl_c_ends_the_wait_for_a_stopped_writer() -> None:
    """shmp_lock_slow does not return on a signal: one writer stopped in its lock (Ctrl-Z), and no
    Ctrl-C reaches the others.
    """
    program = """
size = 256 << 20
r, w = shmpipe.pipe(capacity=size)
stopped = forked(lambda: w.write(bytes(size)))
while not r.stat().write_lock_owner: pass
os.kill(stopped, signal.SIGSTOP)
stopped_now(stopped)
assert r.stat().write_lock_owner
def second():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try: w.write(b"x")
    except KeyboardInterrupt: os._exit(7)
pid = forked(second)
asleep(pid)
os.kill(pid, signal.SIGINT)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
os.kill(stopped, signal.SIGKILL)
"""
    assert run(program) == "7"


def test_a_stopped_peer_does_not_freeze_the_interpreter() -> None:
    """The companion's lock is held over system calls and copies, so a third of all SIGSTOPs of a
    writer that somebody polls leave it locked; who waits for it keeps the interpreter lock and
    hears no signal.
    """
    program = """
r, w = shmpipe.pipe(os.O_NONBLOCK)
r.fileno()
def writer():
    while True: w.write(bytes(100))
pid = forked(writer)
for _ in range(300):
    written = r.stat().writes
    while r.stat().writes == written: r.read(65536)
    os.kill(pid, signal.SIGSTOP)
    stopped_now(pid)
    if r.stat().companion_lock_owner: break
    os.kill(pid, signal.SIGCONT)
    r.read(65536)
def victim():
    def tick():
        while True: page[100] = (page[100] + 1) % 256
    threading.Thread(target=tick, daemon=True).start()
    while page[100] == 0: pass
    page[101] = 1
    r.read(10)
    signal.pause()
child = forked(victim)
while page[101] == 0: os.sched_yield()
asleep(child)  # in the lock, or on the interpreter's
for _ in range(20):
    before = page[100]
    while page[100] == before: os.sched_yield()
print(True)
os.kill(child, signal.SIGKILL)
os.kill(pid, signal.SIGKILL)
"""
    assert run(program) == "True"


def test_a_child_forked_by_a_handler_is_watched_in_its_read() -> None:
    """fork_child sets `calls` to 0 although this thread's read() goes on in the child: its call
    words read 0, and whoever sleeps behind it is not told of its death.
    """
    program = """
r, w = shmpipe.pipe()
answers, answer = os.pipe()
cpu = {min(os.sched_getaffinity(0))}
def forks():
    w.close()
    def handler(*_):
        if os.fork():
            os._exit(0)
        os.sched_setaffinity(0, cpu)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        os.write(answer, struct.pack("d", os.getpid()))
    signal.signal(signal.SIGUSR1, handler)
    r.read(10)
def sleeper():
    w.close()
    r.read(10)
    os.write(answer, struct.pack("d", time.monotonic()))
pid = forked(forks)
asleep(pid)
os.kill(pid, signal.SIGUSR1)
victim = int(struct.unpack("d", os.read(answers, 8))[0])
asleep(victim)
asleep(forked(sleeper))
os.sched_setaffinity(0, cpu)
start = time.monotonic()
w.write(b"data")
os.kill(victim, signal.SIGKILL)
print(struct.unpack("d", os.read(answers, 8))[0] - start)
"""
    assert float(run(program)) < 0.3


def test_a_polled_pipe_is_read_while_a_long_write_copies() -> None:
    """The companion's lock is held for the whole of put_all, so a reader waits for the end of the
    copy, with the interpreter lock in its hand (D13: both sides work at the same time).
    """
    program = """
size = 256 << 20
r, w = shmpipe.pipe(capacity=size)
w.write(bytes(5000))
r.fileno()
pid = forked(lambda: w.write(bytes(size - 8192)))
while not r.stat().write_lock_owner: pass
start = time.monotonic()
r.read(5000)
print(time.monotonic() - start)
os.kill(pid, signal.SIGKILL)
"""
    assert float(run(program)) < 0.05


def test_a_nonblocking_read_beside_a_dead_lock_does_not_wait_for_data(shim: Path) -> None:
    """read(n) took "the companion's lock is not free" for "there is nothing to read", and slept
    until there was, also with O_NONBLOCK.
    """
    program = """
r, w = shmpipe.pipe(os.O_NONBLOCK)
r.fileno()
w.write(b"x")
def victim():
    die_at(DRAIN)  # it has taken the byte, and tells the companion so
    r.readinto(bytearray(1))
killed(forked(victim))
state = r.stat()
assert state.companion_lock_owner and state.pending == 0
print(r.read(65536))
"""
    assert run(program, shim) == "None"


@pytest.mark.parametrize("good", [0, 8192])
def test_WR_16_a_bad_address_is_fatal_to_the_caller_alone(good: int) -> None:
    """The kernel's pipe says EFAULT. Here the caller dies in its copy, holding the lock."""
    program = f"""
GOOD = {good}
libc = ctypes.CDLL(None, use_errno=True)
memory = mmap.mmap(-1, GOOD + 8192)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert libc.mprotect(ctypes.c_void_p(start + GOOD), 4096, 0) == 0
bad = (ctypes.c_char * (GOOD + 4096)).from_address(start)
r, w = shmpipe.pipe()
def fault(act):
    pid = forked(act)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSEGV
fault(lambda: w.write(bad))
print(r.pending)
w.write(b"x" * (GOOD + 4096))
fault(lambda: r.readinto(bad))
print(r.pending - GOOD, r.read(GOOD + 4096) == b"x" * (GOOD + 4096))
w.write(b"done")
print(r.read(10).decode())
"""
    assert run(program).split() == ["0", "4096", "True", "done"]


def test_other_threads_go_on_beside_a_process_stopped_in_the_companions_lock(shim: Path) -> None:
    """The thread that writes waits for that lock, and keeps nothing that the others need."""
    program = """
r, w = shmpipe.pipe()
r.fileno(), w.fileno()
w.write(b"x")
def reader():
    halt_at(DRAIN)
    r.read(10)
pid = forked(reader)
while gate.value != 1: os.sched_yield()
os.kill(pid, signal.SIGSTOP)
stopped_now(pid)
thread = threading.Thread(target=w.write, args=(b"y",))
thread.start()
asleep(thread.native_id)
print("went on")
gate.value = 2
os.kill(pid, signal.SIGCONT)
thread.join()
os.waitpid(pid, 0)
print(r.read(10).decode())
"""
    assert run(program, shim).splitlines() == ["went on", "y"]
