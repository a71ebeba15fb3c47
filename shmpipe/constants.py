"""Numbers that belong to pipes and that neither os nor fcntl has."""

from shmpipe import _lib

PIPE_BUF = _lib.PIPE_BUF
"""Bytes: a write of at most this many is never split and never mixed with another (rule WR-4)."""

DEFAULT_CAPACITY = _lib.DEFAULT_CAPACITY
"""Bytes that a pipe holds unless asked otherwise (rule CP-1)."""

MAX_CAPACITY = _lib.MAX_CAPACITY
"""Bytes: a larger pipe is refused with PermissionError (rule CP-4)."""

NAME_MAX = _lib.NAME_MAX
"""Bytes in the name of a pipe, encoded as UTF-8."""
