"""No wake is lost: two loops whose moments of going to sleep meet the other's operations."""

from __future__ import annotations

import asyncio
import hashlib
import random
import threading
import time
from typing import Any

from aio.kinds import Kind
from support.actors import ProcessActor
from support.scale import rounds


def busy_wait(seconds: float) -> None:
    """Does not sleep: the moment matters, and a timer would blur it."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_a_dialogue_whose_answers_come_at_every_moment(kind: Kind) -> None:
    """A loop tries for 50 us before it sleeps: the answers come before, while and after that."""
    there, here = kind.make(), kind.make()
    count = rounds(500)
    seed = random.randrange(2**32)

    def answer() -> int:
        kind.close(there[1])
        kind.close(here[0])
        choose = random.Random(seed)
        got = 0
        while data := kind.read(there[0], 1):
            busy_wait(choose.uniform(0, 120e-6))
            kind.write(here[1], data)
            got += 1
        return got

    actor = ProcessActor(answer)
    kind.close(there[0])
    kind.close(here[1])

    async def main() -> None:
        reader = await kind.open_reader(here[0])
        writer = await kind.open_writer(there[1])
        for number in range(count):
            byte = bytes([number & 255])
            writer.write(byte)
            assert await reader.readexactly(1) == byte, f"seed {seed}"
        writer.close()
        assert await reader.read() == b""
        await writer.wait_closed()

    try:
        kind.run(main())
        assert actor.result() == count
    finally:
        actor.dispose()


def test_a_writer_whose_reader_makes_room_at_every_moment(kind: Kind) -> None:
    raw, end = kind.make()
    seed = random.randrange(2**32)
    total = rounds(150) * 16_384

    def drain() -> str:
        kind.close(end)
        choose = random.Random(seed)
        digest = hashlib.sha256()
        while data := kind.read(raw, choose.choice((1, 4096, 5000, 65536))):
            digest.update(data)
            if len(data) > 1:
                busy_wait(choose.uniform(0, 120e-6))
        return digest.hexdigest()

    actor = ProcessActor(drain)
    kind.close(raw)
    sent = random.Random(seed).randbytes(total)

    async def main() -> None:
        writer = await kind.open_writer(end)
        writer.transport.set_write_buffer_limits(high=0)
        for at in range(0, total, 16_384):
            writer.write(sent[at : at + 16_384])
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    try:
        kind.run(main())
        assert actor.result() == hashlib.sha256(sent).hexdigest(), f"seed {seed}"
    finally:
        actor.dispose()


def test_two_loops_in_two_threads(kind: Kind) -> None:
    there, here = kind.make(), kind.make()
    failures: list[BaseException] = []

    def answer() -> None:
        async def echo() -> None:
            reader = await kind.open_reader(there[0])
            writer = await kind.open_writer(here[1])
            while data := await reader.read(3000):
                writer.write(data)
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        try:
            kind.run(echo())
        except BaseException as error:
            failures.append(error)

    async def main() -> Any:
        reader = await kind.open_reader(here[0])
        writer = await kind.open_writer(there[1])
        sent = random.randbytes(1_000_000)

        async def produce() -> None:
            for at in range(0, len(sent), 5000):
                writer.write(sent[at : at + 5000])
                await writer.drain()
            writer.close()
            await writer.wait_closed()

        got, _ = await asyncio.gather(reader.read(), produce())
        return got == sent

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        assert kind.run(main())
    finally:
        thread.join(10)
    assert not failures


def test_streams_that_wait_use_no_processor(kind: Kind) -> None:
    idle_reader, idle_writer = kind.make(), kind.make()

    async def main() -> float:
        reader = await kind.open_reader(idle_reader[0])
        writer = await kind.open_writer(idle_writer[1])
        writer.write(bytes(300_000))
        waiting = [asyncio.create_task(reader.read(1)), asyncio.create_task(writer.drain())]
        await asyncio.sleep(0.01)
        before = time.process_time()
        await asyncio.sleep(0.3)
        used = time.process_time() - before
        kind.close(idle_reader[1])
        kind.close(idle_writer[0])
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(0)
        return used

    assert kind.run(main()) < 0.1  # one that tried again and again would use 0.3 s
