"""One measurement each: sets up processes, runs a loop of loops.py in them, returns a number."""

import fcntl
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import shmpipe
from shmpipe_tools.bench import loops
from shmpipe_tools.bench.transports import Transport
from shmpipe_tools.children import Children, shared_numbers
from shmpipe_tools.failure import Failure
from shmpipe_tools.inspect.discover import own_segments, segment_path

# Arms a read end, once, in the process that reads: what to call after each read.
Listen = Callable[[Any], Callable[[], object]]

# A measurement that is not over after its time and this much more hangs.
GRACE_SECONDS = 15.0


def two_cores() -> tuple[int, int] | None:
    """The cores that the two processes are pinned to; None where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else None


def throughput(transport: Transport, size: int, capacity: int, seconds: float) -> float:
    """Bytes per second from one writer process to one reader process, each on its own core."""
    result = shared_numbers(1)
    reader, writer = transport.make(capacity)
    payload = b"\xa5" * size
    calls = max(1, min(256, (1 << 18) // size))
    near, far = need_two_cores()

    def write() -> None:
        os.sched_setaffinity(0, {near})
        transport.close(reader)
        loops.pump(transport.write, writer, payload)

    def read() -> None:
        os.sched_setaffinity(0, {far})
        transport.close(writer)
        result[0] = loops.drain(transport.read, reader, size, calls, seconds)
        transport.close(reader)

    run_roles({"writer": write, "reader": read}, [reader, writer], transport, seconds)
    return result[0]


def notified(transport: Transport, listen: Listen, size: int, seconds: float) -> float:
    """Bytes per second of writes of `size` while the reading process is told of each.

    The reader takes what there is, much at a time, so that it is the writing that is measured.
    """
    result = shared_numbers(1)
    reader, writer = transport.make(None)
    payload = b"\xa5" * size
    near, far = need_two_cores()

    def write() -> None:
        os.sched_setaffinity(0, {near})
        transport.close(reader)
        loops.pump(transport.write, writer, payload)

    def read() -> None:
        os.sched_setaffinity(0, {far})
        transport.close(writer)
        told = listen(reader)

        def take(end: Any, count: int) -> bytes:
            data = transport.read(end, count)
            told()
            return data

        result[0] = loops.drain(take, reader, 1 << 16, 16, seconds)
        transport.close(reader)

    run_roles({"writer": write, "reader": read}, [reader, writer], transport, seconds)
    return result[0]


def by_signal(end: Any) -> Callable[[], object]:
    """O_ASYNC; the signal stays blocked, which is the cheapest that it can be."""
    control = fcntl.fcntl if isinstance(end, int) else shmpipe.fcntl
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
    control(end, fcntl.F_SETOWN, os.getpid())
    control(end, fcntl.F_SETFL, control(end, fcntl.F_GETFL) | os.O_ASYNC)
    return lambda: None


def by_count(end: shmpipe.End) -> Callable[[], object]:
    """A notifier, whose count is taken after each read."""
    return end.notifier().read


def round_trip(transport: Transport, one_core: bool, seconds: float) -> float:
    """Seconds for 8 bytes to another process and back."""
    result = shared_numbers(1)
    here, there = transport.make(None), transport.make(None)
    near, far = (min(os.sched_getaffinity(0)),) * 2 if one_core else need_two_cores()

    def ask() -> None:
        os.sched_setaffinity(0, {near})
        transport.close(there[0])
        transport.close(here[1])
        result[0] = loops.exchange(
            transport.write, there[1], transport.read, here[0], b"8 bytes.", 64, seconds
        )
        transport.close(there[1])

    def answer() -> None:
        os.sched_setaffinity(0, {far})
        transport.close(there[1])
        transport.close(here[0])
        loops.echo(transport.read, there[0], transport.write, here[1], 8)

    run_roles({"asking": ask, "answering": answer}, [*here, *there], transport, seconds)
    return result[0]


def busy_thread(transport: Transport, size: int, seconds: float) -> float:
    """Seconds per write and read in one process while another of its threads computes.

    Each thread has its own core: a call that gives up the GIL then loses it for as long
    as CPython lets the other thread have it (sys.getswitchinterval()), which is the point.
    """
    near, far = need_two_cores()
    result = shared_numbers(1)
    reader, writer = transport.make(None)

    def work() -> None:
        os.sched_setaffinity(0, {near})
        done = threading.Event()

        def compute() -> None:
            os.sched_setaffinity(0, {far})
            number = 0
            while not done.is_set():
                number = (number * 1103515245 + 12345) & 0x7FFFFFFF

        busy = threading.Thread(target=compute)
        busy.start()
        try:
            result[0] = loops.exchange(
                transport.write, writer, transport.read, reader, b"\xa5" * size, 16, seconds
            )
        finally:
            done.set()
            busy.join()

    run_roles({"two-threaded": work}, [reader, writer], transport, seconds)
    return result[0]


def create_and_close(transport: Transport, seconds: float) -> float:
    """Seconds to create an anonymous pipe of default capacity and close it."""
    result = shared_numbers(1)

    def work() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        result[0] = loops.make_and_close(transport.make, transport.close, 16, seconds)

    run_roles({"creating": work}, [], transport, seconds)
    return result[0]


def memory_of_anonymous(used: bool) -> float:
    """Bytes of memory behind a default pipe, fresh or after its ring went round twice."""
    known = own_segments()
    reader, writer = shmpipe.pipe()
    with reader, writer:
        if used:
            for _ in range(2):
                writer.write(bytes(writer.capacity))
                reader.read(writer.capacity)
        (facts,) = (facts for key, facts in own_segments().items() if key not in known)
        return float(facts.st_blocks * 512)


def memory_of_named() -> float:
    """Bytes of memory behind a default named pipe that nobody has opened."""
    name = f"bench-{os.getpid()}"
    shmpipe.mkfifo(name)
    try:
        return float(os.stat(segment_path(name)).st_blocks * 512)
    finally:
        shmpipe.unlink(name)


def need_two_cores() -> tuple[int, int]:
    """The same, or a Failure."""
    cores = two_cores()
    if cores is None:
        raise Failure("bench: this measurement needs two cores")
    return cores


def run_roles(
    roles: dict[str, Callable[[], None]], ends: list[Any], transport: Transport, seconds: float
) -> None:
    """Runs each role in a process of its own; the parent keeps no end open meanwhile."""
    with Children() as children:
        try:
            for role, body in roles.items():
                children.start(f"{role} {transport.name}", body)
        finally:
            for end in ends:
                transport.close(end)
        children.wait_for_success(seconds * (1 + loops.WARM_UP) + GRACE_SECONDS)
