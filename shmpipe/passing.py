"""Ends for other processes: pickled by multiprocessing, or named by a token and inherited.

An end travels as two descriptors (its segment and its companion) and a few numbers.
"""

from __future__ import annotations

import errno
import os
import sys
from fcntl import F_DUPFD_CLOEXEC
from fcntl import fcntl as kernel_fcntl

from shmpipe import _lib
from shmpipe.ends import End, end_at
from shmpipe.errors import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Passed(Protocol):
        """A descriptor on its way to another process."""

        def detach(self) -> int:
            """The descriptor, for the caller to close."""


_FORMAT = "shmpipe-1"


def _export(end: End) -> Any:
    token = _lib.token()
    end._call(_lib.export, token)
    return token


def descriptors_of(end: End) -> tuple[int, ...]:
    """See End.pass_fds."""
    token = _export(end)
    return token.segment_fd, token.companion_fd


def token_of(end: End) -> str:
    """See End.token."""
    token = _export(end)
    numbers = (token.segment_fd, token.companion_fd, *_description(token))
    return ":".join([_FORMAT, *map(str, numbers)])


def attach(token: str) -> End:
    """The end that another process described with end.token().

    The descriptors of end.pass_fds() must be open here under the same numbers: inherited through
    subprocess's pass_fds, or through exec.  Each token can be taken up once; the descriptors belong
    to the new end then, and are not inherited further.  Both ends of one pipe share a descriptor:
    a process that takes up both does so before it closes one.

    ValueError if it is no token; OSError: EBADF if the descriptors are not there,
    IncompatibleSegmentError or EINVAL if they are something else, CorruptSegmentError.  With these
    errors the descriptors stay as they were: open, and whose they are.
    """
    if not isinstance(token, str):
        raise TypeError(f"a token of end.token() is a str, not {type(token).__name__}")
    kind, *fields = token.split(":")
    try:
        numbers = [int(field) for field in fields]
    except ValueError:
        numbers = []
    if kind != _FORMAT or len(numbers) != 6 or not all(0 <= each < 2**32 for each in numbers):
        raise ValueError(f"not a token of end.token(): {token!r}")
    segment_fd, companion_fd, *description = numbers
    if segment_fd >= 2**31 or companion_fd >= 2**31:
        raise ValueError(f"not a token of end.token(): {token!r}")
    for fd in (segment_fd, companion_fd):
        try:
            os.get_inheritable(fd)
        except OSError as error:
            advice = f"descriptor {fd} was not inherited: subprocess needs pass_fds=end.pass_fds()"
            raise OSError(error.errno, f"{os.strerror(errno.EBADF)}: {advice}") from None
    return _import(segment_fd, companion_fd, description)


def reduce_end(end: End) -> Any:
    """How multiprocessing pickles an end: for a new process, a queue or a connection."""
    if "multiprocessing.reduction" not in sys.modules:
        raise TypeError(
            f"cannot pickle {end!r}: its descriptors can only go to another process, "
            "through multiprocessing, or through end.token() and end.pass_fds()"
        )
    from multiprocessing import context, reduction

    token = _export(end)
    process = context.get_spawning_popen()
    if process is None:
        segment = _offer(token.segment_fd)
    else:
        segment = _inherit(token.segment_fd, process)
    return _rebuild, (segment, reduction.DupFd(token.companion_fd), _description(token))


def _rebuild(segment: Passed, companion: Passed, description: list[int]) -> End:
    # Nobody else knows these two: what the new end does not take is closed here or never.
    segment_fd = segment.detach()
    try:
        companion_fd = companion.detach()
    except BaseException:
        _close_passed(segment, segment_fd)
        raise
    try:
        return _import(segment_fd, companion_fd, description)
    except OSError as error:
        if error.errno in _lib.REFUSED:
            _close_passed(segment, segment_fd)
            os.close(companion_fd)
        raise


def _close_passed(segment: Passed, fd: int) -> None:
    """Closes the descriptor of a segment that no end was made of."""
    from multiprocessing import resource_sharer

    # One that a new process inherited may stand for the other end of the pipe, too (_inherit).
    if isinstance(segment, resource_sharer.DupFd):
        _lib.close_segment(fd)


def _inherit(segment_fd: int, process: Any) -> Passed:
    """A descriptor for a process that is being started, the same object each time.

    The ends of one pipe share a segment, and a descriptor cannot be passed on twice.
    """
    from multiprocessing import reduction

    inherited: dict[int, Passed] = vars(process).setdefault("_shmpipe_segments", {})
    if segment_fd not in inherited:
        inherited[segment_fd] = reduction.DupFd(segment_fd)
    return inherited[segment_fd]


def _offer(segment_fd: int) -> Passed:
    """What multiprocessing.resource_sharer.DupFd does, for a segment.

    Its copy must not be closed with os.close: that would drop the record locks which tell the other
    processes that this one is alive.
    """
    from multiprocessing import reduction, resource_sharer

    copy = kernel_fcntl(segment_fd, F_DUPFD_CLOEXEC, 0)
    sharer: Any = resource_sharer  # its interface for other kinds of resources has no types
    offer: Any = sharer.DupFd.__new__(sharer.DupFd)
    offer._id = sharer._resource_sharer.register(
        lambda connection, pid: reduction.send_handle(connection, copy, pid),
        lambda: _lib.close_segment(copy),
    )
    passed: Passed = offer
    return passed


def _description(token: Any) -> list[int]:
    return [token.description, token.generation, token.mode, token.flags]


def _import(segment_fd: int, companion_fd: int, description: list[int]) -> End:
    result = _lib.import_end(segment_fd, companion_fd, *description)
    if result < 0:
        raise os_error(-result, "attach", advice=_lib.reason())
    return end_at(result)
