"""Signals into actors: a handler that tells the test that it has run."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable
from types import FrameType


class InterruptedByTest(Exception):  # noqa: N818 - the event, not an error
    """Raised by a handler that is meant to break a blocking call."""


def raise_interrupted() -> None:
    raise InterruptedByTest


class Probe:
    """Installed in the actor, asked in the test: did the Python handler run?"""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def install(self, number: int, action: Callable[[], None] = lambda: None) -> None:
        """Install a handler that reports and then does something."""

        def handler(_number: int, _frame: FrameType | None) -> None:
            os.write(self._write, b"!")
            action()

        signal.signal(number, handler)

    def wait_handled(self, seconds: float = 10.0) -> None:
        """Wait for one run of the handler."""
        ready = select.select([self._read], [], [], seconds)[0]
        assert ready, f"the handler does not run within {seconds} s"
        os.read(self._read, 1)

    def count(self) -> int:
        """How many further runs have been reported."""
        if not select.select([self._read], [], [], 0)[0]:
            return 0
        return len(os.read(self._read, 65536))

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)
