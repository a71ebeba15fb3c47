"""Streams: asyncio's StreamReader and StreamWriter over an end, with a shorter way to the ring."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from shmpipe.aio.reading import MOST_BYTES, connect_read_pipe
from shmpipe.aio.writing import connect_write_pipe

if TYPE_CHECKING:
    from shmpipe.aio.reading import ReadTransport
    from shmpipe.aio.writing import WriteTransport
    from shmpipe.ends import End

_LIMIT = 64 * 1024  # asyncio's
_AHEAD = 16 * 1024  # to fetch many small messages at once
_CALL_BYTES = 64  # what a fetch counts beside its bytes, so that many small ones give way, too
_DRAINS = 256


class StreamReader(asyncio.StreamReader):
    """An asyncio.StreamReader that looks into the ring before it waits for the loop.

    What it fetches there, and what asyncio's buffer holds, it keeps as one bytes object to
    cut from.  These bytes come before the buffer's.  There is no await between fetching and keeping
    or returning: a cancelled read loses no byte.  The loop goes round after 256 KiB at the latest.
    """

    if TYPE_CHECKING:  # asyncio's own
        _buffer: bytearray
        _exception: BaseException | None
        _limit: int
        _paused: bool
        _waiter: asyncio.Future[None] | None

    _source: ReadTransport
    _ahead = b""
    _at = 0  # the bytes before it are gone
    _budget = MOST_BYTES

    def set_transport(self, transport: ReadTransport) -> None:  # type: ignore[override]
        """The protocol calls this when it is connected."""
        super().set_transport(transport)
        self._source = transport

    @property
    def transport(self) -> ReadTransport:
        """What reads the end for this stream."""
        return self._source

    def close(self) -> None:
        """Closes the end before its end of file has come; a waiting read() then sees one."""
        self._source.close()

    def at_eof(self) -> bool:
        """Whether everything has been read."""
        return self._at == len(self._ahead) and super().at_eof()

    async def read(self, n: int = -1) -> bytes:
        """As asyncio.StreamReader.read."""
        if n > 0:
            if self._at == len(self._ahead):
                await self._fetch(n)
            at = self._at
            if data := self._ahead[at : at + n]:
                self._at = at + len(data)
                return data
        return await super().read(n)

    async def readexactly(self, n: int) -> bytes:
        """As asyncio.StreamReader.readexactly."""
        at = self._at
        if 0 < n <= len(self._ahead) - at:
            self._at = at + n
            return self._ahead[at : at + n]
        self._put_back()
        if n > 0:
            await self._fetch(n)
            at = self._at
            if len(self._ahead) - at >= n:
                self._at = at + n
                return self._ahead[at : at + n]
            self._put_back()
        return await super().readexactly(n)

    async def readuntil(self, separator: Any = b"\n") -> bytes:
        """As asyncio.StreamReader.readuntil."""
        if self._at == len(self._ahead):
            await self._fetch(_AHEAD)
        at = self._at
        if isinstance(separator, bytes) and separator:  # from Python 3.13 on it may be a tuple
            size = self._ahead.find(separator, at) - at
            if 0 <= size <= self._limit:
                self._at = at + size + len(separator)
                return self._ahead[at : self._at]
        self._put_back()
        return await super().readuntil(separator)

    async def _fetch(self, n: int) -> None:
        """Something to cut n bytes from, if it is there; only when all before has been cut."""
        if self._budget <= 0:
            self._budget = MOST_BYTES
            await asyncio.sleep(0)
            if self._at < len(self._ahead):  # another task has fetched meanwhile
                return
        # One who waits already has the turn; asyncio then complains of the second.
        if self._waiter is not None or self._exception is not None:
            return
        if self._buffer:
            data: bytes | None = bytes(self._buffer)
            self._buffer.clear()
        else:
            if self._paused:  # all that was too much has been cut
                self._paused = False
                self._source.resume_reading()
            data = self._source.read_now(min(max(n, _AHEAD), MOST_BYTES))
        if data:
            self._budget -= len(data) + _CALL_BYTES
            self._ahead, self._at = data, 0

    def _put_back(self) -> None:
        if rest := self._ahead[self._at :]:
            self._buffer[:0] = rest
        self._ahead, self._at = b"", 0


class StreamWriter(asyncio.StreamWriter):
    """An asyncio.StreamWriter whose drain() is cheap while there is nothing to wait for."""

    def __init__(
        self,
        transport: WriteTransport,
        protocol: asyncio.BaseProtocol,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """open_writer() makes them."""
        super().__init__(transport, protocol, None, loop)
        self._sink = transport
        self._drains = _DRAINS
        # An attribute of the object: one call less for each write.
        self.write = transport.write  # type: ignore[method-assign]

    async def drain(self) -> None:
        """As asyncio.StreamWriter.drain; lets the loop go round once in 256 times."""
        if self._sink.flowing and self._drains:
            self._drains -= 1
            return
        self._drains = _DRAINS
        if self._sink.flowing:
            await asyncio.sleep(0)
        await super().drain()


async def open_reader(end: End, *, limit: int = _LIMIT) -> StreamReader:
    """A stream that reads an end, which is the stream's from now on.

    limit is asyncio's: the longest line, and half of what is kept in memory, in bytes.  At end of
    file the end is closed; StreamReader.close() closes it before that.
    """
    loop = asyncio.get_running_loop()
    reader = StreamReader(limit=limit, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    await connect_read_pipe(lambda: protocol, end)
    return reader


async def open_writer(end: End) -> StreamWriter:
    """A stream that writes to an end, which is the stream's from now on.

    await writer.drain() waits while more is kept than the transport's high-water mark says, and
    raises ConnectionResetError or BrokenPipeError when the last reader is gone.  close() and
    wait_closed() write what is kept, and close the end.
    """
    loop = asyncio.get_running_loop()
    # The protocol of a reader, because only that one can be waited for until it is closed.
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop)
    transport, _ = await connect_write_pipe(lambda: protocol, end)
    return StreamWriter(transport, protocol, loop)
