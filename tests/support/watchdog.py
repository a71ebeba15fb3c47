"""pytest plugin: a deadline for every test, enforced by the watchdog process."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from types import FrameType

import pytest

from support.run import run_id
from support.watchdog_process import DUMP_SIGNAL, HANG_SIGNAL

DEFAULT_SECONDS = float(os.environ.get("SHMPIPE_TEST_TIMEOUT", "60"))
GRACE_SECONDS = float(os.environ.get("SHMPIPE_TEST_GRACE", "15"))

_STREAM = pytest.StashKey[int]()
_ERRORS = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"watchdog(seconds): deadline of this test instead of {DEFAULT_SECONDS:g} s"
    )
    run_id()  # settled before anything is started
    errors = os.dup(2)  # pytest captures only later: this is the real standard error
    os.set_inheritable(errors, False)
    launcher = subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("watchdog_process.py")),
            str(os.getpid()),
            str(GRACE_SECONDS),
        ],
        stdin=subprocess.PIPE,
        stderr=errors,
    )
    assert launcher.stdin is not None
    config.stash[_STREAM] = os.dup(launcher.stdin.fileno())
    config.stash[_ERRORS] = errors
    launcher.stdin.close()
    launcher.wait()
    faulthandler.register(DUMP_SIGNAL, file=errors, all_threads=True)
    signal.signal(HANG_SIGNAL, _fail_test)


def pytest_unconfigure(config: pytest.Config) -> None:
    faulthandler.unregister(DUMP_SIGNAL)
    os.close(config.stash[_STREAM])
    os.close(config.stash[_ERRORS])


def _fail_test(_number: int, _frame: FrameType | None) -> None:
    pytest.fail("the watchdog ended this test: it hung (see its report on standard error)")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    marker = item.get_closest_marker("watchdog")
    seconds = float(marker.args[0]) if marker else DEFAULT_SECONDS
    stream = item.config.stash[_STREAM]
    os.write(stream, f"start {seconds} {item.nodeid}\n".encode())
    try:
        return (yield)
    finally:
        os.write(stream, b"end\n")
