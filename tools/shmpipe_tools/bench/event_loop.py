"""The measurements in asyncio's event loop: its own transports for os.pipe beside shmpipe.aio."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from shmpipe import aio
from shmpipe_tools.bench.loops import WARM_UP
from shmpipe_tools.bench.measures import need_two_cores, run_roles
from shmpipe_tools.bench.transports import KERNEL, SHARED, Transport
from shmpipe_tools.children import shared_numbers


@dataclass(frozen=True)
class Streams:
    """How a kind of pipe becomes asyncio's streams."""

    pipe: Transport
    reader: Callable[[Any], Awaitable[asyncio.StreamReader]]
    writer: Callable[[Any], Awaitable[asyncio.StreamWriter]]


async def _kernel_reader(fd: int) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    await loop.connect_read_pipe(lambda: protocol, os.fdopen(fd, "rb", 0))
    return reader


async def _kernel_writer(fd: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(loop=loop), loop=loop)
    transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(fd, "wb", 0))
    return asyncio.StreamWriter(transport, protocol, None, loop)


KERNEL_STREAMS = Streams(KERNEL, _kernel_reader, _kernel_writer)
SHARED_STREAMS = Streams(SHARED, aio.open_reader, aio.open_writer)


def throughput(streams: Streams, size: int, seconds: float) -> float:
    """Bytes per second from one loop to another: write() and drain() to readexactly(size)."""
    result = shared_numbers(1)
    reader, writer = streams.pipe.make(None)
    calls = max(1, min(256, (1 << 18) // size))
    near, far = need_two_cores()

    async def pump() -> None:
        stream = await streams.writer(writer)
        payload = b"\xa5" * size
        try:
            while True:
                stream.write(payload)
                await stream.drain()
        except ConnectionError:
            stream.close()

    async def drain() -> None:
        stream = await streams.reader(reader)
        for span in (seconds * WARM_UP, seconds):
            received = 0
            elapsed = 0.0
            start = perf_counter()
            while elapsed < span:
                for _ in range(calls):
                    received += len(await stream.readexactly(size))
                elapsed = perf_counter() - start
            result[0] = received / elapsed

    def write() -> None:
        os.sched_setaffinity(0, {near})
        streams.pipe.close(reader)
        _run(pump())

    def read() -> None:
        os.sched_setaffinity(0, {far})
        streams.pipe.close(writer)
        _run(drain())

    run_roles({"writer": write, "reader": read}, [reader, writer], streams.pipe, seconds)
    return result[0]


def round_trip(streams: Streams, one_core: bool, seconds: float) -> float:
    """Seconds for 8 bytes to another loop and back."""
    result = shared_numbers(1)
    here, there = streams.pipe.make(None), streams.pipe.make(None)
    near, far = (min(os.sched_getaffinity(0)),) * 2 if one_core else need_two_cores()

    async def exchange() -> None:
        sink, source = await streams.writer(there[1]), await streams.reader(here[0])
        for span in (seconds * WARM_UP, seconds):
            done = 0
            elapsed = 0.0
            start = perf_counter()
            while elapsed < span:
                for _ in range(16):
                    sink.write(b"8 bytes.")
                    await sink.drain()
                    await source.readexactly(8)
                done += 16
                elapsed = perf_counter() - start
            result[0] = elapsed / done
        sink.close()
        await sink.wait_closed()

    async def echo() -> None:
        source, sink = await streams.reader(there[0]), await streams.writer(here[1])
        while data := await source.read(64):
            sink.write(data)
            await sink.drain()
        sink.close()

    def ask() -> None:
        os.sched_setaffinity(0, {near})
        streams.pipe.close(there[0])
        streams.pipe.close(here[1])
        _run(exchange())

    def answer() -> None:
        os.sched_setaffinity(0, {far})
        streams.pipe.close(there[1])
        streams.pipe.close(here[0])
        _run(echo())

    run_roles({"asking": ask, "answering": answer}, [*here, *there], streams.pipe, seconds)
    return result[0]


def _run(main: Any) -> None:
    """Without taking the loop down: the process ends with it, and closes what is open."""
    asyncio.new_event_loop().run_until_complete(main)
