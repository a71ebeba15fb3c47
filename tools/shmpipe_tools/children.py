"""Forked worker processes whose end is watched: what the benchmark and the demonstration run in."""

import gc
import mmap
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import NoReturn, Self

from shmpipe_tools.failure import Failure

# A killed process ends as soon as the kernel runs it.
END_SECONDS = 10.0


@dataclass
class Child:
    """A process that this one started, and the descriptor that becomes readable when it ends."""

    role: str
    pid: int
    pidfd: int
    status: int | None = None

    def kill(self) -> None:
        """SIGKILL.  Safe at any time: a pidfd never names another process."""
        if self.status is None:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                return

    def wait(self, timeout: float) -> bool:
        """Whether the process has ended within `timeout` seconds; if so it is reaped."""
        if self.status is not None:
            return True
        ready, _, _ = select.select([self.pidfd], [], [], max(0.0, timeout))
        if not ready:
            return False
        self.status = os.waitpid(self.pid, 0)[1]
        os.close(self.pidfd)
        return True

    @property
    def fate(self) -> str:
        """How it ended, for people."""
        if self.status is None:
            return "still running"
        if os.WIFSIGNALED(self.status):
            return f"killed by {signal.Signals(os.WTERMSIG(self.status)).name}"
        return f"exit code {os.WEXITSTATUS(self.status)}"


class Children:
    """Child processes of one task: those that still run when the `with` block ends are killed."""

    def __init__(self) -> None:
        self._all: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # The last one first, and all before any is waited for: nobody should live long enough
        # to complain about the death of another.
        for child in reversed(self._all):
            child.kill()
        for child in self._all:
            child.wait(END_SECONDS)

    def start(self, role: str, body: Callable[[], None]) -> Child:
        """Forks a process that runs `body` and nothing else of this program."""
        # A handler of the parent's must not run in the child, where it would unwind the
        # parent's stack, nor in the parent before the child is known here.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            pid = os.fork()
            if pid == 0:
                _run_and_exit(role, body, masked)
            child = Child(role, pid, os.pidfd_open(pid))
            self._all.append(child)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        return child

    def wait_for_any(self, timeout: float) -> bool:
        """Waits for the next end of a child, at most `timeout` seconds; whether all have ended."""
        running = [child.pidfd for child in self._all if child.status is None]
        select.select(running, [], [], timeout)
        ended = [child.wait(0) for child in self._all]
        return all(ended)

    def wait_for_success(self, seconds: float) -> None:
        """Waits for every child; a Failure if one fails or is not done after `seconds`."""
        deadline = monotonic() + seconds
        for child in self._all:
            if not child.wait(deadline - monotonic()):
                raise Failure(f"the {child.role} process is not done after {seconds:.0f} s")
            if child.status != 0:
                raise Failure(f"the {child.role} process ended unexpectedly: {child.fate}")


def _run_and_exit(
    role: str, body: Callable[[], None], masked: set[int | signal.Signals]
) -> NoReturn:
    """What the child does: it leaves through os._exit, clean-up and buffers stay the parent's."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):  # what the parent ignores, so do we
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        gc.disable()
        body()
        code = 0
    except BaseException:  # noqa: BLE001 - the child's last word, whatever it died of
        print(f"{role} (pid {os.getpid()}) failed:", file=sys.stderr)
        traceback.print_exc()
    finally:
        os._exit(code)


def shared_numbers(count: int) -> "memoryview[float]":
    """Zeroed doubles that forked processes share: a result left there survives its writer."""
    return memoryview(mmap.mmap(-1, count * 8)).cast("d")
