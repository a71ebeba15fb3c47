"""Runs pytest with the harness's plugins on a small test file, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.run import RUN_VARIABLE

TESTS = Path(__file__).resolve().parent.parent

RunPytest = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_pytest(tmp_path: Path) -> RunPytest:
    def run(source: str, **environment: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_inner.py").write_text(source)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "support.watchdog", "-p", "support.leaks", "--rootdir", str(tmp_path)]
        return subprocess.run(
            [*command, "test_inner.py"],
            cwd=tmp_path,
            env={
                **{key: value for key, value in os.environ.items() if key != RUN_VARIABLE},
                "PYTHONPATH": str(TESTS),
                "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    return run
