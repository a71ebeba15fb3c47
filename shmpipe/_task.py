"""An end for tasks: receive, send, close, in the words of the library that runs the tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shmpipe._patience import IN, OUT, Patience, arm, descriptor

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from contextlib import AbstractContextManager

    from shmpipe.ends import End


class Library(Protocol):
    """What an end needs of trio or anyio."""

    def checkpoint(self) -> Awaitable[None]:
        """Lets others run; raises when cancelled."""

    def wait_readable(self, fd: int, /) -> Awaitable[None]:
        """Level-triggered; raises what closed() makes after notify_closing(fd)."""

    def wait_writable(self, fd: int, /) -> Awaitable[None]:
        """The same for writing."""

    def notify_closing(self, fd: int, /) -> None:
        """Wakes who waits for the descriptor."""

    def guard(self, action: str, /) -> AbstractContextManager[object]:
        """Raises the library's BusyResourceError when it is entered twice."""

    def closed(self) -> Exception:
        """Its ClosedResourceError."""

    def broken(self) -> Exception:
        """Its BrokenResourceError."""


class TaskEnd:
    """An end that belongs to a stream: O_NONBLOCK from now on, and closed with it.

    Each call lets other tasks run first, and takes or puts bytes only after that: a receive that is
    cancelled loses none, and a send that is cancelled has put those that were in the pipe already.
    """

    def __init__(self, end: End, event: int, library: Library) -> None:
        """For receiving (IN) or for sending (OUT)."""
        if event == IN:
            end.read(0)  # raises for the wrong direction
        else:
            end.write(b"")
        end.nonblocking = True
        self._end = end
        self._fd = descriptor(end)
        self._library = library
        self._patience = Patience(end, event)
        self._guard = library.guard("reading from" if event == IN else "writing to")

    async def receive(self, size: int) -> bytes:
        """At least one byte, b"" at end of file."""
        with self._guard:
            await self._library.checkpoint()
            while (data := self._attempt_read(size)) is None:
                if self._exhausted():
                    await self._library.wait_readable(self._fd)
                else:
                    await self._library.checkpoint()
            self._patience.renew()
            return data

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """All of it."""
        with self._guard, memoryview(data) as view, view.cast("B") as rest_of:
            self._check_open()
            await self._library.checkpoint()
            sent = 0
            while sent < len(rest_of):
                with rest_of[sent:] as rest:
                    count = self._attempt_write(rest)
                if count is not None:
                    self._patience.renew()
                    sent += count
                elif self._exhausted():
                    await self._library.wait_writable(self._fd)
                else:
                    await self._library.checkpoint()

    async def wait_sendable(self) -> None:
        """Until there is room, or nobody to read."""
        with self._guard:
            self._check_open()
            await self._library.checkpoint()
            self._check_open()
            if arm(self._end, OUT):
                await self._library.wait_writable(self._fd)

    def close(self) -> None:
        """Wakes who waits in another call, and closes the end."""
        if not self._end.closed:
            self._library.notify_closing(self._fd)
            self._end.close()

    def _check_open(self) -> None:
        if self._end.closed:
            raise self._library.closed()

    def _attempt_read(self, size: int) -> bytes | None:
        self._check_open()
        try:
            return self._end.read(size)
        except OSError as error:
            raise self._library.broken() from error

    def _attempt_write(self, data: memoryview) -> int | None:
        self._check_open()
        try:
            return self._end.write(data)
        except OSError as error:
            raise self._library.broken() from error

    def _exhausted(self) -> bool:
        try:
            return self._patience.exhausted()
        except OSError as error:
            raise self._library.broken() from error
