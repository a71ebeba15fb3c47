"""Finds the live pipes of this host: the named ones by listing, the others by who has them open."""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

import shmpipe
from shmpipe import named
from shmpipe_tools.failure import Failure, explained

_SEGMENT_PATH = f"{named.DIRECTORY}/{named.PREFIX}"
_ANONYMOUS = "/memfd:shmpipe (deleted)"
_UNLINKED = re.compile(re.escape(_SEGMENT_PATH) + r"(?P<name>.+) \(deleted\)", re.DOTALL)
_PID_AND_FD = re.compile(r"(\d{1,10}):(\d{1,10})", re.ASCII)


@dataclass(frozen=True)
class Process:
    """A process that has a pipe's segment open."""

    pid: int
    command: str


@dataclass
class Location:
    """Where a pipe can be opened for looking."""

    label: str  # what the user types: NAME, or PID:FD for a pipe that no name leads to
    path: str  # its segment
    kind: str  # "named", "unlinked" (named once) or "anonymous"
    mode: int
    device: int
    inode: int
    processes: list[Process] = field(default_factory=list)

    @property
    def identity(self) -> tuple[int, int]:
        """What makes it the same pipe under another name."""
        return self.device, self.inode


def live_pipes() -> list[Location]:
    """Every pipe that this user may see, named ones first."""
    with_name = {pipe.identity: pipe for pipe in _named_pipes()}
    found: dict[tuple[int, int], Location] = dict(with_name)
    for process, fd, target in _open_memory_files():
        seen = _location_of(process.pid, fd, target)
        if seen is None:
            continue
        pipe = found.setdefault(seen.identity, seen)
        if process not in pipe.processes:
            pipe.processes.append(process)
    nameless = [pipe for identity, pipe in found.items() if identity not in with_name]
    return sorted(with_name.values(), key=lambda pipe: pipe.label) + nameless


def find_pipe(text: str, action: str = "stat") -> Location:
    """The pipe that NAME or PID:FD means; a pipe of that name wins over PID:FD.

    action is what the failure says could not be done.
    """
    location = _named_pipe(text)
    if location is not None:
        return location
    match = _PID_AND_FD.fullmatch(text)
    if match is None:
        raise Failure(f"{action} '{text}': no such pipe (`shmpipe ls` shows what there is)")
    pid, fd = int(match[1]), int(match[2])
    path = f"/proc/{pid}/fd/{fd}"
    with explained(action, text):
        target = os.readlink(path)
        location = _location_of(pid, fd, target)
    if location is None:
        raise Failure(
            f"{action} '{text}': descriptor {fd} of process {pid} is not a pipe's segment "
            "(`shmpipe ls` shows which are)"
        )
    return location


def segment_path(name: str) -> str:
    """The file of a named pipe."""
    return _SEGMENT_PATH + name


def command_of(pid: int) -> str:
    """The name of the program a process runs; "?" when it is gone or hidden."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="surrogateescape") as comm:
            return comm.read().rstrip("\n")
    except OSError:
        return "?"


def own_segments() -> dict[tuple[int, int], os.stat_result]:
    """The segments that this process has open, by device and inode."""
    found = {}
    for process, fd, target in _open_memory_files([os.getpid()]):
        location = _location_of(process.pid, fd, target)
        if location is not None:
            found[location.identity] = os.stat(location.path)
    return found


def _named_pipes() -> Iterator[Location]:
    for name in shmpipe.listdir():
        location = _named_pipe(name)
        if location is not None:
            yield location


def _named_pipe(name: str) -> Location | None:
    if not name or "/" in name or "\0" in name:
        return None
    path = segment_path(name)
    try:
        facts = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(facts.st_mode):
        return None
    return Location(name, path, "named", facts.st_mode & 0o7777, facts.st_dev, facts.st_ino)


def _location_of(pid: int, fd: int, target: str) -> Location | None:
    """The pipe behind one descriptor of a process, if it is one."""
    path = f"/proc/{pid}/fd/{fd}"
    if target == _ANONYMOUS:
        kind = "anonymous"
    elif target.startswith(_SEGMENT_PATH):
        kind = "unlinked" if _UNLINKED.fullmatch(target) else "named"
    else:
        return None
    try:
        # stat, never open: closing a descriptor of a pipe that this very process holds
        # would drop its record locks.
        facts = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(facts.st_mode):  # the FIFO beside a named pipe
        return None
    return Location(f"{pid}:{fd}", path, kind, facts.st_mode & 0o7777, facts.st_dev, facts.st_ino)


def _open_memory_files(pids: list[int] | None = None) -> Iterator[tuple[Process, int, str]]:
    """Descriptors that may be segments, process by process; what may not be read is left out."""
    for pid in _all_pids() if pids is None else pids:
        directory = f"/proc/{pid}/fd"
        try:
            entries = sorted(os.listdir(directory), key=int)
        except OSError:
            continue
        process = None
        for entry in entries:
            try:
                target = os.readlink(f"{directory}/{entry}")
            except OSError:
                continue
            if target != _ANONYMOUS and not target.startswith(_SEGMENT_PATH):
                continue
            process = process or Process(pid, command_of(pid))
            yield process, int(entry), target


def _all_pids() -> list[int]:
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())
