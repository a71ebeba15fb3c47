"""Ends of pipes behind one face: a kernel descriptor or a shmpipe object."""

from __future__ import annotations

import errno
import fcntl
import importlib
import itertools
import os
import select
import termios
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

PIPE_BUF = 4096
F_SETPIPE_SZ = fcntl.F_SETPIPE_SZ
F_GETPIPE_SZ = fcntl.F_GETPIPE_SZ

ALL_EVENTS = (
    select.POLLIN
    | select.POLLPRI
    | select.POLLOUT
    | select.POLLERR
    | select.POLLHUP
    | select.POLLRDHUP
    | select.POLLRDNORM
    | select.POLLRDBAND
    | select.POLLWRNORM
    | select.POLLWRBAND
)

Buffer = bytes | bytearray | memoryview


def shmpipe() -> Any:
    """The library, imported only by the tests that need it: the kernel's pipes do without."""
    return importlib.import_module("shmpipe")


class End(ABC):
    """One end of a pipe, with the conventions of os.read and os.write."""

    writable: bool

    @abstractmethod
    def read(self, count: int) -> bytes: ...

    @abstractmethod
    def readv(self, buffers: Sequence[bytearray]) -> int: ...

    @abstractmethod
    def write(self, data: Buffer) -> int: ...

    @abstractmethod
    def writev(self, buffers: Sequence[Buffer]) -> int: ...

    @abstractmethod
    def fcntl(self, command: int, argument: int = 0) -> int: ...

    @abstractmethod
    def pending(self) -> int:
        """ioctl(FIONREAD)."""

    def is_locked(self) -> bool:
        """Some process is in the middle of an operation, in a lock that it can be stopped in."""
        return False

    @abstractmethod
    def fileno(self) -> int: ...

    @abstractmethod
    def close(self) -> None: ...

    @property
    @abstractmethod
    def closed(self) -> bool: ...

    def poll(self, events: int = ALL_EVENTS) -> int:
        """The revents of this moment."""
        poller = select.poll()
        poller.register(self.fileno(), events)
        ready = poller.poll(0)
        return ready[0][1] if ready else 0

    def flags(self) -> int:
        return self.fcntl(fcntl.F_GETFL)

    def set_flag(self, flag: int, on: bool = True) -> None:
        flags = self.flags()
        self.fcntl(fcntl.F_SETFL, flags | flag if on else flags & ~flag)

    def capacity(self) -> int:
        return self.fcntl(F_GETPIPE_SZ)

    def resize(self, size: int) -> int:
        return self.fcntl(F_SETPIPE_SZ, size)

    def read_exactly(self, count: int) -> bytes:
        """Read until count bytes or end of file."""
        pieces = []
        while count and (piece := self.read(count)):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def fill(self, size: int) -> int:
        """Write blocks of one size to a nonblocking end until EAGAIN; how many went in."""
        block = b"f" * size
        for count in itertools.count():
            try:
                written = self.write(block)
            except BlockingIOError:
                return count
            assert written == size, "a block of at most PIPE_BUF is written whole"
        raise AssertionError("unreachable")


class KernelEnd(End):
    """A descriptor of the kernel's."""

    def __init__(self, descriptor: int, writable: bool) -> None:
        self._descriptor = descriptor
        self.writable = writable

    def read(self, count: int) -> bytes:
        return os.read(self._descriptor, count)

    def readv(self, buffers: Sequence[bytearray]) -> int:
        return os.readv(self._descriptor, buffers)

    def write(self, data: Buffer) -> int:
        return os.write(self._descriptor, data)

    def writev(self, buffers: Sequence[Buffer]) -> int:
        return os.writev(self._descriptor, buffers)

    def fcntl(self, command: int, argument: int = 0) -> int:
        return fcntl.fcntl(self._descriptor, command, argument)

    def pending(self) -> int:
        value = bytearray(4)
        fcntl.ioctl(self._descriptor, termios.FIONREAD, value)
        return int.from_bytes(value, "little")

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def closed(self) -> bool:
        return self._descriptor < 0


class ShmEnd(End):
    """An end of shmpipe's; io's "None when it would block" becomes EAGAIN again."""

    def __init__(self, end: Any, writable: bool) -> None:
        self._end = end
        self.writable = writable

    def read(self, count: int) -> bytes:
        data = self._end.read(count)
        if data is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        assert isinstance(data, bytes)
        return data

    def readv(self, buffers: Sequence[bytearray]) -> int:
        return _count(self._end.readv(buffers))

    def write(self, data: Buffer) -> int:
        return _count(self._end.write(data))

    def writev(self, buffers: Sequence[Buffer]) -> int:
        return _count(self._end.writev(buffers))

    def fcntl(self, command: int, argument: int = 0) -> int:
        return int(shmpipe().fcntl(self._end, command, argument))

    def pending(self) -> int:
        return int(shmpipe().ioctl(self._end, termios.FIONREAD))

    def is_locked(self) -> bool:
        now = self._end.stat()
        return bool(now.write_lock_owner or now.read_lock_owner or now.companion_lock_owner)

    def fileno(self) -> int:
        return int(self._end.fileno())

    def close(self) -> None:
        self._end.close()

    @property
    def closed(self) -> bool:
        return bool(self._end.closed)


def _count(result: int | None) -> int:
    if result is None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return result
