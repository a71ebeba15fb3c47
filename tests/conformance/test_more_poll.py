"""Sets of descriptors: rules PL-1, PL-5, PL-8, PL-10, PL-14, and signals while waiting (SG-1)."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF
from conformance.marks import NONBLOCK
from support.actors import Actor, ProcessActor, quiesce
from support.signals import InterruptedByTest, Probe, raise_interrupted

Spawn = Callable[..., Actor]
SpawnProcess = Callable[..., ProcessActor]


def test_PL_01_a_closed_descriptor_is_nval(pipes: Pipes) -> None:
    for end in pipes.make():
        number = end.fileno()
        poller = select.poll()
        poller.register(number, 0)
        end.close()
        assert poller.poll(0) == [(number, select.POLLNVAL)]


def test_PL_05_a_duplicate_keeps_a_closed_descriptor_in_the_set(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    number = reader.fileno()
    copy = os.dup(number)
    try:
        with select.epoll() as poller:
            poller.register(number, select.EPOLLIN)
            reader.close()
            writer.write(b"x")
            assert poller.poll(0) == [(number, select.EPOLLIN)]
            os.close(copy)
            copy = -1
            assert poller.poll(0) == []
    finally:
        if copy >= 0:
            os.close(copy)


def test_PL_05_a_duplicate_counts_as_a_reader(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    copy = os.dup(reader.fileno())
    try:
        reader.close()
        assert writer.write(b"x") == 1
    finally:
        os.close(copy)
    with pytest.raises(BrokenPipeError):
        writer.write(b"x")


def test_PL_14_exclusive_wakes_one_of_several(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()

    def body() -> list[tuple[int, int]]:
        with select.epoll() as poller:
            poller.register(reader.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE)
            return poller.poll()

    actors = [spawn(body, keep=reader) for _ in range(3)]
    for actor in actors:
        actor.wait_blocked()
    for _ in range(3):
        writer.write(b"x")
        woken = quiesce(actors)
        assert len(woken) == 1
        assert woken[0].result() == [(reader.fileno(), select.EPOLLIN)]
        actors.remove(woken[0])


@pytest.mark.parametrize("way", ["poll", "select", "epoll"])
def test_SG_01_a_wait_goes_on_after_a_handler(
    pipes: Pipes, processes: SpawnProcess, probe: Probe, way: str
) -> None:
    reader, writer = pipes.make()

    def body() -> bool:
        probe.install(signal.SIGUSR1)
        return wait_for(reader.fileno(), way)

    actor = processes(body, keep=reader)
    for _ in range(2):
        actor.wait_blocked()
        actor.kill(signal.SIGUSR1)
        probe.wait_handled()
    actor.wait_blocked()
    writer.write(b"x")
    assert actor.result()


@pytest.mark.parametrize("way", ["poll", "select", "epoll"])
def test_SG_01_a_raising_handler_ends_a_wait(
    pipes: Pipes, processes: SpawnProcess, probe: Probe, way: str
) -> None:
    reader, _ = pipes.make()

    def body() -> None:
        probe.install(signal.SIGUSR1, raise_interrupted)
        wait_for(reader.fileno(), way)

    actor = processes(body, keep=reader)
    actor.wait_blocked()
    actor.kill(signal.SIGUSR1)
    with pytest.raises(InterruptedByTest):
        actor.result()


def wait_for(number: int, way: str) -> bool:
    if way == "select":
        return bool(select.select([number], [], [])[0])
    if way == "poll":
        poller = select.poll()
        poller.register(number, select.POLLIN)
        return bool(poller.poll())
    with select.epoll() as waiting:
        waiting.register(number, select.EPOLLIN)
        return bool(waiting.poll())


def test_PL_10_a_writer_that_must_wait_from_the_start_is_no_event(
    pipes: Pipes, spawn: Spawn
) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(bytes(PIPE_BUF))
    with select.epoll() as poller:
        poller.register(reader.fileno(), select.EPOLLIN | select.EPOLLET)
        assert poller.poll(0) == [(reader.fileno(), select.EPOLLIN)]
        actor = spawn(lambda: writer.write(b"x"), keep=writer)
        actor.wait_blocked()
        assert poller.poll(0) == [], "nothing was added"
        assert reader.read(PIPE_BUF) == bytes(PIPE_BUF)
        assert actor.result() == 1
        assert poller.poll(0) == [(reader.fileno(), select.EPOLLIN)]


def test_PL_08_a_writer_that_still_waits_is_no_event_for_writers(
    pipes: Pipes, spawn: Spawn
) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(bytes(PIPE_BUF))
    actor = spawn(lambda: writer.write(bytes(2 * PIPE_BUF)), keep=writer)
    actor.wait_blocked()
    with select.epoll() as poller:
        poller.register(writer.fileno(), select.EPOLLOUT | select.EPOLLET)
        assert poller.poll(0) == []
        reader.read(100)
        assert poller.poll(0) == [], "no slot was freed"
    reader.read_exactly(3 * PIPE_BUF - 100)
    assert actor.result() == 2 * PIPE_BUF
