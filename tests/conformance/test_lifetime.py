"""fork, exec, exit and death of the holders: rules LF-1 to LF-12."""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from conformance.backends import DEFAULT_CAPACITY, Pipes
from conformance.ends import PIPE_BUF, End
from conformance.marks import NONBLOCK, named_only
from support import proc
from support.actors import Actor, ProcessActor
from support.errors import fails_with

Spawn = Callable[..., Actor]
SpawnProcess = Callable[..., ProcessActor]

ways_to_go = pytest.mark.parametrize("how", ["close", "exit", "kill"])


def holding(end: End) -> Callable[[], Iterator[str]]:
    """The body of a child that holds an inherited end and closes it when it is told to."""

    def body() -> Iterator[str]:
        yield "holding"
        end.close()
        yield "closed"

    return body


def leave(actor: ProcessActor, how: str) -> None:
    """Make a holding child let its end go: by close, by exit without one, by SIGKILL."""
    if how == "close":
        actor.go()
        assert actor.receive() == "closed"
    else:
        actor.kill(signal.SIGKILL if how == "kill" else signal.SIGTERM)
        actor.wait_status()


def test_LF_01_fork_does_not_change_the_counts(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make(NONBLOCK)
    child = processes(holding(writer), keep=writer)
    assert child.receive() == "holding"
    child.go()
    assert child.receive() == "closed"
    with fails_with(errno.EAGAIN):
        reader.read(1)  # our own descriptor of the same description is open
    writer.close()
    assert reader.read(1) == b""


@ways_to_go
def test_LF_02_an_inherited_write_end_keeps_end_of_file_away(
    pipes: Pipes, processes: SpawnProcess, how: str
) -> None:
    reader, writer = pipes.make(NONBLOCK)
    child = processes(holding(writer), keep=writer)
    assert child.receive() == "holding"
    writer.close()
    with fails_with(errno.EAGAIN):
        reader.read(1)
    assert reader.poll() == 0
    leave(child, how)
    assert reader.read(1) == b""
    assert reader.poll() == select.POLLHUP


@ways_to_go
def test_LF_02_an_inherited_read_end_keeps_epipe_away(
    pipes: Pipes, processes: SpawnProcess, how: str
) -> None:
    reader, writer = pipes.make(NONBLOCK)
    child = processes(holding(reader), keep=reader)
    assert child.receive() == "holding"
    reader.close()
    assert writer.write(b"x") == 1
    assert not writer.poll() & select.POLLERR
    leave(child, how)
    with fails_with(errno.EPIPE):
        writer.write(b"x")
    assert writer.poll() & select.POLLERR


def test_LF_02_the_classic_mistake(pipes: Pipes, processes: SpawnProcess) -> None:
    # A child that keeps its own copy of the write end never sees end of file.
    reader, writer = pipes.make()
    child = processes(lambda: reader.read(1), keep=(reader, writer))
    child.wait_blocked()
    writer.close()
    child.wait_blocked()
    assert not child.finished()
    child.kill()
    child.wait_status()


def test_LF_02_grandchildren_count_too(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make(NONBLOCK)
    control_read, control_write = os.pipe()

    def body() -> int:
        os.close(control_write)
        if (grandchild := os.fork()) == 0:
            os.read(control_read, 1)  # end of file when the test closes its end
            os._exit(0)
        writer.close()
        return grandchild

    child = processes(body, keep=writer)
    grandchild = child.result()
    writer.close()
    os.close(control_read)
    with fails_with(errno.EAGAIN):
        reader.read(1)
    os.close(control_write)
    proc.wait_until(lambda: proc.state(grandchild) in ("", "Z"), "the grandchild has ended")
    assert reader.read(1) == b""


def test_LF_03_exec_closes_what_is_close_on_exec(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()

    def body() -> None:
        os.execvp("sleep", ["sleep", "1000"])

    waiting = processes(lambda: reader.read(1), keep=reader)
    waiting.wait_blocked()
    child = processes(body, keep=writer)
    writer.close()
    assert waiting.result() == b"", "end of file although the process lives on"
    assert proc.state(child.pid) not in ("", "Z")
    child.kill()
    child.wait_status()


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_LF_05_a_killed_holder_lets_a_sleeper_go(
    pipes: Pipes, processes: SpawnProcess, side: str
) -> None:
    reader, writer = pipes.make(slots=1)
    if side == "writer":
        holder = processes(holding(writer), keep=writer)
        sleeper = processes(lambda: reader.read(1), keep=reader)
        writer.close()
    else:
        writer.write(b"f" * PIPE_BUF)
        holder = processes(holding(reader), keep=reader)
        sleeper = processes(lambda: writer.write(b"x"), keep=writer)
        reader.close()
    assert holder.receive() == "holding"
    sleeper.wait_blocked()
    holder.kill()
    if side == "writer":
        assert sleeper.result() == b""
    else:
        with fails_with(errno.EPIPE):
            sleeper.result()
        sleeper.reap()
    holder.wait_status()


@pytest.mark.parametrize("count", [2, 8])
def test_LF_05_a_killed_holder_lets_all_sleepers_go(
    pipes: Pipes, processes: SpawnProcess, count: int
) -> None:
    reader, writer = pipes.make()
    holder = processes(holding(writer), keep=writer)
    assert holder.receive() == "holding"
    sleepers = [processes(lambda: reader.read(1), keep=reader) for _ in range(count)]
    for sleeper in sleepers:
        sleeper.wait_blocked()
    writer.close()
    holder.kill()
    assert [sleeper.result() for sleeper in sleepers] == [b""] * count
    holder.wait_status()


def test_LF_05_a_killed_holder_wakes_a_poller(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    holder = processes(holding(writer), keep=writer)
    assert holder.receive() == "holding"

    def body() -> int:
        poller = select.poll()
        poller.register(reader.fileno(), select.POLLIN)
        return poller.poll()[0][1]

    sleeper = processes(body, keep=reader)
    sleeper.wait_blocked()
    writer.close()
    holder.kill()
    assert sleeper.result() == select.POLLHUP
    holder.wait_status()


def test_LF_05_a_sleeper_that_is_killed_itself(pipes: Pipes, processes: SpawnProcess) -> None:
    # The dead reader was asleep in the pipe: its waiter must not remain.
    reader, writer = pipes.make(NONBLOCK)
    reader.set_flag(NONBLOCK, False)
    sleeper = processes(lambda: reader.read(1), keep=reader)
    sleeper.wait_blocked()
    reader.close()
    sleeper.kill()
    sleeper.wait_status()
    with fails_with(errno.EPIPE):
        writer.write(b"x")


def test_LF_06_what_a_dead_writer_wrote_stays(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    data = os.urandom(200000)
    child = processes(lambda: writer.write(data), keep=writer)
    writer.close()
    child.wait_blocked()
    child.kill()
    child.wait_status()
    assert reader.pending() == DEFAULT_CAPACITY
    assert reader.read_exactly(200000) == data[:DEFAULT_CAPACITY]
    assert reader.read(1) == b""


@pytest.mark.parametrize("size", [100, 4096, 10000])
def test_LF_06_no_half_record_of_a_killed_writer(
    pipes: Pipes, processes: SpawnProcess, size: int
) -> None:
    for _ in range(5):
        reader, writer = pipes.make()

        def body(writer: End = writer) -> None:
            for number in range(1 << 30):
                writer.write(number.to_bytes(4, "little") * (size // 4))

        child = processes(body, keep=writer)
        writer.close()
        received = bytearray(reader.read_exactly(50 * size))
        child.kill()
        child.wait_status()
        while piece := reader.read(65536):
            received += piece
        reader.close()
        for index in range(0, len(received), size):
            record = bytes(received[index : index + size])
            expected = (index // size).to_bytes(4, "little") * (size // 4)
            if size <= PIPE_BUF:
                assert record == expected, "whole or not at all"
            else:
                assert expected.startswith(record)


@named_only
def test_LF_08_other_writers_keep_end_of_file_away(pipes: Pipes, processes: SpawnProcess) -> None:
    name = pipes.create()
    reader = pipes.open(name, "r", NONBLOCK)

    def body() -> Iterator[str]:
        pipes.open(name, "w")
        yield "open"

    first, second = processes(body), processes(body)
    assert (first.receive(), second.receive()) == ("open", "open")
    first.kill()
    first.wait_status()
    with fails_with(errno.EAGAIN):
        reader.read(1)
    second.kill()
    second.wait_status()
    assert reader.read(1) == b""


def test_LF_08_one_of_two_inheritors_is_killed(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make(NONBLOCK)
    first, second = (processes(holding(writer), keep=writer) for _ in range(2))
    assert (first.receive(), second.receive()) == ("holding", "holding")
    writer.close()
    first.kill()
    first.wait_status()
    with fails_with(errno.EAGAIN):
        reader.read(1)
    second.go()
    assert second.receive() == "closed"
    assert reader.read(1) == b""


@pytest.mark.parametrize("flag", [NONBLOCK, os.O_DIRECT], ids=["nonblock", "direct"])
def test_LF_09_flags_are_shared_through_fork(
    pipes: Pipes, processes: SpawnProcess, flag: int
) -> None:
    _, writer = pipes.make()

    def body() -> Iterator[int]:
        writer.set_flag(flag)
        yield 0
        yield writer.flags() & flag

    child = processes(body, keep=writer)
    child.receive()
    assert writer.flags() & flag == flag, "set by the child, seen here"
    writer.set_flag(flag, False)
    child.go()
    assert child.receive() == 0, "and the other way round"
    child.go()
    child.result()


def test_LF_09_a_shared_nonblock_takes_effect(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, _ = pipes.make()
    processes(lambda: reader.set_flag(NONBLOCK), keep=reader).result()
    with fails_with(errno.EAGAIN):
        reader.read(1)


@named_only
def test_LF_10_a_name_outlives_killed_holders(pipes: Pipes, processes: SpawnProcess) -> None:
    name = pipes.create()

    def body() -> Iterator[str]:
        end = pipes.open(name, "r+")
        end.write(b"lost")
        yield "open"

    child = processes(body)
    assert child.receive() == "open"
    child.kill()
    child.wait_status()
    again = pipes.open(name, "r+", NONBLOCK)
    with fails_with(errno.EAGAIN):
        again.read(9)
    assert again.write(b"x") == 1


def test_LF_12_a_thread_that_ends_changes_nothing(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    threads = [threading.Thread(target=writer.write, args=(b"x",)) for _ in range(5)]
    for thread in threads:
        thread.start()
        thread.join()
    assert reader.read(9) == b"xxxxx"
    with fails_with(errno.EAGAIN):
        reader.read(1)


def test_LF_12_the_thread_that_made_the_pipe_ends(pipes: Pipes, processes: SpawnProcess) -> None:
    # A robust futex dies with its thread: that must not be taken for the process's death.
    made: list[tuple[End, End]] = []
    thread = threading.Thread(target=lambda: made.append(pipes.make()))
    thread.start()
    thread.join()
    reader, writer = made[0]
    child = processes(lambda: reader.read(9), keep=reader)
    child.wait_blocked()
    for _ in range(3):
        thread = threading.Thread(target=writer.flags)
        thread.start()
        thread.join()
    child.wait_blocked()
    assert not child.finished()
    writer.write(b"alive")
    assert child.result() == b"alive"


def test_LF_many_short_lived_inheritors(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make(NONBLOCK)
    for index in range(30):
        child = processes(lambda: writer.write(b"x"), keep=writer)
        if index % 3 == 0:
            child.kill()
            child.wait_status()
        else:
            assert child.result() == 1
    assert len(reader.read(99)) >= 20
    with fails_with(errno.EAGAIN):
        reader.read(1)
    writer.close()
    assert reader.read(1) == b""
