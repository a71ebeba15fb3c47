"""Every sequence that has ever shown a difference, again."""

from __future__ import annotations

from pathlib import Path

import pytest

from differential import corpus
from differential.session import run

ENTRIES = sorted(corpus.DIRECTORY.glob("*.json"))


@pytest.mark.parametrize("path", ENTRIES, ids=lambda path: path.stem)
def test_the_sides_agree_on(path: Path) -> None:
    entry = corpus.load(path)
    found = run(entry.setup, entry.ops)
    assert found is None, f"after operation {found[0]}: {found[1]}"
