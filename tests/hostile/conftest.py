"""Children with another user's rights, or with little of something."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from support.actors import ProcessActor

NOBODY = 65534

Child = Callable[..., Any]


def in_a_child(*steps: Callable[[], Any]) -> Any:
    """What the last step returns, all taken one after the other in a process of their own."""

    def body() -> Any:
        result = None
        for step in steps:
            result = step()
        return result

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside the watchdog's threads
        actor = ProcessActor(body)
    try:
        return actor.result()
    finally:
        actor.dispose()


def become_nobody() -> None:
    """Gives up root, for good."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


@pytest.fixture
def as_nobody() -> Child:
    """Runs a function as the user nobody, in a child."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    return lambda step: in_a_child(become_nobody, step)
