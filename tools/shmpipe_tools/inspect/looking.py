"""Taking a snapshot of a pipe that was found, through a descriptor that cannot write."""

import os

from shmpipe.inspect import Snapshot, snapshot
from shmpipe_tools.inspect.discover import Location


def look(location: Location) -> Snapshot:
    """The pipe as it is now; OSError if it is gone, forbidden or damaged."""
    # O_NONBLOCK: should somebody have put a FIFO in its place, nobody waits for a writer.
    descriptor = os.open(location.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return snapshot(descriptor)
    finally:
        os.close(descriptor)
