"""Who is woken by what, and who is not: rules WK-1 to WK-11.

That somebody was *not* woken is proven without waiting: he sleeps in the same call as
before, and the count of his voluntary context switches has not moved.
"""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF, End
from conformance.marks import NONBLOCK, named_only
from support.actors import Actor, ProcessActor, quiesce
from support.errors import fails_with

Spawn = Callable[..., Actor]
SpawnProcess = Callable[..., ProcessActor]


def blocked_readers(spawn: Spawn, reader: End, count: int, size: int = 1) -> list[Actor]:
    """Readers that went to sleep one after the other."""
    actors = []
    for _ in range(count):
        actors.append(spawn(lambda: reader.read(size), keep=reader))
        actors[-1].wait_blocked()
    return actors


def staying(operation: Callable[[], object]) -> Callable[[], Iterator[object]]:
    """The body of an actor that does one operation and then lives on until go().

    A process that ends after its operation rings at the other sleepers of a shmpipe: their
    order and their rest are tested with and without that.
    """

    def body() -> Iterator[object]:
        yield operation()

    return body


def blocked_writers(spawn: Spawn, writer: End, count: int, size: int = 1) -> list[Actor]:
    """Writers on a full pipe that went to sleep one after the other."""
    actors = []
    for _ in range(count):
        actors.append(spawn(lambda: writer.write(b"w" * size), keep=writer))
        actors[-1].wait_blocked()
    return actors


def polling(end: End, events: int) -> Callable[[], int]:
    """The body of an actor that sleeps in poll()."""

    def body() -> int:
        poller = select.poll()
        poller.register(end.fileno(), events)
        return poller.poll()[0][1]

    return body


def test_WK_01_a_write_wakes_one_of_several_readers(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    actors = blocked_readers(spawn, reader, 3, size=10)
    before = [actor.context_switches() for actor in actors]
    writer.write(b"x")
    done = quiesce(actors)
    assert [actor.result() for actor in done] == [b"x"]
    for actor, switches in zip(actors, before, strict=True):
        if actor not in done:
            assert actor.context_switches() == switches, "exclusive: nobody else was disturbed"
    writer.close()
    assert [actor.result() for actor in actors if actor not in done] == [b"", b""]


def test_WK_01_a_write_wakes_all_pollers(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    actors = [spawn(polling(reader, select.POLLIN), keep=reader) for _ in range(3)]
    for actor in actors:
        actor.wait_blocked()
    writer.write(b"x")
    assert [actor.result() for actor in actors] == [select.POLLIN] * 3


def test_WK_01_pollers_and_readers_are_both_woken(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    pollers = [spawn(polling(reader, select.POLLIN), keep=reader) for _ in range(3)]
    for actor in pollers:
        actor.wait_blocked()
    readers = blocked_readers(spawn, reader, 3)
    writer.write(b"x" * 10)
    assert [actor.result() for actor in readers] == [b"x"] * 3
    assert [actor.result() for actor in pollers] == [select.POLLIN] * 3
    assert reader.pending() == 7


def test_WK_01_a_read_wakes_one_writer_and_all_pollers(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=2)
    writer.write(b"f" * 2 * PIPE_BUF)
    pollers = [spawn(polling(writer, select.POLLOUT), keep=writer) for _ in range(2)]
    for actor in pollers:
        actor.wait_blocked()
    writers = blocked_writers(spawn, writer, 3, size=PIPE_BUF)
    reader.read(PIPE_BUF)
    done = quiesce(writers)
    assert len(done) == 1
    assert done[0].result() == PIPE_BUF
    rest = [actor for actor in writers if actor not in done]
    while rest or not all(actor.finished() for actor in pollers):
        # The writer may have taken the room before a poller looked: give it more.
        reader.read(2 * PIPE_BUF)
        for actor in quiesce(rest):
            assert actor.result() == PIPE_BUF
            rest.remove(actor)
        quiesce(pollers)
    assert [actor.result() for actor in pollers] == [select.POLLOUT] * 2


def test_WK_02_a_write_into_a_filled_pipe_still_serves_a_sleeper(
    pipes: Pipes, spawn: Spawn
) -> None:
    # No edge is lost between the reader that slept and the second write.
    reader, writer = pipes.make()
    actor = blocked_readers(spawn, reader, 1, size=2)[0]
    writer.write(b"a")
    writer.write(b"b")
    first = actor.result()
    assert first in (b"a", b"ab")
    assert first + (reader.read(2) if first == b"a" else b"") == b"ab"


def test_WK_03_readers_hand_on(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    actors = blocked_readers(spawn, reader, 5)
    writer.write(b"1")
    assert len(quiesce(actors)) == 1
    writer.write(b"23")
    assert len(quiesce(actors)) == 3
    writer.write(b"45")
    assert sorted(actor.result() for actor in actors) == [b"1", b"2", b"3", b"4", b"5"]


def test_WK_03_writers_hand_on(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=2)
    writer.write(b"f" * 2 * PIPE_BUF)
    actors = blocked_writers(spawn, writer, 3)
    assert len(reader.read(2 * PIPE_BUF)) == 2 * PIPE_BUF
    # One wake for the read, one handed on; a slot each, and the third finds none.
    assert len(quiesce(actors)) == 2
    assert reader.read(9) == b"ww"
    assert [actor.result() for actor in actors] == [1, 1, 1]


def test_WK_04_sleeping_readers_are_served_in_order(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    actors = blocked_readers(spawn, reader, 4)
    for index, actor in enumerate(actors):
        writer.write(bytes([index]))
        assert quiesce(actors[index:]) == [actor]
        assert actor.result() == bytes([index])


def test_WK_04_sleeping_writers_are_served_in_order(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actors = blocked_writers(spawn, writer, 4, size=PIPE_BUF)
    for index, actor in enumerate(actors):
        assert len(reader.read(PIPE_BUF)) == PIPE_BUF
        assert quiesce(actors[index:]) == [actor]
        assert actor.result() == PIPE_BUF


def test_WK_04_order_of_readers_that_live_on(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    actors = []
    for _ in range(4):
        actors.append(spawn(staying(lambda: reader.read(1)), keep=reader))
        actors[-1].wait_blocked()
    before = [actor.context_switches() for actor in actors]
    for index, actor in enumerate(actors):
        writer.write(bytes([index]))
        assert quiesce(actors[index:]) == [actor]
        assert actor.receive() == bytes([index])
        for other, switches in list(zip(actors, before, strict=True))[index + 1 :]:
            assert other.context_switches() == switches, "exclusive: nobody else was disturbed"
    for actor in actors:
        actor.go()
        actor.result()


def test_WK_04_order_of_writers_that_live_on(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actors = []
    for _ in range(4):
        actors.append(spawn(staying(lambda: writer.write(b"w" * PIPE_BUF)), keep=writer))
        actors[-1].wait_blocked()
    for index, actor in enumerate(actors):
        assert len(reader.read(PIPE_BUF)) == PIPE_BUF
        assert quiesce(actors[index:]) == [actor]
        assert actor.receive() == PIPE_BUF
    for actor in actors:
        actor.go()
        actor.result()


def test_WK_04_newcomers_wake_one_reader_each_in_order(
    pipes: Pipes, spawn: Spawn, processes: SpawnProcess
) -> None:
    # Processes that came when the sleepers slept already: each write is its process's first.
    reader, writer = pipes.make()
    actors: list[Actor] = []
    newcomers: list[Actor] = []
    for _ in range(3):
        actors.append(spawn(staying(lambda: reader.read(1)), keep=reader))
        actors[-1].wait_blocked()
    before = [actor.context_switches() for actor in actors]
    for index, actor in enumerate(actors):
        write = partial(writer.write, bytes([index]))
        newcomers.append(processes(staying(write), keep=writer))
        assert newcomers[-1].receive() == 1
        assert quiesce(actors[index:]) == [actor]
        assert actor.receive() == bytes([index])
        for other, switches in list(zip(actors, before, strict=True))[index + 1 :]:
            assert other.context_switches() == switches, "exclusive: nobody else was disturbed"
    for actor in actors + newcomers:
        actor.go()
        actor.result()


def test_WK_04_newcomers_wake_one_writer_each_in_order(
    pipes: Pipes, spawn: Spawn, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actors: list[Actor] = []
    newcomers: list[Actor] = []
    for _ in range(3):
        actors.append(spawn(staying(lambda: writer.write(b"w" * PIPE_BUF)), keep=writer))
        actors[-1].wait_blocked()
    before = [actor.context_switches() for actor in actors]
    for index, actor in enumerate(actors):
        newcomers.append(processes(staying(lambda: len(reader.read(PIPE_BUF))), keep=reader))
        assert newcomers[-1].receive() == PIPE_BUF
        assert quiesce(actors[index:]) == [actor]
        assert actor.receive() == PIPE_BUF
        for other, switches in list(zip(actors, before, strict=True))[index + 1 :]:
            assert other.context_switches() == switches, "exclusive: nobody else was disturbed"
    for actor in actors + newcomers:
        actor.go()
        actor.result()


def test_WK_04_order_of_long_waits(pipes: Pipes, processes: SpawnProcess) -> None:
    # Time is what is tested: nobody may get up by himself, and then stand behind the others.
    reader, writer = pipes.make()
    actors = []
    for _ in range(2):
        actors.append(processes(staying(lambda: reader.read(1)), keep=reader))
        actors[-1].wait_blocked()
        time.sleep(0.6)
    for index, actor in enumerate(actors):
        writer.write(bytes([index]))
        assert actor.receive() == bytes([index])
    for actor in actors:
        actor.go()
        actor.result()


def test_WK_05_a_read_that_frees_no_slot_wakes_nobody(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=2)
    writer.write(b"f" * 2 * PIPE_BUF)
    actor = blocked_writers(spawn, writer, 1)[0]
    switches = actor.context_switches()
    assert len(reader.read(100)) == 100
    actor.wait_blocked()
    assert actor.context_switches() == switches
    assert len(reader.read(PIPE_BUF - 100)) == PIPE_BUF - 100
    assert actor.result() == 1


@pytest.mark.parametrize("slots", [2, 16])
def test_WK_06_the_first_free_slot_is_enough(pipes: Pipes, spawn: Spawn, slots: int) -> None:
    reader, writer = pipes.make(slots=slots)
    writer.write(b"f" * slots * PIPE_BUF)
    actor = blocked_writers(spawn, writer, 1, size=PIPE_BUF)[0]
    reader.read(PIPE_BUF)
    assert actor.result() == PIPE_BUF


@pytest.mark.parametrize("count", [2, 10, 27])
def test_WK_08_the_last_writer_releases_all_readers(pipes: Pipes, spawn: Spawn, count: int) -> None:
    reader, writer = pipes.make()
    actors = blocked_readers(spawn, reader, count)
    writer.close()
    assert [actor.result() for actor in actors] == [b""] * count


@pytest.mark.parametrize("count", [2, 10])
def test_WK_08_the_last_reader_releases_all_writers(pipes: Pipes, spawn: Spawn, count: int) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actors = blocked_writers(spawn, writer, count)
    reader.close()
    for actor in actors:
        with fails_with(errno.EPIPE):
            actor.result()
        actor.reap()


@named_only
def test_WK_08_one_of_several_writers_wakes_nobody(pipes: Pipes, spawn: Spawn) -> None:
    name = pipes.create()
    reader = pipes.open(name, "r", NONBLOCK)
    writers = [pipes.open(name, "w") for _ in range(3)]
    reader.set_flag(NONBLOCK, False)
    actors = blocked_readers(spawn, reader, 2)
    for writer in writers[:2]:
        before = [actor.context_switches() for actor in actors]
        writer.close()
        assert quiesce(actors) == []
        assert [actor.context_switches() for actor in actors] == before
    writers[2].close()
    assert [actor.result() for actor in actors] == [b"", b""]


@named_only
def test_WK_08_one_of_several_readers_wakes_nobody(pipes: Pipes, spawn: Spawn) -> None:
    name = pipes.create()
    readers = [pipes.open(name, "r", NONBLOCK) for _ in range(2)]
    writer = pipes.open(name, "w")
    writer.resize(PIPE_BUF)
    writer.write(b"f" * PIPE_BUF)
    actor = blocked_writers(spawn, writer, 1)[0]
    switches = actor.context_switches()
    readers[0].close()
    actor.wait_blocked()
    assert actor.context_switches() == switches
    readers[1].close()
    with fails_with(errno.EPIPE):
        actor.result()
    actor.reap()


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_WK_10_an_absent_reader_is_skipped(pipes: Pipes, processes: SpawnProcess, how: str) -> None:
    reader, writer = pipes.make()
    first, second = (processes(lambda: reader.read(1), keep=reader) for _ in range(2))
    first.wait_blocked()
    second.wait_blocked()
    if how == "stopped":
        first.stop()
    else:
        first.kill()
        first.wait_status()
    writer.write(b"1")
    assert second.result() == b"1"
    if how == "stopped":
        first.resume()
        writer.write(b"2")
        assert first.result() == b"2"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_WK_10_an_absent_writer_is_skipped(pipes: Pipes, processes: SpawnProcess, how: str) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    first, second = (
        processes(lambda byte=byte: writer.write(byte), keep=writer) for byte in (b"1", b"2")
    )
    first.wait_blocked()
    second.wait_blocked()
    if how == "stopped":
        first.stop()
    else:
        first.kill()
        first.wait_status()
    assert len(reader.read(PIPE_BUF)) == PIPE_BUF
    assert second.result() == 1
    assert reader.read(9) == b"2"
    if how == "stopped":
        first.resume()
        assert first.result() == 1
        assert reader.read(9) == b"1"


def test_WK_10_a_stopped_reader_does_not_keep_several_others_waiting(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make()
    actors = [processes(lambda: reader.read(1), keep=reader) for _ in range(4)]
    for actor in actors:
        actor.wait_blocked()
    actors[1].stop()
    writer.write(b"123")
    assert sorted(actors[i].result() for i in (0, 2, 3)) == [b"1", b"2", b"3"]
    actors[1].resume()
    writer.close()
    assert actors[1].result() == b""


def test_WK_11_a_big_write_continues_at_each_free_slot(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=8)
    writer.write(b"f" * 8 * PIPE_BUF)
    actor = blocked_writers(spawn, writer, 1, size=8 * PIPE_BUF)[0]
    for _ in range(2):
        assert reader.read(PIPE_BUF) == b"f" * PIPE_BUF
        assert quiesce([actor]) == []
        assert reader.pending() == 8 * PIPE_BUF, "the freed slot is filled at once"
    assert reader.read(6 * PIPE_BUF) == b"f" * 6 * PIPE_BUF
    assert actor.result() == 8 * PIPE_BUF
    assert reader.read_exactly(8 * PIPE_BUF) == b"w" * 8 * PIPE_BUF


def test_WK_11_the_reader_is_woken_before_the_writer_sleeps(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    read_all = spawn(lambda: reader.read_exactly(5 * PIPE_BUF), keep=reader)
    read_all.wait_blocked()
    write_all = spawn(lambda: writer.write(b"w" * 5 * PIPE_BUF), keep=writer)
    assert read_all.result() == b"w" * 5 * PIPE_BUF
    assert write_all.result() == 5 * PIPE_BUF


def test_CP_08_growing_wakes_a_writer(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actor = blocked_writers(spawn, writer, 1)[0]
    reader.resize(2 * PIPE_BUF)
    assert actor.result() == 1
    assert reader.read(3 * PIPE_BUF) == b"f" * PIPE_BUF + b"w"


def test_CP_08_growing_wakes_several_writers_by_hand_on(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actors = blocked_writers(spawn, writer, 3, size=PIPE_BUF)
    reader.resize(4 * PIPE_BUF)
    assert [actor.result() for actor in actors] == [PIPE_BUF] * 3


def test_CP_07_a_resize_under_a_sleeping_big_write(pipes: Pipes, spawn: Spawn) -> None:
    # The kernel once used a ring mask from before the sleep (R1-11).
    reader, writer = pipes.make(slots=2)
    data = b"".join(bytes([index]) * PIPE_BUF for index in range(40))
    actor = spawn(lambda: writer.write(data), keep=writer)
    received = b""
    for slots in (4, 2, 8, 4, 16):
        actor.wait_blocked()
        received += reader.read(PIPE_BUF * 3)
        actor.wait_blocked()
        if slots * PIPE_BUF >= reader.pending():
            assert reader.resize(slots * PIPE_BUF) == slots * PIPE_BUF
    received += reader.read_exactly(len(data) - len(received))
    assert received == data
    assert actor.result() == len(data)
