"""poll, select and level-triggered epoll: the state table and rules PL-1 to PL-5, PL-11."""

from __future__ import annotations

import os
import random
import select
from collections.abc import Callable

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF, End
from conformance.marks import NONBLOCK, both_modes, named_only
from support.actors import Actor

Spawn = Callable[..., Actor]

IN = select.POLLIN | select.POLLRDNORM
OUT = select.POLLOUT | select.POLLWRNORM
HUP = select.POLLHUP
ERR = select.POLLERR


@both_modes
def test_PL_state_empty(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    assert (reader.poll(), writer.poll()) == (0, OUT)


@both_modes
@pytest.mark.parametrize("size", [1, PIPE_BUF, 15 * PIPE_BUF])
def test_PL_state_some_slots_used(pipes: Pipes, flags: int, size: int) -> None:
    reader, writer = pipes.make(flags)
    writer.write(b"x" * size)
    assert (reader.poll(), writer.poll()) == (IN, OUT)


@pytest.mark.parametrize("size", [PIPE_BUF, 2049])
def test_PL_state_all_slots_used(pipes: Pipes, size: int) -> None:
    # With 2049 bytes in each slot the last one has merge room: not writable all the same.
    reader, writer = pipes.make(NONBLOCK)
    writer.fill(size)
    assert (reader.poll(), writer.poll()) == (IN, 0)


@both_modes
def test_PL_state_data_without_writers(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    writer.write(b"x")
    writer.close()
    assert reader.poll() == IN | HUP
    reader.read(1)
    assert reader.poll() == HUP


@both_modes
def test_PL_state_empty_without_writers(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    writer.close()
    assert reader.poll() == HUP


@both_modes
@pytest.mark.parametrize("size", [0, 1, PIPE_BUF])
def test_PL_state_room_without_readers(pipes: Pipes, flags: int, size: int) -> None:
    reader, writer = pipes.make(flags)
    writer.write(b"x" * size)
    reader.close()
    assert writer.poll() == OUT | ERR


def test_PL_state_full_without_readers(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.fill(PIPE_BUF)
    reader.close()
    assert writer.poll() == ERR


@named_only
def test_PL_state_nonblocking_reader_before_any_writer(pipes: Pipes) -> None:
    assert pipes.open(pipes.create(), "r", NONBLOCK).poll() == 0


@named_only
def test_PL_state_of_a_read_write_end(pipes: Pipes) -> None:
    both = pipes.open(pipes.create(), "r+", NONBLOCK)
    assert both.poll() == OUT
    both.write(b"x")
    assert both.poll() == IN | OUT
    both.fill(PIPE_BUF)
    assert both.poll() == IN


@both_modes
def test_PL_state_follows_every_step(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags, slots=2)
    assert (reader.poll(), writer.poll()) == (0, OUT)
    writer.write(b"x" * PIPE_BUF)
    assert (reader.poll(), writer.poll()) == (IN, OUT)
    writer.write(b"x" * 10)
    assert (reader.poll(), writer.poll()) == (IN, 0)
    reader.read(PIPE_BUF - 1)
    assert (reader.poll(), writer.poll()) == (IN, 0)
    reader.read(1)
    assert (reader.poll(), writer.poll()) == (IN, OUT)
    reader.read(10)
    assert (reader.poll(), writer.poll()) == (0, OUT)


def test_PL_state_written_before_anybody_looked(pipes: Pipes) -> None:
    # shmpipe's companion is kept in step only from the first look on: it must catch up.
    reader, writer = pipes.make(NONBLOCK)
    writer.fill(PIPE_BUF)
    reader.read(PIPE_BUF)
    assert (reader.poll(), writer.poll()) == (IN, OUT)


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_PL_state_after_a_resize(pipes: Pipes, slots: int) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=slots)
    writer.fill(PIPE_BUF)
    assert writer.poll() == 0
    reader.resize(2 * slots * PIPE_BUF)
    assert (reader.poll(), writer.poll()) == (IN, OUT)
    reader.resize(slots * PIPE_BUF)
    assert (reader.poll(), writer.poll()) == (IN, 0)


@both_modes
def test_PL_01_hup_and_err_come_unasked(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    assert (reader.poll(0), writer.poll(0)) == (0, 0)
    writer.close()
    assert reader.poll(0) == HUP
    reader, writer = pipes.make(flags)
    reader.close()
    assert writer.poll(0) == ERR


def test_PL_01_priority_and_rdhup_are_never_reported(pipes: Pipes) -> None:
    events = select.POLLPRI | select.POLLRDHUP | select.POLLRDBAND
    reader, writer = pipes.make(NONBLOCK)
    for _ in range(2):
        assert (reader.poll(events), writer.poll(events)) == (0, 0)
        writer.fill(PIPE_BUF)
    writer.close()
    assert reader.poll(events) == HUP


def test_PL_02_the_wrong_direction_is_never_ready(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    assert (reader.poll(OUT), writer.poll(IN)) == (0, 0)
    writer.write(b"x")
    assert (reader.poll(OUT), writer.poll(IN)) == (0, 0)


def chosen(end: End) -> tuple[bool, bool, bool]:
    """Whether select() finds an end in its read, write and except set."""
    ready = select.select([end.fileno()], [end.fileno()], [end.fileno()], 0)
    return bool(ready[0]), bool(ready[1]), bool(ready[2])


def test_PL_03_select_of_the_ordinary_states(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    assert (chosen(reader), chosen(writer)) == ((False, False, False), (False, True, False))
    writer.fill(PIPE_BUF)
    assert (chosen(reader), chosen(writer)) == ((True, False, False), (False, False, False))


def test_PL_03_hup_makes_the_read_set_ready(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    writer.close()
    assert chosen(reader) == (True, False, False)


@pytest.mark.parametrize("full", [False, True])
def test_PL_03_err_makes_both_sets_ready(pipes: Pipes, full: bool) -> None:
    reader, writer = pipes.make(NONBLOCK)
    if full:
        writer.fill(PIPE_BUF)
    reader.close()
    assert chosen(writer) == (True, True, False)


@pytest.mark.parametrize("seed", range(3))
def test_PL_04_pollout_means_that_a_page_fits(pipes: Pipes, seed: int) -> None:
    chance = random.Random(seed)
    reader, writer = pipes.make(NONBLOCK, slots=4)
    for _ in range(300):
        try:
            if chance.random() < 0.5:
                reader.read(chance.choice([1, 100, 4096, 9000]))
            elif writer.poll() & select.POLLOUT:
                assert writer.write(b"x" * PIPE_BUF) == PIPE_BUF
            else:
                writer.write(b"y" * chance.choice([1, 300, 5000]))
        except BlockingIOError:
            pass
        assert bool(reader.poll() & select.POLLIN) == (reader.pending() > 0)


@pytest.mark.parametrize("seed", range(3))
def test_PL_05_level_triggered_epoll_is_poll(pipes: Pipes, seed: int) -> None:
    chance = random.Random(seed)
    reader, writer = pipes.make(NONBLOCK, slots=2)
    mask = IN | OUT
    with select.epoll() as poller:
        poller.register(reader.fileno(), mask)
        poller.register(writer.fileno(), mask)
        for step in range(200):
            try:
                if step == 190:
                    writer.close()
                elif chance.random() < 0.5 or writer.closed:
                    reader.read(chance.choice([1, 100, 4096, 9000]))
                else:
                    writer.write(b"y" * chance.choice([1, 300, 4096, 5000]))
            except BlockingIOError:
                pass
            ends = [end for end in (reader, writer) if not end.closed]
            expected = {end.fileno(): end.poll() for end in ends if end.poll()}
            assert dict(poller.poll(0)) == expected


def test_PL_11_closing_the_last_writer_wakes_pollers(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()

    def body() -> int:
        poller = select.poll()
        poller.register(reader.fileno(), IN)
        return poller.poll()[0][1]

    actors = [spawn(body, keep=reader) for _ in range(3)]
    for actor in actors:
        actor.wait_blocked()
    writer.close()
    assert [actor.result() for actor in actors] == [HUP] * 3


def test_PL_11_closing_the_last_reader_wakes_pollers(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.fill(PIPE_BUF)

    def body() -> int:
        poller = select.poll()
        poller.register(writer.fileno(), OUT)
        return poller.poll()[0][1]

    actors = [spawn(body, keep=writer) for _ in range(3)]
    for actor in actors:
        actor.wait_blocked()
    reader.close()
    assert [actor.result() for actor in actors] == [ERR] * 3


def test_PL_a_poller_sees_what_another_process_does(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(NONBLOCK)
    assert reader.poll() == 0
    writing = spawn(lambda: writer.write(b"x" * 5000), keep=writer)
    assert writing.result() == 5000
    assert reader.poll() == IN
    reading = spawn(lambda: reader.read(9000), keep=reader)
    assert reading.result() == b"x" * 5000
    assert reader.poll() == 0


def test_PL_a_blocked_poller_is_woken_by_the_first_byte(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    sizes = [1, 4096, 20000]

    def body() -> list[int]:
        poller = select.poll()
        poller.register(reader.fileno(), IN)
        seen = []
        for size in sizes:
            assert poller.poll()[0][1] == IN
            seen.append(len(reader.read_exactly(size)))
        return seen

    actor = spawn(body, keep=reader)
    for size in sizes:
        actor.wait_blocked()
        writer.write(os.urandom(size))
    assert actor.result() == sizes
