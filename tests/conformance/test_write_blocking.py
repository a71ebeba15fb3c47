"""Writers that sleep, and what interrupts them: rules WR-3 to WR-5, WR-11 to WR-15, WR-19."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from conformance.backends import DEFAULT_CAPACITY, Backend, Pipes
from conformance.ends import PIPE_BUF
from conformance.marks import NONBLOCK
from support.actors import Actor, ProcessActor, quiesce
from support.errors import fails_with
from support.signals import InterruptedByTest, Probe, raise_interrupted

Spawn = Callable[..., Actor]
SpawnProcess = Callable[..., ProcessActor]


def test_WR_03_a_woken_writer_takes_a_slot_and_does_not_merge(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"x" * PIPE_BUF)
    waiting = [spawn(lambda: writer.write(b"w"), keep=writer) for _ in range(5)]
    for actor in waiting:
        actor.wait_blocked()
    assert reader.read(PIPE_BUF) == b"x" * PIPE_BUF
    for served in range(1, 6):
        done = quiesce(waiting)
        assert len(done) == 1, f"drain {served} releases exactly one"
        waiting.remove(done[0])
        assert done[0].result() == 1
        assert reader.read(PIPE_BUF) == b"w"


@pytest.mark.parametrize("slots", [1, 16])
@pytest.mark.parametrize("size", [100, 4000, 4095, 4096])
def test_WR_04_small_writes_are_never_torn(
    pipes: Pipes, spawn: Spawn, size: int, slots: int
) -> None:
    reader, writer = pipes.make(slots=slots)
    records = 40 if size >= 4000 else 200

    def body(byte: int) -> Callable[[], None]:
        def run() -> None:
            for _ in range(records):
                assert writer.write(bytes([byte]) * size) == size

        return run

    writers = [spawn(body(byte), keep=writer) for byte in b"abcd"]
    stream = reader.read_exactly(4 * records * size)
    for actor in writers:
        actor.result()
    for byte, run in itertools.groupby(stream):
        assert sum(1 for _ in run) % size == 0, f"a record of {chr(byte)} is torn"
    assert Counter(stream) == dict.fromkeys(b"abcd", records * size)


def test_WR_05_a_big_write_into_an_empty_pipe_is_contiguous(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    data = os.urandom(DEFAULT_CAPACITY)
    actor = spawn(lambda: writer.write(data), keep=writer)
    assert actor.result() == DEFAULT_CAPACITY, "it does not even sleep"
    assert reader.read(DEFAULT_CAPACITY) == data


def test_WR_05_interleaving_only_where_a_writer_slept(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=4)
    size = 4 * PIPE_BUF + 1000

    def body(byte: bytes) -> Callable[[], int]:
        return lambda: sum(writer.write(byte * size) for _ in range(30))

    writers = [spawn(body(byte), keep=writer) for byte in (b"a", b"b")]
    stream = reader.read_exactly(60 * size)
    assert [actor.result() for actor in writers] == [30 * size] * 2
    assert Counter(stream) == {ord("a"): 30 * size, ord("b"): 30 * size}
    # A writer sleeps only between the pieces of its write: pages, and one of 1000 bytes.
    for _, group in itertools.groupby(stream):
        run = sum(1 for _ in group)
        assert any((run - short) % PIPE_BUF == 0 for short in range(0, run + 1, 1000))


def test_WR_11_a_blocking_write_returns_when_all_is_written(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    data = os.urandom(200000)
    actor = spawn(lambda: writer.write(data), keep=writer)
    received = b""
    while len(received) < 200000 - DEFAULT_CAPACITY:
        actor.wait_blocked()
        assert not actor.finished()
        received += reader.read(PIPE_BUF)
    assert actor.result() == 200000
    received += reader.read_exactly(200000 - len(received))
    assert received == data


@pytest.mark.parametrize("size", [1, PIPE_BUF, PIPE_BUF + 1])
def test_WR_11_a_full_pipe_makes_a_writer_wait(pipes: Pipes, spawn: Spawn, size: int) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actor = spawn(lambda: writer.write(b"w" * size), keep=writer)
    actor.wait_blocked()
    assert reader.read(PIPE_BUF) == b"f" * PIPE_BUF
    assert reader.read_exactly(size) == b"w" * size
    assert actor.result() == size


def test_WR_11_a_blocking_writev_returns_when_all_is_written(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=2)
    pieces = [os.urandom(3000) for _ in range(10)]
    actor = spawn(lambda: writer.writev(pieces), keep=writer)
    actor.wait_blocked()
    assert reader.read_exactly(30000) == b"".join(pieces)
    assert actor.result() == 30000


def test_WR_11_a_vanished_reader_ends_a_wait_without_progress(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actor = spawn(lambda: writer.write(b"w"), keep=writer)
    actor.wait_blocked()
    reader.close()
    with fails_with(errno.EPIPE):
        actor.result()
    actor.reap()


@pytest.mark.parametrize("restart", [False, True], ids=["interrupts", "SA_RESTART"])
def test_WR_12_a_signal_after_progress_gives_a_short_count(
    pipes: Pipes, processes: SpawnProcess, probe: Probe, restart: bool
) -> None:
    reader, writer = pipes.make()

    def body() -> int:
        probe.install(signal.SIGUSR1)
        signal.siginterrupt(signal.SIGUSR1, not restart)
        return writer.write(b"x" * 100000)

    actor = processes(body, keep=writer)
    actor.wait_blocked()
    actor.kill(signal.SIGUSR1)
    assert actor.result() == DEFAULT_CAPACITY
    assert reader.pending() == DEFAULT_CAPACITY


def test_WR_12_a_signal_without_progress_does_not_end_the_write(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    # The system call ends with EINTR; Python runs the handler and calls again (PEP 475).
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)

    def body() -> int:
        probe.install(signal.SIGUSR1)
        return writer.write(b"w" * 10)

    actor = processes(body, keep=writer)
    for _ in range(3):
        actor.wait_blocked()
        actor.kill(signal.SIGUSR1)
        probe.wait_handled()
    actor.wait_blocked()
    assert reader.read(PIPE_BUF) == b"f" * PIPE_BUF
    assert actor.result() == 10
    assert reader.read(PIPE_BUF) == b"w" * 10


@pytest.mark.parametrize("size", [10, 2 * PIPE_BUF])
def test_WR_12_a_raising_handler_leaves_a_full_pipe_alone(
    pipes: Pipes, processes: SpawnProcess, probe: Probe, size: int
) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)

    def body() -> None:
        probe.install(signal.SIGUSR1, raise_interrupted)
        writer.write(b"w" * size)

    actor = processes(body, keep=writer)
    actor.wait_blocked()
    actor.kill(signal.SIGUSR1)
    with pytest.raises(InterruptedByTest):
        actor.result()
    actor.reap()
    assert reader.pending() == PIPE_BUF


def test_WR_13_stop_and_continue_cuts_a_partly_done_write(
    pipes: Pipes, backend: Backend, processes: SpawnProcess
) -> None:
    # Documented difference: a stop without a handler cannot be seen in user space, so
    # shmpipe may go on writing where the kernel returns short.
    reader, writer = pipes.make()
    actor = processes(lambda: writer.write(b"x" * 200000), keep=writer)
    actor.wait_blocked()
    actor.stop()
    actor.resume()
    if backend.shm and quiesce([actor]) == []:
        assert len(reader.read_exactly(200000)) == 200000
        assert actor.result() == 200000
    else:
        assert actor.result() == DEFAULT_CAPACITY
        assert reader.pending() == DEFAULT_CAPACITY


def test_WR_13_stop_and_continue_restarts_an_untouched_write(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actor = processes(lambda: writer.write(b"w" * 10), keep=writer)
    actor.wait_blocked()
    actor.stop()
    actor.resume()
    actor.wait_blocked()
    assert reader.read(PIPE_BUF) == b"f" * PIPE_BUF
    assert actor.result() == 10


def test_WR_14_readers_vanish_after_progress(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    reader, writer = pipes.make()

    def body() -> Iterator[int]:
        probe.install(signal.SIGPIPE)
        yield writer.write(b"x" * 200000)
        with fails_with(errno.EPIPE):
            writer.write(b"x")

    actor = processes(body, keep=writer)
    actor.wait_blocked()
    reader.close()
    assert actor.receive() == DEFAULT_CAPACITY, "a short count, but with a SIGPIPE"
    assert probe.count() == 1
    actor.go()
    actor.result()
    assert probe.count() == 1


def test_WR_15_the_default_action_of_sigpipe_kills(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    reader.close()

    def body() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        writer.write(b"x")

    assert processes(body, keep=writer).wait_status() == -signal.SIGPIPE


def test_WR_15_an_ignored_sigpipe_leaves_only_epipe(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    reader.close()

    def body() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        writer.write(b"x")

    actor = processes(body, keep=writer)
    with fails_with(errno.EPIPE):
        actor.result()
    actor.reap()


def test_WR_15_sigpipe_goes_to_the_writing_thread(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    reader.close()

    def body() -> tuple[bool, bool]:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE})
        seen: list[bool] = []
        checked = threading.Event()

        def write() -> None:
            with fails_with(errno.EPIPE):
                writer.write(b"x")
            seen.append(signal.SIGPIPE in signal.sigpending())
            checked.wait(10)
            signal.sigtimedwait({signal.SIGPIPE}, 0)

        thread = threading.Thread(target=write)
        thread.start()
        while not seen:
            thread.join(0.001)
        in_main = signal.SIGPIPE in signal.sigpending()
        checked.set()
        thread.join()
        return seen[0], in_main

    assert processes(body, keep=writer).result() == (True, False)


def test_WR_19_setting_nonblock_does_not_wake_a_sleeping_writer(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actor = spawn(lambda: writer.write(b"w"), keep=writer)
    actor.wait_blocked()
    switches = actor.context_switches()
    writer.set_flag(NONBLOCK)
    actor.wait_blocked()
    assert actor.context_switches() == switches
    reader.read(PIPE_BUF)
    assert actor.result() == 1
