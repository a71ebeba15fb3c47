"""Bugs that the kernel's pipe once had, each with its name: K1 to K10."""

from __future__ import annotations

import errno
import os
import random
import resource
import select
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF
from conformance.marks import NONBLOCK
from support.actors import Actor, ProcessActor
from support.errors import fails_with
from support.scale import rounds

Spawn = Callable[..., Actor]
SpawnProcess = Callable[..., ProcessActor]

F_SETOWN, F_SETSIG = 8, 10  # of Linux; Python's fcntl module has no F_SETSIG


def test_K1_a_token_wakes_one_of_the_herd(pipes: Pipes, processes: SpawnProcess) -> None:
    """1b6b26ae7053: the GNU make jobserver, many waiting readers for few tokens."""
    reader, writer = pipes.make()
    herd, hops = 10, rounds(100)

    def body() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        for _ in range(hops):
            assert writer.write(reader.read(1)) == 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before

    actors = [processes(body, keep=(reader, writer)) for _ in range(herd)]
    for actor in actors:
        actor.wait_blocked()
    writer.write(b"+")
    switches = sum(actor.result() for actor in actors)
    assert switches <= 2 * herd * hops, "a token may wake its taker, not the herd"
    assert reader.read(9) == b"+"


def test_K2_the_last_writer_releases_64_readers(pipes: Pipes, spawn: Spawn) -> None:
    """After 0ddad21d3e99 (exclusive waits) a close woke only one of them."""
    reader, writer = pipes.make()
    actors = [spawn(lambda: reader.read(1), keep=reader) for _ in range(64)]
    for actor in actors:
        actor.wait_blocked()
    start = time.monotonic()
    writer.close()
    assert [actor.result() for actor in actors] == [b""] * 64
    assert time.monotonic() - start < 1.0


def test_K3_an_edge_for_each_write(pipes: Pipes, processes: SpawnProcess) -> None:
    """3a34b13a88ca: programs count on an EPOLLET event per write, read or not."""
    reader, writer = pipes.make(NONBLOCK)
    count = 200

    def body() -> Iterator[int]:
        with select.epoll() as poller:
            poller.register(reader.fileno(), select.EPOLLIN | select.EPOLLET)
            yield 0
            for _ in range(count):
                yield len(poller.poll(5))

    actor = processes(body, keep=reader)
    actor.receive()
    for _ in range(count):
        actor.go()
        actor.wait_blocked()
        writer.write(b"x")
        assert actor.receive() == 1
    actor.go()
    actor.result()
    assert reader.pending() == count


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_K4_a_signal_for_each_operation(pipes: Pipes, processes: SpawnProcess, side: str) -> None:
    """fe67f4dd8daa: SIGIO per write and per read, never only on empty or full edges."""
    reader, writer = pipes.make(NONBLOCK)
    number, count = signal.SIGRTMIN + 3, 50
    end = reader if side == "reader" else writer

    def body() -> Iterator[int]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        end.fcntl(F_SETOWN, os.getpid())
        end.fcntl(F_SETSIG, number)
        end.set_flag(os.O_ASYNC)
        yield 0
        caught = 0
        while signal.sigtimedwait({number}, 0) is not None:
            caught += 1
        yield caught

    writer.write(b"x" * count)
    actor = processes(body, keep=end)
    actor.receive()
    for _ in range(count):
        if side == "reader":
            writer.write(b"y")
        else:
            reader.read(1)
    actor.go()
    assert actor.receive() == count
    actor.go()
    actor.result()


def test_K5_single_slot_exchanges(pipes: Pipes, spawn: Spawn) -> None:
    """46c4c9d1beb7: a pipe of one slot hung; sizes around PIPE_BUF."""
    there, back = pipes.make(slots=1), pipes.make()
    assert back[1].resize(1) == PIPE_BUF
    sizes = [1, PIPE_BUF - 1, PIPE_BUF, PIPE_BUF + 1]
    count = rounds(2000)

    def echo() -> None:
        for index in range(count):
            back[1].write(there[0].read_exactly(sizes[index % 4]))

    actor = spawn(echo, keep=(there[0], back[1]))
    data = os.urandom(PIPE_BUF + 1)
    for index in range(count):
        piece = data[: sizes[index % 4]]
        assert there[1].write(piece) == len(piece)
        assert back[0].read_exactly(len(piece)) == piece
    actor.result()


def test_K6_no_lost_wake_with_many_small_messages(pipes: Pipes, processes: SpawnProcess) -> None:
    """3d252160b818 (2025): head and tail read one after the other; hackbench hung."""
    pairs = [pipes.make(slots=1) for _ in range(3)]
    count = rounds(2000)

    def sender(group: int) -> Callable[[], None]:
        def run() -> None:
            for number in range(count):
                pairs[group][1].write(struct.pack("<I96x", number))

        return run

    def receiver(group: int) -> Callable[[], int]:
        def run() -> int:
            return len(pairs[group][0].read_exactly(2 * count * 100))

        return run

    actors: list[ProcessActor] = []
    for group in range(3):
        actors += [processes(sender(group), keep=pairs[group][1]) for _ in range(2)]
        actors.append(processes(receiver(group), keep=pairs[group][0]))
    results = [actor.result(30) for actor in actors]
    assert results == [None, None, 2 * count * 100] * 3


def test_K7_closing_while_the_other_side_posts(pipes: Pipes) -> None:
    """Watch queues (2022): a post into a queue that was being taken down."""
    for index in range(rounds(150)):
        reader, writer = pipes.make(NONBLOCK, slots=1)
        posting = threading.Event()
        refused: list[int | None] = []

        def post(writer: object = writer, posting: threading.Event = posting) -> None:
            while True:
                try:
                    writer.write(b"post")  # type: ignore[attr-defined]
                except BlockingIOError:
                    pass
                except BrokenPipeError as error:
                    refused.append(error.errno)  # noqa: B023 - the thread ends in this round
                    return
                posting.set()

        thread = threading.Thread(target=post)
        thread.start()
        posting.wait(10)
        if index % 2:
            reader.read(100)
        reader.close()
        thread.join(10)
        assert refused == [errno.EPIPE]
        writer.close()


@pytest.mark.parametrize("slots", [1, 2, 16])
def test_K8_no_flag_of_a_slots_previous_life(pipes: Pipes, slots: int) -> None:
    """Dirty Pipe: a merge flag that an earlier use of the slot had left behind."""
    reader, writer = pipes.make(NONBLOCK, slots=slots)
    for _ in range(3):
        writer.set_flag(os.O_DIRECT)
        for index in range(slots):
            assert writer.write(bytes([index])) == 1
        assert [reader.read(9) for _ in range(slots)] == [bytes([i]) for i in range(slots)]
        writer.set_flag(os.O_DIRECT, False)
        for _ in range(slots):  # each of these slots was a packet's
            writer.write(b"s" * (PIPE_BUF - 1))
            assert writer.write(b"t") == 1
        assert reader.read(slots * PIPE_BUF) == (b"s" * (PIPE_BUF - 1) + b"t") * slots
        for _ in range(slots):  # and each of these was a stream's
            writer.set_flag(os.O_DIRECT)
            writer.write(b"p")
            writer.set_flag(os.O_DIRECT, False)
            if slots == 1:
                with fails_with(errno.EAGAIN):
                    writer.write(b"q")
            else:
                writer.write(b"q")
                assert reader.read(1) == b"p"
            assert reader.read(9) == (b"p" if slots == 1 else b"q")


def test_K9_two_writers_and_two_readers_on_one_slot(pipes: Pipes, spawn: Spawn) -> None:
    """FreeBSD D35415: data and lock on one wait channel, a livelock."""
    reader, writer = pipes.make(slots=1)
    count = rounds(400)
    size = 3000

    def write() -> None:
        for _ in range(count):
            writer.write(b"x" * size)

    def read() -> int:
        total = 0
        while piece := reader.read(size):
            total += len(piece)
        return total

    readers = [spawn(read, keep=reader) for _ in range(2)]
    writers = [spawn(write, keep=writer) for _ in range(2)]
    for actor in writers:
        actor.result(30)
    writer.close()
    assert sum(actor.result(30) for actor in readers) == 2 * count * size


def test_K10_a_selected_waiter_that_leaves_hands_on(pipes: Pipes, processes: SpawnProcess) -> None:
    """prepare_to_wait_event: who was chosen and leaves for a signal must not keep the wake."""
    reader, writer = pipes.make()
    tokens = rounds(800)

    def body() -> int:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        taken = 0
        while reader.read(1):
            taken += 1
        return taken

    actors = [processes(body, keep=reader) for _ in range(4)]
    for actor in actors:
        actor.wait_blocked()
    chance = random.Random(10)
    for _ in range(tokens):
        victim = chance.choice(actors)
        if chance.random() < 0.5:
            victim.kill(signal.SIGUSR1)
            writer.write(b"+")
        else:
            writer.write(b"+")
            victim.kill(signal.SIGUSR1)
    for actor in actors:
        actor.wait_blocked()  # nobody sleeps while there is a token left
    assert reader.pending() == 0
    writer.close()
    assert sum(actor.result() for actor in actors) == tokens
