"""`with fails_with(errno.EAGAIN):` - the errno is part of every rule."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def fails_with(number: int) -> Iterator[None]:
    """The block must raise OSError with this errno, and the class that Python gives that errno."""
    with pytest.raises(OSError) as info:
        yield
    got = info.value.errno
    assert got == number, f"{errno.errorcode.get(got or 0, got)}, not {errno.errorcode[number]}"
    assert isinstance(info.value, type(OSError(number, "")))
