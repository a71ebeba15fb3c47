"""What `shmpipe write` and `shmpipe cat` share: options, buffers, the other side of the copy."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import click

import shmpipe
from shmpipe_tools.failure import Failure, explained
from shmpipe_tools.sizes import size_option

# As much as the largest kernel pipe holds; more only leaves the cache.
COPY_BYTES = 1 << 20

STDIN = 0
STDOUT = 1


def pipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments of a command that opens one named pipe."""
    for decorate in (
        click.option(
            "--capacity",
            metavar="SIZE",
            callback=size_option,
            default="64K",
            show_default=True,
            help="With --create: bytes a new pipe holds.",
        ),
        click.option(
            "--create",
            is_flag=True,
            help="Create the pipe if there is none; it stays until `shmpipe rm`.",
        ),
        click.argument("name"),
    ):
        function = decorate(function)
    return function


def create_if_asked(action: str, name: str, create: bool, capacity: int) -> None:
    """Creates the pipe unless it exists: both sides may ask, in any order."""
    if create:
        with explained(action, name), contextlib.suppress(FileExistsError):
            shmpipe.mkfifo(name, capacity=capacity)


def read_descriptor(descriptor: int, buffer: memoryview) -> int:
    """Reads what is there; 0 at end of file."""
    try:
        return os.readv(descriptor, [buffer])
    except OSError as error:
        raise Failure(f"standard input: {error.strerror}") from error


def write_descriptor(descriptor: int, data: memoryview) -> None:
    """Writes everything."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BrokenPipeError:
            raise  # ends the command like any other filter: see cli.py
        except OSError as error:
            raise Failure(f"standard output: {error.strerror}") from error
