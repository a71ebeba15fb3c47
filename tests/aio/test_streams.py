"""StreamReader and StreamWriter: what asyncio does over os.pipe, and over shmpipe the same."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import shmpipe
import shmpipe.aio

from aio.kinds import Kind, pull, push, rounds


async def both(kind: Kind, limit: int = 65536) -> tuple[Any, Any]:
    reader, writer = kind.make()
    return await kind.open_reader(reader, limit), await kind.open_writer(writer)


async def shut(kind: Kind, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes both and lets the loop take them down."""
    kind.close_reader(reader)
    writer.transport.abort()
    await rounds()


def test_what_is_there_then_the_end_of_file(kind: Kind) -> None:
    async def main() -> None:
        reader, writer = await both(kind)
        writer.write(b"hello")
        assert await reader.read(100) == b"hello"
        writer.write(b"rest")
        writer.close()
        await writer.wait_closed()
        assert not reader.at_eof()
        assert await reader.read(2) == b"re"
        assert not reader.at_eof()
        assert await reader.read(-1) == b"st"
        assert reader.at_eof()
        assert await reader.read(1) == b""
        assert await reader.read() == b""
        await rounds()

    kind.run(main())


def test_a_read_waits_for_the_first_byte(kind: Kind) -> None:
    async def main() -> None:
        reader, writer = await both(kind)
        waiting = asyncio.create_task(reader.read(10))
        await asyncio.sleep(0.002)  # longer than anybody tries without sleeping
        assert not waiting.done()
        writer.write(b"x")
        assert await waiting == b"x"
        await shut(kind, reader, writer)

    kind.run(main())


def test_exact_reads_and_what_is_missing_at_the_end(kind: Kind) -> None:
    async def main() -> None:
        reader, writer = await both(kind)
        writer.write(b"abcdefgh")
        assert await reader.readexactly(3) == b"abc"
        assert await reader.readexactly(0) == b""
        with pytest.raises(ValueError, match="less than zero"):
            await reader.readexactly(-1)
        waiting = asyncio.create_task(reader.readexactly(100_000))
        await rounds()
        writer.write(bytes(99_995))
        assert await waiting == b"defgh" + bytes(99_995)
        writer.write(b"short")
        writer.close()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(6)
        assert (caught.value.partial, caught.value.expected) == (b"short", 6)
        await rounds()

    kind.run(main())


def test_lines(kind: Kind) -> None:
    async def main() -> None:
        reader, writer = await both(kind)
        writer.write(b"one\ntwo\n\nthr")
        assert await reader.readline() == b"one\n"
        assert await reader.readuntil(b"o") == b"two"
        assert await reader.readline() == b"\n"
        assert await reader.readline() == b"\n"
        waiting = asyncio.create_task(reader.readline())
        await rounds()
        writer.write(b"ee\nlast")
        assert await waiting == b"three\n"
        writer.close()
        assert [line async for line in reader] == [b"last"]
        await rounds()

    kind.run(main())


def test_separators_of_every_kind(kind: Kind) -> None:
    async def main() -> None:
        reader, writer = await both(kind)
        writer.write(b"a<>b<>c")
        assert await reader.readuntil(b"<>") == b"a<>"
        assert await reader.readuntil(bytearray(b"<>")) == b"b<>"
        with pytest.raises(ValueError, match="at least one-byte"):
            await reader.readuntil(b"")
        writer.close()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readuntil(b"<>")
        assert caught.value.partial == b"c"
        await rounds()

    kind.run(main())


@pytest.mark.parametrize("ahead", [0, 5], ids=["fresh", "some-read-before"])
def test_a_separator_beyond_the_limit(kind: Kind, ahead: int) -> None:
    async def main() -> None:
        reader, writer = await both(kind, 16)
        writer.write(b"x" * (ahead + 20) + b"\nafter\n")
        await rounds()
        if ahead:
            assert await reader.readexactly(ahead) == b"x" * ahead
        with pytest.raises(asyncio.LimitOverrunError) as caught:
            await reader.readuntil(b"\n")
        assert caught.value.consumed == 20
        with pytest.raises(ValueError, match="limit"):  # readline() throws the line away
            await reader.readline()
        assert await reader.readline() == b"after\n"
        writer.write(b"y" * 50)
        await rounds()
        with pytest.raises(asyncio.LimitOverrunError, match="not found"):
            await reader.readuntil(b"\n")
        assert await reader.readexactly(50) == b"y" * 50
        await shut(kind, reader, writer)

    kind.run(main())


def test_a_second_reader_at_the_same_time_is_refused(kind: Kind) -> None:
    async def main() -> None:
        reader, writer = await both(kind)
        waiting = asyncio.create_task(reader.read(100))
        await rounds()
        with pytest.raises(RuntimeError, match="another coroutine"):
            await reader.readexactly(1)
        writer.write(b"for the first")
        with pytest.raises(RuntimeError, match="another coroutine"):
            await reader.readline()
        assert await waiting == b"for the first"
        await shut(kind, reader, writer)

    kind.run(main())


async def produce(
    writer: asyncio.StreamWriter, sent: bytes, choose: random.Random, largest: int
) -> None:
    """Writes all of it in pieces of any size and kind, and closes."""
    at = 0
    while at < len(sent):
        size = min(largest, choose.choice((1, 7, 64, 4096, 4097, 20_000, 200_000)))
        piece: Any = choose.choice((bytes, bytearray, memoryview))(sent[at : at + size])
        if choose.randrange(3):
            writer.write(piece)
        else:
            writer.writelines([piece[:10], piece[10:]])
        at += size
        if choose.randrange(3):
            await writer.drain()
        if choose.randrange(3) == 0:
            await asyncio.sleep(choose.choice((0, 0.0001)))
    writer.close()
    await writer.wait_closed()


def test_a_cancelled_read_loses_no_byte(kind: Kind) -> None:
    """A reading task is cancelled again and again, at any moment; all that was sent arrives."""
    seed = random.randrange(2**32)
    choose = random.Random(seed)
    sent = choose.randbytes(500_000)
    got = bytearray()

    async def consume(reader: asyncio.StreamReader) -> None:
        while not reader.at_eof():
            how = choose.choice(("read", "exactly", "until"))
            got.extend(await pull(reader, how, choose.choice((1, 50, 9000))))

    async def main() -> int:
        reader, writer = await both(kind)
        producer = asyncio.create_task(produce(writer, sent, choose, 4097))
        cancelled = 0
        while not reader.at_eof():
            consumer = asyncio.create_task(consume(reader))
            await asyncio.sleep(choose.choice((0, 0, 0.0001, 0.0003)))
            cancelled += consumer.cancel()
            await asyncio.gather(consumer, return_exceptions=True)
        await producer
        await rounds()
        return cancelled

    assert kind.run(main()) > 10
    assert got == sent, f"seed {seed}"


def test_drain_waits_for_the_reader(kind: Kind) -> None:
    async def main() -> None:
        raw, end = kind.make()
        writer = await kind.open_writer(end)
        writer.write(bytes(300_000))
        assert writer.transport.get_write_buffer_size() == 300_000 - 65536
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0.002)
        assert not draining.done()
        got = 0
        while not draining.done():
            got += len(kind.read(raw, 4096))
            await asyncio.sleep(0)
        assert 300_000 - got >= 16384  # woken at the low-water mark, with the pipe full behind it
        await draining
        writer.close()
        while data := await asyncio.to_thread(kind.read, raw, 65536):
            got += len(data)
        assert got == 300_000
        await writer.wait_closed()
        kind.close(raw)

    kind.run(main())


def test_a_cancelled_drain_loses_nothing(kind: Kind) -> None:
    async def main() -> None:
        raw, end = kind.make()
        writer = await kind.open_writer(end)
        writer.write(b"x" * 200_000)
        draining = asyncio.create_task(writer.drain())
        await rounds()
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        writer.write(b"y")
        writer.close()
        got = b""
        while data := await asyncio.to_thread(kind.read, raw, 65536):
            got += data
        assert got == b"x" * 200_000 + b"y"
        await writer.wait_closed()
        kind.close(raw)

    kind.run(main())


def test_a_broken_pipe_while_draining(kind: Kind) -> None:
    async def main() -> type[BaseException] | None:
        raw, end = kind.make()
        writer = await kind.open_writer(end)
        writer.write(bytes(300_000))
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0.002)
        kind.close(raw)
        with pytest.raises((BrokenPipeError, ConnectionResetError)) as caught:
            await draining
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        await rounds()
        return caught.type

    assert kind.run(main()) is BrokenPipeError


def test_writing_when_the_reader_has_gone(kind: Kind) -> None:
    async def main() -> None:
        raw, end = kind.make()
        writer = await kind.open_writer(end)
        kind.close(raw)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            await push(writer)
        assert writer.is_closing()
        await rounds()

    kind.run(main())


def test_closing_writes_what_is_kept(kind: Kind) -> None:
    async def main() -> None:
        reader, writer = await both(kind)
        sent = random.randbytes(500_000)
        writer.write(sent)
        writer.close()
        assert writer.is_closing()
        writer.write(b"too late")
        assert await reader.read() == sent
        await writer.wait_closed()

    kind.run(main())


def test_any_sizes_arrive_in_order(kind: Kind) -> None:
    seed = random.randrange(2**32)
    choose = random.Random(seed)
    sent = choose.randbytes(3_000_000)

    async def main() -> bytes:
        reader, writer = await both(kind)
        producer = asyncio.create_task(produce(writer, sent, choose, 200_000))
        got = bytearray()
        while not reader.at_eof():
            how = choose.choice(("read", "exactly"))
            got += await pull(reader, how, choose.choice((1, 64, 5000, 65536, 300_000)))
        await producer
        return bytes(got)

    assert kind.run(main()) == sent, f"seed {seed}"


def test_a_reader_that_was_too_slow_goes_on_when_it_has_caught_up(kind: Kind) -> None:
    """More than twice the limit in memory pauses the transport; to read it resumes it."""

    async def main() -> None:
        reader, writer = await both(kind, 1000)
        writer.write(bytes(10_000))
        await rounds()  # all of it is in the buffer now, and nobody reads the pipe
        writer.write(b"behind")
        for _ in range(1000):
            assert await reader.readexactly(10) == bytes(10)
        assert await reader.readexactly(6) == b"behind"
        await shut(kind, reader, writer)

    kind.run(main())


def test_a_read_waits_while_its_transport_is_paused(kind: Kind) -> None:
    async def main() -> None:
        reader, writer = await both(kind)
        transport: Any = getattr(reader, "_transport")  # noqa: B009 - private, but all there is
        transport.pause_reading()
        writer.write(b"held back")
        waiting = asyncio.create_task(reader.read(100))
        await asyncio.sleep(0.002)
        assert not waiting.done()
        transport.resume_reading()
        assert await waiting == b"held back"
        await shut(kind, reader, writer)

    kind.run(main())


def test_tasks_that_take_turns_get_every_byte_once() -> None:
    """A read that lets the loop go round forgot what another one had left over meanwhile."""
    reader_end, writer_end = shmpipe.pipe(capacity=1 << 20)
    sent = random.randbytes(1 << 20)
    assert writer_end.write(sent) == len(sent)
    wanted = len(sent) - 1024  # nobody ever waits for data: what is fetched at once is cut evenly
    got = bytearray()

    async def main() -> None:
        reader = await shmpipe.aio.open_reader(reader_end)

        async def take(exactly: bool) -> None:
            while len(got) < wanted:
                got.extend(await (reader.readexactly(128) if exactly else reader.read(128)))
                if len(got) % 896 == 0:
                    await asyncio.sleep(0)

        await asyncio.gather(take(False), take(True), take(False))
        reader.close()

    asyncio.run(main())
    writer_end.close()
    assert got == sent[: len(got)]


def test_many_streams_at_once(kind: Kind) -> None:
    async def main() -> None:
        async def one(number: int) -> int:
            reader, writer = await both(kind)

            async def produce() -> None:
                for _ in range(50):
                    writer.write(number.to_bytes(2, "big") * 500)
                    await writer.drain()
                writer.close()

            async def consume() -> int:
                total = 0
                while data := await reader.read(700):
                    total += len(data)
                return total

            _, total = await asyncio.gather(produce(), consume())
            await writer.wait_closed()
            return total

        assert await asyncio.gather(*(one(n) for n in range(40))) == [50_000] * 40
        await rounds()

    kind.run(main())


def test_nobody_keeps_the_loop_for_himself(kind: Kind) -> None:
    """Both sides always find something to do; a third task still gets its turns."""

    async def main() -> int:
        reader, writer = await both(kind)
        turns = 0

        async def third() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(push(writer, b"x" * 64, 10**9)), asyncio.create_task(third())]
        for _ in range(20_000):
            await reader.readexactly(64)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await shut(kind, reader, writer)
        return turns

    assert kind.run(main()) > 10
