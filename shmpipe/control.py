"""fcntl() and ioctl() for ends, with the arguments and results of the standard library's."""

from __future__ import annotations

import fcntl as _fcntl
import struct
import termios

from shmpipe import _lib
from shmpipe._base import EndBase

TYPE_CHECKING = False
if not TYPE_CHECKING:
    from shmpipe._lib import overload
else:
    from typing import Any, overload

    from _typeshed import ReadableBuffer

    from shmpipe.ends import End


# Linux numbers that the fcntl module of the oldest supported Python lacks.
F_SETOWN_EX = 15
F_GETOWN_EX = 16
_F_OWNER_PGRP = 2
_OWNER = struct.Struct("ii")  # struct f_owner_ex: kind, id
# The kernel does not know how long a structure is, and writes as much as the command has.  So it
# gets room for any, as from the standard library.
_LONGEST_STRUCTURE = 1024


@overload
def fcntl(end: End, cmd: int, arg: int = 0) -> int: ...
@overload
def fcntl(end: End, cmd: int, arg: ReadableBuffer) -> bytes: ...
def fcntl(end: End, cmd: int, arg: int | ReadableBuffer = 0) -> int | bytes:
    """fcntl(2) on an end, like fcntl.fcntl on a descriptor.

    F_GETPIPE_SZ, F_SETPIPE_SZ (bytes, returns the new size; CP-1 to CP-6), F_GETFL, F_SETFL (of the
    open description; CR-8, LF-9), F_GETFD, F_SETFD, and for SIGIO F_SETOWN, F_GETOWN, F_SETOWN_EX,
    F_GETOWN_EX, F_SETSIG, F_GETSIG.  An integer argument is taken modulo 2**32; bytes are a
    structure, and are returned as the call left them, cut to the same length.

    TypeError for a descriptor in place of an end; ValueError for a structure of more than 1024
    bytes.  OSError: EINVAL, EBUSY (smaller than what is in the pipe), EPERM (above 1 GiB), ENOSPC.
    """
    if not isinstance(arg, int):
        structure = bytearray(arg)
        size = len(structure)
        if size > _LONGEST_STRUCTURE:
            raise ValueError(f"a structure for fcntl has at most {_LONGEST_STRUCTURE} bytes")
        structure.extend(bytes(_LONGEST_STRUCTURE - size))
        buffer = _lib.writable_buffer(structure)
        _call(end, _lib.fcntl, cmd, _lib.pointer(buffer))
        return bytes(structure[:size])
    if cmd == _fcntl.F_GETOWN:
        # The result of F_GETOWN for a process group is negative, like that of an error.
        kind: int
        owner: int
        kind, owner = _OWNER.unpack(fcntl(end, F_GETOWN_EX, bytes(_OWNER.size)))
        return -owner if kind == _F_OWNER_PGRP else owner
    return _call(end, _lib.fcntl, cmd, (arg + 2**31) % 2**32 - 2**31)


def ioctl(end: End, request: int, arg: int = 0) -> int:
    """ioctl(2) on an end.

    termios.FIONREAD returns the bytes that can be read (CP-9).  FIONBIO and FIOASYNC switch
    O_NONBLOCK and O_ASYNC on or off (CR-9) and return 0.  OSError: ENOTTY for any other request.
    """
    # No caller's buffer: a C int is all that these three requests read or write, and no other
    # request reaches the kernel.
    value = _lib.integer()
    value[0] = arg
    result = _call(end, _lib.ioctl, request, value)
    return int(value[0]) if request == termios.FIONREAD else result


def bytes_pending(end: End) -> int:
    """FIONREAD."""
    return ioctl(end, termios.FIONREAD)


def _call(end: End, function: _lib.Call, *arguments: Any) -> int:
    # Whoever comes from the fcntl module passes a descriptor, and needs to hear what to pass.
    if not isinstance(end, EndBase):
        raise TypeError(f"an end of shmpipe is needed, not {end!r}")
    return end._call(function, *arguments)
