"""end.notifier(): exact counts, whoever operates and however it interleaves; one relay thread."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pickle
import random
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import shmpipe

from support.actors import Actor, ProcessActor, ThreadActor
from support.errors import fails_with
from support.run import run_id

# To fork is the subject.  Python counts the relay's thread, too.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

SIZES = (1, 8, 100, 2048, 4095, 4096, 4097, 9000, 70000)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def pipe(stack: ExitStack, flags: int = 0, **options: int) -> tuple[shmpipe.Reader, shmpipe.Writer]:
    reader, writer = shmpipe.pipe(flags, **options)
    return stack.enter_context(reader), stack.enter_context(writer)


def tasks() -> list[str]:
    return os.listdir("/proc/self/task")


def arriving(notifier: shmpipe.Notifier, total: int) -> None:
    """The eventfd itself must be told of exactly so many, with nobody's help."""
    seen = 0
    while seen < total:
        assert select.select([notifier], [], [], 10)[0], f"{seen} of {total} arrived"
        seen += os.eventfd_read(notifier.fileno())
    assert (seen, notifier.read()) == (total, 0)


def operate(reader: shmpipe.Reader, writer: shmpipe.Writer, seed: int) -> tuple[int, int]:
    """Random reads and writes that never wait: how many of each moved data."""
    choose = random.Random(seed)
    written = taken = 0
    for _ in range(2000):
        size = choose.choice(SIZES)
        if choose.random() < 0.5:
            written += bool(writer.write(bytes(size)))
        else:
            taken += bool(reader.read(size))
    return written, taken


# -- What counts


@pytest.mark.parametrize("flags", [0, os.O_DIRECT], ids=["stream", "packets"])
def test_n_operations_of_processes_and_threads_give_n(stack: ExitStack, flags: int) -> None:
    reader, writer = pipe(stack, os.O_NONBLOCK | flags)
    writes = stack.enter_context(reader.notifier())
    reads = stack.enter_context(writer.notifier())
    bodies = [partial(operate, reader, writer, seed) for seed in range(5)]
    actors: list[Actor] = [ProcessActor(body) for body in bodies[:3]]
    actors += [ThreadActor(body) for body in bodies[3:]]
    sums = [actor.result(30) for actor in actors]
    arriving(writes, sum(written for written, _ in sums))
    arriving(reads, sum(taken for _, taken in sums))


def test_what_moves_nothing_does_not_count(stack: ExitStack) -> None:
    reader, writer = pipe(stack, os.O_NONBLOCK)
    writes = stack.enter_context(reader.notifier())
    reads = stack.enter_context(writer.notifier())
    assert reader.read(10) is None
    writer.write(b"")
    reader.read(0)
    writer.write(bytes(writer.capacity))
    assert writes.read() == 1
    assert writer.write(b"x") is None
    writer.capacity = 2 * writer.capacity
    writer.close()
    assert reader.read(1 << 20)
    assert reader.read(10) == b""
    assert (writes.read(), reads.read()) == (0, 0)  # closing the end has ended its counting


def test_five_pages_through_one_slot_count_five(stack: ExitStack) -> None:
    """As the kernel signals them (IO-4): before each wait, and at the end."""
    reader, writer = pipe(stack, capacity=4096)
    notifier = stack.enter_context(reader.notifier())
    actor = ThreadActor(lambda: writer.write(bytes(5 * 4096)))
    for _ in range(5):
        assert select.select([notifier], [], [], 10)[0]
        assert notifier.read() == 1
        reader.read(4096)
    assert actor.result() == 5 * 4096
    assert notifier.read() == 0


def test_read_is_never_late(stack: ExitStack) -> None:
    """An operation that has returned, in whatever process, is in the count, relay or not."""
    reader, writer = pipe(stack)
    notifier = stack.enter_context(reader.notifier())

    def write_on_demand() -> Iterator[None]:
        for _ in range(200):
            writer.write(b"x")
            yield

    actor = ProcessActor(write_on_demand)
    for _ in range(200):
        actor.receive()
        assert notifier.read() == 1
        actor.go()
    actor.result()


def test_each_notifier_counts_from_its_making(stack: ExitStack) -> None:
    reader, writer = pipe(stack)
    notifiers = []
    for number in range(100):
        notifiers.append(stack.enter_context(reader.notifier()))
        writer.write(b"x")
        assert len(tasks()) == 2, number
    for number, notifier in enumerate(notifiers):
        arriving(notifier, 100 - number)


def test_a_read_write_end_counts_both(stack: ExitStack) -> None:
    name = f"notifier-{run_id()}"
    shmpipe.mkfifo(name)
    stack.callback(shmpipe.unlink, name)
    end = stack.enter_context(shmpipe.open(name, "r+"))
    notifier = stack.enter_context(end.notifier())
    end.write(b"abcdef")
    end.read(3)
    end.read(3)
    arriving(notifier, 3)


def test_what_was_counted_outlives_the_end(stack: ExitStack) -> None:
    reader, writer = pipe(stack)
    other = stack.enter_context(reader.notifier())
    notifier = stack.enter_context(reader.notifier())
    for _ in range(7):
        writer.write(b"x")
    reader.close()
    assert len(tasks()) == 1  # there is nothing to listen to
    arriving(notifier, 7)
    assert other.read() == 7


# -- Other processes


def test_unrelated_and_passed_writers(stack: ExitStack) -> None:
    name = f"notifier-{run_id()}"
    shmpipe.mkfifo(name)
    stack.callback(shmpipe.unlink, name)
    reader = stack.enter_context(shmpipe.open(name, "r", flags=os.O_NONBLOCK))
    anonymous, writer = pipe(stack)
    named = stack.enter_context(reader.notifier())
    passed = stack.enter_context(anonymous.notifier())
    program = """
import shmpipe, sys
how, what, count = sys.argv[1:]
with shmpipe.open(what, "w") if how == "open" else shmpipe.attach(what) as writer:
    for _ in range(int(count)):
        writer.write(b"12345678")
"""
    children = [
        subprocess.Popen([sys.executable, "-c", program, *arguments], pass_fds=writer.pass_fds())
        for arguments in (
            ("open", name, "500"),
            ("open", name, "300"),
            ("attach", writer.token(), "200"),
        )
    ]
    assert [child.wait(20) for child in children] == [0, 0, 0]
    arriving(named, 800)
    arriving(passed, 200)


def test_a_forked_childs_copy_says_that_it_is_none(stack: ExitStack) -> None:
    reader, writer = pipe(stack)
    notifier = stack.enter_context(reader.notifier())

    def child() -> tuple[object, ...]:
        assert len(tasks()) == 1
        errors = []
        for call in (notifier.read, notifier.fileno, notifier.__enter__):
            with pytest.raises(ValueError, match="of the parent process") as caught:
                call()
            errors.append(str(caught.value))
        was_closed, text = notifier.closed, repr(notifier)
        notifier.close()
        with reader.notifier() as own:
            writer.write(b"x")
            arriving(own, 1)
        assert len(tasks()) == 1
        return was_closed, "closed" in text

    assert ProcessActor(child).result() == (True, True)
    arriving(notifier, 1)


def test_a_killed_process_leaves_nobody_armed(stack: ExitStack) -> None:
    reader, writer = pipe(stack)

    def listen() -> Iterator[None]:
        held = writer.notifier(), reader.notifier()
        yield
        del held

    actor = ProcessActor(listen)
    actor.receive()
    assert reader.stat().poll_usage == 8 | 16
    actor.kill()
    actor.wait_status()
    for _ in range(4096):
        writer.write(b"x")
        reader.read(1)
    assert reader.stat().poll_usage == 0
    actor.dispose()


# -- Storms


@pytest.mark.parametrize("size", [8, 256, 4096])
def test_one_record_for_each_count_never_stalls(stack: ExitStack, size: int) -> None:
    """The worst shape (IO-10): writers at full speed, blocking, and a reader that takes exactly one
    record for each operation it is told of.  With SIGIO that stalls within moments.
    """
    per_writer, writers = 4000, 3
    reader, writer = pipe(stack, os.O_DIRECT)
    notifier = stack.enter_context(reader.notifier())

    def write() -> None:
        for _ in range(per_writer):
            writer.write(bytes(size))

    actors = [ProcessActor(write) for _ in range(writers)]
    reader.nonblocking = True  # a record that is not there yet would be None
    left = writers * per_writer
    while left:
        assert select.select([notifier], [], [], 20)[0], f"stalls with {left} records to come"
        for _ in range(notifier.read()):
            record = reader.read(4096)
            assert record is not None, "told of a record that is not there"
            assert len(record) == size
            left -= 1
    for actor in actors:
        actor.result()
    assert reader.read(1) is None
    assert notifier.read() == 0


def test_a_writer_that_waits_for_counts_of_reads(stack: ExitStack) -> None:
    """The other direction: one record for each read, into a full pipe."""
    reader, writer = pipe(stack, os.O_NONBLOCK, capacity=4 * 4096)
    notifier = stack.enter_context(writer.notifier())
    for _ in range(4):
        assert writer.write(bytes(4096)) == 4096

    def read() -> int:
        poller = select.poll()
        poller.register(reader, select.POLLIN)
        for _ in range(3000):
            while reader.read(4096) is None:
                poller.poll()
        return 3000

    actor = ProcessActor(read)
    told = 0
    while told < 3000 - 4:
        assert select.select([notifier], [], [], 20)[0], f"stalls after {told} reads"
        for _ in range(notifier.read()):
            assert writer.write(bytes(4096)) == 4096, "told of room that is not there"
            told += 1
    while told < 3000:
        assert select.select([notifier], [], [], 20)[0]
        told += notifier.read()
    assert actor.result() == told == 3000


def test_writers_killed_at_random_instants(stack: ExitStack) -> None:
    """Whatever their last instant was: as many counts as records, with nobody left to write."""
    reader, writer = pipe(stack, os.O_NONBLOCK, capacity=1 << 20)
    notifier = stack.enter_context(reader.notifier())
    choose = random.Random(4)

    def write() -> None:
        while True:
            writer.write(b"12345678")

    for _ in range(60):
        actor = ProcessActor(write)
        counted = records = 0
        goal = choose.randrange(1, 3000)
        while counted < goal:
            counted += notifier.read()
            records += len(reader.read(1 << 20) or b"") // 8
        actor.kill()
        actor.wait_status()
        actor.dispose()
        while data := reader.read(1 << 20):
            records += len(data) // 8
        while counted < records:  # a relay takes the lock from the dead and counts for it
            assert select.select([notifier], [], [], 10)[0], (counted, records)
            counted += notifier.read()
        assert counted == records


# -- Event loops


def test_asyncio_is_told_of_every_operation(stack: ExitStack) -> None:
    reader, writer = pipe(stack, os.O_NONBLOCK)
    notifier = stack.enter_context(reader.notifier())

    def write() -> None:
        for number in range(300):
            while writer.write(number.to_bytes(4, "little")) is None:
                pass

    async def collect() -> list[int]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        seen: list[int] = []

        def told() -> None:
            records = [reader.read(4) or b"" for _ in range(notifier.read())]
            seen.extend(int.from_bytes(record, "little") for record in records)
            if len(seen) == 300:
                done.set_result(None)

        loop.add_reader(notifier, told)
        try:
            await done
        finally:
            loop.remove_reader(notifier)
        return seen

    actor = ProcessActor(write)
    assert asyncio.run(collect()) == list(range(300))
    actor.result()


def test_an_edge_for_each_operation_that_arrives(stack: ExitStack) -> None:
    reader, writer = pipe(stack)
    notifier = stack.enter_context(reader.notifier())
    with select.epoll() as poller:
        poller.register(notifier, select.EPOLLIN | select.EPOLLET)
        for _ in range(50):
            writer.write(b"x")  # never read, and the eventfd is never read either
            assert poller.poll(10) == [(notifier.fileno(), select.EPOLLIN)]
    assert notifier.read() == 50


# -- The thread


def test_signals_are_for_the_others(stack: ExitStack) -> None:
    reader, writer = pipe(stack)
    before = set(tasks())
    notifier = stack.enter_context(reader.notifier())
    (relay,) = set(tasks()) - before
    mask = next(
        line.split()[1]
        for line in Path(f"/proc/self/task/{relay}/status").read_text().splitlines()
        if line.startswith("SigBlk")
    )
    # All but those that nobody can block, and the two that the C library keeps for itself.
    assert int(mask, 16) | 1 << 8 | 1 << 18 | 3 << 31 == 2**64 - 1
    seen: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda *_: seen.append(threading.get_native_id()))
    try:
        for _ in range(100):
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert set(seen) == {threading.get_native_id()}
    writer.write(b"x")
    arriving(notifier, 1)


def test_the_thread_comes_with_the_first_and_goes_with_the_last(stack: ExitStack) -> None:
    reader, writer = pipe(stack)
    for _ in range(50):
        with reader.notifier(), writer.notifier():
            assert len(tasks()) == 2
            writer.write(b"x")
        while len(tasks()) > 1:  # who has been joined is listed until the kernel has put it away
            os.sched_yield()


def test_it_costs_nothing_while_idle(stack: ExitStack) -> None:
    reader, writer = pipe(stack)
    before = set(tasks())
    notifier = stack.enter_context(reader.notifier())
    (relay,) = set(tasks()) - before
    writer.write(b"x")
    arriving(notifier, 1)

    def switches() -> str:
        status = Path(f"/proc/self/task/{relay}/status").read_text()
        return status[status.index("voluntary_ctxt_switches") :]

    state = Path(f"/proc/self/task/{relay}/stat")
    while state.read_text().rsplit(")", 1)[1].split()[0] != "S":
        os.sched_yield()
    asleep = switches()
    idle_reader, idle_writer = pipe(stack)
    for _ in range(100_000):  # others may be busy
        idle_writer.write(b"x")
        idle_reader.read(1)
    assert switches() == asleep


def test_many_pipes(stack: ExitStack) -> None:
    pipes = [pipe(stack) for _ in range(150)]
    notifiers = [stack.enter_context(reader.notifier()) for reader, _ in pipes]
    assert len(tasks()) <= 1 + 3
    for number, (_, writer) in enumerate(pipes):
        for _ in range(number % 7 + 1):
            writer.write(b"x")
    for number, notifier in enumerate(notifiers):
        arriving(notifier, number % 7 + 1)


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "os.kill(os.getpid(), 15)", "del notifier"])
def test_the_interpreter_ends_with_live_notifiers(ending: str) -> None:
    program = f"""
import os, shmpipe, sys
reader, writer = shmpipe.pipe()
notifier = reader.notifier()
others = [writer.notifier() for _ in range(10)]
for _ in range(1000): writer.write(b"x")
with reader, writer: pass
{ending}
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if ending.startswith("os.kill"):
        assert (done.returncode, done.stderr) == (-15, "")
    elif ending.startswith("del"):
        assert done.returncode == 0
        assert "ResourceWarning: unclosed <shmpipe.Notifier fd=" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")


# -- Manners


def test_errors(stack: ExitStack) -> None:
    reader, writer = pipe(stack)
    notifier = reader.notifier()
    assert repr(notifier).startswith(f"<shmpipe.Notifier fd={notifier.fileno()} of <shmpipe.Reader")
    with pytest.raises(TypeError, match="belongs to its process"):
        pickle.dumps(notifier)
    notifier.close()
    notifier.close()
    assert notifier.closed
    assert repr(notifier).startswith("<shmpipe.Notifier closed of <shmpipe.Reader")
    for call in (notifier.read, notifier.fileno, notifier.__enter__):
        with pytest.raises(ValueError, match="closed notifier"):
            call()
    reader.close()
    with pytest.raises(ValueError, match="closed file"):
        reader.notifier()
    writer.close()


def test_no_descriptor_is_left(stack: ExitStack) -> None:
    import resource

    reader, _ = pipe(stack)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    fillers = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        with fails_with(errno.EMFILE):
            reader.notifier()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in fillers:
            os.close(each)
    assert len(tasks()) == 1
