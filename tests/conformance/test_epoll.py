"""Edge-triggered epoll: rules PL-6 to PL-8, PL-10 to PL-13, CP-8."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF, End
from conformance.marks import NONBLOCK, named_only
from support.actors import Actor

Spawn = Callable[..., Actor]

ET = select.EPOLLET
IN, OUT = select.EPOLLIN, select.EPOLLOUT
HUP, ERR = select.EPOLLHUP, select.EPOLLERR
ONESHOT = select.EPOLLONESHOT


class Edges:
    """An epoll with one end in it."""

    def __init__(self, end: End, events: int) -> None:
        self._epoll = select.epoll()
        self._descriptor = end.fileno()
        self._epoll.register(self._descriptor, events)

    def now(self) -> int:
        """The events since the last question (0: none)."""
        ready = self._epoll.poll(0)
        return ready[0][1] if ready else 0

    def modify(self, events: int) -> None:
        self._epoll.modify(self._descriptor, events)

    def close(self) -> None:
        self._epoll.close()


Watch = Callable[[End, int], Edges]


@pytest.fixture
def watch(pipes: Pipes) -> Iterator[Watch]:
    """watch(end, events): closed before the pipes are."""
    made: list[Edges] = []

    def start(end: End, events: int) -> Edges:
        made.append(Edges(end, events | ET))
        return made[-1]

    yield start
    for edges in made:
        edges.close()


def test_PL_06_every_write_is_an_event(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)
    assert edges.now() == 0
    for size in (1, 1, 100, 4096, 5000, 1):
        writer.write(b"x" * size)
        assert edges.now() == IN, "also when the pipe was readable before"
        assert edges.now() == 0


def test_PL_06_a_hundred_writes_without_a_read(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)
    events = 0
    for _ in range(100):
        writer.write(b"x")
        events += edges.now() == IN
    assert events == 100


def test_PL_06_several_writes_fold_into_one_event(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)
    for _ in range(3):
        writer.write(b"x")
    assert [edges.now(), edges.now()] == [IN, 0]


def test_PL_06_an_empty_write_is_none(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)
    writer.write(b"")
    writer.writev([b"", b""])
    assert edges.now() == 0


def test_PL_06_a_write_that_finds_no_room_is_an_event_too(pipes: Pipes, watch: Watch) -> None:
    # Nothing was added, but the kernel wakes the pollers at the end of every write() that
    # got as far as the ring, once somebody has polled.
    reader, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"x" * PIPE_BUF)
    edges = watch(reader, IN)
    assert edges.now() == IN, "what was there when it began to look"
    with pytest.raises(BlockingIOError):
        writer.write(b"y")
    assert [edges.now(), edges.now()] == [IN, 0]


def test_PL_06_writes_of_another_process(pipes: Pipes, watch: Watch, spawn: Spawn) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)

    def body() -> Iterator[int]:
        for _ in range(5):
            yield writer.write(b"x")

    actor = spawn(body, keep=writer)
    for _ in range(5):
        assert actor.receive() == 1
        assert [edges.now(), edges.now()] == [IN, 0]
        actor.go()
    actor.result()


def test_PL_07_a_partial_read_is_no_event(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)
    writer.write(b"x" * 5000)
    assert edges.now() == IN
    for count in (1, 4095, 100):
        reader.read(count)
        assert edges.now() == 0


def test_PL_07_data_drained_before_the_wait_is_no_event(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)
    writer.write(b"xyz")
    reader.read(3)
    assert edges.now() == 0
    writer.write(b"x")
    assert edges.now() == IN


def test_PL_08_the_write_end_has_events_only_on_full_to_not_full(
    pipes: Pipes, watch: Watch
) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=4)
    edges = watch(writer, OUT)
    assert edges.now() == OUT
    writer.write(b"x" * 100)
    assert edges.now() == 0, "a write is no event"
    reader.read(50)
    assert edges.now() == 0, "a read from a pipe that was not full is none"
    writer.fill(PIPE_BUF)
    assert edges.now() == 0
    reader.read(50)
    assert edges.now() == OUT, "the first slot is free"
    reader.read(PIPE_BUF)
    assert edges.now() == 0, "the second is no event"


def test_PL_08_reading_without_freeing_a_slot_is_no_event(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=2)
    edges = watch(writer, OUT)
    writer.fill(PIPE_BUF)
    edges.now()
    reader.read(PIPE_BUF - 1)
    assert edges.now() == 0
    reader.read(1)
    assert edges.now() == OUT


def test_PL_08_full_and_not_full_again_and_again(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=2)
    edges = watch(writer, OUT)
    edges.now()
    for _ in range(20):
        writer.fill(PIPE_BUF)
        assert edges.now() == 0
        reader.read(PIPE_BUF)
        assert [edges.now(), edges.now()] == [OUT, 0]


def test_PL_10_a_big_write_is_one_event(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)
    writer.write(b"x" * 16 * PIPE_BUF)
    assert [edges.now(), edges.now()] == [IN, 0]


def test_PL_10_a_big_write_is_an_event_before_each_sleep(
    pipes: Pipes, watch: Watch, spawn: Spawn
) -> None:
    reader, writer = pipes.make(slots=1)
    edges = watch(reader, IN)
    actor = spawn(lambda: writer.write(b"x" * 4 * PIPE_BUF), keep=writer)
    events = 0
    for _ in range(4):
        actor.settle()
        events += edges.now() == IN
        assert edges.now() == 0
        reader.read(PIPE_BUF)
    assert actor.result() == 4 * PIPE_BUF
    assert events == 4


def test_PL_11_the_last_writer_gives_one_hup(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make()
    edges = watch(reader, IN)
    writer.close()
    assert [edges.now(), edges.now()] == [HUP, 0]


def test_PL_11_the_last_reader_gives_one_err(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.fill(PIPE_BUF)
    edges = watch(writer, OUT)
    assert edges.now() == 0
    reader.close()
    assert [edges.now(), edges.now()] == [ERR, 0]


def test_PL_11_a_sleeper_in_epoll_wait_is_woken(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()

    def body() -> int:
        with select.epoll() as poller:
            poller.register(reader.fileno(), IN | ET)
            return poller.poll()[0][1]

    actors = [spawn(body, keep=reader) for _ in range(2)]
    for actor in actors:
        actor.wait_blocked()
    writer.close()
    assert [actor.result() for actor in actors] == [HUP] * 2


@named_only
def test_PL_12_a_fifo_reader_gets_a_hup_each_time_the_writers_leave(
    pipes: Pipes, watch: Watch
) -> None:
    name = pipes.create()
    reader = pipes.open(name, "r", NONBLOCK)
    edges = watch(reader, IN)
    assert edges.now() == 0
    for _ in range(2):
        writer = pipes.open(name, "w")
        assert edges.now() == 0, "an opening writer is no event"
        writer.close()
        assert [edges.now(), edges.now()] == [HUP, 0]


def test_PL_13_oneshot(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN | ONESHOT)
    writer.write(b"x")
    assert edges.now() == IN
    writer.write(b"x")
    assert edges.now() == 0, "disabled until it is armed again"
    edges.modify(IN | ET | ONESHOT)
    assert edges.now() == IN


def test_PL_13_modify_reports_what_is_there(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)
    writer.write(b"x")
    assert edges.now() == IN
    edges.modify(IN | ET)
    assert edges.now() == IN


def test_PL_13_adding_reports_what_is_there(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.write(b"x")
    assert watch(reader, IN).now() == IN
    assert watch(writer, OUT).now() == OUT


def test_PL_14_two_epolls_get_the_same_event(pipes: Pipes, watch: Watch) -> None:
    reader, writer = pipes.make(NONBLOCK)
    first, second = watch(reader, IN), watch(reader, IN)
    for _ in range(3):
        writer.write(b"x")
        assert (first.now(), second.now()) == (IN, IN)


def test_CP_08_a_resize_is_a_spurious_event_on_the_write_end(pipes: Pipes, watch: Watch) -> None:
    _, writer = pipes.make(NONBLOCK)
    edges = watch(writer, OUT)
    assert [edges.now(), edges.now()] == [OUT, 0]
    writer.resize(writer.capacity())
    assert [edges.now(), edges.now()] == [OUT, 0]


def test_PL_the_events_of_a_long_exchange(pipes: Pipes, watch: Watch) -> None:
    # The way event loops use a pipe: drain to EAGAIN on each event; nothing may be missed.
    reader, writer = pipes.make(NONBLOCK)
    edges = watch(reader, IN)
    sent, received = bytearray(), bytearray()
    for index in range(300):
        data = os.urandom(1 + index * 37 % 6000)
        sent += data[: writer.write(data)]
        assert edges.now() == IN
        try:
            while piece := reader.read(1000):
                received += piece
        except BlockingIOError:
            pass
        assert edges.now() == 0
    assert received == sent
