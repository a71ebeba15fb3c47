"""SIGKILL of the process at the other end: what a stream that waits sees, over both kinds."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aio.kinds import Kind, rounds
from support.actors import ProcessActor

Spawn = Callable[..., ProcessActor]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """spawn(body): a forked process that is gone at the end of the test."""
    started: list[ProcessActor] = []

    def start(body: Callable[[], Any]) -> ProcessActor:
        actor = ProcessActor(body)
        started.append(actor)
        return actor

    yield start
    for actor in started:
        actor.dispose()


async def kill(actor: ProcessActor) -> None:
    os.kill(actor.pid, signal.SIGKILL)
    await asyncio.to_thread(actor.wait_status)


def test_a_reader_that_waits_sees_the_end_of_file(kind: Kind, spawn: Spawn) -> None:
    end, raw = kind.make()

    def body() -> Iterator[None]:
        kind.close(end)
        kind.write(raw, b"before")
        yield
        kind.read(raw, 1)

    actor = spawn(body)
    kind.close(raw)

    async def main() -> None:
        reader = await kind.open_reader(end)
        assert await reader.readexactly(6) == b"before"
        waiting = asyncio.create_task(reader.read(10))
        await asyncio.sleep(0.002)  # it sleeps in the selector now
        assert not waiting.done()
        await kill(actor)
        assert await waiting == b""
        assert reader.at_eof()
        await rounds()

    actor.receive()
    kind.run(main())


def test_a_writer_that_drains_sees_a_broken_pipe(kind: Kind, spawn: Spawn) -> None:
    raw, end = kind.make()

    def body() -> Iterator[None]:
        kind.close(end)
        kind.read(raw, 1000)
        yield
        kind.write(raw, b"")

    actor = spawn(body)
    kind.close(raw)

    async def main() -> None:
        writer = await kind.open_writer(end)
        writer.write(bytes(300_000))
        await asyncio.to_thread(actor.receive)
        draining = asyncio.create_task(writer.drain())
        await asyncio.sleep(0.002)
        assert not draining.done()
        await kill(actor)
        with pytest.raises(BrokenPipeError):
            await draining
        with pytest.raises(ConnectionResetError):
            await writer.drain()
        await rounds()

    kind.run(main())


def test_one_of_two_writers_is_killed_and_the_other_goes_on(kind: Kind, spawn: Spawn) -> None:
    end, raw = kind.make()

    def body() -> Iterator[None]:
        kind.close(end)
        while True:
            kind.write(raw, b"x" * 100)
            yield

    actors = [spawn(body), spawn(body)]
    kind.close(raw)

    async def main() -> None:
        reader = await kind.open_reader(end)
        assert await reader.readexactly(200) == b"x" * 200
        waiting = asyncio.create_task(reader.readexactly(100))
        await asyncio.sleep(0.002)
        await kill(actors[0])
        assert not waiting.done()
        actors[1].go()
        assert await waiting == b"x" * 100
        await kill(actors[1])
        assert await reader.read() == b""
        await rounds()

    for actor in actors:
        actor.receive()
    kind.run(main())
