"""A short run of the command with each `make test`, with other sequences each time."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from differential.command import Failure, Totals, explain, fuzz
from differential.generate import Modes
from support.scale import rounds

OPERATIONS = 20_000


@pytest.mark.watchdog(300)
def test_random_operations_have_the_same_results_as_the_kernels(tmp_path: Path) -> None:
    try:
        fuzz(rounds(OPERATIONS), secrets.randbits(32), Modes(forks=0.1), Totals())
    except Failure as failure:
        pytest.fail(explain(failure, tmp_path), pytrace=False)
