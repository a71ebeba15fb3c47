"""trio's own streams over the ends of a pipe; shmpipe.anyio has anyio's, which run on trio, too.

    async with shmpipe.trio.ReceiveStream(end) as stream:
        async for data in stream: ...

Needs trio: pip install 'shmpipe[trio]'.  A stream sets O_NONBLOCK on its end, for good and for
whoever shares it (LF-9), and closes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.abc
import trio.lowlevel

from shmpipe._patience import IN, OUT
from shmpipe._task import TaskEnd

if TYPE_CHECKING:
    from shmpipe.ends import End

__all__ = ["ReceiveStream", "SendStream"]

_RECEIVE_BYTES = 65536


class _Guard:
    """Lets one task in at a time."""

    def __init__(self, action: str) -> None:
        self._action = action
        self._taken = False

    def __enter__(self) -> None:
        if self._taken:
            raise trio.BusyResourceError(f"another task is {self._action} this stream")
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False


class _Trio:
    checkpoint = staticmethod(trio.lowlevel.checkpoint)
    wait_readable = staticmethod(trio.lowlevel.wait_readable)
    wait_writable = staticmethod(trio.lowlevel.wait_writable)
    notify_closing = staticmethod(trio.lowlevel.notify_closing)
    guard = _Guard
    closed = trio.ClosedResourceError
    broken = trio.BrokenResourceError


class ReceiveStream(trio.abc.ReceiveStream):
    """Reads an end."""

    def __init__(self, end: End) -> None:
        """Takes over an end.  io.UnsupportedOperation if it is not for reading."""
        self._end = TaskEnd(end, IN, _Trio())

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """What is there, at least one byte; b"" when the last writer is gone."""
        size = _RECEIVE_BYTES if max_bytes is None else max_bytes
        if not isinstance(size, int):
            raise TypeError("max_bytes must be integer >= 1")
        if size < 1:
            raise ValueError("max_bytes must be integer >= 1")
        return await self._end.receive(size)

    async def aclose(self) -> None:
        """Closes the end; a task in receive_some() gets trio.ClosedResourceError."""
        self._end.close()
        await trio.lowlevel.checkpoint()


class SendStream(trio.abc.SendStream):
    """Writes to an end."""

    def __init__(self, end: End) -> None:
        """Takes over an end.  io.UnsupportedOperation if it is not for writing."""
        self._end = TaskEnd(end, OUT, _Trio())

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Waits until all of it is in the pipe; trio.BrokenResourceError without a reader."""
        await self._end.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Until there is room for a write of some size, or nobody to read."""
        await self._end.wait_sendable()

    async def aclose(self) -> None:
        """Closes the end; a task in send_all() gets trio.ClosedResourceError."""
        self._end.close()
        await trio.lowlevel.checkpoint()
