"""shmpipe.anyio: the rules of anyio's byte streams, on asyncio and on trio."""

from __future__ import annotations

import io
import os
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.abc
import anyio.streams.buffered
import pytest
import shmpipe
from shmpipe.anyio import ReceiveStream, SendStream

from aio.kinds import NO_UVLOOP
from support.actors import ProcessActor

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """anyio.run() on each backend."""
    if request.param == "uvloop" and NO_UVLOOP:
        pytest.skip(NO_UVLOOP)
    backend = "trio" if request.param == "trio" else "asyncio"
    options = {"use_uvloop": True} if request.param == "uvloop" else {}

    def start(main: Callable[[], Awaitable[Any]]) -> Any:
        async def limited() -> Any:
            with anyio.fail_after(50):
                return await main()

        return anyio.run(limited, backend=backend, backend_options=options)

    return start


def streams() -> tuple[ReceiveStream, SendStream]:
    reader, writer = shmpipe.pipe()
    return ReceiveStream(reader), SendStream(writer)


def clogged() -> tuple[ReceiveStream, SendStream]:
    reader, writer = shmpipe.pipe(os.O_NONBLOCK)
    while writer.write(bytes(4096)):
        pass
    return ReceiveStream(reader), SendStream(writer)


def test_they_are_what_they_say() -> None:
    assert issubclass(ReceiveStream, anyio.abc.ByteReceiveStream)
    assert issubclass(SendStream, anyio.abc.ByteSendStream)


def test_bytes_and_then_the_end_of_the_stream(run: Run) -> None:
    async def main() -> None:
        receive, send = streams()
        async with receive:
            async with send:
                await send.send(b"hello")
                assert await receive.receive() == b"hello"
                await send.send(b"")
                await send.send(b"rest")
                assert await receive.receive(2) == b"re"
            assert await receive.receive() == b"st"
            for _ in range(2):
                with pytest.raises(anyio.EndOfStream):
                    await receive.receive()

    run(main)


def test_iteration_ends_with_the_stream(run: Run) -> None:
    async def main() -> None:
        receive, send = streams()
        sent = os.urandom(400_000)
        got = bytearray()
        async with anyio.create_task_group() as group, receive:

            async def produce() -> None:
                async with send:
                    await send.send(sent)

            group.start_soon(produce)
            async for piece in receive:
                assert 0 < len(piece) <= 65536
                got.extend(piece)
        assert got == sent

    run(main)


def test_anyios_own_layers_go_on_top(run: Run) -> None:
    async def main() -> None:
        receive, send = streams()
        async with receive, send:
            lines = anyio.streams.buffered.BufferedByteReceiveStream(receive)
            await send.send(b"one\ntwo\n12345")
            assert await lines.receive_until(b"\n", 100) == b"one"
            assert await lines.receive_until(b"\n", 100) == b"two"
            assert await lines.receive_exactly(5) == b"12345"

    run(main)


def test_a_reader_that_is_gone_breaks_the_stream(run: Run) -> None:
    async def main() -> None:
        receive, send = streams()
        await receive.aclose()
        async with send:
            for _ in range(2):
                with pytest.raises(anyio.BrokenResourceError):
                    await send.send(b"x")

    run(main)


def test_a_reader_that_goes_breaks_a_send_that_waits(run: Run) -> None:
    async def main() -> None:
        receive, send = clogged()
        async with anyio.create_task_group() as group, send:

            async def leave() -> None:
                await anyio.wait_all_tasks_blocked()
                await receive.aclose()

            group.start_soon(leave)
            with pytest.raises(anyio.BrokenResourceError):
                await send.send(b"x")

    run(main)


def test_closed_streams_say_so(run: Run) -> None:
    async def main() -> None:
        receive, send = streams()
        for stream in (receive, send, receive, send):
            await stream.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await receive.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await send.send(b"x")
        with pytest.raises(anyio.ClosedResourceError):
            await send.send(b"")

    run(main)


def test_closing_wakes_who_waits(run: Run) -> None:
    async def main() -> None:
        receive, other = streams()
        rest, send = clogged()

        async def close() -> None:
            await anyio.wait_all_tasks_blocked()
            await receive.aclose()
            await send.aclose()

        async def receiving() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await receive.receive()

        async with anyio.create_task_group() as group:
            group.start_soon(close)
            group.start_soon(receiving)
            with pytest.raises(anyio.ClosedResourceError):
                await send.send(b"x")
        await other.aclose()
        await rest.aclose()

    run(main)


def test_a_second_task_is_refused(run: Run) -> None:
    async def main() -> None:
        receive, other = streams()
        rest, send = clogged()

        async def receiving() -> None:
            await receive.receive()

        async def sending() -> None:
            await send.send(b"x")

        async with anyio.create_task_group() as group:
            group.start_soon(receiving)
            group.start_soon(sending)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await receive.receive()
            with pytest.raises(anyio.BusyResourceError):
                await send.send(b"x")
            group.cancel_scope.cancel()
        await other.send(b"still works")
        assert await receive.receive() == b"still works"
        for stream in (receive, other, rest, send):
            await stream.aclose()

    run(main)


def test_wrong_sizes_and_wrong_ends(run: Run) -> None:
    async def main() -> None:
        reader, writer = shmpipe.pipe()
        with pytest.raises(io.UnsupportedOperation):
            ReceiveStream(writer)
        with pytest.raises(io.UnsupportedOperation):
            SendStream(reader)
        async with ReceiveStream(reader) as receive, SendStream(writer):
            for size in (0, -1):
                with pytest.raises(ValueError, match="max_bytes"):
                    await receive.receive(size)

    run(main)


def test_a_cancelled_close_still_closes(run: Run) -> None:
    async def main() -> None:
        reader, writer = shmpipe.pipe()
        for stream in (ReceiveStream(reader), SendStream(writer)):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await stream.aclose()
        assert reader.closed
        assert writer.closed

    run(main)


def test_every_call_lets_others_run(run: Run) -> None:
    async def main() -> None:
        receive, send = streams()
        turns = 0

        async def third() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group, receive, send:
            group.start_soon(third)
            for _ in range(100):
                await send.send(b"x")
                await receive.receive(1)
            group.cancel_scope.cancel()
        assert turns >= 100

    run(main)


def test_between_processes(run: Run) -> None:
    there, here = shmpipe.pipe(), shmpipe.pipe()

    def echo() -> None:
        there[1].close()
        here[0].close()

        async def body() -> None:
            async with ReceiveStream(there[0]) as receive, SendStream(here[1]) as send:
                async for data in receive:
                    await send.send(data)

        run(body)

    actor = ProcessActor(echo)
    there[0].close()
    here[1].close()

    async def main() -> None:
        sent = os.urandom(1_000_000)
        got = bytearray()
        async with anyio.create_task_group() as group, ReceiveStream(here[0]) as receive:

            async def produce() -> None:
                async with SendStream(there[1]) as send:
                    await send.send(sent)

            group.start_soon(produce)
            async for piece in receive:
                got.extend(piece)
        assert got == sent

    try:
        run(main)
        actor.result()
    finally:
        actor.dispose()
