"""A test that hangs must end, say where it hung, and take its children with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from meta.conftest import RunPytest
from support import proc

GOOD = "\ndef test_good():\n    pass\n"


def test_a_blocked_read_is_ended_and_the_run_goes_on(run_pytest: RunPytest) -> None:
    source = "import os\ndef test_bad():\n    r, w = os.pipe()\n    try:\n        os.read(r, 1)\n"
    source += "    finally:\n        os.close(r)\n        os.close(w)\n" + GOOD
    outcome = run_pytest(source, SHMPIPE_TEST_TIMEOUT="0.5")
    assert outcome.returncode == 1
    assert "the watchdog ended this test" in outcome.stdout
    assert "1 failed, 1 passed" in outcome.stdout
    assert "test_inner.py::test_bad still runs after 0.5 s" in outcome.stderr
    assert "in test_bad" in outcome.stderr, "the Python stack must be shown"
    assert "state S wchan" in outcome.stderr


def test_the_pipe_that_it_hangs_at_is_shown(run_pytest: RunPytest) -> None:
    source = "import shmpipe\ndef test_bad():\n    r, w = shmpipe.pipe()\n    w.write(b'x' * 77)\n"
    source += "    try:\n        r.read(77)\n        r.read(1)\n"
    source += "    finally:\n        r.close()\n        w.close()\n"
    outcome = run_pytest(source, SHMPIPE_TEST_TIMEOUT="0.5")
    assert "Snapshot(" in outcome.stderr
    assert "bytes_read=77" in outcome.stderr


def test_hanging_children_are_reported_and_killed(run_pytest: RunPytest, tmp_path: Path) -> None:
    source = "import os\ndef test_bad():\n    r, w = os.pipe()\n    pid = os.fork()\n"
    source += "    if pid == 0:\n        open('pid', 'w').write(str(os.getpid()))\n"
    source += "        os.read(r, 1)\n        os._exit(0)\n"
    source += "    os.close(r), os.close(w)\n    os.waitpid(pid, 0)\n"
    outcome = run_pytest(source, SHMPIPE_TEST_TIMEOUT="0.5")
    child = int((tmp_path / "pid").read_text())
    assert f"-- process {child}:" in outcome.stderr
    assert f"Python threads of process {child}" in outcome.stderr
    assert proc.state(child) == "", "the child must not survive"


def test_a_process_that_ignores_signals_ends_the_run(run_pytest: RunPytest) -> None:
    # Blocking every signal is what a hang inside C code with the GIL held looks like.
    source = "import os, signal\ndef test_bad():\n"
    source += "    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n"
    source += "    os.read(os.pipe()[0], 1)\n"
    outcome = run_pytest(source, SHMPIPE_TEST_TIMEOUT="0.5", SHMPIPE_TEST_GRACE="0.5")
    assert outcome.returncode == -signal.SIGKILL
    assert "aborting the whole run" in outcome.stderr


def test_the_marker_changes_the_deadline(run_pytest: RunPytest) -> None:
    source = "import os, pytest\n@pytest.mark.watchdog(0.3)\ndef test_bad():\n"
    source += "    r, w = os.pipe()\n    os.read(r, 1)\n"
    outcome = run_pytest(source)
    assert "still runs after 0.3 s" in outcome.stderr
    assert outcome.returncode == 1


def test_the_watchdog_ends_with_the_run(run_pytest: RunPytest) -> None:
    outcome = run_pytest(GOOD)
    assert outcome.returncode == 0

    def watchdogs() -> list[int]:
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.endswith(b"watchdog_process.py") for word in words):
                found.append(int(words[words.index(b"") - 2] or 0))
        return found

    # Every watchdog that runs must watch a process that runs.
    proc.wait_until(lambda: all(proc.state(pid) for pid in watchdogs()), "watchdog has ended")
