"""Ends for the fuzzer: those of the conformance suite, with fewer steps to the call itself."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import termios
from abc import abstractmethod
from typing import Any

import shmpipe

from conformance.ends import End, KernelEnd, ShmEnd


class FuzzEnd(End):
    """What the fuzzer asks of an end beyond the conformance suite."""

    mode: str
    received: list[bytearray]
    """Where the last read into buffers put its bytes."""

    @abstractmethod
    def readinto(self, buffer: bytearray) -> int: ...

    @abstractmethod
    def switch(self, request: int, on: int) -> int:
        """ioctl(FIONBIO) or ioctl(FIOASYNC)."""

    def facts(self) -> tuple[int, ...]:
        """FIONREAD, capacity and flags; or minus an errno."""
        try:
            return self.pending(), self.fcntl(fcntl.F_GETPIPE_SZ), self.fcntl(fcntl.F_GETFL)
        except OSError as error:
            return (-(error.errno or 0),)


class FuzzKernelEnd(KernelEnd, FuzzEnd):
    """A descriptor of the kernel's."""

    def __init__(self, descriptor: int, mode: str) -> None:
        super().__init__(descriptor, mode != "r")
        self.mode = mode
        self._count = array.array("i", [0])

    def pending(self) -> int:
        fcntl.ioctl(self._descriptor, termios.FIONREAD, self._count)
        return self._count[0]

    def readinto(self, buffer: bytearray) -> int:
        return os.readv(self._descriptor, [buffer])

    def switch(self, request: int, on: int) -> int:
        result: int = fcntl.ioctl(self._descriptor, request, array.array("i", [on]))
        return result


class FuzzShmEnd(ShmEnd, FuzzEnd):
    """An end of shmpipe's."""

    def __init__(self, end: Any, mode: str) -> None:
        super().__init__(end, mode != "r")
        self.mode = mode

    def fcntl(self, command: int, argument: int = 0) -> int:
        result: int = shmpipe.fcntl(self._end, command, argument)
        return result

    def pending(self) -> int:
        return shmpipe.ioctl(self._end, termios.FIONREAD)

    def readinto(self, buffer: bytearray) -> int:
        count: int | None = self._end.readinto(buffer)
        if count is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return count

    def switch(self, request: int, on: int) -> int:
        return shmpipe.ioctl(self._end, request, on)
