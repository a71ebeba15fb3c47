"""EndBase in Python over cffi: the same behaviour where there are no fast C calls."""

from __future__ import annotations

import errno
import io
import os

from shmpipe import _lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class EndBase(io.RawIOBase):
    """The handle of an end, and its three hot calls.

    Thread safe without a lock, because a lock would be left locked in a forked child and would
    block a signal handler that came while it was taken.  Only single list operations count, which
    are atomic: `_open` holds the address until the one who pops it closes the end; `_entering` says
    which processes are between reading the address and holding the C object.  Who closes while
    somebody is in between leaves the address in `_leaving`, and the last of them closes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open: list[int] = []
        self._entering: list[int] = []
        self._leaving: list[int] = []

    def _raise(self, code: int) -> None:
        raise NotImplementedError

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
                _lib.release(address)
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
        if size is None or size < 0:
            return self.readall()
        # No pipe holds more than the largest capacity, so no read could return more.
        memory = _lib.scratch(min(size, _lib.MAX_CAPACITY))
        count = _lib.call(self, _lib.read, memory, len(memory))
        return None if self._would_block(count) else _lib.contents(memory, count)

    def readinto(self, buffer: WriteableBuffer, /) -> int | None:
        """Reads into a buffer: the number of bytes, 0 at end of file, None when it would block."""
        memory = _lib.writable_buffer(buffer)
        count = _lib.call(self, _lib.read, memory, len(memory))
        return None if self._would_block(count) else count

    def write(self, data: ReadableBuffer, /) -> int | None:
        """Writes the bytes of an object: how many, None when it would block."""
        memory = _lib.readable_buffer(data)
        count = _lib.call(self, _lib.write, memory, len(memory))
        return None if self._would_block(count) else count

    def _would_block(self, result: int) -> bool:
        if result == -errno.EAGAIN:
            return True
        if result < 0:
            self._raise(-result)
        return False
