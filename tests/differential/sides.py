"""The two sides of the comparison: the kernel's pipe and ours, each with its ends by slot."""

from __future__ import annotations

import fcntl
import itertools
import os
import select
import shutil
import signal
import tempfile
from abc import ABC, abstractmethod

import shmpipe

from conformance.ends import ALL_EVENTS, PIPE_BUF
from differential.ends import FuzzEnd, FuzzKernelEnd, FuzzShmEnd
from differential.operations import READERS, SLOTS, WRITERS
from differential.setup import Setup
from support.run import run_id

Events = list[tuple[int, int]]
"""(slot, revents), in the order of the slots."""

PREFIX = "differential"
"""Of the names of our pipes."""

TRIGGERS = {
    "edge": select.EPOLLET,
    "level": 0,
    "edge, once": select.EPOLLET | select.EPOLLONESHOT,
    "level, once": select.EPOLLONESHOT,
}
"""The epolls of the mode "edges", each with all ends."""

ONCE = ("edge, once", "level, once")

SIGNALS = frozenset(range(signal.SIGRTMIN + 2, signal.SIGRTMIN + 2 + 2 * SLOTS))
"""Of both sides, in the mode "signals"."""

F_SETOWN, F_SETSIG = 8, 10  # Python lacks the second

_MODES = {"r": os.O_RDONLY, "w": os.O_WRONLY, "r+": os.O_RDWR}


class Side(ABC):
    """One pipe, the descriptions of it that are open, and everybody who looks at them."""

    name: str
    first_signal: int
    """Of SLOTS queued ones, one for each end."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.ends: list[FuzzEnd | None] = [None] * SLOTS
        self._poll = select.poll()
        self._polled: dict[int, int] = {}
        self._outdated = True
        self._epolls = {name: select.epoll() for name in TRIGGERS} if setup.looks == "edges" else {}
        self._epolled: dict[int, int] = {}

    # -- What kinds of pipe differ in

    @abstractmethod
    def _pair(self) -> tuple[FuzzEnd, FuzzEnd]: ...

    @abstractmethod
    def mkfifo(self) -> None: ...

    @abstractmethod
    def unlink(self) -> None: ...

    @abstractmethod
    def _open(self, mode: str, flags: int) -> FuzzEnd: ...

    @abstractmethod
    def _remove_names(self) -> None: ...

    # -- Ends

    def pair(self) -> int:
        """A fresh anonymous pipe in the first slots."""
        reader, writer = self._pair()
        self._put(READERS[0], reader)
        self._put(WRITERS[0], writer)
        return 0

    def open(self, slot: int, mode: str, flags: int) -> int:
        """Opens the named pipe."""
        self._put(slot, self._open(mode, flags))
        return 0

    def close(self, slot: int) -> int:
        """Closes one end."""
        end = self.ends[slot]
        assert end is not None, "the session asks only for what is open"
        if self._epolls:
            fd = end.fileno()
            for epoll in self._epolls.values():
                epoll.unregister(fd)
            del self._epolled[fd]
        self.ends[slot] = None
        self._outdated = True
        end.close()
        return 0

    def stop_edges(self) -> None:
        """For forked children, which share the epoll objects but must not change them."""
        for epoll in self._epolls.values():
            epoll.close()
        self._epolls = {}

    def shut(self) -> None:
        """Closes and removes everything."""
        self.stop_edges()
        for slot in range(SLOTS):
            if self.ends[slot]:
                self.close(slot)
        self._remove_names()

    def _put(self, slot: int, end: FuzzEnd) -> None:
        self.ends[slot] = end
        self._outdated = True
        if self._epolls:
            fd = end.fileno()
            for name, epoll in self._epolls.items():
                epoll.register(fd, ALL_EVENTS | TRIGGERS[name])
            self._epolled[fd] = slot
        if self.setup.looks == "signals":
            end.fcntl(F_SETOWN, os.getpid())
            end.fcntl(F_SETSIG, self.first_signal + slot)
            end.fcntl(fcntl.F_SETFL, end.fcntl(fcntl.F_GETFL) | os.O_ASYNC)

    # -- Looking

    def poll(self) -> Events:
        """The revents of all open ends, asked with all bits."""
        if self._outdated:
            self._poll = select.poll()
            self._polled = {end.fileno(): slot for slot, end in enumerate(self.ends) if end}
            for fd in self._polled:
                self._poll.register(fd, ALL_EVENTS)
            self._outdated = False
        return [(self._polled[fd], revents) for fd, revents in self._poll.poll(0)]

    def events(self) -> dict[str, Events]:
        """The events since the last call, by trigger."""
        assert self._epolls, "the session asks only if there are edges"
        return {
            name: sorted((self._epolled[fd], events) for fd, events in epoll.poll(0, SLOTS))
            for name, epoll in self._epolls.items()
        }

    def rearm(self, slot: int) -> int:
        """EPOLL_CTL_MOD of those that tell once."""
        end = self.ends[slot]
        assert end is not None, "the session asks only for what is open"
        for name in ONCE:
            self._epolls[name].modify(end.fileno(), ALL_EVENTS | TRIGGERS[name])
        return 0

    def signals(self) -> list[tuple[int, int, int]]:
        """(slot, si_code, si_band) of the signals since the last call, by slot, each in order."""
        seen = []
        for slot in range(SLOTS):
            while info := signal.sigtimedwait({self.first_signal + slot}, 0):
                seen.append((slot, info.si_code, info.si_band))
        return seen


class KernelSide(Side):
    """os.pipe and os.mkfifo."""

    name = "kernel"
    first_signal = signal.SIGRTMIN + 2
    _directory = ""

    def _pair(self) -> tuple[FuzzEnd, FuzzEnd]:
        read_fd, write_fd = os.pipe2(self.setup.flags | os.O_CLOEXEC)
        if self.setup.slots:
            fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, self.setup.slots * PIPE_BUF)
        return FuzzKernelEnd(read_fd, "r"), FuzzKernelEnd(write_fd, "w")

    def _path(self) -> str:
        if not self._directory:
            self._directory = tempfile.mkdtemp(prefix="fifo-")
        return os.path.join(self._directory, "pipe")

    def mkfifo(self) -> None:
        os.mkfifo(self._path())

    def unlink(self) -> None:
        os.unlink(self._path())

    def _open(self, mode: str, flags: int) -> FuzzEnd:
        return FuzzKernelEnd(os.open(self._path(), _MODES[mode] | flags | os.O_CLOEXEC), mode)

    def _remove_names(self) -> None:
        if self._directory:
            shutil.rmtree(self._directory)


class ShmSide(Side):
    """shmpipe.pipe and shmpipe.mkfifo."""

    name = "shmpipe"
    first_signal = signal.SIGRTMIN + 2 + SLOTS
    _numbers = itertools.count()

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._name = f"{PREFIX}-{run_id()}-{os.getpid()}-{next(self._numbers)}"

    def _pair(self) -> tuple[FuzzEnd, FuzzEnd]:
        capacity = self.setup.slots * PIPE_BUF or shmpipe.DEFAULT_CAPACITY
        reader, writer = shmpipe.pipe(
            self.setup.flags, capacity=capacity, first_index=self.setup.first_index
        )
        return FuzzShmEnd(reader, "r"), FuzzShmEnd(writer, "w")

    def mkfifo(self) -> None:
        shmpipe.mkfifo(self._name, first_index=self.setup.first_index)

    def unlink(self) -> None:
        shmpipe.unlink(self._name)

    def _open(self, mode: str, flags: int) -> FuzzEnd:
        return FuzzShmEnd(shmpipe.open(self._name, mode, flags=flags), mode)

    def _remove_names(self) -> None:
        if self.setup.named and self._name in shmpipe.listdir():
            self.unlink()
