"""Exceptions: what the kernel calls an error, as the OSError subclass that Python has for it."""

import errno
import io
import os


class CorruptSegmentError(OSError):
    """The shared memory of a pipe breaks the rules of its format (errno EUCLEAN).

    A process with write permission has damaged it.  Nothing was read or written out of bounds; the
    pipe cannot be used any more.
    """


class IncompatibleSegmentError(OSError):
    """The shared memory is no pipe, or of a version that this build cannot use (errno ENOEXEC)."""


# What to know or to do, where the kernel's phrase alone leaves people puzzled.
_ADVICE = {
    errno.EPIPE: "no process has a read end open",
    errno.ENXIO: "no process has it open for reading, and O_NONBLOCK does not wait for one",
    errno.EAGAIN: "it would block, and the end is O_NONBLOCK",
    errno.EBUSY: "more is in the pipe than the new capacity holds: read first",
    errno.EPERM: "the capacity of a pipe is limited to 1 GiB",
    errno.ENOSPC: "no room in shared memory, or in a table of the pipe",
    errno.ENOTTY: "a pipe knows FIONREAD, FIONBIO and FIOASYNC",
    errno.ESPIPE: "a pipe has no position",
}


def message(code: int, about: str, advice: str = "") -> str:
    """What an errno means for a pipe (about), in words; advice replaces the standard hint."""
    # "Exec format error" would only mislead: the reason says it all.
    phrase = "" if code in (errno.EUCLEAN, errno.ENOEXEC) and advice else os.strerror(code)
    return ": ".join(filter(None, [phrase, advice or _ADVICE.get(code, ""), about]))


def os_error(code: int, about: str, name: str | int | None = None, advice: str = "") -> OSError:
    """Builds the exception for an errno.

    code is the errno, about says which pipe, name (or a descriptor) becomes the exception's
    filename, advice replaces the standard hint.
    """
    kinds = {
        errno.EUCLEAN: CorruptSegmentError,
        errno.ENOEXEC: IncompatibleSegmentError,
        errno.EBADF: io.UnsupportedOperation,
        errno.ESPIPE: io.UnsupportedOperation,
    }
    kind = kinds.get(code, OSError)
    return kind(code, message(code, about, advice), *([] if name is None else [name]))
