"""Looking at a pipe that was found, through a descriptor that cannot write."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from shmpipe.checking import Check, check
from shmpipe.inspect import Snapshot, snapshot
from shmpipe_tools.inspect.discover import Location


def look(location: Location) -> Snapshot:
    """The pipe as it is now; OSError if it is gone, forbidden or damaged."""
    with _segment(location) as descriptor:
        return snapshot(descriptor)


def examine(location: Location) -> Check:
    """What is wrong with the pipe; OSError if it is gone, forbidden or none."""
    with _segment(location) as descriptor:
        return check(descriptor)


@contextmanager
def _segment(location: Location) -> Iterator[int]:
    # O_NONBLOCK: should somebody have put a FIFO in its place, nobody waits for a writer.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    if not location.path.startswith("/proc/"):  # whose entries are links by nature
        flags |= os.O_NOFOLLOW
    descriptor = os.open(location.path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
