"""Marks a test whose rule shmpipe does not keep yet: it must fail there, and only there."""

from __future__ import annotations

import pytest

from conformance.backends import Backend


def not_yet(request: pytest.FixtureRequest, backend: Backend, why: str) -> None:
    """Expect this test to fail on shmpipe.  Once it passes, pytest says so: take the line out."""
    if backend.shm:
        request.applymarker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=why))
