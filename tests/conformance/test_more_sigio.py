"""Signal-driven I/O, as the companion passes it through: rules IO-1 to IO-9, IO-12 to IO-17."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from conformance.backends import Backend, Pipes
from conformance.ends import PIPE_BUF, End
from conformance.marks import NONBLOCK, named_only
from conformance.sigio import (
    F_GETOWN,
    F_GETOWN_EX,
    F_GETSIG,
    F_OWNER_PGRP,
    F_SETOWN,
    F_SETSIG,
    OWNER,
    POLL_IN,
    POLL_OUT,
    QUEUED,
    arm,
    caught,
)
from support.actors import ProcessActor, ThreadActor
from support.errors import fails_with

SpawnProcess = Callable[..., ProcessActor]
SpawnThread = Callable[..., ThreadActor]

pytestmark = pytest.mark.usefixtures("blocked")


def test_IO_01_without_an_owner_nothing_is_delivered(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    reader.fcntl(F_SETSIG, QUEUED)
    reader.set_flag(os.O_ASYNC)
    writer.write(b"x")
    assert caught() == caught(signal.SIGIO) == []


def test_IO_01_without_O_ASYNC_nothing_is_delivered(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    reader.set_flag(os.O_ASYNC, on=False)
    writer.write(b"x")
    assert caught() == []


def test_IO_02_every_write_also_when_there_is_something_to_read(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    for _ in range(5):
        writer.write(b"x")
    assert caught() == [POLL_IN] * 5


def test_IO_02_also_a_write_that_finds_no_room(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(bytes(PIPE_BUF))
    arm(reader)
    for _ in range(3):
        with fails_with(errno.EAGAIN):
            writer.write(b"x")
    assert caught() == [POLL_IN] * 3


def test_IO_02_but_no_empty_write(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    writer.write(b"")
    assert caught() == []


def test_IO_02_once_for_a_write_of_many_slots(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    writer.write(bytes(16 * PIPE_BUF))
    assert caught() == [POLL_IN]


def test_IO_03_every_read_also_when_it_frees_no_slot(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.write(b"abcdef")
    arm(writer)
    for _ in range(5):
        reader.read(1)
    assert caught() == [POLL_OUT] * 5


def test_IO_03_also_a_read_that_finds_nothing(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(writer)
    for _ in range(3):
        with fails_with(errno.EAGAIN):
            reader.read(1)
    assert caught() == [POLL_OUT] * 3


def test_IO_03_but_no_empty_read(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.write(b"x")
    arm(writer)
    assert reader.read(0) == b""
    assert caught() == []


def test_IO_04_a_blocking_write_signals_before_each_sleep(
    pipes: Pipes, threads: SpawnThread
) -> None:
    reader, writer = pipes.make(slots=1)
    arm(reader)
    actor = threads(lambda: writer.write(bytes(5 * PIPE_BUF)))
    seen = []
    for _ in range(4):
        actor.wait_blocked()
        seen.append(caught())
        reader.read(PIPE_BUF)
    assert actor.result() == 5 * PIPE_BUF
    assert [*seen, caught()] == [[POLL_IN]] * 5


def test_IO_05_the_last_writer_signals_the_reader(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    writer.close()
    assert caught() == [POLL_IN]


def test_IO_05_the_last_reader_signals_the_writer(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(writer)
    reader.close()
    assert caught() == [POLL_OUT]


def test_IO_05_a_killed_last_writer_signals_too(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    arm(reader)
    actor = processes(signal.pause, keep=writer)
    writer.close()
    assert caught() == [], "the child has it, too"
    actor.kill()
    actor.wait_status()
    assert caught() == [POLL_IN]


@named_only
def test_IO_05_one_of_two_writers_signals_nobody(pipes: Pipes) -> None:
    name = pipes.create()
    reader = pipes.open(name, "r", NONBLOCK)
    first, second = pipes.open(name, "w"), pipes.open(name, "w")
    arm(reader)
    first.close()
    assert caught() == []
    second.close()
    assert caught() == [POLL_IN]


def test_IO_06_size_contents_and_poll_signal_nobody(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.write(b"x")
    for end in (reader, writer):
        arm(end)
        end.pending()
        end.poll()
        end.resize(2 * PIPE_BUF)
        end.resize(16 * PIPE_BUF)
    assert caught() == []


@named_only
def test_IO_07_a_read_write_end_signals_itself(pipes: Pipes, backend: Backend) -> None:
    end = pipes.open(pipes.create(), "r+", NONBLOCK)
    arm(end)
    end.write(b"x")
    assert caught() == [POLL_IN]
    end.read(1)
    assert caught() == [POLL_OUT]
    with fails_with(errno.EAGAIN):
        end.read(1)
    assert caught() == [POLL_OUT]


def test_IO_08_plain_SIGIO_carries_nothing(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader, 0)
    assert reader.fcntl(F_GETSIG) == 0
    writer.write(b"x")
    assert caught(signal.SIGIO) == [(128, 0)], "SI_KERNEL"


def test_IO_08_a_chosen_signal_carries_code_and_band(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader, signal.SIGIO)
    assert reader.fcntl(F_GETSIG) == signal.SIGIO
    writer.write(b"x")
    assert caught(signal.SIGIO) == [POLL_IN]


@pytest.mark.parametrize("number", [-1, 65])
def test_IO_08_no_such_signal_is_einval(pipes: Pipes, number: int) -> None:
    reader, _ = pipes.make()
    with fails_with(errno.EINVAL):
        reader.fcntl(F_SETSIG, number)


def test_IO_09_standard_signals_coalesce(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader, 0)
    for _ in range(3):
        writer.write(b"x")
    assert len(caught(signal.SIGIO)) == 1


def test_IO_12_what_a_child_writes_signals_the_owner(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    arm(reader)
    processes(lambda: [writer.write(b"x") for _ in range(3)], keep=(reader, writer)).result()
    assert caught()[:3] == [POLL_IN] * 3


def test_IO_12_a_child_can_change_the_owner_for_all(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    arm(reader)
    processes(lambda: reader.fcntl(F_SETOWN, 0), keep=reader).result()
    assert reader.fcntl(F_GETOWN) == 0
    writer.write(b"x")
    assert caught() == []


def test_IO_13_an_owner_can_be_a_process_or_a_group(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    for owner in (os.getpid(), -os.getpgrp(), 0):
        writer.fcntl(F_SETOWN, owner)
        assert own(writer) == owner
    assert own(reader) == 0, "it belongs to the description"


def own(end: End) -> int:
    """F_GETOWN; fcntl.fcntl, of the kernel's ends, takes a group's negative number for an error."""
    try:
        return end.fcntl(F_GETOWN)
    except OSError:
        kind, number = OWNER.unpack(fcntl.fcntl(end.fileno(), F_GETOWN_EX, bytes(OWNER.size)))
        assert kind == F_OWNER_PGRP
        return -int(number)


@pytest.mark.parametrize(
    ("owner", "expected"),
    [(2**22 + 1, errno.ESRCH), (-(2**22) - 1, errno.ESRCH), (-(2**31), errno.EINVAL)],
)
def test_IO_13_an_owner_must_exist(pipes: Pipes, owner: int, expected: int) -> None:
    reader, _ = pipes.make()
    with fails_with(expected):
        reader.fcntl(F_SETOWN, owner)


def test_IO_14_a_dead_owner_is_nobody(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()

    def body() -> Any:
        arm(reader)
        return own(reader)

    actor = processes(body, keep=reader)
    assert actor.result() == actor.pid
    actor.reap()
    assert own(reader) == 0
    writer.write(b"x")
    assert caught() == []


def test_IO_16_an_unhandled_SIGIO_terminates(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()

    def body() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
        arm(reader, 0)
        writer.write(b"x")

    actor = processes(body, keep=(reader, writer))
    assert actor.wait_status() == -signal.SIGIO


@named_only
def test_IO_17_two_descriptions_are_two_signals(pipes: Pipes) -> None:
    name = pipes.create()
    first, second = (pipes.open(name, "r", NONBLOCK) for _ in range(2))
    writer = pipes.open(name, "w")
    arm(first)
    arm(second)
    writer.write(b"x")
    assert caught() == [POLL_IN] * 2
