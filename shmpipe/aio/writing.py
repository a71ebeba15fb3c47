"""The transport that writes to an end for a protocol."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shmpipe._patience import OUT, Patience
from shmpipe.aio.transport import EndTransport, connect, log

if TYPE_CHECKING:
    from collections.abc import Callable

    from shmpipe.aio.transport import ProtocolT
    from shmpipe.ends import End

# After so many writes to a lost connection each one more is a warning: as in asyncio.
_QUIET_LOSSES = 5


class WriteTransport(EndTransport, asyncio.WriteTransport):
    """Writes to an end for a protocol: pause_writing(), resume_writing(), connection_lost().

    write() takes everything.  What does not fit into the pipe is kept, and above the high-water
    mark the protocol is asked to pause.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, end: End, protocol: asyncio.BaseProtocol
    ) -> None:
        """Calls connection_made() in the loop's next round."""
        super().__init__(loop, end, protocol)
        self._patience = Patience(end, OUT)
        self._put = end.write
        # Whether drain() has nothing to wait for and nothing to complain of.
        self.flowing = True
        self._buffer = bytearray()
        self._flushing = False  # _flush() is called, by add_writer() or in the next round
        self._watching = False
        self._protocol_paused = False
        self._losses = 0
        self._high = 0
        self._low = 0
        self.set_write_buffer_limits()
        loop.call_soon(self._protocol.connection_made, self)
        loop.call_soon(self._watch_reader)

    def get_write_buffer_size(self) -> int:
        """Bytes that are not in the pipe yet."""
        return len(self._buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """(low, high) in bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Above high bytes the protocol is paused, at low it goes on.

        64 KiB and a quarter of it unless told otherwise; ValueError unless high >= low >= 0.
        """
        if high is None:
            high = 64 * 1024 if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._maybe_pause()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Puts bytes into the pipe, or keeps what does not fit; does not wait."""
        if self._buffer or self._closing:
            self._write_later(data)
            return
        try:
            count = self._put(data)
        except (OSError, ValueError) as error:
            self._losses += 1
            self._fail(error, "write")
            return
        # Of anything else len() may be a number of larger items.
        if type(data) is not bytes or count != len(data):
            self._write_later(memoryview(data).cast("B")[count or 0 :])

    def _write_later(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self._buffer += data
            if self._buffer:
                self._flush_later()
                self._maybe_pause()
        elif data:
            if self._losses >= _QUIET_LOSSES:
                log.warning("%r: write after the connection was lost", self)
            self._losses += 1

    def can_write_eof(self) -> bool:
        """True: closing the write end is the end of file."""
        return True

    def write_eof(self) -> None:
        """Writes what is kept, then closes the end."""
        if not self._closing:
            if self._buffer:
                self._closing = True
                self.flowing = False
            else:
                self._part(None)

    def close(self) -> None:
        """The same as write_eof()."""
        self.write_eof()

    def _watch_reader(self) -> None:
        # A write end is never readable; what a loop reports as such is POLLERR, the last
        # reader's close.  A ReadWriter is its own reader.
        if not self._closing and not self._end.readable():
            self._loop.add_reader(self._fd, self._on_reader_gone)

    def _on_reader_gone(self) -> None:
        if self._loop.get_debug():
            log.info("%r was closed by peer", self)
        self._part(BrokenPipeError() if self._buffer else None)

    def _stop(self) -> None:
        self.flowing = False
        self._buffer.clear()
        self._ignore_room()
        self._flushing = False
        if not self._end.closed:  # by somebody else, and then its number may be another's
            self._loop.remove_reader(self._fd)

    def _flush_later(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _ignore_room(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_writer(self._fd)

    def _flush(self) -> None:
        if not self._buffer:  # stopped since
            return
        try:
            count = self._end.write(self._buffer)
            if count is None:
                self._wait_for_room()
                return
        except (OSError, ValueError) as error:
            self._losses += 1
            self._fail(error, "write")
            return
        self._patience.renew()
        del self._buffer[:count]
        if self._buffer:
            if not self._watching:
                self._loop.call_soon(self._flush)
        else:
            self._flushing = False
            self._ignore_room()
        self._maybe_resume()
        if self._closing and not self._buffer:
            self._part(None)

    def _wait_for_room(self) -> None:
        if not self._patience.exhausted():
            if not self._watching:
                self._loop.call_soon(self._flush)
        elif not self._watching:
            self._watching = True
            self._loop.add_writer(self._fd, self._flush)

    def _maybe_pause(self) -> None:
        if len(self._buffer) > self._high and not self._protocol_paused:
            self._protocol_paused = True
            self.flowing = False
            self._tell("pause_writing")

    def _maybe_resume(self) -> None:
        if self._protocol_paused and len(self._buffer) <= self._low:
            self._protocol_paused = False
            self.flowing = not self._closing
            self._tell("resume_writing")

    def _tell(self, what: str) -> None:
        try:
            getattr(self._protocol, what)()
        except Exception as error:  # noqa: BLE001 - as asyncio: its bug must not become ours
            self._loop.call_exception_handler(
                {
                    "message": f"protocol.{what}() failed",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )


async def connect_write_pipe(
    protocol_factory: Callable[[], ProtocolT], end: End
) -> tuple[WriteTransport, ProtocolT]:
    """What loop.connect_write_pipe() is for a file: (transport, protocol), once it is connected.

    The end belongs to the transport from now on.  io.UnsupportedOperation if it is not for writing.
    """
    end.write(b"")  # raises for the wrong direction
    return await connect(WriteTransport, protocol_factory, end)
