"""What an exception says to somebody who did the obvious, where the errno is a riddle."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import shmpipe


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test-messages-{os.getpid()}"
    shmpipe.mkfifo(name)
    yield name
    shmpipe.unlink(name)


def test_packets_asked_for_at_open(name: str) -> None:
    with pytest.raises(OSError, match=r"afterwards: shmpipe\.fcntl\(end, F_SETFL, os\.O_DIRECT\)"):
        shmpipe.open(name, "r+", flags=os.O_DIRECT)


def test_another_flag_is_not_blamed_on_packets(name: str) -> None:
    with pytest.raises(OSError) as refusal:
        shmpipe.open(name, "r", flags=os.O_DIRECTORY | os.O_NONBLOCK)
    assert "packets" not in str(refusal.value)
