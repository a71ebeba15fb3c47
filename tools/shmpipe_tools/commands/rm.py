"""shmpipe rm: remove named pipes."""

import click

import shmpipe
from shmpipe_tools.failure import Failure, explained


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def command(names: tuple[str, ...]) -> int:
    """Remove named pipes.

    Who has one open keeps it, as with a file.  Every name is tried; the exit code is 1
    if one could not be removed.
    """
    code = 0
    for name in names:
        try:
            with explained("rm", name):
                shmpipe.unlink(name)
        except Failure as failure:
            failure.show()
            code = failure.exit_code
    return code
