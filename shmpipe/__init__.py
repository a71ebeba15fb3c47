"""shmpipe: the Linux pipe, rebuilt in shared memory.

    reader, writer = shmpipe.pipe()
    shmpipe.mkfifo("jobs"); end = shmpipe.open("jobs", "r")

The same byte counts, errors, wake-ups and end of file as pipe(7) and fifo(7), also when a process
is killed.  Importing opens no descriptor and starts no thread.
"""

from __future__ import annotations

from shmpipe._version import __version__
from shmpipe.constants import DEFAULT_CAPACITY, MAX_CAPACITY, NAME_MAX, PIPE_BUF
from shmpipe.control import fcntl, ioctl
from shmpipe.ends import End, Reader, ReadWriter, Writer, pipe
from shmpipe.errors import CorruptSegmentError, IncompatibleSegmentError
from shmpipe.named import listdir, mkfifo, open, unlink  # noqa: A004  # as in os
from shmpipe.passing import attach
from shmpipe.polling import Poll, poll, wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shmpipe.checking import Check, Finding, check
    from shmpipe.inspect import Holder, Slot, Snapshot, snapshot
    from shmpipe.notify import Notifier

__all__ = [
    "DEFAULT_CAPACITY",
    "MAX_CAPACITY",
    "NAME_MAX",
    "PIPE_BUF",
    "Check",
    "CorruptSegmentError",
    "End",
    "Finding",
    "Holder",
    "IncompatibleSegmentError",
    "Notifier",
    "Poll",
    "ReadWriter",
    "Reader",
    "Slot",
    "Snapshot",
    "Writer",
    "__version__",
    "attach",
    "check",
    "fcntl",
    "ioctl",
    "listdir",
    "mkfifo",
    "open",
    "pipe",
    "poll",
    "snapshot",
    "unlink",
    "wait",
]

_WATCHING = ("Holder", "Slot", "Snapshot", "snapshot")
_CHECKING = ("Check", "Finding", "check")


def __getattr__(name: str) -> object:
    """Loads what few programs need when it is first asked for: dataclasses take long to import."""
    if name in _WATCHING:
        from shmpipe import inspect

        return getattr(inspect, name)
    if name in _CHECKING:
        from shmpipe import checking

        return getattr(checking, name)
    if name == "Notifier":
        from shmpipe import notify

        return notify.Notifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
