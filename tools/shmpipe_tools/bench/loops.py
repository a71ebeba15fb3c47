"""The timed loops: the same code for every transport, nothing in them but the calls."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

from shmpipe_tools.bench.transports import Read, Write

# Before each measurement the same loop runs for this part of its time, uncounted.
WARM_UP = 0.25


def pump(write: Write, end: Any, payload: bytes) -> None:
    """Writes until the last reader is gone."""
    try:
        while True:
            write(end, payload)
    except BrokenPipeError:
        return


def drain(read: Read, end: Any, size: int, calls: int, seconds: float) -> float:
    """Bytes per second that reads of `size` deliver; looks at the clock every `calls` reads."""
    rate = 0.0
    for span in (seconds * WARM_UP, seconds):
        received = 0
        elapsed = 0.0
        start = perf_counter()
        while elapsed < span:
            for _ in range(calls):
                received += len(read(end, size))
            elapsed = perf_counter() - start
        rate = received / elapsed
    return rate


def echo(read: Read, source: Any, write: Write, sink: Any, size: int) -> None:
    """Sends back what arrives until end of file."""
    while data := read(source, size):
        write(sink, data)


def exchange(
    write: Write, sink: Any, read: Read, source: Any, payload: bytes, calls: int, seconds: float
) -> float:
    """Seconds per pair of one write to `sink` and one read from `source`."""
    size = len(payload)
    each = 0.0
    for span in (seconds * WARM_UP, seconds):
        done = 0
        elapsed = 0.0
        start = perf_counter()
        while elapsed < span:
            for _ in range(calls):
                write(sink, payload)
                read(source, size)
            done += calls
            elapsed = perf_counter() - start
        each = elapsed / done
    return each


def make_and_close(
    make: Callable[[int | None], tuple[Any, Any]],
    close: Callable[[Any], None],
    calls: int,
    seconds: float,
) -> float:
    """Seconds to create one pipe of default capacity and close both its ends."""
    each = 0.0
    for span in (seconds * WARM_UP, seconds):
        done = 0
        elapsed = 0.0
        start = perf_counter()
        while elapsed < span:
            for _ in range(calls):
                reader, writer = make(None)
                close(reader)
                close(writer)
            done += calls
            elapsed = perf_counter() - start
        each = elapsed / done
    return each
