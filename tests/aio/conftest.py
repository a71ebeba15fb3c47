"""Each test of behaviour runs over os.pipe and over shmpipe, on asyncio's loop and on uvloop."""

from __future__ import annotations

import pytest

from aio.kinds import KINDS, NO_UVLOOP, Kind
from support.run import run_id


@pytest.fixture(params=KINDS, ids=lambda kind: f"{kind.name}-{kind.loop}")
def kind(request: pytest.FixtureRequest) -> Kind:
    """A kind of pipe on a kind of loop."""
    chosen = request.param
    assert isinstance(chosen, Kind)
    if chosen.loop == "uvloop" and NO_UVLOOP:
        pytest.skip(NO_UVLOOP)
    return chosen


@pytest.fixture
def tmp_name(request: pytest.FixtureRequest) -> str:
    """A name for a pipe of this test."""
    return f"aio-{run_id()}-{abs(hash(request.node.nodeid)) % 100_000}"
