"""Transports and protocols: what asyncio does over os.pipe, and over shmpipe the same."""

from __future__ import annotations

import asyncio
import gc
import io
import os
from typing import Any

import pytest
import shmpipe
from shmpipe import aio

from aio.kinds import Kind, Recorder, rounds


async def reading(kind: Kind) -> tuple[Any, Recorder, Any]:
    """(transport, protocol, write end)."""
    end, raw = kind.make()
    transport, protocol = await kind.connect_read(Recorder, end)
    return transport, protocol, raw


async def writing(kind: Kind) -> tuple[Any, Recorder, Any]:
    """(transport, protocol, read end)."""
    raw, end = kind.make()
    transport, protocol = await kind.connect_write(Recorder, end)
    return transport, protocol, raw


def check_reading(transport: Any, expected: bool) -> None:
    if type(transport).is_reading is not asyncio.ReadTransport.is_reading:
        assert transport.is_reading() is expected  # asyncio's own does not say before 3.11.3


def test_a_reader_is_told_everything_in_order(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await reading(kind)
        assert protocol.events == ["made"]
        check_reading(transport, True)
        kind.write(raw, b"one")
        await protocol.until(b"one")
        kind.write(raw, b" two")
        kind.close(raw)
        assert await protocol.lost is None
        assert protocol.events == ["made", b"one two", "eof", ("lost", None)]
        assert transport.is_closing()

    kind.run(main())


def test_the_end_is_the_transports_and_is_closed_with_it(kind: Kind) -> None:
    async def main() -> None:
        end, raw = kind.make()
        transport, protocol = await kind.connect_read(Recorder, end)
        assert transport.get_extra_info("pipe") is end
        assert transport.get_extra_info("nonsense", 7) == 7
        assert not transport.is_closing()
        transport.close()
        assert transport.is_closing()
        assert await protocol.lost is None
        await rounds()
        assert end.closed
        transport.close()
        kind.close(raw)
        assert protocol.events == ["made", ("lost", None)]

    kind.run(main())


def test_nothing_comes_while_paused(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await reading(kind)
        transport.pause_reading()
        transport.pause_reading()
        check_reading(transport, False)
        kind.write(raw, b"kept")
        await asyncio.sleep(0.002)
        assert protocol.events == ["made"]
        transport.resume_reading()
        transport.resume_reading()
        check_reading(transport, True)
        await protocol.until(b"kept")
        transport.pause_reading()
        kind.write(raw, b"kept")
        kind.close(raw)
        await asyncio.sleep(0.002)
        assert protocol.events == ["made", b"kept"]  # not the end of file either
        transport.resume_reading()
        await protocol.lost
        assert protocol.events == ["made", b"keptkept", "eof", ("lost", None)]

    kind.run(main())


@pytest.mark.parametrize("filled", [False, True])
def test_closing_while_paused(kind: Kind, filled: bool) -> None:
    async def main() -> None:
        transport, protocol, raw = await reading(kind)
        transport.pause_reading()
        if filled:
            kind.write(raw, b"never read")
            await rounds()
        transport.close()
        transport.resume_reading()
        check_reading(transport, False)
        assert await protocol.lost is None
        assert protocol.events == ["made", ("lost", None)]
        await rounds()
        with pytest.raises(BrokenPipeError):
            kind.write(raw, b"x")
        kind.close(raw)

    kind.run(main())


def test_one_callback_does_not_read_for_ever(kind: Kind) -> None:
    """A protocol is given at most 256 KiB at a time, so that others get their turn."""

    class Sizes(Recorder):
        def data_received(self, data: bytes) -> None:
            self._note(len(data))

    async def main() -> None:
        end, raw = kind.make()
        if isinstance(end, shmpipe.End):
            end.capacity = 1 << 20
        _, protocol = await kind.connect_read(Sizes, end)
        await asyncio.to_thread(kind.write, raw, bytes(700_000))
        kind.close(raw)
        await protocol.lost
        sizes = [event for event in protocol.events if isinstance(event, int)]
        assert sum(sizes) == 700_000
        assert max(sizes) <= 256 * 1024

    kind.run(main())


def test_another_protocol_takes_over(kind: Kind) -> None:
    async def main() -> None:
        transport, first, raw = await reading(kind)
        second = Recorder()
        kind.write(raw, b"one")
        await first.until(b"one")
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        kind.write(raw, b"two")
        await second.until(b"two")
        transport.close()
        await second.lost
        assert first.events == ["made", b"one"]
        assert second.events == [b"two", ("lost", None)]
        kind.close(raw)

    kind.run(main())


def test_a_protocol_that_fails_does_not_take_the_transport_down(kind: Kind) -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            raise ZeroDivisionError

    async def main() -> list[Any]:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(context["exception"])
        )
        end, raw = kind.make()
        _, protocol = await kind.connect_read(Failing, end)
        kind.write(raw, b"one")
        await protocol.until(b"one")
        kind.write(raw, b" two")
        await protocol.until(b"one two")
        kind.close(raw)
        await protocol.lost
        return complaints

    assert [type(each) for each in kind.run(main())] == [ZeroDivisionError] * 2


def test_a_write_goes_out_at_once(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await writing(kind)
        transport.write(b"one")
        assert kind.read(raw, 100) == b"one"
        assert transport.get_write_buffer_size() == 0
        transport.write(b"")
        transport.writelines([b"two", b"three"])
        assert kind.read(raw, 100) == b"twothree"
        transport.close()
        assert await protocol.lost is None
        assert kind.read(raw, 100) == b""
        assert protocol.events == ["made", ("lost", None)]
        kind.close(raw)

    kind.run(main())


def test_items_are_not_bytes() -> None:
    """4096 items of four bytes, of which the pipe takes 4096 bytes: all of it, it seemed."""
    reader, writer = shmpipe.pipe(capacity=4096)
    items = memoryview(bytes(range(256)) * 64).cast("I")
    assert len(items) == 4096

    async def main() -> bytes:
        transport, _ = await aio.connect_write_pipe(asyncio.Protocol, writer)
        transport.write(items)
        assert transport.get_write_buffer_size() == 3 * 4096
        transport.close()
        stream = await aio.open_reader(reader)
        return await stream.read()

    assert asyncio.run(main()) == bytes(items)


def test_the_limits_of_what_is_kept(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await writing(kind)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=100)
        assert transport.get_write_buffer_limits() == (100, 400)
        with pytest.raises(ValueError, match="must be >= low"):
            transport.set_write_buffer_limits(high=1, low=2)
        with pytest.raises(ValueError, match="must be >= "):
            transport.set_write_buffer_limits(high=1, low=-2)
        transport.set_write_buffer_limits(high=10_000, low=4000)
        transport.write(bytes(65536 + 10_000))
        assert protocol.events == ["made"]
        transport.write(b"x")
        transport.write(b"x")
        assert protocol.events == ["made", "pause"]
        assert transport.get_write_buffer_size() == 10_002
        assert len(kind.read(raw, 4096)) == 4096
        await asyncio.sleep(0.002)
        assert protocol.events == ["made", "pause"]
        assert transport.get_write_buffer_size() == 10_002 - 4096
        for _ in range(2):
            assert len(kind.read(raw, 4096)) == 4096
        await protocol.until("resume")
        assert transport.get_write_buffer_size() == 0
        assert protocol.events == ["made", "pause", "resume"]
        transport.abort()
        await protocol.lost
        kind.close(raw)

    kind.run(main())


def test_lower_limits_pause_at_once(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await writing(kind)
        transport.write(bytes(65536 + 500))
        transport.set_write_buffer_limits(high=400)
        assert protocol.events == ["made", "pause"]
        transport.abort()
        await protocol.lost
        kind.close(raw)

    kind.run(main())


def test_end_of_file_is_written_after_what_is_kept(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await writing(kind)
        assert transport.can_write_eof()
        transport.write(bytes(100_000))
        transport.write_eof()
        assert transport.is_closing()
        transport.write(b"too late")
        got = 0
        while data := await asyncio.to_thread(kind.read, raw, 65536):
            got += len(data)
        assert got == 100_000
        assert await protocol.lost is None
        kind.close(raw)

    kind.run(main())


def test_abort_loses_what_is_kept(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await writing(kind)
        transport.write(bytes(100_000))
        transport.abort()
        assert transport.get_write_buffer_size() == 0
        assert await protocol.lost is None
        await rounds()
        got = 0
        while data := kind.read(raw, 65536):
            got += len(data)
        assert got == 65536
        kind.close(raw)

    kind.run(main())


def test_abort_after_close_does_not_wait(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await writing(kind)
        transport.write(bytes(100_000))
        transport.close()
        await rounds()
        assert not protocol.lost.done()
        transport.abort()
        assert await protocol.lost is None
        kind.close(raw)

    kind.run(main())


def test_an_idle_writer_hears_that_the_reader_has_gone(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await writing(kind)
        kind.close(raw)
        assert await protocol.lost is None
        assert transport.is_closing()
        for _ in range(10):  # quietly at first, then with a line in the log
            transport.write(b"x")
        assert protocol.events == ["made", ("lost", None)]

    kind.run(main())


def test_a_writer_with_something_left_hears_that_the_pipe_is_broken(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await writing(kind)
        transport.write(bytes(200_000))
        kind.close(raw)
        assert isinstance(await protocol.lost, BrokenPipeError)
        assert protocol.events == ["made", "pause", ("lost", BrokenPipeError)]

    kind.run(main())


def test_a_write_that_finds_the_pipe_broken(kind: Kind) -> None:
    async def main() -> None:
        transport, protocol, raw = await writing(kind)
        kind.close(raw)
        transport.write(b"x")  # before the loop has noticed
        assert transport.is_closing()
        assert isinstance(await protocol.lost, BrokenPipeError)

    kind.run(main())


def test_a_cancelled_connect_closes_the_end(kind: Kind) -> None:
    async def main() -> None:
        end, raw = kind.make()
        connecting = asyncio.ensure_future(kind.connect_read(Recorder, end))
        await asyncio.sleep(0)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await rounds()
        assert end.closed
        kind.close(raw)

    kind.run(main())


def test_a_forgotten_transport_warns_and_closes(kind: Kind) -> None:
    end, raw = kind.make()

    async def main() -> None:
        await kind.connect_read(asyncio.Protocol, end)

    def forget() -> None:
        kind.run(main())
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed transport"):
        forget()
    assert end.closed
    kind.close(raw)


def test_a_fork_leaves_the_streams_alone(kind: Kind) -> None:
    """A child that inherits the ends writes a little, and goes; the parent's streams go on."""

    async def main() -> None:
        end, raw = kind.make()
        reader = await kind.open_reader(end)
        waiting = asyncio.create_task(reader.readexactly(10))
        await asyncio.sleep(0.002)
        child = os.fork()
        if child == 0:
            kind.write(raw, b"child")
            os._exit(0)
        await asyncio.to_thread(os.waitpid, child, 0)
        assert not waiting.done()
        kind.write(raw, b"again")
        assert await waiting == b"childagain"
        kind.close(raw)
        assert await reader.read() == b""
        await rounds()

    kind.run(main())


# -- What os.pipe has no counterpart for


def test_the_low_water_mark_is_where_writing_goes_on() -> None:
    """As the documentation has it; asyncio's own transport waits until nothing is left."""

    async def main() -> None:
        raw, end = shmpipe.pipe()
        transport, protocol = await aio.connect_write_pipe(Recorder, end)
        transport.set_write_buffer_limits(high=10_000, low=4000)
        transport.write(bytes(65536 + 10_002))
        raw.read(8192)
        await protocol.until("resume")
        assert transport.get_write_buffer_size() == 10_002 - 8192
        transport.abort()
        await protocol.lost
        raw.close()

    asyncio.run(main())


def test_the_end_stays_nonblocking() -> None:
    """As descriptors that asyncio has had: the flag belongs to whoever shares the end."""

    async def main() -> None:
        reader, writer = shmpipe.pipe()
        stream = await aio.open_writer(writer)
        assert (reader.nonblocking, writer.nonblocking) == (False, True)
        stream.close()
        await stream.wait_closed()
        reader.close()

    asyncio.run(main())


def test_the_wrong_end_is_refused_and_stays_the_callers() -> None:
    async def main() -> None:
        reader, writer = shmpipe.pipe()
        with pytest.raises(io.UnsupportedOperation):
            await aio.open_reader(writer)
        with pytest.raises(io.UnsupportedOperation):
            await aio.open_writer(reader)
        writer.write(b"still open")
        assert reader.read(100) == b"still open"
        reader.close()
        writer.close()

    asyncio.run(main())


def test_an_end_that_is_its_own_partner(tmp_name: str) -> None:
    async def main() -> None:
        shmpipe.mkfifo(tmp_name)
        try:
            write = await aio.open_writer(shmpipe.open(tmp_name, "r+"))
            read = await aio.open_reader(shmpipe.open(tmp_name, "r"))
            write.write(b"x")
            await asyncio.sleep(0.002)  # bytes in the pipe are no news for the writer
            assert not write.is_closing()
            assert await read.read(10) == b"x"
            read.close()
            await rounds()
            write.write(b"y")
            await write.drain()
            write.close()
            await write.wait_closed()
        finally:
            shmpipe.unlink(tmp_name)

    asyncio.run(main())


def test_a_named_pipe_without_a_writer_yet_waits(tmp_name: str) -> None:
    """FO-16: an end of file only after a writer has come and gone."""

    async def main() -> None:
        shmpipe.mkfifo(tmp_name)
        try:
            reader = await aio.open_reader(shmpipe.open(tmp_name, "r", flags=os.O_NONBLOCK))
            waiting = asyncio.create_task(reader.read())
            await asyncio.sleep(0.002)
            assert not waiting.done()
            with shmpipe.open(tmp_name, "w") as writer:
                await asyncio.sleep(0.002)
                assert not waiting.done()
                writer.write(b"x")
            assert await waiting == b"x"
            await rounds()
        finally:
            shmpipe.unlink(tmp_name)

    asyncio.run(main())


def test_an_end_that_somebody_else_closes_is_lost() -> None:
    async def main() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(context["exception"])
        )
        reader, end = shmpipe.pipe()
        transport, protocol = await aio.connect_write_pipe(Recorder, end)
        end.close()
        transport.write(b"x")
        assert isinstance(await protocol.lost, ValueError)
        assert [type(each) for each in complaints] == [ValueError]
        reader.close()

    asyncio.run(main())


def test_who_always_finds_data_lets_others_run() -> None:
    async def main() -> int:
        end, raw = shmpipe.pipe(capacity=1 << 20)
        raw.write(bytes(1 << 20))
        reader = await aio.open_reader(end)
        turns = 0

        async def third() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(third())
        for _ in range((1 << 20) // 64):
            await reader.readexactly(64)
        other.cancel()
        reader.close()
        await rounds()
        raw.close()
        return turns

    assert asyncio.run(main()) >= 2  # every 256 KiB


def test_who_does_not_sleep_costs_the_other_side_nothing() -> None:
    """Reading and writing without a wait leaves the companion unwatched: no system call."""

    async def main() -> None:
        reader, writer = shmpipe.pipe()
        read, write = await aio.open_reader(reader), await aio.open_writer(writer)
        for _ in range(1000):
            write.write(b"x" * 64)
            await write.drain()
            assert await read.readexactly(64) == b"x" * 64
            assert writer.stat().poll_usage == 0
        read.close()
        write.close()
        await rounds()

    asyncio.run(main())
