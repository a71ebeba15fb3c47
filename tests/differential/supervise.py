"""A worker process and somebody who notices when it hangs where no signal handler can run."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable

import shmpipe

from differential.sides import PREFIX
from support.run import run_id

Announce = Callable[[str], None]
Work = Callable[[Announce], int]

_NAME_BYTES = 64
_SECONDS = 60.0


def supervised(work: Work) -> int:
    """Runs work in a forked worker, which announces what it begins: its exit status.

    1, with a message, if it announces nothing new for a minute; it is killed then.
    """
    run_id()  # settled before the fork: the names of the worker's pipes contain it
    sys.stdout.flush()
    reports, reports_in_worker = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            os.close(reports)
            status = work(lambda name: _announce(reports_in_worker, name))
            sys.stdout.flush()
        except KeyboardInterrupt:
            status = 130
        except BaseException:  # shown, and the process ends here in any case
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(reports_in_worker)
    try:
        hangs = _watch(reports)
    finally:
        os.close(reports)
    if not hangs:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    for name in shmpipe.listdir():
        if name.startswith(f"{PREFIX}-{run_id()}-"):
            shmpipe.unlink(name)
    print(f"DIFFERENCE: sequence {hangs} does not end, and lets no signal handler run")
    print(f"see where, with the same options: python -m tests.differential --only {hangs}")
    return 1


def _announce(reports: int, name: str) -> None:
    os.write(reports, name.encode().ljust(_NAME_BYTES))


def _watch(reports: int) -> str:
    """The last thing that was announced, if nothing follows it; "" at the end."""
    name = "of the beginning"
    while select.select([reports], [], [], _SECONDS)[0]:
        data = os.read(reports, _NAME_BYTES * 1024)
        if not data:
            return ""
        name = data[-_NAME_BYTES:].decode().strip()
    return name
