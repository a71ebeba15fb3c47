"""shmpipe write: standard input into a named pipe."""

import click

import shmpipe
from shmpipe_tools.copying import COPY_BYTES, STDIN, create_if_asked, pipe_options, read_descriptor
from shmpipe_tools.failure import explained


@click.command()
@pipe_options
def command(name: str, create: bool, capacity: int) -> None:
    """Copy standard input into pipe NAME until end of file.

    Waits for a reader first, as a FIFO does.  If every reader goes away, that is an
    error: what they had not read is lost.

    \b
    tar c . | shmpipe write --create p          # here
    shmpipe cat --create p | tar x -C /there    # and there, in any order
    """
    create_if_asked("write", name, create, capacity)
    buffer = memoryview(bytearray(COPY_BYTES))
    with explained("write", name):
        writer = shmpipe.open(name, "w")
    with writer:
        while size := read_descriptor(STDIN, buffer):
            data = buffer[:size]
            while data:
                with explained("write", name):
                    data = data[writer.write(data) :]
