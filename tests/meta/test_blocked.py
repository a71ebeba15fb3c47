"""Who counts as blocked in a pipe: the judgement on which the conformance tests rest."""

from __future__ import annotations

import os
import select
import subprocess
import sys

from support import proc

PAUSE = "import select; select.poll().poll(60_000)"


def test_a_read_is_seen() -> None:
    read_fd, write_fd = os.pipe()
    with subprocess.Popen([sys.executable, "-c", f"import os; os.read({read_fd}, 1)"],
                          pass_fds=[read_fd]) as child:  # fmt: skip
        sleep = proc.wait_until_blocked(child.pid)
        assert sleep is not None
        assert (sleep.call, sleep.arguments[0]) == ("read", read_fd)
        os.write(write_fd, b"x")
    os.close(read_fd)
    os.close(write_fd)


def test_a_poll_of_descriptors_is_seen() -> None:
    read_fd, write_fd = os.pipe()
    code = f"import select; p = select.poll(); p.register({read_fd}, {select.POLLIN}); p.poll()"
    with subprocess.Popen([sys.executable, "-c", code], pass_fds=[read_fd]) as child:
        sleep = proc.wait_until_blocked(child.pid)
        assert sleep is not None
        assert sleep.call == "poll"
        os.write(write_fd, b"x")
    os.close(read_fd)
    os.close(write_fd)


def test_a_pause_in_a_poll_of_nothing_is_none() -> None:
    """A writer with a SA_RESTART handler waits so for a lock whose owner lost its CPU for long.

    It goes on by itself; taken for asleep at the full pipe, it failed two tests of readiness.
    """
    with subprocess.Popen([sys.executable, "-c", PAUSE]) as child:
        try:
            proc.wait_until(lambda: is_in_poll(child.pid), "the child pauses")
            assert proc.state(child.pid) == "S"
            assert proc.sleeping_call(child.pid, child.pid) is None
        finally:
            child.kill()


def is_in_poll(pid: int) -> bool:
    with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
        words = file.read().split()
    return len(words) > 2 and proc.CALL_NAMES.get(int(words[0])) in ("poll", "ppoll")
