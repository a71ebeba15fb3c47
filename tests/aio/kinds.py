"""asyncio over os.pipe, which is the specification, and over shmpipe: the same face for tests."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import shmpipe
from shmpipe import aio

T = TypeVar("T")
Factory = Callable[[], asyncio.BaseProtocol]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

try:
    import uvloop
except ImportError as error:
    NO_UVLOOP = f"no uvloop for this interpreter: {error}"
else:
    NO_UVLOOP = ""
    uvloop.new_event_loop().close()  # the first one opens a pipe for the process, for ever

# No test waits for as long: one that does hangs.
SECONDS = 50.0


class Kind(ABC):
    """How a kind of pipe is made, handed to asyncio, and used from the other side, directly."""

    name: str
    loop: str

    def __init__(self, loop: str) -> None:
        self.loop = loop

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """asyncio.run() on this kind's loop."""
        factory: LoopFactory = asyncio.new_event_loop
        if self.loop == "uvloop":
            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(main, SECONDS))

    @abstractmethod
    def make(self) -> tuple[Any, Any]:
        """(read end, write end) of 64 KiB."""

    @abstractmethod
    def read(self, end: Any, size: int) -> bytes:
        """Blocks, unless a transport has made the end nonblocking."""

    @abstractmethod
    def write(self, end: Any, data: bytes) -> int:
        """The same."""

    @abstractmethod
    def close(self, end: Any) -> None:
        """Closes an end that no transport has."""

    @abstractmethod
    async def connect_read(self, factory: Factory, end: Any) -> tuple[Any, Any]:
        """loop.connect_read_pipe()."""

    @abstractmethod
    async def connect_write(self, factory: Factory, end: Any) -> tuple[Any, Any]:
        """loop.connect_write_pipe()."""

    @abstractmethod
    async def open_reader(self, end: Any, limit: int = 65536) -> asyncio.StreamReader:
        """A stream."""

    @abstractmethod
    def close_reader(self, reader: asyncio.StreamReader) -> None:
        """Before the end of file."""

    @abstractmethod
    async def open_writer(self, end: Any) -> asyncio.StreamWriter:
        """A stream."""


class Kernel(Kind):
    """os.pipe and asyncio's own transports; ends are unbuffered files."""

    name = "os.pipe"

    def make(self) -> tuple[Any, Any]:
        reader, writer = os.pipe()
        return os.fdopen(reader, "rb", 0), os.fdopen(writer, "wb", 0)

    def read(self, end: Any, size: int) -> bytes:
        return os.read(end.fileno(), size)

    def write(self, end: Any, data: bytes) -> int:
        return os.write(end.fileno(), data)

    def close(self, end: Any) -> None:
        end.close()

    async def connect_read(self, factory: Factory, end: Any) -> tuple[Any, Any]:
        return await asyncio.get_running_loop().connect_read_pipe(factory, end)

    async def connect_write(self, factory: Factory, end: Any) -> tuple[Any, Any]:
        return await asyncio.get_running_loop().connect_write_pipe(factory, end)

    async def open_reader(self, end: Any, limit: int = 65536) -> asyncio.StreamReader:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        await self.connect_read(lambda: asyncio.StreamReaderProtocol(reader, loop=loop), end)
        return reader

    def close_reader(self, reader: asyncio.StreamReader) -> None:
        reader._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001 - no other way

    async def open_writer(self, end: Any) -> asyncio.StreamWriter:
        loop = asyncio.get_running_loop()
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop)
        transport, _ = await self.connect_write(lambda: protocol, end)
        return asyncio.StreamWriter(transport, protocol, None, loop)


class Shared(Kind):
    """shmpipe."""

    name = "shmpipe"

    def make(self) -> tuple[Any, Any]:
        return shmpipe.pipe()

    def read(self, end: Any, size: int) -> bytes:
        data = end.read(size)
        if data is None:
            raise BlockingIOError
        return bytes(data)

    def write(self, end: Any, data: bytes) -> int:
        count = end.write(data)
        if count is None:
            raise BlockingIOError
        return int(count)

    def close(self, end: Any) -> None:
        end.close()

    async def connect_read(self, factory: Factory, end: Any) -> tuple[Any, Any]:
        return await aio.connect_read_pipe(factory, end)

    async def connect_write(self, factory: Factory, end: Any) -> tuple[Any, Any]:
        return await aio.connect_write_pipe(factory, end)

    async def open_reader(self, end: Any, limit: int = 65536) -> asyncio.StreamReader:
        return await aio.open_reader(end, limit=limit)

    def close_reader(self, reader: asyncio.StreamReader) -> None:
        assert isinstance(reader, aio.StreamReader)
        reader.close()

    async def open_writer(self, end: Any) -> asyncio.StreamWriter:
        return await aio.open_writer(end)


KINDS: list[Kind] = [Kernel("asyncio"), Shared("asyncio"), Shared("uvloop")]


class Recorder(asyncio.Protocol):
    """A protocol that writes down what it is told, in order; joins bytes that follow each other."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.told = asyncio.Event()

    def _note(self, event: Any) -> None:
        self.events.append(event)
        self.told.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._note("made")

    def data_received(self, data: bytes) -> None:
        if self.events and isinstance(self.events[-1], bytes):
            data = self.events.pop() + data
        self._note(data)

    def eof_received(self) -> None:
        self._note("eof")

    def pause_writing(self) -> None:
        self._note("pause")

    def resume_writing(self) -> None:
        self._note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self._note(("lost", type(exc) if exc else None))
        self.lost.set_result(exc)

    async def until(self, event: Any) -> None:
        """Until it has been told this."""
        while event not in self.events:
            self.told.clear()
            await self.told.wait()


async def push(writer: asyncio.StreamWriter, data: bytes = b"x", times: int = 100) -> None:
    """Writes and drains again and again."""
    for _ in range(times):
        writer.write(data)
        await writer.drain()


async def pull(reader: asyncio.StreamReader, how: str, size: int) -> bytes:
    """One read of some kind; at the end of file what is left."""
    try:
        if how == "read":
            return await reader.read(size)
        if how == "exactly":
            return await reader.readexactly(size)
        return await reader.readuntil(b"a")
    except asyncio.IncompleteReadError as error:
        return error.partial


async def rounds(count: int = 5) -> None:
    """Lets the loop go round a few times: whatever is due now happens."""
    for _ in range(count):
        await asyncio.sleep(0)
