"""Named pipes: POSIX shared memory objects called shmpipe.NAME.

posix_ipc makes and opens the object; everything inside it, and the FIFO, is the core's business.
"""

from __future__ import annotations

import errno
import os

import posix_ipc

from shmpipe import _lib
from shmpipe.ends import End, Reader, ReadWriter, Writer, checked_capacity, checked_index, end_at
from shmpipe.errors import os_error

TYPE_CHECKING = False
if not TYPE_CHECKING:
    from shmpipe._lib import overload
else:
    from typing import Literal, overload


DIRECTORY = "/dev/shm"  # noqa: S108  # where the C library keeps POSIX shared memory
PREFIX = "shmpipe."

_ACCESS = {"r": os.O_RDONLY, "w": os.O_WRONLY, "r+": os.O_RDWR}
_PACKETS_LATER = "packets are switched on afterwards: shmpipe.fcntl(end, F_SETFL, os.O_DIRECT)"


def mkfifo(
    name: str,
    mode: int = 0o600,
    *,
    capacity: int = _lib.DEFAULT_CAPACITY,
    first_index: int = 0,
) -> None:
    """Makes a named pipe, as mkfifo(3) does: it exists until unlink(), also without processes.

    mode are the permission bits, less the umask: whoever may write the object may open either end,
    and the FIFO's bits decide which (FO-14).  capacity (bytes) and first_index as for pipe().

    FileExistsError if there is one; OSError: ENAMETOOLONG above 200 bytes, EPERM above 1 GiB,
    EACCES, ENOSPC; ValueError for an empty name or one with "/" or control characters.  When it
    fails it leaves nothing behind.
    """
    checked_capacity(capacity)
    options = _lib.options(capacity, checked_index(first_index))
    result = -errno.ESTALE
    while result == -errno.ESTALE:  # another creator failed, and has just removed the object
        try:
            fd = object_fd(name, posix_ipc.O_CREX, mode)
        except FileExistsError as error:
            # Perhaps only the remains of a creator that died: the core takes those over.
            try:
                fd = object_fd(name)
            except FileNotFoundError:
                continue
            except OSError:
                raise error from None
        try:
            result = _lib.retry(_lib.format_segment, fd, name.encode(), options)
        finally:
            _lib.close_segment(fd)
    if result < 0:
        raise _failure(-result, name)


@overload
def open(name: str, mode: Literal["r"], *, flags: int = 0) -> Reader: ...
@overload
def open(name: str, mode: Literal["w"], *, flags: int = 0) -> Writer: ...
@overload
def open(name: str, mode: Literal["r+"], *, flags: int = 0) -> ReadWriter: ...
@overload
def open(name: str, mode: str, *, flags: int = 0) -> End: ...
def open(name: str, mode: str, *, flags: int = 0) -> End:
    """Opens an end of a named pipe, as open(2) opens a FIFO (fifo(7)).

    mode "r" waits for a writer, "w" for a reader (FO-3), "r+" for nobody (FO-8).  flags: with
    os.O_NONBLOCK "r" does not wait, and "w" without a reader is OSError ENXIO (FO-4).  The
    descriptors are not inherited by programs that the process executes (PEP 446).

    FileNotFoundError, PermissionError; OSError: ENXIO, EINVAL for O_DIRECT (FO-12),
    IncompatibleSegmentError, CorruptSegmentError, EMFILE; ValueError for any other mode.
    """
    if mode not in _ACCESS:
        raise ValueError(f'mode must be "r", "w" or "r+", not {mode!r}')
    if flags & os.O_ACCMODE:
        raise ValueError("mode says which end to open; flags must not (O_WRONLY, O_RDWR)")
    fd = object_fd(name)
    try:
        result = _lib.retry(_lib.open_segment, fd, _ACCESS[mode] | flags | os.O_CLOEXEC)
    finally:
        _lib.close_segment(fd)
    if result == -errno.EINVAL and flags & os.O_DIRECT:
        raise os_error(errno.EINVAL, "named pipe", name, _PACKETS_LATER)
    if result < 0:
        raise _failure(-result, name)
    return end_at(result)


def unlink(name: str) -> None:
    """Removes a name; open ends go on working (FO-14).

    FileNotFoundError; OSError: EACCES, EPERM.
    """
    fd = object_fd(name, read_only=True)
    try:
        result = _lib.retry(_lib.unlink_segment, fd, name.encode())
    finally:
        _lib.close_segment(fd)
    if result < 0:
        raise _failure(-result, name)


def listdir() -> list[str]:
    """The names of the pipes on this host that are there now, sorted."""
    with os.scandir(DIRECTORY) as entries:
        return sorted(
            entry.name.removeprefix(PREFIX)
            for entry in entries
            if entry.name.startswith(PREFIX) and entry.is_file(follow_symlinks=False)
        )


def object_path(name: str) -> str:
    """The name of the shared memory object, or an exception that says what is wrong with a name."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a pipe is a str, not {type(name).__name__}")
    if not name:
        raise ValueError("the name of a pipe must not be empty")
    if "/" in name:
        raise ValueError(f'the name of a pipe must not contain "/": {name!r}')
    if any(ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0 for each in name):
        raise ValueError(f"the name of a pipe must not contain control characters: {name!r}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"the name of a pipe must be text that UTF-8 can hold: {name!r}") from None
    if size > _lib.NAME_MAX:
        advice = f"at most {_lib.NAME_MAX} bytes, this has {size}"
        raise os_error(errno.ENAMETOOLONG, "named pipe", name, advice)
    return f"/{PREFIX}{name}"


def object_fd(name: str, flags: int = 0, mode: int = 0, *, read_only: bool = False) -> int:
    """Opens (or with posix_ipc.O_CREX makes) the shared memory object of a name.

    The caller closes the descriptor with _lib.close_segment.  Raises OSError as open() does.
    """
    path = object_path(name)
    # Should somebody have put a FIFO there, nobody waits for its writer.
    flags |= os.O_NONBLOCK
    try:
        memory = posix_ipc.SharedMemory(path, flags, mode=mode, size=0, read_only=read_only)
    except posix_ipc.ExistentialError:
        code = errno.EEXIST if flags & posix_ipc.O_EXCL else errno.ENOENT
    except posix_ipc.PermissionsError:
        code = errno.EACCES
    except ValueError:
        code = errno.EINVAL
    except OSError as error:
        # posix_ipc reports EMFILE and ENFILE in words only.
        code = error.errno or errno.EMFILE
    else:
        fd: int = memory.fd
        return fd
    raise os_error(code, "named pipe", name)


def _failure(code: int, name: str) -> OSError:
    advice = _lib.reason() if code in (errno.EUCLEAN, errno.ENOEXEC) else ""
    return os_error(code, "named pipe", name, advice)
