"""shmpipe demo: the standard library through one pipe to two processes."""

import click

from shmpipe_tools.demo.tour import demonstrate
from shmpipe_tools.output import console


@click.command()
def command() -> None:
    """Show what shmpipe does, on real input, in half a minute.

    A producer streams every .py file of Python's standard library through a named pipe
    to two consumers: watched, beside os.pipe, and with one consumer killed by SIGKILL.
    Every byte is accounted for; the exit code is 1 if one is not where it must be.
    """
    demonstrate(console())
