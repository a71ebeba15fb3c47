"""The cases of the benchmark: what is measured, at which sizes, and what is aimed at."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from shmpipe_tools.bench import event_loop, measures
from shmpipe_tools.bench.event_loop import KERNEL_STREAMS, SHARED_STREAMS
from shmpipe_tools.bench.transports import KERNEL, SHARED, Transport
from shmpipe_tools.sizes import format_size

_64K = 1 << 16
_1M = 1 << 20
_4M = 1 << 22


class Unit(Enum):
    """What a measured number means."""

    BYTES_PER_SECOND = "bytes/s"
    SECONDS = "s"
    BYTES = "bytes"

    @property
    def more_is_better(self) -> bool:
        """Whether a larger figure is the better one."""
        return self is Unit.BYTES_PER_SECOND


@dataclass(frozen=True)
class Target:
    """What the project aims at: a ratio to os.pipe of at least, or a figure of its own below."""

    ratio_at_least: float | None = None
    below: float | None = None


@dataclass(frozen=True)
class Case:
    """One line of the result."""

    key: str
    title: str
    unit: Unit
    target: Target
    shared: Callable[[float], float]  # seconds to spend -> figure
    kernel: Callable[[float], float] | None  # None where os.pipe has nothing to compare
    timed: bool = True  # False: a fact that is the same each time
    cores: int = 1


def all_cases() -> list[Case]:
    """Every case, in the order in which they are measured and shown."""
    return [
        _throughput(64, 4.0),
        _throughput(1 << 10, 3.0),
        _throughput(1 << 12, 1.3),
        _throughput(_64K, 3.0),
        _throughput(_1M, 4.0),
        _throughput(_64K, 5.0, big=True),
        _throughput(_1M, 8.0, big=True),
        _compared(
            "round-trip-two-cores",
            "round trip of 8 B, two cores",
            40.0,
            lambda pipe, seconds: measures.round_trip(pipe, one_core=False, seconds=seconds),
            cores=2,
        ),
        _compared(
            "round-trip-one-core",
            "round trip of 8 B, one core",
            1 / 1.3,
            lambda pipe, seconds: measures.round_trip(pipe, one_core=True, seconds=seconds),
        ),
        _compared(
            "busy-thread",
            "64 B write + read beside a busy thread",
            50.0,
            lambda pipe, seconds: measures.busy_thread(pipe, 64, seconds),
            cores=2,
        ),
        _aio_throughput(64, 2.0),
        _aio_throughput(_64K, 2.0),
        _aio_round_trip("two", 2.0),
        _aio_round_trip("one", 1.0),
        _notified(
            "notified-eventfd", "64 B writes, notifier (os.pipe: O_ASYNC)", measures.by_count, 3.0
        ),
        _notified("notified-sigio", "64 B writes, O_ASYNC", measures.by_signal, 0.9),
        Case(
            "create-close",
            "create and close a pipe",
            Unit.SECONDS,
            Target(below=300e-6),
            lambda seconds: measures.create_and_close(SHARED, seconds),
            lambda seconds: measures.create_and_close(KERNEL, seconds),
        ),
        _memory("fresh", "memory, anonymous, fresh", lambda: measures.memory_of_anonymous(False)),
        _memory("used", "memory, anonymous, used", lambda: measures.memory_of_anonymous(True)),
        _memory("named", "memory, named", measures.memory_of_named),
    ]


def _throughput(size: int, target: float, *, big: bool = False) -> Case:
    kernel_capacity, shared_capacity = (_1M, _4M) if big else (_64K, _64K)
    text = format_size(size)
    rings = f"{format_size(shared_capacity)} ring"
    if big:
        rings += f" (os.pipe: {format_size(kernel_capacity)})"
    return Case(
        f"{'big-' if big else ''}stream-{text.replace(' ', '').replace('iB', '')}",
        f"{text} messages, {rings}",
        Unit.BYTES_PER_SECOND,
        Target(ratio_at_least=target),
        lambda seconds: measures.throughput(SHARED, size, shared_capacity, seconds),
        lambda seconds: measures.throughput(KERNEL, size, kernel_capacity, seconds),
        cores=2,
    )


def _notified(key: str, title: str, listen: measures.Listen, target: float) -> Case:
    return Case(
        key,
        title,
        Unit.BYTES_PER_SECOND,
        Target(ratio_at_least=target),
        lambda seconds: measures.notified(SHARED, listen, 64, seconds),
        lambda seconds: measures.notified(KERNEL, measures.by_signal, 64, seconds),
        cores=2,
    )


def _compared(
    key: str,
    title: str,
    target: float,
    measure: Callable[[Transport, float], float],
    cores: int = 1,
) -> Case:
    return Case(
        key,
        title,
        Unit.SECONDS,
        Target(ratio_at_least=target),
        lambda seconds: measure(SHARED, seconds),
        lambda seconds: measure(KERNEL, seconds),
        cores=cores,
    )


def _aio_throughput(size: int, target: float) -> Case:
    text = format_size(size)
    return Case(
        f"aio-stream-{text.replace(' ', '').replace('iB', '')}",
        f"asyncio, {text} messages",
        Unit.BYTES_PER_SECOND,
        Target(ratio_at_least=target),
        lambda seconds: event_loop.throughput(SHARED_STREAMS, size, seconds),
        lambda seconds: event_loop.throughput(KERNEL_STREAMS, size, seconds),
        cores=2,
    )


def _aio_round_trip(cores: str, target: float) -> Case:
    one_core = cores == "one"
    return Case(
        f"aio-round-trip-{cores}-core{'' if one_core else 's'}",
        f"asyncio, round trip of 8 B, {cores} core{'' if one_core else 's'}",
        Unit.SECONDS,
        Target(ratio_at_least=target),
        lambda seconds: event_loop.round_trip(SHARED_STREAMS, one_core, seconds),
        lambda seconds: event_loop.round_trip(KERNEL_STREAMS, one_core, seconds),
        cores=1 if one_core else 2,
    )


def _memory(key: str, title: str, measure: Callable[[], float]) -> Case:
    return Case(
        f"memory-{key}",
        title,
        Unit.BYTES,
        Target(below=160 * 1024),
        lambda _seconds: measure(),
        None,
        timed=False,
    )
