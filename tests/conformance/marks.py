"""Which kinds of pipe and which modes a test runs with."""

from __future__ import annotations

import os

import pytest

from conformance.backends import ANONYMOUS, NAMED

NONBLOCK = os.O_NONBLOCK
PACKETS = os.O_DIRECT | os.O_NONBLOCK

# For tests of operations that never block: the mode must make no difference.
both_modes = pytest.mark.parametrize("flags", [0, NONBLOCK], ids=["blocking", "nonblocking"])

anonymous_only = pytest.mark.parametrize("backend", ANONYMOUS, indirect=True, ids=repr)
named_only = pytest.mark.parametrize("backend", NAMED, indirect=True, ids=repr)
