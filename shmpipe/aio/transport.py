"""What the transports for both directions have in common: an end, a protocol, and their parting."""

from __future__ import annotations

import asyncio
import errno
import logging
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from shmpipe._patience import descriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from shmpipe.ends import End

    ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)
    TransportT = TypeVar("TransportT", bound="EndTransport")

log = logging.getLogger("asyncio")  # what we report is asyncio's contract, and looked for there


class EndTransport(asyncio.BaseTransport):
    """What both directions have in common: the end, the protocol, and how they part."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, end: End, protocol: asyncio.BaseProtocol
    ) -> None:
        super().__init__({"pipe": end})
        self._loop = loop
        self._end = end
        self._protocol: Any = protocol  # whatever it is, it is asked for what its kind has
        self._fd = descriptor(end)
        self._closing = False
        self._parted = False
        end.nonblocking = True

    def __repr__(self) -> str:
        state = "closed" if self._parted else "closing" if self._closing else "open"
        return f"<{type(self).__name__} {state} {self._end!r}>"

    def __del__(self) -> None:
        if not getattr(self, "_parted", True):
            try:
                warnings.warn(
                    f"unclosed transport {self!r}", ResourceWarning, stacklevel=2, source=self
                )
            finally:  # the warning may be an exception
                self._end.close()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From the next event on, this protocol is told."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that is told."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Whether close() was called or the connection is lost."""
        return self._closing

    def abort(self) -> None:
        """Closes the end at once; what is kept is lost."""
        self._part(None)

    def _stop(self) -> None:
        """Nothing is read or written any more."""
        raise NotImplementedError

    def _part(self, error: BaseException | None) -> None:
        """Stops now; the protocol hears of it, and the end is closed, in the loop's next round."""
        if self._fd >= 0:
            self._closing = True
            self._stop()
            self._fd = -1
            self._loop.call_soon(self._say_goodbye, error)

    def _fail(self, error: Exception, doing: str) -> None:
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EPIPE):
            if self._loop.get_debug():
                log.debug("%r: %s", self, doing, exc_info=True)
        else:
            self._loop.call_exception_handler(
                {
                    "message": f"Fatal {doing} error on pipe transport",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
        self._part(error)

    def _say_goodbye(self, error: BaseException | None) -> None:
        if self._parted:
            return
        try:
            self._protocol.connection_lost(error)
        finally:
            self._parted = True
            self._end.close()
            self._protocol = None


async def connect(
    make: Callable[[asyncio.AbstractEventLoop, End, ProtocolT], TransportT],
    protocol_factory: Callable[[], ProtocolT],
    end: End,
) -> tuple[TransportT, ProtocolT]:
    """Makes the pair, once connection_made() has been called."""
    loop = asyncio.get_running_loop()
    protocol = protocol_factory()
    transport = make(loop, end, protocol)
    connected = asyncio.Event()
    loop.call_soon(connected.set)  # behind what the transport has put into the queue
    try:
        await connected.wait()
    except BaseException:
        transport.abort()
        raise
    return transport, protocol
