"""The two sides of the comparison: the kernel's pipe and ours, each with its ends by slot."""

from __future__ import annotations

import fcntl
import itertools
import os
import select
import shutil
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

_MODES = {"r": os.O_RDONLY, "w": os.O_WRONLY, "r+": os.O_RDWR}


class Side(ABC):
    """One pipe, the descriptions of it that are open, and everybody who looks at them."""

    name: str

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.ends: list[FuzzEnd | None] = [None] * SLOTS
        self._poll = select.poll()
        self._polled: dict[int, int] = {}
        self._outdated = True
        self._epoll = select.epoll() if setup.looks == "edges" else None
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
        if self._epoll:
            fd = end.fileno()
            self._epoll.unregister(fd)
            del self._epolled[fd]
        self.ends[slot] = None
        self._outdated = True
        end.close()
        return 0

    def stop_edges(self) -> None:
        """For forked children, which share the epoll object but must not change it."""
        if self._epoll:
            self._epoll.close()
            self._epoll = None

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
        if self._epoll:
            fd = end.fileno()
            self._epoll.register(fd, ALL_EVENTS | select.EPOLLET)
            self._epolled[fd] = slot

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

    def events(self) -> Events:
        """The edge-triggered events since the last call."""
        assert self._epoll is not None, "the session asks only if there are edges"
        happened = self._epoll.poll(0, SLOTS)
        return sorted((self._epolled[fd], events) for fd, events in happened)


class KernelSide(Side):
    """os.pipe and os.mkfifo."""

    name = "kernel"
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
