"""The watchdog: a process of its own that ends tests which hang, and says where they hang.

It is no thread, because a thread needs the GIL (which a hanging C call may hold) and makes
fork() less predictable; and it is no child of the test run (it forks itself away), so that
"this process has no children" stays a valid leak check.

Orders on standard input: `start SECONDS NAME`, `end`.  End of file ends the watchdog.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import proc

DUMP_SIGNAL = signal.SIGRTMIN + 10
HANG_SIGNAL = signal.SIGRTMIN + 11

# Not the FIFO beside an object: to open that would make us its reader.
_SEGMENTS = ("/memfd:shmpipe (", "/dev/shm/shmpipe.")


def say(text: str) -> None:
    os.write(2, (text + "\n").encode(errors="backslashreplace"))


def read_or(path: str, fallback: str = "(not readable)") -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return fallback


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal: sending it is then harmless."""
    for line in read_or(f"/proc/{pid}/status").splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def describe(pid: int) -> None:
    """One block of lines about a process, its threads and its shmpipe descriptors."""
    command = read_or(f"/proc/{pid}/cmdline").replace("\0", " ")
    say(f"-- process {pid}: {command[:120]}")
    with contextlib.suppress(OSError):
        for tid in os.listdir(f"/proc/{pid}/task"):
            task = f"/proc/{pid}/task/{tid}"
            say(
                f"   task {tid}: state {proc.state(pid, int(tid))}"
                f" wchan {read_or(task + '/wchan')} syscall {read_or(task + '/syscall')}"
            )
            stack = read_or(task + "/stack", "")
            if stack:
                say("      " + stack.replace("\n", "\n      "))
    with contextlib.suppress(OSError):
        for number, target in sorted(proc.descriptors(pid).items()):
            if "shmpipe" in target or "pipe:" in target:
                say(f"   fd {number}: {target}")
                if target.startswith(_SEGMENTS):
                    snapshot(pid, number)


def snapshot(pid: int, number: int) -> None:
    """The inspector's view of a segment, when shmpipe is importable and can give one."""
    try:
        look = importlib.import_module("shmpipe").snapshot
    except Exception as error:
        say(f"      no snapshot: {error!r}")
        return
    try:
        descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            say(f"      {look(descriptor)!r}")
        finally:
            os.close(descriptor)
    except Exception as error:  # the report must go on whatever the segment looks like
        say(f"      no snapshot: {error!r}")


def report_and_kill(main: int, name: str, seconds: float) -> None:
    """First stage: say everything, kill the children, let the main process fail the test."""
    say(f"\n== watchdog: {name} still runs after {seconds:g} s")
    tree = [main, *proc.descendants(main)]
    for pid in tree:
        describe(pid)
    for pid in tree:
        if handles(pid, DUMP_SIGNAL):
            say(f"-- Python threads of process {pid}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, DUMP_SIGNAL)
            time.sleep(0.3)  # the dumps go to one terminal: do not mix them
    for pid in reversed(tree[1:]):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os.kill(main, HANG_SIGNAL)


def abort(main: int, name: str) -> None:
    """Second stage: the main process does not even react to a signal."""
    say(f"== watchdog: {name} cannot be ended, aborting the whole run")
    for pid in reversed(proc.descendants(main)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os.kill(main, signal.SIGKILL)


def watch(main: int, grace: float) -> None:
    name = ""
    seconds = 0.0
    deadline: float | None = None
    warned = False
    buffer = b""
    while True:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        if select.select([0], [], [], wait)[0]:
            piece = os.read(0, 65536)
            if not piece:
                return
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in lines:
                order, _, rest = line.decode().partition(" ")
                if order == "start":
                    limit, _, name = rest.partition(" ")
                    seconds = float(limit)
                    deadline, warned = time.monotonic() + seconds, False
                else:
                    deadline = None
        elif not warned:
            report_and_kill(main, name, seconds)
            deadline, warned = time.monotonic() + grace, True
        else:
            abort(main, name)
            return


if __name__ == "__main__":
    if os.fork():
        os._exit(0)
    os.setsid()  # an interrupt from the terminal is not for us
    watch(int(sys.argv[1]), float(sys.argv[2]))
