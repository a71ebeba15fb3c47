"""What /proc tells about processes and threads: state, sleeping call, children, descriptors."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Only the calls in which a pipe operation can sleep: a thread found in any other
# call (clock_nanosleep, wait4 ...) is not "blocked in the pipe".
_CALLS: dict[str, dict[int, str]] = {
    "x86_64": {
        0: "read",
        1: "write",
        2: "open",
        7: "poll",
        19: "readv",
        20: "writev",
        23: "select",
        202: "futex",
        232: "epoll_wait",
        257: "openat",
        270: "pselect6",
        271: "ppoll",
        281: "epoll_pwait",
        441: "epoll_pwait2",
        449: "futex_waitv",
    },
    "aarch64": {
        22: "epoll_pwait",
        56: "openat",
        63: "read",
        64: "write",
        65: "readv",
        66: "writev",
        72: "pselect6",
        73: "ppoll",
        98: "futex",
        441: "epoll_pwait2",
        449: "futex_waitv",
    },
}
CALL_NAMES: dict[int, str] = _CALLS[platform.machine()]

# CPython's own locks (GIL, queues, Thread.join) sleep in futexes with this bit; a futex
# in memory shared between processes never has it.  It tells the two kinds apart.
_FUTEX_PRIVATE = 128


@dataclass(frozen=True)
class Sleep:
    """One observation of a thread that sleeps in a system call."""

    call: str
    arguments: tuple[int, ...]
    stack_pointer: int


def state(pid: int, tid: int | None = None) -> str:
    """The one-letter state (R, S, D, T, Z ...), or '' when the task is gone."""
    try:
        text = Path(f"/proc/{pid}/task/{tid or pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.rpartition(")")[2].split()[0]


def sleeping_call(pid: int, tid: int) -> Sleep | None:
    """The pipe-like system call in which a task sleeps, or None when it does not sleep in one."""
    if state(pid, tid) != "S":
        return None
    try:
        words = Path(f"/proc/{pid}/task/{tid}/syscall").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if len(words) < 9:  # "running", or "-1 SP PC": not in a call
        return None
    call = CALL_NAMES.get(int(words[0]))
    arguments = tuple(int(word, 16) for word in words[1:7])
    if call is None or (call == "futex" and arguments[1] & _FUTEX_PRIVATE):
        return None
    if call in ("poll", "ppoll") and arguments[1] == 0:  # of no descriptors: a pause
        return None
    return Sleep(call, arguments, int(words[7], 16))


def context_switches(pid: int, tid: int) -> int:
    """How often a task gave up its CPU of its own will: a woken sleeper raises it by one."""
    for line in Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise AssertionError(f"no voluntary_ctxt_switches for task {tid}")


def parent_table() -> dict[int, int]:
    """pid -> parent pid of everything that runs, zombies included."""
    table = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path(f"/proc/{entry}/stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            table[int(entry)] = int(text.rpartition(")")[2].split()[1])
    return table


def descendants(root: int) -> list[int]:
    """All processes below root, parents before children."""
    table = parent_table()
    found = [root]
    for pid in found:
        found.extend(child for child, parent in table.items() if parent == pid)
    return found[1:]


def descriptors(pid: int | str = "self") -> dict[int, str]:
    """Open descriptors and what they point at."""
    directory = f"/proc/{pid}/fd"
    found = {}
    for entry in os.listdir(directory):
        try:
            found[int(entry)] = os.readlink(f"{directory}/{entry}")
        except FileNotFoundError:  # the descriptor of this very listing
            continue
    return found


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Poll a condition that another task makes true; what to call it if it never does.

    The pause is only there to leave the CPU to that task; it decides nothing.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.0002)


def wait_until_state(pid: int, wanted: str, seconds: float = 10.0) -> None:
    """Wait for a process to be stopped (T), a zombie (Z) ..."""
    wait_until(lambda: state(pid) in wanted, f"process {pid} in state {wanted}", seconds)


def wait_until_blocked(
    pid: int,
    tid: int | None = None,
    *,
    control_fds: frozenset[int] = frozenset(),
    finished: Callable[[], bool] = lambda: False,
    seconds: float = 10.0,
) -> Sleep | None:
    """Wait until a task sleeps in a pipe-like call and return the observation.

    Believed only after two equal observations in a row.  control_fds are the descriptors
    with which the harness itself steers the task: sleeping on one of them does not count.
    None when finished says that the task has ended instead.
    """
    task = tid or pid
    deadline = time.monotonic() + seconds
    last: Sleep | None = None
    while True:
        now = sleeping_call(pid, task)
        if now is not None and now.call in ("read", "write") and now.arguments[0] in control_fds:
            now = None
        if now is not None and now == last:
            return now
        last = now
        if now is None and finished():
            return None
        if time.monotonic() > deadline:
            raise AssertionError(
                f"task {task} of process {pid} does not block within {seconds} s: "
                f"state {state(pid, task)!r}, sleeping call {now}"
            )
        time.sleep(0.0002)
