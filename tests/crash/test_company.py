"""A server and most of its workers are killed together: the others must hear of the server's death.

The kernel wakes one of those who sleep on a word of the dead, and if that one is dying, too, nobody
else.  With words that pipes shared, this hung in 9 of 30 rounds.
"""

import os
import signal
import time
from collections.abc import Callable
from random import Random

import pytest
import shmpipe

from crash import groups

WORKERS = 40
ROUNDS = 8
GROUPS = 24
# Sleepers look by themselves after a minute.
WATCHDOG = 20.0


def _forked(body: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            body()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def _sleeps(pid: int) -> bool:
    with open(f"/proc/{pid}/syscall") as call:
        return call.read().split()[0] in ("98", "202", "449")  # futex or futex_waitv


def _ends(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    pidfd = os.pidfd_open(pid)
    try:
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                assert os.waitstatus_to_exitcode(status) == 0
                return True
            time.sleep(0.0005)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        return False
    finally:
        os.close(pidfd)


def _server_and_workers() -> tuple[list[int], int]:
    """The server comes last; the worker that sleeps behind all others."""
    pipes = [shmpipe.pipe() for _ in range(WORKERS)]

    def serve() -> None:
        for reader, _ in pipes:
            reader.close()
        while True:
            signal.pause()

    def work(mine: int) -> None:
        for i, (reader, writer) in enumerate(pipes):
            writer.close()
            if i != mine:
                reader.close()
        assert pipes[mine][0].read(1) == b""

    server = _forked(serve)
    workers = [_forked(lambda mine=mine: work(mine)) for mine in range(WORKERS)]  # type: ignore[misc]
    for reader, writer in pipes:
        reader.close()
        writer.close()
    while not all(map(_sleeps, workers)):
        os.sched_yield()
    return [*workers[:-1], server], workers[-1]


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_worker_survives_its_server_and_the_others(seed: int) -> None:
    """Each worker has a pipe of its own."""
    dying, survivor = _server_and_workers()
    if seed % 2:
        Random(seed).shuffle(dying)
    for pid in dying:
        os.kill(pid, signal.SIGKILL)
    for pid in dying:
        os.waitpid(pid, 0)
    assert _ends(survivor, WATCHDOG), "the last worker sleeps on"


@pytest.mark.parametrize("number", range(GROUPS))
def test_random_groups(number: int) -> None:
    """More of them: python -m tests.crash.groups."""
    assert list(groups.play(f"company/{number}")) == []
