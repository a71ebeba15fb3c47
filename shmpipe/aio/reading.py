"""The transport that reads an end for a protocol."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shmpipe._patience import IN, Patience
from shmpipe.aio.transport import EndTransport, connect, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from shmpipe.aio.transport import ProtocolT
    from shmpipe.ends import End

# One callback reads no more, so that others get their turn: as many as in asyncio.
MOST_BYTES = 256 * 1024


def nothing(_size: int) -> None:
    """Stands in for End.read while its transport does not read: it would block."""


class ReadTransport(EndTransport, asyncio.ReadTransport):
    """Reads an end for a protocol: data_received(), eof_received(), connection_lost()."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, end: End, protocol: asyncio.BaseProtocol
    ) -> None:
        """Begins to read once connection_made() has returned."""
        super().__init__(loop, end, protocol)
        self._patience = Patience(end, IN)
        self._paused = False
        self._watching = False
        # For a stream that fetches its bytes itself, without a trip through the loop.
        self.read_now: Callable[[int], bytes | None] = nothing
        loop.call_soon(self._protocol.connection_made, self)
        loop.call_soon(self._start)

    def is_reading(self) -> bool:
        """Whether the protocol is given data: not paused, not closing."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """No data_received() until resume_reading()."""
        self._paused = True
        self.read_now = nothing

    def resume_reading(self) -> None:
        """Goes on after pause_reading()."""
        if self._paused and not self._closing:
            self._paused = False
            self._start()

    def close(self) -> None:
        """Closes the end; what it still holds is not read."""
        if not self._closing:
            self._part(None)

    def _start(self) -> None:
        if self.is_reading():
            self.read_now = self._end.read
            if not self._watching:
                self._watching = True
                self._loop.add_reader(self._fd, self._on_readable)

    def _ignore(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._fd)

    def _stop(self) -> None:
        self.read_now = nothing
        self._ignore()

    def _on_readable(self) -> None:
        if self._paused:  # only now: a pause that is over before anything comes costs nothing
            self._ignore()
            return
        try:
            data = self._end.read(MOST_BYTES)
            if data is None:
                self._patience.exhausted()
                return
        except (OSError, ValueError) as error:  # ValueError: somebody else has closed the end
            self._fail(error, "read")
            return
        if data:
            self._patience.renew()
            self._protocol.data_received(data)
        else:
            if self._loop.get_debug():
                log.info("%r was closed by peer", self)
            self._closing = True
            self._stop()
            self._fd = -1
            self._loop.call_soon(self._protocol.eof_received)
            self._loop.call_soon(self._say_goodbye, None)


async def connect_read_pipe(
    protocol_factory: Callable[[], ProtocolT], end: End
) -> tuple[ReadTransport, ProtocolT]:
    """What loop.connect_read_pipe() is for a file: (transport, protocol), once it is connected.

    The end belongs to the transport from now on.  io.UnsupportedOperation if it is not for reading.
    """
    end.read(0)  # raises for the wrong direction
    return await connect(ReadTransport, protocol_factory, end)
