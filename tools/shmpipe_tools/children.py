"""Forked worker processes whose end is watched: what the benchmark and the demonstration run in."""

import gc
import mmap
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import NoReturn

from shmpipe_tools.failure import Failure


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


def start_child(role: str, body: Callable[[], None]) -> Child:
    """Forks a process that runs `body` and nothing else of this program.

    It leaves through os._exit: the parent's clean-up and buffers stay the parent's.
    """
    # No handler of the parent's may run in the child: it would unwind the parent's stack there.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        pid = os.fork()
        if pid == 0:
            _run_and_exit(role, body, masked)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
    return Child(role, pid, os.pidfd_open(pid))


def _run_and_exit(
    role: str, body: Callable[[], None], masked: set[int | signal.Signals]
) -> NoReturn:
    """What the child does after the fork."""
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)
        gc.disable()
        body()
        code = 0
    except BaseException:  # noqa: BLE001 - the child's last word, whatever it died of
        print(f"{role} (pid {os.getpid()}) failed:", file=sys.stderr)
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for_success(children: Iterable[Child], seconds: float) -> None:
    """Waits for every child; a Failure if one fails or is not done after `seconds`."""
    deadline = monotonic() + seconds
    for child in children:
        if not child.wait(deadline - monotonic()):
            raise Failure(f"the {child.role} process is not done after {seconds:.0f} s")
        if child.status != 0:
            raise Failure(f"the {child.role} process ended unexpectedly: {child.fate}")


def wait_for_any(children: Iterable[Child], timeout: float) -> None:
    """Returns when one of the running children ends, or after `timeout` seconds."""
    running = [child.pidfd for child in children if child.status is None]
    select.select(running, [], [], timeout)


def end_all(children: Iterable[Child]) -> None:
    """Kills and reaps what is left, whatever happened before."""
    for child in children:
        child.kill()
        child.wait(10.0)


def shared_numbers(count: int) -> "memoryview[float]":
    """Zeroed doubles that forked processes share: a result left there survives its writer."""
    return memoryview(mmap.mmap(-1, count * 8)).cast("d")
