"""The two pipes under comparison, seen by the loops as the same four functions."""

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import shmpipe

Read = Callable[[Any, int], bytes]
Write = Callable[[Any, bytes], int]


@dataclass(frozen=True)
class Transport:
    """A kind of pipe.

    An end is whatever `make` returns.  The functions take it as their first argument:
    `os.read(fd, size)` and `Reader.read(reader, size)` are the direct calls of the two
    libraries and have the same shape, so neither needs a wrapper that the other is spared.
    """

    name: str
    make: Callable[[int | None], tuple[Any, Any]]  # capacity -> (read end, write end)
    read: Read
    write: Write
    close: Callable[[Any], None]


def _kernel_pipe(capacity: int | None) -> tuple[int, int]:
    reader, writer = os.pipe()
    if capacity is not None:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, capacity)
    return reader, writer


def _shared_pipe(capacity: int | None) -> tuple[shmpipe.Reader, shmpipe.Writer]:
    return shmpipe.pipe() if capacity is None else shmpipe.pipe(capacity=capacity)


KERNEL = Transport("os.pipe", _kernel_pipe, os.read, os.write, os.close)
SHARED = Transport(
    "shmpipe",
    _shared_pipe,
    # None is for ends that do not block; these do.
    cast("Read", shmpipe.Reader.read),
    cast("Write", shmpipe.Writer.write),
    shmpipe.End.close,
)
