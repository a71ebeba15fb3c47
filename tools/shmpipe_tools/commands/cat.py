"""shmpipe cat: a named pipe to standard output."""

import click

import shmpipe
from shmpipe_tools.copying import (
    COPY_BYTES,
    STDOUT,
    create_if_asked,
    pipe_options,
    write_descriptor,
)
from shmpipe_tools.failure import explained


@click.command()
@pipe_options
def command(name: str, create: bool, capacity: int) -> None:
    """Copy pipe NAME to standard output until its last writer has closed it.

    Waits for a writer first, as a FIFO does.  What is read is gone from the pipe: to
    look without taking, use `shmpipe stat`.
    """
    create_if_asked("cat", name, create, capacity)
    buffer = memoryview(bytearray(COPY_BYTES))
    with explained("cat", name):
        reader = shmpipe.open(name, "r")
    with reader:
        while True:
            with explained("cat", name):
                size = reader.readinto(buffer)
            if not size:
                return
            write_descriptor(STDOUT, buffer[:size])
