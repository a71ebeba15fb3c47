"""Who counts as blocked in a pipe: the judgement on which the conformance tests rest."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support import proc


@contextmanager
def sleeper(code: str, *fds: int) -> Iterator[int]:
    """The pid of a Python that sleeps in this code."""
    with subprocess.Popen([sys.executable, "-c", code], pass_fds=fds) as child:
        try:
            yield child.pid
        finally:
            child.kill()


@pytest.fixture
def read_fd() -> Iterator[int]:
    fds = os.pipe()
    yield fds[0]
    for fd in fds:
        os.close(fd)


def test_a_read_is_seen(read_fd: int) -> None:
    with sleeper(f"import os; os.read({read_fd}, 1)", read_fd) as pid:
        sleep = proc.wait_until_blocked(pid)
        assert sleep is not None
        assert (sleep.call, sleep.arguments[0]) == ("read", read_fd)


def test_a_poll_of_descriptors_is_seen(read_fd: int) -> None:
    code = f"import select; p = select.poll(); p.register({read_fd}, {select.POLLIN}); p.poll()"
    with sleeper(code, read_fd) as pid:
        sleep = proc.wait_until_blocked(pid)
        assert sleep is not None
        assert sleep.call in ("poll", "ppoll")


def test_a_pause_in_a_poll_of_nothing_is_none() -> None:
    """A writer with a SA_RESTART handler waits so for a lock whose owner lost its CPU for long.

    It goes on by itself; taken for asleep at the full pipe, it failed two tests of readiness.
    """
    with sleeper("import select; select.poll().poll(60_000)") as pid:
        proc.wait_until(lambda: is_in_poll(pid), "the child pauses")
        assert proc.state(pid) == "S"
        assert proc.sleeping_call(pid, pid) is None


def is_in_poll(pid: int) -> bool:
    with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
        words = file.read().split()
    return len(words) > 2 and proc.CALL_NAMES.get(int(words[0])) in ("poll", "ppoll")
