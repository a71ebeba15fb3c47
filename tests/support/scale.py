"""How long the repeating tests run: SHMPIPE_TEST_SCALE=100 for a night, 1 for every commit."""

from __future__ import annotations

import os

SCALE = float(os.environ.get("SHMPIPE_TEST_SCALE", "1"))


def rounds(count: int) -> int:
    """A number of repetitions, scaled, at least one."""
    return max(1, int(count * SCALE))
