"""epoll beyond one descriptor in one set: rules PL-1, PL-3, PL-10, PL-11, PL-13, PL-14."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF, End
from conformance.marks import NONBLOCK
from conformance.sigio import POLL_IN, arm, caught
from support.actors import Actor, ProcessActor
from support.signals import Probe

Spawn = Callable[..., Actor]
SpawnProcess = Callable[..., ProcessActor]

ET, ONESHOT = select.EPOLLET, select.EPOLLONESHOT
IN, OUT = select.EPOLLIN, select.EPOLLOUT
HUP, ERR = select.EPOLLHUP, select.EPOLLERR

both_triggers = pytest.mark.parametrize("trigger", [0, ET], ids=["level", "edge"])


@pytest.fixture
def poller() -> Iterator[select.epoll]:
    with select.epoll() as made:
        yield made


def events(poller: select.epoll) -> list[int]:
    """Those of now."""
    return [event for _, event in poller.poll(0)]


@both_triggers
def test_PL_01_epoll_tells_of_hup_and_err_unasked(
    pipes: Pipes, poller: select.epoll, trigger: int
) -> None:
    for kept in ("reader", "writer"):
        reader, writer = pipes.make(NONBLOCK)
        mine, other = (reader, writer) if kept == "reader" else (writer, reader)
        poller.register(mine.fileno(), trigger)
        assert events(poller) == []
        writer.write(b"x")
        assert events(poller) == [], "not asked for"
        other.close()
        expected = HUP if kept == "reader" else ERR
        assert events(poller) == [expected]
        assert events(poller) == ([] if trigger else [expected])
        poller.unregister(mine.fileno())


@both_triggers
def test_PL_05_both_ends_in_one_set(pipes: Pipes, poller: select.epoll, trigger: int) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=2)
    names = {reader.fileno(): "reader", writer.fileno(): "writer"}
    poller.register(reader.fileno(), IN | trigger)
    poller.register(writer.fileno(), OUT | trigger)

    def seen() -> dict[str, int]:
        return {names[fd]: event for fd, event in poller.poll(0)}

    level = trigger == 0
    assert seen() == {"writer": OUT}
    writer.write(bytes(PIPE_BUF))
    assert seen() == ({"reader": IN, "writer": OUT} if level else {"reader": IN})
    writer.write(bytes(PIPE_BUF))
    assert seen() == {"reader": IN}
    assert seen() == ({"reader": IN} if level else {})
    reader.read(PIPE_BUF)
    assert seen() == ({"reader": IN, "writer": OUT} if level else {"writer": OUT})
    reader.read(PIPE_BUF)
    assert seen() == ({"writer": OUT} if level else {})


def test_PL_10_a_write_that_waits_in_a_pipe_with_data_is_no_event_yet(
    pipes: Pipes, poller: select.epoll, spawn: Spawn
) -> None:
    reader, writer = pipes.make(slots=4)
    writer.write(bytes(PIPE_BUF))
    poller.register(reader.fileno(), IN | ET)
    assert events(poller) == [IN]
    actor = spawn(lambda: writer.write(bytes(5 * PIPE_BUF)), keep=writer)
    for _ in range(2):
        actor.wait_blocked()
        assert events(poller) == [], "it has added something, but the pipe was not empty"
        reader.read(PIPE_BUF)
    assert actor.result() == 5 * PIPE_BUF
    assert events(poller) == [IN]


def test_PL_10_a_write_that_finds_the_pipe_emptied_is_an_event(
    pipes: Pipes, poller: select.epoll, spawn: Spawn
) -> None:
    reader, writer = pipes.make(slots=2)
    writer.write(bytes(PIPE_BUF))
    poller.register(reader.fileno(), IN | ET)
    assert events(poller) == [IN]
    actor = spawn(lambda: writer.write(bytes(5 * PIPE_BUF)), keep=writer)
    seen = []
    for _ in range(2):
        actor.wait_blocked()
        seen += events(poller)
        reader.read(2 * PIPE_BUF)  # everything
    assert actor.result() == 5 * PIPE_BUF
    assert [*seen, *events(poller)] == [IN, IN]


@pytest.mark.parametrize("begun", [False, True], ids=["nothing-written", "a-part-written"])
def test_PL_10_a_handler_that_ends_a_write_is_an_event(
    pipes: Pipes, processes: SpawnProcess, poller: select.epoll, probe: Probe, begun: bool
) -> None:
    reader, writer = pipes.make(slots=1)
    if not begun:
        writer.write(bytes(PIPE_BUF))
    poller.register(reader.fileno(), IN | ET)

    def body() -> Iterator[int]:
        probe.install(signal.SIGUSR1)
        signal.siginterrupt(signal.SIGUSR1, True)
        yield writer.write(bytes(2 * PIPE_BUF))

    actor = processes(body, keep=writer)
    actor.wait_blocked()
    assert events(poller) == [IN]
    actor.kill(signal.SIGUSR1)
    probe.wait_handled()
    if begun:
        assert actor.receive() == PIPE_BUF
    else:
        actor.wait_blocked()  # Python writes again (PEP 475)
    assert events(poller) == [IN]
    assert events(poller) == []


@pytest.mark.usefixtures("blocked")
def test_PL_10_with_a_signal_for_each_wait(
    pipes: Pipes, poller: select.epoll, spawn: Spawn
) -> None:
    # What the kernel tells SIGIO owners alone, shmpipe tells pollers, too (decision 0040).
    reader, writer = pipes.make(slots=1)
    writer.write(bytes(PIPE_BUF))
    arm(reader)
    poller.register(reader.fileno(), IN | ET)
    assert events(poller) == [IN]
    actor = spawn(lambda: writer.write(b"x"), keep=writer)
    actor.wait_blocked()
    assert caught() == [POLL_IN]
    assert events(poller) == ([IN] if pipes.backend.shm else [])
    reader.read(PIPE_BUF)
    assert actor.result() == 1
    assert caught() == [POLL_IN]
    assert events(poller) == [IN]


def test_PL_11_every_exclusive_waiter_hears_of_the_last_close(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()

    def body() -> list[int]:
        with select.epoll() as poller:
            poller.register(reader.fileno(), IN | select.EPOLLEXCLUSIVE)
            return [event for _, event in poller.poll()]

    actors = [spawn(body, keep=reader) for _ in range(3)]
    for actor in actors:
        actor.wait_blocked()
    writer.close()
    assert [actor.result() for actor in actors] == [[HUP]] * 3


@both_triggers
def test_PL_13_oneshot_of_the_write_end(pipes: Pipes, poller: select.epoll, trigger: int) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)
    wanted = OUT | ONESHOT | trigger
    poller.register(writer.fileno(), wanted)
    assert [events(poller), events(poller)] == [[OUT], []]
    writer.write(bytes(PIPE_BUF))
    reader.read(PIPE_BUF)
    assert events(poller) == [], "disabled"
    poller.modify(writer.fileno(), wanted)
    assert [events(poller), events(poller)] == [[OUT], []]
    writer.write(bytes(PIPE_BUF))
    poller.modify(writer.fileno(), wanted)
    assert events(poller) == [], "armed, and full"
    reader.read(PIPE_BUF)
    assert [events(poller), events(poller)] == [[OUT], []]


@both_triggers
def test_PL_13_oneshot_disables_hup_and_err_too(
    pipes: Pipes, poller: select.epoll, trigger: int
) -> None:
    for kept in ("reader", "writer"):
        reader, writer = pipes.make(NONBLOCK)
        mine, other = (reader, writer) if kept == "reader" else (writer, reader)
        poller.register(mine.fileno(), ONESHOT | trigger)
        other.close()
        expected = [HUP if kept == "reader" else ERR]
        assert [events(poller), events(poller)] == [expected, []]
        poller.modify(mine.fileno(), ONESHOT | trigger)
        assert [events(poller), events(poller)] == [expected, []]
        poller.unregister(mine.fileno())


def test_PL_13_removed_and_added_again(pipes: Pipes, poller: select.epoll) -> None:
    reader, writer = pipes.make(NONBLOCK)
    poller.register(reader.fileno(), IN | ET)
    writer.write(b"x")
    poller.unregister(reader.fileno())
    assert events(poller) == []
    poller.register(reader.fileno(), IN | ET)
    assert [events(poller), events(poller)] == [[IN], []]


def test_PL_14_duplicates_in_one_set_are_two_events(pipes: Pipes, poller: select.epoll) -> None:
    reader, writer = pipes.make(NONBLOCK)
    copy = os.dup(reader.fileno())
    try:
        for number in (reader.fileno(), copy):
            poller.register(number, IN | ET)
        for _ in range(3):
            writer.write(b"x")
            ready = poller.poll(0)
            assert sorted(ready) == sorted([(reader.fileno(), IN), (copy, IN)])
    finally:
        os.close(copy)


@both_triggers
def test_PL_14_sets_in_sets(pipes: Pipes, trigger: int) -> None:
    reader, writer = pipes.make(NONBLOCK)
    with select.epoll() as first, select.epoll() as second, select.epoll() as third:
        first.register(reader.fileno(), IN | trigger)
        second.register(first.fileno(), IN | trigger)
        third.register(second.fileno(), IN | trigger)
        assert events(third) == []
        writer.write(b"x")
        assert events(third) == [IN]
        assert events(second) == [IN]
        assert events(first) == [IN]
        assert events(first) == ([] if trigger else [IN])
        writer.write(b"x")
        assert events(third) == [IN]
        reader.read(2)
        assert events(first) == []
        assert events(third) == [], "nothing is left"


@pytest.mark.parametrize("depth", [2, 4])
def test_PL_14_a_sleeper_in_nested_sets_is_woken(pipes: Pipes, spawn: Spawn, depth: int) -> None:
    reader, writer = pipes.make()

    def body() -> int:
        sets = [select.epoll() for _ in range(depth)]
        number = reader.fileno()
        for each in sets:
            each.register(number, IN | ET)
            number = each.fileno()
        event = sets[-1].poll()[0][1]
        for each in sets:
            each.close()
        return event

    for way in ("write", "close"):
        actor = spawn(body, keep=reader)
        actor.wait_blocked()
        writer.write(b"x") if way == "write" else writer.close()
        assert actor.result() == IN, "the set has something; HUP is in the innermost"
        if way == "write":
            reader.read(1)


def test_PL_03_select_after_each_step(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)

    def sets() -> tuple[bool, bool, bool]:
        both = [reader.fileno(), writer.fileno()]
        readable, writable, exceptional = select.select(both, both, both, 0)
        assert not set(readable) - {reader.fileno()}
        assert not set(writable) - {writer.fileno()}
        return bool(readable), bool(writable), bool(exceptional)

    assert sets() == (False, True, False)
    writer.write(b"x")
    assert sets() == (True, False, False), "the only slot is used"
    writer.write(b"y")
    assert sets() == (True, False, False), "and could have more"
    reader.read(1)
    assert sets() == (True, False, False)
    reader.read(1)
    assert sets() == (False, True, False)


def test_PL_11_each_of_many_sleepers(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(bytes(PIPE_BUF))

    def waits(end: End, wanted: int) -> Callable[[], int]:
        def body() -> int:
            with select.epoll() as poller:
                poller.register(end.fileno(), wanted)
                return poller.poll()[0][1]

        return body

    actors = [spawn(waits(writer, OUT | trigger), keep=writer) for trigger in (0, ET, ONESHOT)]
    for actor in actors:
        actor.wait_blocked()
    reader.close()
    assert [actor.result() for actor in actors] == [ERR] * 3
