"""shmpipe stat: a picture of one live pipe."""

import click

from shmpipe_tools.failure import explained
from shmpipe_tools.inspect.as_json import pipe_as_json
from shmpipe_tools.inspect.discover import find_pipe
from shmpipe_tools.inspect.looking import look
from shmpipe_tools.inspect.report import report
from shmpipe_tools.output import console, print_json


@click.command()
@click.argument("pipe", metavar="NAME|PID:FD")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def command(pipe: str, as_json: bool) -> None:
    """Show what is in a pipe and who is at it, without touching it.

    NAME is a named pipe; PID:FD is any pipe, by a descriptor of its segment in a process
    (`shmpipe ls` shows them).  It only reads and takes no lock: the processes that use
    the pipe do not notice.
    """
    location = find_pipe(pipe)
    with explained("stat", pipe):
        snapshot = look(location)
    if as_json:
        print_json(pipe_as_json(location, snapshot))
        return
    screen = console()
    for part in report(location, snapshot):
        screen.print(part)
