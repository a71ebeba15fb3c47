"""The number of this test run: the names of its pipes carry it, also in programs it starts."""

from __future__ import annotations

import os

RUN_VARIABLE = "SHMPIPE_TEST_RUN"


def run_id() -> str:
    """The same in the test process and in everything below it."""
    return os.environ.setdefault(RUN_VARIABLE, str(os.getpid()))
