"""Calls that would sleep, told from the kernel's pipe before they are made."""

from __future__ import annotations

import os
import select

from conformance.ends import PIPE_BUF
from differential.ends import FuzzEnd
from differential.operations import TOO_MANY_BUFFERS, WRITES, Op


def may_sleep(end: FuzzEnd, op: Op, readers: int, writers: int) -> bool:
    """Whether a read or write on a kernel's end might not return at once.

    Never false by mistake; true by mistake for some writes: the kernel does not tell how many slots
    are in use, and whether a write would be merged.
    """
    pending, capacity, flags = end.facts()
    if flags & os.O_NONBLOCK or op[2] == 0 or op[3:] == (TOO_MANY_BUFFERS,):
        return False
    if op[0] in WRITES:
        # Each slot holds at least one byte.
        free = capacity // PIPE_BUF - pending
        if end.mode == "r" or readers == 0 or -(-op[2] // PIPE_BUF) <= free:
            return False
        return op[2] > PIPE_BUF or not end.poll() & select.POLLOUT  # PL-4
    return end.mode != "w" and writers > 0 and pending == 0


def may_wait_for_partner(mode: str, flags: int, readers: int, writers: int) -> bool:
    """Whether opening a FIFO might not return at once (FO-3)."""
    if flags & os.O_NONBLOCK:
        return False
    return (mode == "r" and writers == 0) or (mode == "w" and readers == 0)
