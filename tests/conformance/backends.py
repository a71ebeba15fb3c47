"""The four kinds of pipe: os.pipe, os.mkfifo, anonymous and named shmpipe."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import ClassVar

from conformance.ends import PIPE_BUF, End, KernelEnd, ShmEnd, shmpipe
from support.run import run_id

DEFAULT_CAPACITY = 65536

# Three operations before the ring indices and the wait epochs wrap (rule R1-10).
FIRST_INDEX = 2**32 - 3


class Backend(ABC):
    """One kind of pipe."""

    name: str
    named = False
    shm = False

    def __repr__(self) -> str:
        return self.name


class AnonymousBackend(Backend):
    """A kind of pipe that comes as two ends."""

    @abstractmethod
    def pair(self, flags: int, slots: int) -> tuple[End, End]:
        """A fresh pipe: reader and writer.  slots 0 means the default capacity."""


class NamedBackend(Backend):
    """A kind of pipe that has names and is opened one end at a time."""

    named = True

    @abstractmethod
    def new_name(self) -> str: ...

    @abstractmethod
    def create(self, name: str, mode: int = 0o600) -> None:
        """Make a pipe of a given name."""

    @abstractmethod
    def open(self, name: str, mode: str, flags: int = 0) -> End:
        """mode is r, w or r+, as for fifo(7)."""

    @abstractmethod
    def unlink(self, name: str) -> None: ...

    def open_pair(self, name: str, flags: int, slots: int) -> tuple[End, End]:
        """Both ends of an existing name, with the flags that pair() would give them."""
        reader = self.open(name, "r", os.O_NONBLOCK)
        writer = self.open(name, "w", os.O_NONBLOCK)
        # open() of a FIFO refuses O_DIRECT (FO-12), and O_NONBLOCK was only for the rendezvous.
        reader.fcntl(fcntl.F_SETFL, flags & os.O_NONBLOCK)
        writer.fcntl(fcntl.F_SETFL, flags & (os.O_NONBLOCK | os.O_DIRECT))
        if slots:
            assert writer.resize(slots * PIPE_BUF) == slots * PIPE_BUF
        return reader, writer


class OsPipe(AnonymousBackend):
    """pipe2(2)."""

    name = "os.pipe"

    def pair(self, flags: int, slots: int) -> tuple[End, End]:
        read_end, write_end = os.pipe2(flags | os.O_CLOEXEC)
        reader, writer = KernelEnd(read_end, False), KernelEnd(write_end, True)
        if slots:
            assert writer.resize(slots * PIPE_BUF) == slots * PIPE_BUF
        return reader, writer


class MkFifo(NamedBackend):
    """mkfifo(3)."""

    name = "os.mkfifo"
    _modes: ClassVar = {"r": os.O_RDONLY, "w": os.O_WRONLY, "r+": os.O_RDWR}

    def new_name(self) -> str:
        return os.path.join(tempfile.mkdtemp(prefix="fifo-"), "pipe")

    def create(self, name: str, mode: int = 0o600) -> None:
        os.mkfifo(name, mode)

    def open(self, name: str, mode: str, flags: int = 0) -> End:
        descriptor = os.open(name, self._modes[mode] | flags | os.O_CLOEXEC)
        return KernelEnd(descriptor, mode != "r")

    def unlink(self, name: str) -> None:
        os.unlink(name)

    def remove_directory(self, name: str) -> None:
        os.rmdir(os.path.dirname(name))


class ShmAnonymous(AnonymousBackend):
    """shmpipe.pipe()."""

    name = "shm-anonymous"
    shm = True

    def pair(self, flags: int, slots: int) -> tuple[End, End]:
        capacity = slots * PIPE_BUF or DEFAULT_CAPACITY
        reader, writer = shmpipe().pipe(flags, capacity=capacity, first_index=FIRST_INDEX)
        return ShmEnd(reader, False), ShmEnd(writer, True)


class ShmNamed(NamedBackend):
    """shmpipe.mkfifo() and shmpipe.open()."""

    name = "shm-named"
    shm = True
    _numbers = itertools.count()

    def new_name(self) -> str:
        return f"test-{run_id()}-{os.getpid()}-{next(self._numbers)}"

    def create(self, name: str, mode: int = 0o600) -> None:
        shmpipe().mkfifo(name, mode, first_index=FIRST_INDEX)

    def open(self, name: str, mode: str, flags: int = 0) -> End:
        return ShmEnd(shmpipe().open(name, mode, flags=flags), mode != "r")

    def unlink(self, name: str) -> None:
        shmpipe().unlink(name)


class Pipes:
    """Makes the pipes of one test and closes and unlinks them at its end."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._ends: list[End] = []
        self._names: list[str] = []

    def make(self, flags: int = 0, slots: int = 0) -> tuple[End, End]:
        """A pipe of `slots` slots (0: the default 16)."""
        if isinstance(self.backend, AnonymousBackend):
            reader, writer = self.backend.pair(flags, slots)
        else:
            reader, writer = self._as_named().open_pair(self.create(), flags, slots)
        self._ends += [reader, writer]
        return reader, writer

    def create(self, mode: int = 0o600) -> str:
        """A fresh pipe without open ends: its name (named backends only)."""
        name = self._as_named().new_name()
        self._names.append(name)
        self._as_named().create(name, mode)
        return name

    def open(self, name: str, mode: str, flags: int = 0) -> End:
        end = self._as_named().open(name, mode, flags)
        self._ends.append(end)
        return end

    def unlink(self, name: str) -> None:
        self._as_named().unlink(name)

    def create_again(self, name: str) -> None:
        self._as_named().create(name)

    def close_all_but(self, kept: Iterable[End] | End) -> None:
        """For forked children: an inherited write end would keep end of file away (LF-2)."""
        keep = [kept] if isinstance(kept, End) else list(kept)
        for end in self._ends:
            if not any(end is other for other in keep):
                end.close()

    def _as_named(self) -> NamedBackend:
        assert isinstance(self.backend, NamedBackend), "this test needs a named backend"
        return self.backend

    def __enter__(self) -> Pipes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end in reversed(self._ends):  # writers first, so that a lost reader sees the end
            end.close()
        for name in self._names:
            backend = self._as_named()
            with contextlib.suppress(FileNotFoundError):  # a test of unlink has done it
                backend.unlink(name)
            if isinstance(backend, MkFifo):
                backend.remove_directory(name)


ALL: tuple[Backend, ...] = (OsPipe(), MkFifo(), ShmAnonymous(), ShmNamed())
NAMED: tuple[NamedBackend, ...] = (MkFifo(), ShmNamed())
ANONYMOUS: tuple[AnonymousBackend, ...] = (OsPipe(), ShmAnonymous())
