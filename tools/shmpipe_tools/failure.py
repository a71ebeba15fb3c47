"""What the user reads when something fails: what happened, to which pipe, what to do."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click

from shmpipe_tools.safe import printable

_ADVICE = {
    errno.ENOENT: "no such pipe (`shmpipe ls` shows what there is)",
    errno.EEXIST: "exists already (use it, or remove it with `shmpipe rm`)",
    errno.EACCES: "permission denied (both sides need read and write permission on the pipe: "
    "run as its owner, or create it with a wider --mode)",
    errno.EPERM: "not permitted (is the capacity above the limit of 1 GiB?)",
    errno.ENOSPC: "no room for it in shared memory (choose a smaller capacity, or remove what is "
    "not needed from /dev/shm)",
    errno.EPIPE: "every reader has closed it; what they had not read is lost",
    errno.ENAMETOOLONG: "the name is too long (200 bytes at most)",
}

# Where the same errno has another cause.
_LOOKING = {
    errno.EACCES: "permission denied (looking needs read permission on the pipe; for PID:FD, the "
    "right to trace that process)",
}
_REMOVING = dict.fromkeys(
    (errno.EACCES, errno.EPERM),
    "permission denied (only its owner and root may remove it)",
)
_COPYING = {
    errno.ENOENT: "no such named pipe (`shmpipe ls` shows what there is; --create makes one)",
}
_ADVICE_FOR = {
    "cat": _COPYING,
    "check": _LOOKING,
    "ls": _LOOKING,
    "rm": _REMOVING,
    "stat": _LOOKING,
    "write": _COPYING,
}


class Failure(click.ClickException):
    """Ends the command with exit code 1 and one line on stderr."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the line.  It may carry names that somebody else chose."""
        click.echo(f"shmpipe: {printable(self.message)}", file=file, err=True)


def failure_of(error: OSError, action: str, pipe: str) -> Failure:
    """The failure that says what `error` means for `action` on `pipe`."""
    return Failure(f"{action} '{pipe}': {reason_of(error, action)}")


def reason_of(error: OSError, action: str) -> str:
    """What happened in the command `action` and what to do, without saying to what."""
    advice = _ADVICE | _ADVICE_FOR.get(action, {})
    return advice.get(error.errno or 0) or error.strerror or str(error)


@contextmanager
def explained(action: str, pipe: str) -> Iterator[None]:
    """Turns an OSError from a call on `pipe` into a Failure."""
    try:
        yield
    except OSError as error:
        raise failure_of(error, action, pipe) from error
    except ValueError as error:
        raise Failure(f"{action} '{pipe}': {error}") from error


@contextmanager
def standard_output() -> Iterator[None]:
    """Turns an OSError of writing to standard output (a full disk) into a Failure."""
    try:
        yield
    except BrokenPipeError:
        raise  # ends the command like any other filter: see cli.py
    except OSError as error:
        # What is left in the buffer must not fail once more when the interpreter ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise Failure(f"standard output: {error.strerror}") from error
