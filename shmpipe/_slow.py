"""EndBase in Python over cffi: the same behaviour where there are no fast C calls."""

from __future__ import annotations

import errno
import io
import os
import sys
from operator import index

from shmpipe import _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import NoReturn

    from _typeshed import ReadableBuffer, WriteableBuffer


# What handlers raised during _tick(), by the frame of the _held_call() that sleeps.  Not by thread:
# a handler that runs after the sleep may make a call of its own before this one has looked here.
_raised: dict[FrameType, BaseException] = {}


def install_tick() -> None:
    """Lets signal handlers run in the middle of a sleep.

    A signal that comes between the interpreter's last look and the sleep does not interrupt it.
    """
    _lib.install_tick(_tick, _keep)


def _tick() -> int:
    # Entering any function runs what is pending, if this is the main thread.  The sleep goes on
    # then: if a second alone ended it, a blocking write would return short.
    return 0


def _keep(
    _kind: type[BaseException], raised: BaseException, traceback: TracebackType | None
) -> None:
    """Keeps what a handler raised during _tick(): C ends the sleep, but cannot pass it on.

    If a second handler raises on the way in here, cffi prints both, and the sleep begins again.
    """
    _raised[sys._getframe(1)] = raised.with_traceback(traceback)


class EndBase(io.RawIOBase):
    """The handle of an end, and its three hot calls.

    Thread safe without a lock, because a lock would be left locked in a forked child and would
    block a signal handler that came while it was taken.  Only single list operations count, which
    are atomic: `_open` holds the address until the one who pops it closes the end; `_entering` says
    which processes are between reading the address and holding the C object.  Who closes while
    somebody is in between leaves the address in `_leaving`, and the last of them closes.
    """

    if TYPE_CHECKING:

        def _raise(self, code: int) -> NoReturn:
            """The class above says which pipe it was and raises."""

    def __init__(self) -> None:
        super().__init__()
        self._open: list[int] = []
        self._entering: list[int] = []
        self._leaving: list[int] = []

    def _adopt(self, address: int, /) -> None:
        """Takes over a shmp_end."""
        self._open.append(address)

    def _hold(self) -> int:
        """The address, held: the caller releases it.  ValueError when closed."""
        process = os.getpid()
        self._entering.append(process)
        try:
            address = self._open[0]
            _lib.hold(address)
        except IndexError:
            raise ValueError("I/O operation on closed file") from None
        finally:
            self._entering.remove(process)
            if self._leaving and (abandoned := self._last_out()):
                _lib.close(abandoned)
        return address

    def _detach(self) -> int:
        """Forgets the address and gives it to the caller to close; 0 if there is nothing to do."""
        try:
            self._leaving.append(self._open.pop())
        except IndexError:
            return 0
        return self._last_out()

    def _close_end(self) -> None:
        if address := self._detach():
            _lib.close(address)

    def _held_call(self, function: _lib.Call, *arguments: object) -> int:
        # The hold is taken anew after a signal: a handler that closed the end must not leave us
        # asleep in it.
        while True:
            address = self._hold()
            try:
                result = function(address, *arguments)
            finally:
                try:
                    _lib.release(address)
                finally:
                    # What was moved before is lost to the caller, as with os.write (SG-2).
                    if _raised and sys._getframe() in _raised:
                        raise _raised.pop(sys._getframe())
            if result != -errno.EINTR:
                return result

    def _last_out(self) -> int:
        # Entries of another process are those of threads that fork() did not take along.
        if os.getpid() in self._entering:
            return 0
        try:
            return self._leaving.pop()
        except IndexError:
            return 0

    def read(self, size: int | None = -1, /) -> bytes | None:
        """Reads at most size bytes: b"" at end of file, None when it would block."""
        size = -1 if size is None else index(size)
        if not -sys.maxsize - 1 <= size <= sys.maxsize:
            raise OverflowError("cannot fit 'int' into an index-sized integer")
        if size < 0:
            return self.readall()
        # No pipe holds more than the largest capacity, so no read could return more.
        memory = _lib.scratch(min(size, _lib.MAX_CAPACITY))
        count = _lib.call(self, _lib.read, memory, len(memory))
        return None if self._would_block(count) else _lib.contents(memory, count)

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Reads into a buffer: the number of bytes, 0 at end of file, None when it would block."""
        try:
            memory = _lib.writable_buffer(buffer)
        except BufferError:
            raise TypeError("readinto() argument must be read-write bytes-like object") from None
        with memory:  # an exception's traceback must not keep the buffer locked
            count = _lib.call(self, _lib.read, memory, len(memory))
        return None if self._would_block(count) else count

    def write(self, data: ReadableBuffer, /) -> int | None:
        """Writes the bytes of an object: how many, None when it would block."""
        with _lib.readable_buffer(data) as memory:
            count = _lib.call(self, _lib.write, memory, len(memory))
        return None if self._would_block(count) else count

    def _would_block(self, result: int) -> bool:
        if result == -errno.EAGAIN:
            # io.BufferedWriter takes the errno of its BlockingIOError from the C variable.
            _lib.set_errno(errno.EAGAIN)
            return True
        if result < 0:
            self._raise(-result)
        return False
