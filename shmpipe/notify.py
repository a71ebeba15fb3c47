"""Notifiers: eventfds that count operations, for programs that want to be told of every one."""

from __future__ import annotations

import errno
import os
import sys
import warnings

from shmpipe import _lib
from shmpipe.errors import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, NoReturn, Self

    from shmpipe.ends import End


class Notifier:
    """A counting eventfd that belongs to an end; End.notifier() makes one.

    It counts the operations of the other side, from its creation on: for a Reader writes, for a
    Writer reads, for a ReadWriter both; by any thread of any process that has the pipe open; also
    when the end was ready before, and whether or not anybody reads the count (IO-2, IO-3).  N
    operations give N.

    An operation is counted when it is over and has moved data, never before that data can be read.
    One that moved nothing (EAGAIN, end of file, zero bytes) does not count, nor does a close: watch
    end.fileno() for the end.  A blocking write of more than PIPE_BUF bytes that has to wait with a
    part of them written counts once more for each such wait, as the kernel signals it (IO-4);
    otherwise a reader who waits for the count would never make the room that the writer waits for.

    fileno() is for select, poll, epoll (also edge-triggered) and asyncio's add_reader(): readable
    as soon as something is counted.  A background thread, one for each 64 pipes, brings the counts
    there; it ends with the last notifier, blocks every signal, and sleeps while nothing happens.
    read() does not depend on it.  Python 3.12 and later count it and warn of os.fork() meanwhile
    (DeprecationWarning): that warning is about other threads, this one holds no lock in a child.

    Closing the end ends the counting; what was counted stays to be read.  A notifier belongs to the
    process that made it: a forked child makes its own.  Threads may share one.

    A context manager.  ValueError when closed, and in a forked child.
    """

    _handle: Any = (-1,)  # of one that was never made: a handler raised before

    def __init__(self, end: End) -> None:
        """Begins to count; End.notifier() is the way to get one."""
        self._about = repr(end)
        self._process = os.getpid()
        self._handle = _lib.notifier()
        try:
            end._call(_lib.notifier_make, self._handle)
        except BaseException:  # perhaps a handler's, behind the call
            self.close()
            raise

    def fileno(self) -> int:
        """The eventfd, nonblocking.

        os.eventfd_read() takes what has arrived there, from the same account as read().
        """
        descriptor: int = self._handle[0]
        if descriptor < 0 or not self._is_ours():
            self._refuse()
        return descriptor

    def read(self) -> int:
        """The number of operations since the last read(); 0 if there was none.  Never waits.

        Never late: an operation that has returned is in it.
        """
        result = _lib.notifier_read(self.fileno())
        if result == -errno.EBADF:  # closed by another thread since
            self._refuse()
        if result < 0:
            raise os_error(-result, repr(self))
        return result

    @property
    def closed(self) -> bool:
        """Whether close() was called, or this is the copy of a forked child."""
        return self._handle[0] < 0 or not self._is_ours()

    def close(self) -> None:
        """Stops counting and closes the eventfd; closing again does nothing.

        The last close of a process ends the thread before it returns.
        """
        if not self.closed:
            _lib.notifier_end(self._handle)

    def __enter__(self) -> Self:
        self.fileno()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _raised: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd={self._handle[0]}"
        return f"<shmpipe.Notifier {state} of {self._about}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a notifier belongs to its process: make one there with end.notifier()")

    def __del__(
        self,
        _warn: Callable[..., None] = warnings.warn,
        _is_finalizing: Callable[[], bool] = sys.is_finalizing,
    ) -> None:
        if not self.closed:
            try:
                if not _is_finalizing():
                    _warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            finally:  # the warning may be an exception
                self.close()

    def _is_ours(self) -> bool:
        return self._process == os.getpid()

    def _refuse(self) -> NoReturn:
        if not self._is_ours():
            raise ValueError("notifier of the parent process: make one here with end.notifier()")
        raise ValueError("I/O operation on closed notifier")
