"""Program: runs a command while every CPU is taken away from it now and then, as a busy host does.

    steal.py MOST_MS PAUSE_MS COMMAND...

On each CPU a task of the real-time class computes for up to MOST_MS and sleeps for up to PAUSE_MS,
in turns, at random: so whoever holds a lock, or is about to look, stands still in the middle of it,
as no load of ordinary processes makes it.  A test that takes a delay for an answer fails here.
Needs root.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1


def steal(cpu: int, most: float, pause: float, parent: int) -> None:
    """Until it is killed, or its parent is."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    rng = random.Random(cpu)
    while True:
        until = time.monotonic() + rng.uniform(0, most)
        while time.monotonic() < until:
            pass
        time.sleep(rng.uniform(0, pause))


def main(most_ms: str, pause_ms: str, *command: str) -> int:
    """The command's status; 1 if a thief has ended before it, as then nobody stole."""
    thieves = []
    parent = os.getpid()
    for cpu in os.sched_getaffinity(0):
        pid = os.fork()
        if pid == 0:
            try:
                steal(cpu, float(most_ms) / 1e3, float(pause_ms) / 1e3, parent)
            except PermissionError:
                print("steal.py: the real-time class needs root", file=sys.stderr)
            finally:
                os._exit(1)
        thieves.append(pid)
    try:
        status = subprocess.run(command, check=False).returncode
    finally:
        for pid in thieves:
            os.kill(pid, signal.SIGKILL)
        ends = [os.waitpid(pid, 0)[1] for pid in thieves]
    return status if all(map(os.WIFSIGNALED, ends)) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
