"""Byte streams of anyio over the ends of a pipe, on asyncio and on trio.

    async with shmpipe.anyio.ReceiveStream(end) as stream:
        data = await stream.receive()

Needs anyio: pip install 'shmpipe[anyio]'.  A stream sets O_NONBLOCK on its end, for good and for
whoever shares it (LF-9), and closes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.lowlevel

from shmpipe._patience import IN, OUT
from shmpipe._task import TaskEnd

if TYPE_CHECKING:
    from shmpipe.ends import End

__all__ = ["ReceiveStream", "SendStream"]


class _Anyio:
    checkpoint = staticmethod(anyio.lowlevel.checkpoint)
    wait_readable = staticmethod(anyio.wait_readable)
    wait_writable = staticmethod(anyio.wait_writable)
    notify_closing = staticmethod(anyio.notify_closing)
    guard = anyio.ResourceGuard
    closed = anyio.ClosedResourceError
    broken = anyio.BrokenResourceError


class ReceiveStream(anyio.abc.ByteReceiveStream):
    """Reads an end.

    anyio's rules: EndOfStream, BusyResourceError for a second task, ClosedResourceError, and
    BrokenResourceError if the pipe is damaged.
    """

    def __init__(self, end: End) -> None:
        """Takes over an end.  io.UnsupportedOperation if it is not for reading."""
        self._end = TaskEnd(end, IN, _Anyio())

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """What is there, at least one byte; anyio.EndOfStream when the last writer is gone."""
        if max_bytes < 1:
            raise ValueError("max_bytes must be a positive integer")
        if data := await self._end.receive(max_bytes):
            return data
        raise anyio.EndOfStream

    async def aclose(self) -> None:
        """Closes the end; a task in receive() gets ClosedResourceError."""
        self._end.close()
        await anyio.lowlevel.checkpoint()


class SendStream(anyio.abc.ByteSendStream):
    """Writes to an end.

    anyio's rules: BrokenResourceError when the last reader is gone, BusyResourceError for a second
    task, ClosedResourceError.
    """

    def __init__(self, end: End) -> None:
        """Takes over an end.  io.UnsupportedOperation if it is not for writing."""
        self._end = TaskEnd(end, OUT, _Anyio())

    async def send(self, item: bytes) -> None:
        """Waits until all of it is in the pipe."""
        await self._end.send(item)

    async def aclose(self) -> None:
        """Closes the end; a task in send() gets ClosedResourceError."""
        self._end.close()
        await anyio.lowlevel.checkpoint()
