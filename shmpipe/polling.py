"""Waiting for several ends: poll() like select.poll, and wait() like multiprocessing.connection's.

Both ask the kernel through end.fileno(), so ends and other descriptors can be mixed.
"""

from __future__ import annotations

import errno
import os
import select

from shmpipe.ends import End, Reader, Writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol, TypeVar

    class HasFileno(Protocol):
        """An end, a socket, a file."""

        def fileno(self) -> int:
            """The descriptor to wait for."""

    Pollable = int | HasFileno
    T = TypeVar("T", bound=Pollable)

_ALWAYS = select.POLLERR | select.POLLHUP | select.POLLNVAL
_DEFAULT = select.POLLIN | select.POLLPRI | select.POLLOUT
_LONGEST_MS = 2**31 - 1


class Poll:
    """A set of ends and descriptors to poll; poll() makes one.

    The revents are those of the kernel's pipe in the same state (PL-1 to PL-4).  An end that was
    closed is reported as POLLNVAL.  Not to be changed by one thread while another polls.
    """

    def __init__(self) -> None:
        self._events: dict[Pollable, int] = {}

    def register(self, target: Pollable, eventmask: int = _DEFAULT) -> None:
        """Adds an end or a descriptor, or changes what is asked of it."""
        if isinstance(target, End):
            target.fileno()  # from now on the pipe keeps its readiness up to date
        self._events[target] = eventmask

    def modify(self, target: Pollable, eventmask: int) -> None:
        """Changes what is asked; FileNotFoundError (ENOENT) if it was not registered."""
        if target not in self._events:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self.register(target, eventmask)

    def unregister(self, target: Pollable) -> None:
        """Removes an end or a descriptor; KeyError if it was not registered."""
        del self._events[target]

    def poll(self, timeout: float | None = None) -> list[tuple[Pollable, int]]:
        """Waits for the first event: [(what was registered, revents)], [] when the time is over.

        timeout is in milliseconds, None or negative waits for ever.  Signal handlers run, and the
        wait goes on with the time that is left (PEP 475).
        """
        poller = select.poll()
        asked: dict[int, list[tuple[Pollable, int]]] = {}
        result: list[tuple[Pollable, int]] = []
        for target, events in self._events.items():
            if isinstance(target, End) and target.closed:
                result.append((target, select.POLLNVAL))
                continue
            fd = target if isinstance(target, int) else target.fileno()
            asked.setdefault(fd, []).append((target, events))
        for fd, targets in asked.items():
            together = 0
            for _, events in targets:
                together |= events
            poller.register(fd, together)
        for fd, revents in poller.poll(0 if result else _milliseconds(timeout)):
            for target, events in asked[fd]:
                if seen := revents & (events | _ALWAYS):
                    result.append((target, seen))
        return result


def poll() -> Poll:
    """An empty polling object, like select.poll()."""
    return Poll()


def wait(targets: Iterable[T], timeout: float | None = None) -> list[T]:
    """Waits until a call on one of the objects would not block: which ones, [] after the timeout.

    A Reader is waited for until it can be read, a Writer until it can be written, a ReadWriter
    until either, anything else with a descriptor until it can be read.  End of file and a broken
    pipe count as ready.  timeout is in seconds, None waits for ever.

    TypeError for one object in place of several.
    """
    # An end is iterable, as every file is: its lines would be read, and lost.
    given: object = targets
    if isinstance(given, End):
        raise TypeError(f"wait() takes several ends, such as [end], not {given!r}")
    polled = Poll()
    ordered = list(targets)
    for target in ordered:
        polled.register(target, _interest(target))
    ready = {id(target) for target, _ in polled.poll(None if timeout is None else timeout * 1000)}
    return [target for target in ordered if id(target) in ready]


def _interest(target: Pollable) -> int:
    if isinstance(target, Writer):
        return select.POLLOUT
    if isinstance(target, Reader) or not isinstance(target, End):
        return select.POLLIN
    return select.POLLIN | select.POLLOUT


def _milliseconds(timeout: float | None) -> float | None:
    return None if timeout is None or timeout < 0 else min(timeout, _LONGEST_MS)
