"""shmpipe.trio against the suite that trio has for streams, and against a second process."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Awaitable, Callable

import pytest
import shmpipe
import trio
import trio.testing
from shmpipe.trio import ReceiveStream, SendStream

from support.actors import ProcessActor

Pair = tuple[SendStream, ReceiveStream]
Make = Callable[[], tuple[shmpipe.Reader, shmpipe.Writer]]


def plain() -> tuple[shmpipe.Reader, shmpipe.Writer]:
    return shmpipe.pipe()


def watched() -> tuple[shmpipe.Reader, shmpipe.Writer]:
    """Somebody else looks at both descriptors, so that they are kept in step."""
    reader, writer = shmpipe.pipe()
    reader.fileno()
    writer.fileno()
    return reader, writer


def packets() -> tuple[shmpipe.Reader, shmpipe.Writer]:
    return shmpipe.pipe(os.O_DIRECT)


def large() -> tuple[shmpipe.Reader, shmpipe.Writer]:
    return shmpipe.pipe(capacity=1 << 20)


def makers(make: Make) -> tuple[Callable[[], Awaitable[Pair]], Callable[[], Awaitable[Pair]]]:
    """What check_one_way_stream asks for: a fresh stream, and one in which a send would wait."""

    async def fresh() -> Pair:
        reader, writer = make()
        return SendStream(writer), ReceiveStream(reader)

    async def clogged() -> Pair:
        reader, writer = make()
        writer.nonblocking = True
        while writer.write(b"x" * 4096):
            pass
        return SendStream(writer), ReceiveStream(reader)

    return fresh, clogged


@pytest.mark.parametrize("make", [plain, watched, large])
def test_trios_own_suite(make: Make) -> None:
    fresh, clogged = makers(make)
    trio.run(trio.testing.check_one_way_stream, fresh, clogged)


def test_trios_own_suite_with_packets() -> None:
    fresh, _ = makers(packets)
    trio.run(trio.testing.check_one_way_stream, fresh, None)


def test_a_stapled_pair_passes_trios_suite_for_two_ways() -> None:
    async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        there, here = shmpipe.pipe(), shmpipe.pipe()
        return (
            trio.StapledStream(SendStream(there[1]), ReceiveStream(here[0])),
            trio.StapledStream(SendStream(here[1]), ReceiveStream(there[0])),
        )

    trio.run(trio.testing.check_two_way_stream, make, None)


def test_a_cancelled_receive_loses_no_byte() -> None:
    async def main() -> None:
        reader, writer = shmpipe.pipe()
        sent = os.urandom(200_000)
        got = bytearray()
        over = False

        async def consume(stream: ReceiveStream) -> None:
            nonlocal over
            while data := await stream.receive_some(700):
                got.extend(data)
            over = True

        async def produce(stream: SendStream) -> None:
            for at in range(0, len(sent), 1000):
                await stream.send_all(sent[at : at + 1000])
                await trio.sleep(0.00005)
            await stream.aclose()

        async with trio.open_nursery() as nursery, ReceiveStream(reader) as receive:
            nursery.start_soon(produce, SendStream(writer))
            while not over:
                with trio.move_on_after(0.0002):
                    await consume(receive)
        assert got == sent

    trio.run(main)


def test_the_wrong_end_is_refused() -> None:
    reader, writer = shmpipe.pipe()
    with reader, writer:
        with pytest.raises(io.UnsupportedOperation):
            ReceiveStream(writer)
        with pytest.raises(io.UnsupportedOperation):
            SendStream(reader)


def test_a_killed_writer_is_an_end_of_file_and_a_killed_reader_breaks_the_stream() -> None:
    there, here = shmpipe.pipe(), shmpipe.pipe()

    def body() -> None:
        there[1].close()
        here[0].close()
        while data := there[0].read(10):
            here[1].write(data)

    actor = ProcessActor(body)
    there[0].close()
    here[1].close()

    async def main() -> None:
        async with SendStream(there[1]) as send, ReceiveStream(here[0]) as receive:
            await send.send_all(b"echo")
            assert await receive.receive_some() == b"echo"
            async with trio.open_nursery() as nursery:

                async def expect_end() -> None:
                    assert await receive.receive_some() == b""

                nursery.start_soon(expect_end)
                await trio.testing.wait_all_tasks_blocked()
                os.kill(actor.pid, signal.SIGKILL)
            with pytest.raises(trio.BrokenResourceError):
                await send.send_all(bytes(100_000))

    try:
        trio.run(main)
    finally:
        actor.dispose()
