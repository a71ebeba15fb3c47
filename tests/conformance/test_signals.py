"""Signals across the calls: rules SG-2 to SG-5, WR-14 and WR-15 are in test_write_blocking."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

import pytest

from conformance.backends import DEFAULT_CAPACITY, Pipes
from conformance.ends import PIPE_BUF
from support.actors import ProcessActor
from support.errors import fails_with
from support.signals import InterruptedByTest, Probe, raise_interrupted

SpawnProcess = Callable[..., ProcessActor]


def test_SG_02_a_raising_handler_loses_the_count_but_not_the_data(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    reader, writer = pipes.make()

    def body() -> None:
        probe.install(signal.SIGUSR1, raise_interrupted)
        writer.write(b"x" * 100000)

    actor = processes(body, keep=writer)
    actor.wait_blocked()
    actor.kill(signal.SIGUSR1)
    with pytest.raises(InterruptedByTest):
        actor.result()
    actor.reap()
    assert reader.pending() == DEFAULT_CAPACITY


def test_SG_02_a_signal_that_comes_while_a_write_copies(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    # Its handler only notes it then, and nothing interrupts the sleep that the write ends in.
    reader, writer = pipes.make()

    def body() -> None:
        probe.install(signal.SIGUSR1, raise_interrupted)
        writer.write(bytes(1 << 28))

    for pieces in (1, 3, 10, 30, 100, 300):
        actor = processes(body, keep=writer)
        actor.wait_blocked()
        for _ in range(pieces):
            reader.read(DEFAULT_CAPACITY)
        actor.kill(signal.SIGUSR1)
        with pytest.raises(InterruptedByTest):
            actor.result()
        actor.reap()
        assert len(reader.read(1 << 20)) > 0  # what it had added, too


def test_SG_02_after_an_exception_the_pipe_works_on(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    reader, writer = pipes.make()

    def body() -> list[bytes]:
        probe.install(signal.SIGUSR1, raise_interrupted)
        for _ in range(3):
            with pytest.raises(InterruptedByTest):
                reader.read(1)
        return [reader.read(1), reader.read(1)]

    actor = processes(body, keep=reader)
    for _ in range(3):
        actor.wait_blocked()
        actor.kill(signal.SIGUSR1)
        probe.wait_handled()
    actor.wait_blocked()
    writer.write(b"ab")
    assert actor.result() == [b"a", b"b"]


@pytest.mark.parametrize("call", ["write", "writev", "big write"])
def test_SG_03_each_refused_write_is_one_sigpipe(
    pipes: Pipes, processes: SpawnProcess, probe: Probe, call: str
) -> None:
    reader, writer = pipes.make()
    reader.close()

    def body() -> None:
        probe.install(signal.SIGPIPE)
        for _ in range(3):
            with fails_with(errno.EPIPE):
                if call == "writev":
                    writer.writev([b"a", b"b"])
                else:
                    writer.write(b"x" * (1 if call == "write" else 200000))

    processes(body, keep=writer).result()
    assert probe.count() == 3


def test_SG_03_no_sigpipe_for_nothing(pipes: Pipes, processes: SpawnProcess, probe: Probe) -> None:
    reader, writer = pipes.make()
    reader.close()

    def body() -> None:
        probe.install(signal.SIGPIPE)
        assert writer.write(b"") == 0
        assert writer.writev([b"", b""]) == 0

    processes(body, keep=writer).result()
    assert probe.count() == 0


def test_SG_03_no_sigpipe_while_there_are_readers(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    _, writer = pipes.make(os.O_NONBLOCK, slots=1)

    def body() -> None:
        probe.install(signal.SIGPIPE)
        writer.write(b"x" * PIPE_BUF)
        with fails_with(errno.EAGAIN):
            writer.write(b"x")

    processes(body, keep=writer).result()
    assert probe.count() == 0


def test_SG_04_a_signal_together_with_the_wake_loses_no_byte(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    reader, writer = pipes.make()
    rounds = 1500

    def body() -> bytes:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        probe.install(signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR2)
        received = b""
        while piece := reader.read(1):
            received += piece
        return received

    actor = processes(body, keep=reader)
    probe.wait_handled()
    expected = b""
    for number in range(rounds):
        byte = bytes([number % 256])
        if number % 2:
            actor.kill(signal.SIGUSR1)
            writer.write(byte)
        else:
            writer.write(byte)
            actor.kill(signal.SIGUSR1)
        expected += byte
    writer.close()
    assert actor.result() == expected


def test_SG_04_a_signal_storm_on_a_writer_loses_no_byte(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make(slots=1)
    data = os.urandom(100 * PIPE_BUF)

    def body() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        rest = memoryview(data)
        while rest:  # each signal may cut a write short
            rest = rest[writer.write(rest) :]

    actor = processes(body, keep=writer)
    writer.close()
    actor.wait_blocked()
    received = b""
    while piece := reader.read(3000):
        received += piece
        if not actor.finished():
            actor.kill(signal.SIGUSR1)
    actor.result()
    assert received == data


def test_SG_05_stop_and_continue_in_the_middle_of_a_stream(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make(slots=2)
    data = os.urandom(40 * PIPE_BUF)

    def write_all() -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[writer.write(rest) :]

    writing = processes(write_all, keep=writer)
    writer.close()
    received = b""
    for _ in range(5):
        received += reader.read(PIPE_BUF)
        writing.stop()
        while reader.is_locked():  # there a stopped process delays others, not as in the kernel
            writing.resume()
            writing.stop()
        received += reader.read(reader.pending())  # a stopped writer would make us wait
        writing.resume()
    received += reader.read_exactly(len(data) - len(received))
    writing.result()
    assert received == data
