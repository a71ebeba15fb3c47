"""The vocabulary: what an operation is, and what data operations do with one end of either kind.

An operation is a tuple of a name and small values, so that a sequence is a list that can be
printed, stored as JSON and run again.  Ends are named by slots: a slot that is not open makes the
operation a no-op, so every part of a sequence is a sequence, too.

    ("write", slot, n)  ("writev", slot, n, way)             n bytes, cut into buffers in some way
    ("read", slot, n)  ("readv", slot, n, way)  ("readinto", slot, n)
    ("setsize", slot, value)  ("flags", slot, flags)         F_SETPIPE_SZ, F_SETFL
    ("fionbio", slot, on)  ("fioasync", slot, on)            ioctl
    ("poll",)  ("events",)  ("look",)                        ask for revents, events, all facts
    ("rearm", slot)                                          EPOLL_CTL_MOD of what tells once
    ("close", slot)
    ("pipe",)                                                a new pair, if both ends are closed
    ("open", slot, mode, flags)  ("mkfifo",)  ("unlink",)    named pipes
    ("fork", child)  ("exit", child)  ("kill", child)
    ("child", child, operation)                              the same, done by a forked holder
"""

from __future__ import annotations

import errno
import fcntl
import random
import termios
from collections.abc import Callable
from functools import cache
from typing import Any

from conformance.ends import Buffer
from differential.ends import FuzzEnd

Op = tuple[Any, ...]

# Bytes, or a number, or minus an errno; anything else says in words what happened.
Result = Any

SIZES = (
    *(0, 1, 2, 99, 2048, 2049, 4095, 4096, 4097, 8191, 8192, 12288),
    *(65535, 65536, 65537, 100000),
)

WAYS = 6
TOO_MANY_BUFFERS = 5  # the way that EINVAL answers (WR-17)
_MOST_BUFFERS = 1024

READERS, WRITERS = (0, 1), (2, 3)
BOTH = 4  # a slot for r+
SLOTS = 5

# Random bytes: where a piece was taken from shows in them.
_PATTERN_BYTES = 1 << 18
_PATTERN = random.Random(195).randbytes(_PATTERN_BYTES + SIZES[-1])
_VIEW = memoryview(_PATTERN)


@cache
def cut(total: int, way: int) -> tuple[int, ...]:
    """The sizes of the buffers of a vectored call."""
    if way == 0:
        return (total,)
    if way == 1:
        return (total // 2, total - total // 2)
    if way == 2:
        return (0, min(1, total), 0, max(0, total - 1), 0)
    if way == 3:
        return (min(4095, total), max(0, total - 4095))
    if way == 4:
        return (total // 3, total // 3, total - 2 * (total // 3))
    return (*(0,) * _MOST_BUFFERS, total)


def outcome(function: Callable[..., Result], *arguments: object) -> Result:
    """What a call returns, or minus the errno that it raises."""
    try:
        return function(*arguments)
    except OSError as error:
        return -error.errno if error.errno else f"{error!r} without errno"
    except (ValueError, TypeError, RuntimeError) as error:
        return repr(error)


def _start(step: int) -> int:
    return step * 4099 % _PATTERN_BYTES


def _write(end: FuzzEnd, op: Op, step: int) -> Result:
    start = _start(step)
    return end.write(_PATTERN[start : start + op[2]])


def _writev(end: FuzzEnd, op: Op, step: int) -> Result:
    start = _start(step)
    buffers: list[Buffer] = []
    for size in cut(op[2], op[3]):
        buffers.append(_VIEW[start : start + size])
        start += size
    return end.writev(buffers)


def _read(end: FuzzEnd, op: Op, _step: int) -> Result:
    return end.read(op[2])


def _readv(end: FuzzEnd, op: Op, _step: int) -> Result:
    end.received = [bytearray(size) for size in cut(op[2], op[3])]
    return end.readv(end.received)


def _readinto(end: FuzzEnd, op: Op, _step: int) -> Result:
    buffer = bytearray(op[2])
    end.received = [buffer]
    return end.readinto(buffer)


def _setsize(end: FuzzEnd, op: Op, _step: int) -> Result:
    return end.resize(op[2])


def _flags(end: FuzzEnd, op: Op, _step: int) -> Result:
    return end.fcntl(fcntl.F_SETFL, op[2])


def _fionbio(end: FuzzEnd, op: Op, _step: int) -> Result:
    return end.switch(termios.FIONBIO, op[2])


def _fioasync(end: FuzzEnd, op: Op, _step: int) -> Result:
    return end.switch(termios.FIOASYNC, op[2])


# What is done to one end, the same for both kinds: the rest of the vocabulary is session.py's.
ON_AN_END: dict[str, Callable[[FuzzEnd, Op, int], Result]] = {
    "write": _write,
    "writev": _writev,
    "read": _read,
    "readv": _readv,
    "readinto": _readinto,
    "setsize": _setsize,
    "flags": _flags,
    "fionbio": _fionbio,
    "fioasync": _fioasync,
}
WRITES = frozenset({"write", "writev"})
READS = frozenset({"read", "readv", "readinto"})
VECTORED = frozenset({"readv", "writev"})
INTO_BUFFERS = frozenset({"readv", "readinto"})
BROKEN = -errno.EPIPE
