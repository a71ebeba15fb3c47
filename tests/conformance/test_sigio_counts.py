"""How many signals, for what, with what in them: rules IO-2 to IO-9, IO-18, IO-19, R0."""

from __future__ import annotations

import errno
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF
from conformance.marks import NONBLOCK, named_only
from conformance.sigio import F_SETSIG, POLL_IN, POLL_OUT, QUEUED, arm, caught, taken
from support import proc
from support.actors import Actor, ProcessActor, quiesce
from support.errors import fails_with
from support.signals import Probe

pytestmark = pytest.mark.usefixtures("blocked")

Spawn = Callable[..., Actor]
SpawnProcess = Callable[..., ProcessActor]


def test_IO_02_a_vector_is_one_write(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    writer.writev([b"a", b"", b"b" * 5000, b"c"])
    writer.writev([b"", b""])
    assert caught() == [POLL_IN]


def test_IO_02_a_write_that_fits_only_in_part(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=2)
    arm(reader)
    assert writer.write(bytes(3 * PIPE_BUF)) == 2 * PIPE_BUF
    assert caught() == [POLL_IN]


def test_IO_02_what_is_refused_before_the_pipe_is_none(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    arm(writer)
    with fails_with(errno.EBADF):
        reader.write(b"x")
    with fails_with(errno.EBADF):
        writer.read(1)
    assert caught() == []


def test_IO_02_of_a_write_without_readers_nobody_is_left_to_hear(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(writer)
    reader.close()
    assert caught() == [POLL_OUT], "of the close"

    def body() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        with fails_with(errno.EPIPE):
            writer.write(b"x")

    processes(body, keep=writer).result()
    assert caught() == []


def test_IO_02_exactly_one_for_each_write_of_several_processes(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make(slots=64)
    arm(reader)
    each = 250

    def body() -> Iterator[None]:
        yield
        for _ in range(each):
            writer.write(b"x" * 16)
        yield

    actors = [processes(body, keep=writer) for _ in range(4)]
    for actor in actors:
        actor.receive()
    for actor in actors:
        actor.go()
    for actor in actors:
        actor.receive()  # they live on: a last close would be a signal, too
    assert caught() == [POLL_IN] * (4 * each)


@pytest.mark.parametrize("nonblock", [0, NONBLOCK], ids=["blocking", "nonblocking"])
def test_IO_03_a_long_read_is_one(pipes: Pipes, nonblock: int) -> None:
    reader, writer = pipes.make(nonblock)
    writer.write(bytes(16 * PIPE_BUF))
    arm(writer)
    assert len(reader.read(16 * PIPE_BUF)) == 16 * PIPE_BUF
    assert caught() == [POLL_OUT]


def test_IO_03_a_vector_is_one_read(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.write(b"abcdef")
    arm(writer)
    assert reader.readv([bytearray(2), bytearray(0), bytearray(2)]) == 4
    assert reader.readv([bytearray(0)]) == 0
    assert caught() == [POLL_OUT]


def test_IO_03_a_reader_that_goes_to_sleep_is_none(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    arm(writer)
    actor = spawn(lambda: reader.read(1), keep=reader)
    actor.wait_blocked()
    assert caught() == []
    writer.write(b"x")
    assert actor.result() == b"x"
    assert caught() == [POLL_OUT]


def test_IO_03_an_interrupted_read_is_none(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    reader, writer = pipes.make()
    arm(writer)

    def body() -> bytes:
        probe.install(signal.SIGUSR1)
        return reader.read(1)

    actor = processes(body, keep=reader)
    for _ in range(3):
        actor.wait_blocked()
        actor.kill(signal.SIGUSR1)
        probe.wait_handled()
    actor.wait_blocked()
    assert caught() == []


def test_IO_04_a_write_that_must_wait_from_its_start_signals_that(
    pipes: Pipes, spawn: Spawn
) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(bytes(PIPE_BUF))
    arm(reader)
    actor = spawn(lambda: writer.write(b"x"), keep=writer)
    actor.wait_blocked()
    assert caught() == [POLL_IN], "or a reader that waits for signals would never make room"
    reader.read(PIPE_BUF)
    assert actor.result() == 1
    assert caught() == [POLL_IN]


def test_IO_04_each_wait_of_a_long_write(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=4)
    writer.write(bytes(PIPE_BUF))  # so that no part of the long one finds the pipe empty
    arm(reader)
    actor = spawn(lambda: writer.write(bytes(6 * PIPE_BUF)), keep=writer)
    seen = []
    for size in (PIPE_BUF, 100, 2 * PIPE_BUF - 100):
        actor.wait_blocked()
        seen.append(len(caught()))
        reader.read(size)
    assert actor.result() == 6 * PIPE_BUF
    seen.append(len(caught()))
    # Before the first sleep, after a slot, not after a part of one, at the end.
    assert seen == [1, 1, 0, 1]


def test_IO_04_several_writers_that_wait(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(bytes(PIPE_BUF))
    arm(reader)
    actors = [spawn(lambda: writer.write(b"x" * PIPE_BUF), keep=writer) for _ in range(3)]
    for actor in actors:
        actor.wait_blocked()
    assert caught() == [POLL_IN] * 3
    for _ in range(3):
        reader.read(PIPE_BUF)
        (done,) = quiesce(actors)
        assert done.result() == PIPE_BUF
        actors.remove(done)
        assert caught() == [POLL_IN]


def test_IO_04_a_handler_ends_a_wait_and_a_new_one_begins(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    # EINTR is the end of a write like any other, and Python writes again (PEP 475).
    reader, writer = pipes.make(slots=1)
    writer.write(bytes(PIPE_BUF))
    arm(reader)

    def body() -> int:
        probe.install(signal.SIGUSR1)
        signal.siginterrupt(signal.SIGUSR1, True)
        return writer.write(b"x")

    actor = processes(body, keep=writer)
    actor.wait_blocked()
    assert caught() == [POLL_IN]
    for _ in range(2):
        actor.kill(signal.SIGUSR1)
        probe.wait_handled()
        actor.wait_blocked()
        assert caught() == [POLL_IN] * 2, "the end of one, the wait of the next"
    reader.read(PIPE_BUF)
    assert actor.result() == 1
    assert caught() == [POLL_IN]


def test_IO_04_a_handler_that_cuts_a_write_short(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    reader, writer = pipes.make(slots=1)
    arm(reader)

    def body() -> Iterator[int]:
        probe.install(signal.SIGUSR1)
        yield writer.write(bytes(3 * PIPE_BUF))

    actor = processes(body, keep=writer)
    actor.wait_blocked()
    assert caught() == [POLL_IN]
    actor.kill(signal.SIGUSR1)
    assert actor.receive() == PIPE_BUF
    assert caught() == [POLL_IN]


def test_IO_05_a_killed_last_reader_signals_the_writer(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make()
    arm(writer)
    actor = processes(signal.pause, keep=reader)
    reader.close()
    assert caught() == [], "the child has it, too"
    actor.kill()
    actor.wait_status()
    assert caught() == [POLL_OUT]


@named_only
def test_IO_05_one_of_two_readers_signals_nobody(pipes: Pipes) -> None:
    name = pipes.create()
    first, second = (pipes.open(name, "r", NONBLOCK) for _ in range(2))
    writer = pipes.open(name, "w")
    arm(second)
    arm(writer)
    first.close()
    assert caught() == []
    second.close()
    assert caught() == [POLL_OUT]


@named_only
def test_IO_05_who_opens_signals_nobody(pipes: Pipes) -> None:
    name = pipes.create()
    reader = pipes.open(name, "r", NONBLOCK)
    arm(reader)
    for _ in range(2):
        writer = pipes.open(name, "w")
        assert caught() == []
        writer.close()
        assert caught() == [POLL_IN], "each time the last writer goes"


def test_IO_06_a_first_look_after_a_writer_is_armed(pipes: Pipes) -> None:
    # The one look that shmpipe signals (decision 0040).
    reader, writer = pipes.make(NONBLOCK)
    arm(writer)
    reader.poll()
    assert caught() == ([POLL_OUT] if pipes.backend.shm else [])
    reader.poll()
    writer.poll()
    assert caught() == []


@pytest.mark.parametrize("side", ["reader", "writer"])
@pytest.mark.parametrize("number", [QUEUED, signal.SIGIO], ids=["queued", "SIGIO"])
def test_IO_08_the_descriptor_that_was_armed(pipes: Pipes, side: str, number: int) -> None:
    reader, writer = pipes.make(NONBLOCK)
    end = reader if side == "reader" else writer
    arm(end, number)
    if side == "reader":
        writer.write(b"x")
    else:
        with fails_with(errno.EAGAIN):
            reader.read(1)
    expected = POLL_IN if side == "reader" else POLL_OUT
    assert taken(number) == [(*expected, end.fileno())]


def test_IO_09_queued_signals_are_counted_until_the_limit(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writes, limit = 30, 10

    def body() -> tuple[int, int]:
        # In a child, whose limit does not come back.
        hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)[1]
        already = pending_of_this_user()
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (already + limit, hard))
        arm(reader)
        for _ in range(writes):
            writer.write(b"x")
        return len(caught()), len(caught(signal.SIGIO))

    queued, plain = processes(body, keep=(reader, writer)).result()
    assert plain == 1, "the rest is one SIGIO"
    assert 0 < queued < writes
    # Other processes of this user queue signals, too.
    assert queued <= limit + 2


def pending_of_this_user() -> int:
    """Of all processes: what RLIMIT_SIGPENDING is held against."""
    with open("/proc/self/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("SigQ:"))
    return int(line.split()[1].split("/")[0])


@pytest.mark.parametrize("side", ["reader", "writer"])
@pytest.mark.parametrize("sleeper", [False, True], ids=["nobody-sleeps", "somebody-sleeps"])
def test_IO_18_whether_anybody_is_woken_makes_no_difference(
    pipes: Pipes, processes: SpawnProcess, side: str, sleeper: bool
) -> None:
    reader, writer = pipes.make(slots=1)
    armed = reader if side == "reader" else writer
    if side == "writer":
        writer.write(bytes(PIPE_BUF))
    if sleeper:
        actor = processes(
            (lambda: len(reader.read(PIPE_BUF)))
            if side == "reader"
            else (lambda: writer.write(b"x" * PIPE_BUF)),
            keep=(reader, writer),
        )
        actor.wait_blocked()
    arm(armed)
    if side == "reader":
        writer.write(b"x")
    else:
        reader.read(PIPE_BUF)
    if sleeper:
        assert actor.result() > 0
    assert caught() == [POLL_IN if side == "reader" else POLL_OUT]


@named_only
def test_IO_19_who_armed_last_is_told_first(pipes: Pipes) -> None:
    name = pipes.create()
    ends = [pipes.open(name, "r", NONBLOCK) for _ in range(3)]
    writer = pipes.open(name, "w")
    for end in ends:
        arm(end)
    writer.write(b"x")
    assert [notice.fd for notice in taken()] == [end.fileno() for end in reversed(ends)]


def test_R0_each_end_hears_of_the_other_and_not_of_itself(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    numbers = reader.fileno(), writer.fileno()
    arm(reader)
    arm(writer)
    writer.write(b"abc")
    assert [notice.fd for notice in taken()] == [numbers[0]]
    reader.read(1)
    assert [notice.fd for notice in taken()] == [numbers[1]]
    reader.fcntl(F_SETSIG, 0)
    writer.write(b"d")
    assert (caught(), len(caught(signal.SIGIO))) == ([], 1)


def test_R0_a_long_run_of_both_sides_counts_exactly(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=4)
    arm(reader)
    arm(writer)
    for step in range(300):
        size = step * 997 % 9000
        with suppress(BlockingIOError):
            writer.write(bytes(size))
        assert caught() == [POLL_IN] * (size > 0)
        size = step * 631 % 7000
        with suppress(BlockingIOError):
            reader.read(size)
        assert caught() == [POLL_OUT] * (size > 0)


def test_R0_the_sleep_of_a_reader_is_no_matter_to_SIGIO(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    # A reader of its own, in another process, takes everything; the owner is told all the same.
    reader, writer = pipes.make()
    arm(reader)
    actor = processes(lambda: reader.read_exactly(40), keep=reader)
    for _ in range(40):
        sleep = proc.wait_until_blocked(
            actor.pid, control_fds=actor.control_fds, finished=actor.finished
        )
        assert sleep is not None
        writer.write(b"x")
    assert actor.result() == b"x" * 40
    assert caught() == [POLL_IN] * 40
