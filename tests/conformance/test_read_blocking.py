"""Readers that sleep, alone or several: rules RD-3, RD-5, RD-6, RD-9, RD-10, WR-19, LF-11."""

from __future__ import annotations

import errno
import os
import signal
import struct
from collections.abc import Callable

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF
from conformance.marks import NONBLOCK, named_only
from support.actors import Actor, ProcessActor
from support.errors import fails_with
from support.signals import InterruptedByTest, Probe, raise_interrupted

Spawn = Callable[..., Actor]
SpawnProcess = Callable[..., ProcessActor]


@pytest.mark.parametrize("size", [1, PIPE_BUF, 10 * PIPE_BUF])
def test_RD_03_an_empty_pipe_makes_a_reader_wait(pipes: Pipes, spawn: Spawn, size: int) -> None:
    reader, writer = pipes.make()
    actor = spawn(lambda: reader.read(size), keep=reader)
    actor.wait_blocked()
    data = os.urandom(size)
    writer.write(data)
    assert actor.result() == data


def test_RD_03_a_sleeping_reader_takes_the_first_bytes(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    actor = spawn(lambda: reader.read(65536), keep=reader)
    actor.wait_blocked()
    writer.write(b"x")
    assert actor.result() == b"x"


def test_RD_03_a_sleeping_readv(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()

    def body() -> tuple[int, bytes, bytes]:
        first, second = bytearray(2), bytearray(5)
        return reader.readv([first, second]), bytes(first), bytes(second)

    actor = spawn(body, keep=reader)
    actor.wait_blocked()
    writer.write(b"abc")
    assert actor.result() == (3, b"ab", b"c\0\0\0\0")


def test_RD_03_closing_the_writer_ends_the_wait(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    actor = spawn(lambda: reader.read(9), keep=reader)
    actor.wait_blocked()
    writer.close()
    assert actor.result() == b""


@named_only
def test_RD_04_a_writer_that_comes_and_goes_does_not_end_the_wait(
    pipes: Pipes, spawn: Spawn
) -> None:
    # As long as another writer stays.
    name = pipes.create()
    reader, writer = pipes.open(name, "r", NONBLOCK), pipes.open(name, "w")
    reader.set_flag(NONBLOCK, False)
    actor = spawn(lambda: reader.read(9), keep=reader)
    actor.wait_blocked()
    pipes.open(name, "w").close()
    actor.wait_blocked()
    writer.write(b"x")
    assert actor.result() == b"x"


def test_RD_05_a_read_goes_on_after_a_handler(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    reader, writer = pipes.make()

    def body() -> bytes:
        probe.install(signal.SIGUSR1)
        return reader.read(9)

    actor = processes(body, keep=reader)
    for _ in range(3):
        actor.wait_blocked()
        actor.kill(signal.SIGUSR1)
        probe.wait_handled()
    actor.wait_blocked()
    writer.write(b"data")
    assert actor.result() == b"data"


def test_RD_05_a_raising_handler_ends_the_read_without_loss(
    pipes: Pipes, processes: SpawnProcess, probe: Probe
) -> None:
    reader, writer = pipes.make()

    def body() -> bytes:
        probe.install(signal.SIGUSR1, raise_interrupted)
        with pytest.raises(InterruptedByTest):
            reader.read(9)
        return reader.read(9)

    actor = processes(body, keep=reader)
    actor.wait_blocked()
    actor.kill(signal.SIGUSR1)
    probe.wait_handled()
    actor.wait_blocked()
    writer.write(b"data")
    assert actor.result() == b"data"


@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_RD_05_other_signals_do_not_disturb(
    pipes: Pipes, processes: SpawnProcess, how: str
) -> None:
    reader, writer = pipes.make()

    def body() -> bytes:
        if how == "ignored":
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        else:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        return reader.read(9)

    actor = processes(body, keep=reader)
    actor.wait_blocked()
    switches = actor.context_switches()
    actor.kill(signal.SIGUSR1)
    actor.wait_blocked()
    assert actor.context_switches() == switches
    writer.write(b"data")
    assert actor.result() == b"data"


def test_RD_05_stop_and_continue_is_transparent(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    actor = processes(lambda: reader.read(9), keep=reader)
    actor.wait_blocked()
    actor.stop()
    actor.resume()
    actor.wait_blocked()
    writer.write(b"data")
    assert actor.result() == b"data"


def test_RD_05_data_that_came_while_stopped_is_read_after(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make()
    actor = processes(lambda: reader.read(9), keep=reader)
    actor.wait_blocked()
    actor.stop()
    writer.write(b"data")
    assert reader.pending() == 4, "the stopped reader has taken nothing"
    actor.resume()
    assert actor.result() == b"data"


def test_RD_06_one_read_is_contiguous(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    total = 60000  # numbers of four bytes

    def read_all() -> list[bytes]:
        pieces = []
        while piece := reader.read(4 * 700):
            pieces.append(piece)
        return pieces

    readers = [spawn(read_all, keep=reader) for _ in range(3)]
    for start in range(0, total, 500):
        writer.write(struct.pack("<500I", *range(start, start + 500)))
    writer.close()
    seen: list[int] = []
    for actor in readers:
        for piece in actor.result():
            assert len(piece) % 4 == 0
            numbers = struct.unpack(f"<{len(piece) // 4}I", piece)
            assert numbers == tuple(range(numbers[0], numbers[0] + len(numbers)))
            seen += numbers
    assert sorted(seen) == list(range(total)), "each byte goes to exactly one reader"


def test_RD_09_closing_the_handle_does_not_end_a_read_in_another_thread(
    pipes: Pipes, threads: Spawn
) -> None:
    reader, writer = pipes.make()
    actor = threads(lambda: reader.read(9))
    actor.wait_blocked()
    reader.close()
    actor.wait_blocked()
    assert writer.write(b"data") == 4, "the sleeping call still holds the read end"
    assert actor.result() == b"data"
    with fails_with(errno.EPIPE):
        writer.write(b"x")


def test_RD_09_closing_the_handle_does_not_end_a_write_in_another_thread(
    pipes: Pipes, threads: Spawn
) -> None:
    reader, writer = pipes.make(slots=1)
    writer.write(b"f" * PIPE_BUF)
    actor = threads(lambda: writer.write(b"w"))
    actor.wait_blocked()
    writer.close()
    actor.wait_blocked()
    assert reader.read(PIPE_BUF) == b"f" * PIPE_BUF
    assert reader.read(9) == b"w", "no end of file before the call has returned"
    assert actor.result() == 1
    assert reader.read(9) == b""


def test_RD_10_two_readers_of_one_byte_are_both_served(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    readers = [spawn(lambda: reader.read(1), keep=reader) for _ in range(2)]
    for actor in readers:
        actor.wait_blocked()
    writer.write(b"x" * 100)
    assert [actor.result() for actor in readers] == [b"x", b"x"]
    assert reader.pending() == 98


def test_WR_19_setting_nonblock_does_not_wake_a_sleeping_reader(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make()
    actor = spawn(lambda: reader.read(9), keep=reader)
    actor.wait_blocked()
    switches = actor.context_switches()
    reader.set_flag(NONBLOCK)
    actor.wait_blocked()
    assert actor.context_switches() == switches
    writer.write(b"data")
    assert actor.result() == b"data"


def test_RD_a_third_process_sees_the_same_pipe(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()
    first = processes(lambda: writer.write(b"one"), keep=writer)
    assert first.result() == 3
    second = processes(lambda: reader.read(2), keep=reader)
    assert second.result() == b"on"
    assert reader.read(9) == b"e"
