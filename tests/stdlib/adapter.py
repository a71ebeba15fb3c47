"""Lets the standard library's own tests of io run over shmpipe: a stand-in for os and open()."""

from __future__ import annotations

import errno
import os
from types import ModuleType
from typing import Any

import shmpipe


class Descriptor:
    """What os.pipe() returns here: an end that calls of os take, and that select() can look at."""

    def __init__(self, end: shmpipe.End) -> None:
        self.end = end

    def fileno(self) -> int:
        return self.end.fileno()


class AdaptedOs:
    """The os module, with pipes of shmpipe's and with calls that know their descriptors."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def pipe(self) -> tuple[Descriptor, Descriptor]:
        reader, writer = shmpipe.pipe()
        return Descriptor(reader), Descriptor(writer)

    def read(self, fd: Any, count: int) -> bytes:
        if not isinstance(fd, Descriptor):
            return os.read(fd, count)
        data = fd.end.read(count)
        if data is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return data

    def write(self, fd: Any, data: bytes) -> int:
        if not isinstance(fd, Descriptor):
            return os.write(fd, data)
        count = fd.end.write(data)
        if count is None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return count

    def close(self, fd: Any) -> None:
        if isinstance(fd, Descriptor):
            fd.end.close()
        else:
            os.close(fd)

    def set_blocking(self, fd: Any, blocking: bool) -> None:
        if isinstance(fd, Descriptor):
            fd.end.nonblocking = not blocking
        else:
            os.set_blocking(fd, blocking)


class AdaptedIo:
    """The io module or _pyio, with an open() and a FileIO that take such descriptors."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def FileIO(self, file: Any, mode: str = "r", **options: Any) -> Any:
        if isinstance(file, Descriptor):
            return file.end
        return self._module.FileIO(file, mode, **options)

    def open(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        **options: Any,
    ) -> Any:
        """Builds what open() builds over a FileIO.

        closefd makes no difference: an end is closed once, whoever does it first.
        """
        if not isinstance(file, Descriptor):
            return self._module.open(file, mode, buffering, encoding, **options)
        if buffering == 0:
            return file.end
        size = self._module.DEFAULT_BUFFER_SIZE if buffering < 0 else buffering
        kind = self._module.BufferedReader if "r" in mode else self._module.BufferedWriter
        buffered = kind(file.end, size)
        return buffered if "b" in mode else self._module.TextIOWrapper(buffered, encoding)
