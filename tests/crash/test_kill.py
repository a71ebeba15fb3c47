"""SIGKILL of a holder: the survivor sees end of file or EPIPE, at once, and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conformance.backends import Backend, Pipes
from conformance.ends import PIPE_BUF, End
from support.actors import ProcessActor
from support.errors import fails_with
from support.scale import rounds

SpawnProcess = Callable[..., ProcessActor]

KILLS = max(30, rounds(30))
# Seconds, on a machine with nothing else to do: from the call of kill() to the return of read().
MEDIAN_LIMIT = 1e-3

# What the victim does when the signal comes.
victims = pytest.mark.parametrize("victim", ["idle", "blocked"])
# Whether somebody else still holds the same end.
others = pytest.mark.parametrize("last", [True, False], ids=["last", "not-last"])


def victim_body(end: End, how: str) -> Callable[[], Iterator[str]]:
    """Hold an end: idle (after one operation), or blocked in a read or a write."""

    def body() -> Iterator[str]:
        yield "holding"
        if how == "blocked":
            if end.writable:
                end.write(b"w" * 10 * PIPE_BUF)
            else:
                end.read_exactly(10 * PIPE_BUF)

    return body


def start_victim(processes: SpawnProcess, end: End, how: str) -> ProcessActor:
    actor = processes(victim_body(end, how), keep=end)
    assert actor.receive() == "holding"
    if how == "blocked":
        actor.go()
        actor.wait_blocked()
    return actor


@pytest.mark.parametrize("what", ["eof", "epipe", "hup", "err"])
def test_the_survivor_knows_at_once(backend: Backend, what: str) -> None:
    """From the call of kill() to the return of the read, write or epoll_wait that was asleep."""
    program = Path(__file__).with_name("kill_latency.py")
    outcome = subprocess.run(
        [sys.executable, str(program), backend.name, what, str(KILLS)],
        stdout=subprocess.PIPE,
        timeout=50,
        check=True,
    )
    latencies, control = json.loads(outcome.stdout)
    assert len(latencies) == len(control) == KILLS
    figures = f"{backend.name}: {what}, {KILLS} kills, ms: {distribution(latencies)}"
    figures += f"; os.pipe meanwhile: {distribution(control)}"
    print(figures)
    if backend.shm and what != "epipe":
        # Most of the time is the kernel's, which frees the victim's memory first.
        assert statistics.median(latencies) <= max(MEDIAN_LIMIT, 2 * statistics.median(control))
    assert max(latencies) < 1.0


def distribution(latencies: list[float]) -> str:
    ordered = sorted(1e3 * latency for latency in latencies)
    return " ".join(
        f"{name} {ordered[min(len(ordered) - 1, int(part * len(ordered)))]:.3f}"
        for name, part in (("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
    )


@victims
@others
def test_a_killed_writer(pipes: Pipes, processes: SpawnProcess, victim: str, last: bool) -> None:
    reader, writer = pipes.make(slots=2)
    committed = b"c" * 100
    writer.write(committed)
    actor = start_victim(processes, writer, victim)
    if last:
        writer.close()
    actor.kill()
    actor.wait_status()
    # A blocked victim had merged nothing (10 pages) and filled the second slot.
    written = b"w" * PIPE_BUF if victim == "blocked" else b""
    assert reader.read(9 * PIPE_BUF) == committed + written, "nothing committed is lost"
    reader.set_flag(os.O_NONBLOCK)
    if last:
        assert reader.read(1) == b""
    else:
        with fails_with(errno.EAGAIN):
            reader.read(1)
        assert writer.write(b"goes on") == 7
        assert reader.read(99) == b"goes on"


@victims
@others
def test_a_killed_reader(pipes: Pipes, processes: SpawnProcess, victim: str, last: bool) -> None:
    reader, writer = pipes.make(slots=2)
    actor = start_victim(processes, reader, victim)
    if last:
        reader.close()
    actor.kill()
    actor.wait_status()
    if last:
        with fails_with(errno.EPIPE):
            writer.write(b"x")
    else:
        assert writer.write(b"goes on") == 7
        assert reader.read(99) == b"goes on"


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_a_killed_bystander_disturbs_nobody(
    pipes: Pipes, processes: SpawnProcess, side: str
) -> None:
    # Two readers (or writers) sleep; one is killed; the other gets what comes.
    reader, writer = pipes.make(slots=1)
    for index in range(rounds(10)):
        if side == "reader":
            actors = [processes(lambda: reader.read(PIPE_BUF), keep=reader) for _ in range(2)]
        else:
            writer.write(b"f" * PIPE_BUF)
            actors = [
                processes(lambda: writer.write(b"w" * PIPE_BUF), keep=writer) for _ in range(2)
            ]
        for actor in actors:
            actor.wait_blocked()
        # Dead, not only killed: a dying reader may still take data with it (LF-7).
        victim, survivor = actors if index % 2 else reversed(actors)
        victim.kill()
        victim.wait_status()
        if side == "reader":
            writer.write(b"data")
            assert survivor.result() == b"data"
        else:
            assert reader.read(PIPE_BUF) == b"f" * PIPE_BUF
            assert survivor.result() == PIPE_BUF
            assert reader.read(PIPE_BUF) == b"w" * PIPE_BUF


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_kills_in_the_middle_of_a_stream(pipes: Pipes, processes: SpawnProcess, side: str) -> None:
    """The survivor sees a prefix (of what was written) or EPIPE, whenever the kill comes."""
    for index in range(rounds(20)):
        reader, writer = pipes.make(slots=2)
        records = [number.to_bytes(4, "big") * 200 for number in range(50 + 13 * index)]

        def write(writer: End = writer, records: list[bytes] = records) -> None:
            for record in records:
                writer.write(record)
            writer.write(b"end" * 50000)

        def read(reader: End = reader, records: list[bytes] = records) -> None:
            for record in records:
                assert reader.read_exactly(len(record)) == record
            reader.read_exactly(1 << 30)

        if side == "writer":
            actor = processes(write, keep=writer)
            writer.close()
            received = reader.read_exactly(800 * (20 + 7 * index))
            actor.kill()
            while piece := reader.read(65536):
                received += piece
            assert (b"".join(records) + b"end" * 50000).startswith(received)
        else:
            actor = processes(read, keep=reader)
            reader.close()
            for record in records[:20]:
                writer.write(record)
            actor.kill()
            with fails_with(errno.EPIPE):
                while True:
                    writer.write(b"x" * 800)
        actor.wait_status()
        reader.close()
        writer.close()
