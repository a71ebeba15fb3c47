"""The ends of a pipe as file objects, and pipe(), which makes an anonymous pair."""

from __future__ import annotations

import errno
import fcntl as _fcntl
import io
import os
import warnings

from shmpipe import _lib
from shmpipe._base import EndBase
from shmpipe.errors import message, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

    from _typeshed import ReadableBuffer, WriteableBuffer

    from shmpipe.inspect import Snapshot
    from shmpipe.notify import Notifier


class End(EndBase, io.RawIOBase):
    """One end of a pipe: what Reader, Writer and ReadWriter have in common.

    An io.RawIOBase.  read(size=-1), readinto(buffer) and write(data) are the system calls: one of
    them moves what one read(2) or write(2) would, read() returns b"" at end of file, and each
    returns None where the kernel says EAGAIN.  Data of at most PIPE_BUF bytes is written whole or
    not at all (WR-4).

    Threads may share an end.  close() does not disturb a call that another thread is in (RD-9).
    A forked child has the ends of its parent, as it has descriptors; pickling and pass_fds() take
    them to other processes.  A signal during a call runs its handler and the call goes on, unless
    the handler raises (PEP 475).

    Errors: OSError and its standard subclasses with the kernel's errno; io.UnsupportedOperation
    (EBADF) for the wrong direction; ValueError when closed.
    """

    _access: str

    def __init__(self, address: int) -> None:
        """Takes over a shmp_end; pipe() and open() are the way to get an end."""
        super().__init__()
        self._adopt(address)
        self._name = _lib.name(address)

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if not self.closed:
            try:
                _warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            finally:  # the warning may be an exception
                self.close()

    def _dealloc_warn(self, source: object) -> None:
        # What io.BufferedWriter and its kin call when they are dropped while open.
        if not self.closed:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=source, stacklevel=2)

    def __repr__(self) -> str:
        kind = f"shmpipe.{type(self).__name__}"
        name = f" name={self._name!r}" if self._name else ""
        if self.closed:
            return f"<{kind}{name} mode={self._access!r} closed>"
        return f"<{kind}{name}{self._identity()} mode={self._access!r} open>"

    def __reduce_ex__(self, protocol: object) -> Any:
        """Pickles an end for another process of multiprocessing; TypeError anywhere else."""
        from shmpipe import passing

        return passing.reduce_end(self)

    # -- Facts

    @property
    def name(self) -> str:
        """The name of the pipe, "" for an anonymous one."""
        return self._name

    @property
    def mode(self) -> str:
        """What open() was told: "r", "w" or "r+"."""
        return self._access

    @property
    def capacity(self) -> int:
        """Bytes that the pipe holds when written a page at a time (CP-1); settable.

        The value is rounded up to a power of two of pages (CP-2).  OSError: EBUSY if more is in the
        pipe (CP-6), EPERM above 1 GiB (CP-4), EINVAL, ENOSPC.
        """
        return self._call(_lib.fcntl, _fcntl.F_GETPIPE_SZ, 0)

    @capacity.setter
    def capacity(self, size: int) -> None:
        self._call(_lib.fcntl, _fcntl.F_SETPIPE_SZ, checked_capacity(size))

    @property
    def pending(self) -> int:
        """Bytes that can be read now, what FIONREAD says (CP-9)."""
        from shmpipe import control

        return control.bytes_pending(self)

    @property
    def nonblocking(self) -> bool:
        """O_NONBLOCK; settable.  Shared with forked and passed copies of this end (LF-9)."""
        return bool(self._call(_lib.fcntl, _fcntl.F_GETFL, 0) & os.O_NONBLOCK)

    @nonblocking.setter
    def nonblocking(self, on: bool) -> None:
        flags = self._call(_lib.fcntl, _fcntl.F_GETFL, 0) & ~os.O_NONBLOCK
        self._call(_lib.fcntl, _fcntl.F_SETFL, flags | (os.O_NONBLOCK if on else 0))

    def stat(self) -> Snapshot:
        """What is going on in the pipe, for watching and debugging; never waits for anybody."""
        from shmpipe import inspect

        return inspect.snapshot(self)

    def readable(self) -> bool:
        """Whether read() is allowed; ValueError when closed."""
        return self._fact(self._access != "w")

    def writable(self) -> bool:
        """Whether write() is allowed; ValueError when closed."""
        return self._fact(self._access != "r")

    def fileno(self) -> int:
        """A descriptor for select, poll, epoll and asyncio: readiness, not data.

        Its readiness is exactly the pipe's (PL-1 to PL-12); reading or writing it is an error.  Its
        flags are not the end's: arm SIGIO with shmpipe.fcntl(end, F_SETFL, ...) and not on the
        descriptor, whose O_NONBLOCK is always set and says nothing about the end (nonblocking
        does).  It lives as long as the end.  The first call makes both sides keep it in step, which
        costs them a system call for each operation.
        """
        return self._call(_lib.fileno)

    def notifier(self) -> Notifier:
        """A counting eventfd: one for each operation on the other side, from now on.

        See shmpipe.Notifier.  OSError: EMFILE or ENFILE without descriptors, ENOMEM, EAGAIN if no
        thread can be started.
        """
        from shmpipe import notify

        return notify.Notifier(self)

    def seek(self, _offset: int, _whence: int = 0, /) -> NoReturn:
        """Raises io.UnsupportedOperation (ESPIPE): a pipe has no position (CR-10)."""
        self._fact(False)
        self._raise(errno.ESPIPE)

    def seekable(self) -> bool:
        """False; ValueError when closed."""
        return self._fact(False)

    def truncate(self, size: int | None = None, /) -> NoReturn:
        """Raises OSError: a pipe has no size to cut (EINVAL) and no position to cut at (ESPIPE)."""
        if not self.writable():
            raise io.UnsupportedOperation("not open for writing")
        self._raise(errno.ESPIPE if size is None else errno.EINVAL)

    # -- Data

    def readv(self, buffers: Iterable[WriteableBuffer], /) -> int | None:
        """Reads into several buffers, one after the other, as one read.

        The number of bytes, 0 at end of file, None when it would block.  OSError: EINVAL for more
        than 1024 buffers (WR-17).
        """
        return self._vectored(_lib.readv, [_lib.writable_buffer(each) for each in buffers])

    def writev(self, buffers: Iterable[ReadableBuffer], /) -> int | None:
        """Writes several buffers as one write, atomic up to PIPE_BUF bytes together (WR-17).

        The number of bytes, None when it would block.  OSError: EPIPE, EINVAL for more than 1024
        buffers.
        """
        return self._vectored(_lib.writev, [_lib.readable_buffer(each) for each in buffers])

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until a read or write need not block, or fails at once.

        timeout is in seconds, None waits for ever.  False when the time is over.
        """
        from shmpipe import polling

        return bool(polling.wait([self], timeout))

    # -- Life

    def close(self) -> None:
        """Closes the end; closing again does nothing.

        The last reader's close gives the writers EPIPE, the last writer's gives the readers end of
        file.  A call that another thread is in goes on and keeps the end until it returns (RD-9).
        """
        if not self.closed:
            # First, and one call: a signal handler that raises afterwards finds the end closed.
            self._close_end()
            super().close()

    def token(self) -> str:
        """What shmpipe.attach() makes this end of again, in a child that inherited pass_fds()."""
        from shmpipe import passing

        return passing.token_of(self)

    def pass_fds(self) -> tuple[int, ...]:
        """The descriptors that a child needs for attach(): subprocess's argument of that name.

        They stay this end's: close them by closing the end.
        """
        from shmpipe import passing

        return passing.descriptors_of(self)

    # -- For this package and for the C type

    def _call(self, function: _lib.Call, *arguments: object) -> int:
        result = _lib.call(self, function, *arguments)
        if result < 0:
            self._raise(-result)
        return result

    def _identity(self) -> str:
        try:
            result, raw = _lib.snapshot(_lib.call(self, _lib.segment_fd))
        except ValueError:  # closed by another thread since
            return ""
        return f" id={raw.instance:016x}" if result == 0 else ""

    def _vectored(self, function: _lib.Call, buffers: list[Any]) -> int | None:
        result = _lib.call(self, function, _lib.vector(buffers), len(buffers))
        if result == -errno.EAGAIN:
            return None
        if result < 0:
            self._raise(-result)
        return result

    def _fact(self, value: bool) -> bool:
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return value

    def _raise(self, code: int) -> NoReturn:
        """Raises what an errno means for this end.  The C type calls it, too."""
        if code == errno.EPIPE:
            name = (self._name,) if self._name else ()
            raise BrokenPipeError(code, _NO_READER[bool(self._name)], *name)
        advice = ""
        if code == errno.EBADF:
            advice = "not open for " + ("writing" if self._access == "r" else "reading")
        elif code in (errno.EUCLEAN, errno.ENOEXEC):
            advice = _lib.reason()
        about = _about(type(self).__name__, bool(self._name))
        raise os_error(code, about, self._name or None, advice)


class Reader(End):
    """An end to read from."""

    _access = "r"


class Writer(End):
    """An end to write to.

    Without a reader a write raises BrokenPipeError, and SIGPIPE is sent to the thread (WR-15),
    which Python ignores unless told otherwise.
    """

    _access = "w"


class ReadWriter(End):
    """An end for both, as opening a FIFO with O_RDWR gives: it is its own partner (FO-8)."""

    _access = "r+"


_CLASSES: dict[int, type[End]] = {
    os.O_RDONLY: Reader,
    os.O_WRONLY: Writer,
    os.O_RDWR: ReadWriter,
}


def _about(kind: str, named: bool) -> str:
    return f"{kind} of {'a named' if named else 'an anonymous'} pipe"


# Made beforehand.  Who has lost its last reader is often one of a crowd of fork children that were
# all woken at once, and to make the text there is 50 page faults more, 0.2 ms of CPU for each.
_NO_READER = {
    named: message(errno.EPIPE, _about(Writer.__name__, named)) for named in (False, True)
}


def end_at(address: int) -> End:
    """The object for a shmp_end, of the class that its access mode asks for."""
    return _CLASSES[_lib.mode(address)](address)


def checked_capacity(capacity: int) -> int:
    """Refuses a capacity that no pipe can have, before anything is made."""
    if isinstance(capacity, bool) or not isinstance(capacity, int):
        raise TypeError(f"capacity is a number of bytes, not {capacity!r}")
    if capacity <= 0:
        raise ValueError(f"capacity must be at least 1 byte, not {capacity}")
    if capacity > _lib.MAX_CAPACITY:
        raise os_error(errno.EPERM, f"capacity={capacity}")
    return capacity


def checked_index(first_index: int) -> int:
    """Refuses a start of the ring's indices that is not an unsigned 32-bit number."""
    if not isinstance(first_index, int):
        raise TypeError(f"first_index is an integer, not {first_index!r}")
    if not 0 <= first_index < 2**32:
        raise ValueError(f"first_index must be from 0 to 2**32 - 1, not {first_index}")
    return first_index


def pipe(
    flags: int = 0, *, capacity: int = _lib.DEFAULT_CAPACITY, first_index: int = 0
) -> tuple[Reader, Writer]:
    """Makes an anonymous pipe: (reader, writer).

    flags are those of pipe2(2): os.O_NONBLOCK, os.O_DIRECT for packets; O_CLOEXEC is always set,
    as Python does for every descriptor (PEP 446).  capacity is in bytes, rounded up to a power of
    two of pages.  first_index is where the ring's counters start; tests begin before their wrap.

    OSError: EINVAL for other flags (CR-2), EMFILE or ENFILE without descriptors (CR-6), EPERM for a
    capacity above 1 GiB, ENOMEM, ENOSPC.
    """
    checked_capacity(capacity)
    checked_index(first_index)
    result, reader, writer = _lib.pipe(flags | os.O_CLOEXEC, capacity, first_index)
    if result < 0:
        raise os_error(-result, f"pipe(flags={flags:#o}, capacity={capacity})")
    return Reader(reader), Writer(writer)
