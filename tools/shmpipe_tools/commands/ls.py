"""shmpipe ls: every live pipe, one line each."""

import click
from rich.table import Table

from shmpipe.inspect import Snapshot
from shmpipe_tools.failure import reason_of
from shmpipe_tools.inspect.as_json import pipe_as_json
from shmpipe_tools.inspect.discover import Location, live_pipes
from shmpipe_tools.inspect.looking import look
from shmpipe_tools.inspect.report import age_of, process_text
from shmpipe_tools.output import console, plain_table, print_json
from shmpipe_tools.safe import printable
from shmpipe_tools.sizes import format_age, format_size


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The same as JSON, with every figure.")
def command(as_json: bool) -> None:
    """List the live pipes: named ones, and anonymous ones by a process that has them.

    An anonymous pipe is shown as PID:FD, which `shmpipe stat` understands.  Processes
    of other users are left out unless you may look into them.
    """
    pipes = [(location, _glance(location)) for location in live_pipes()]
    if as_json:
        print_json({"pipes": [_as_json(location, seen) for location, seen in pipes]})
    else:
        console().print(_table(pipes))


def _glance(location: Location) -> Snapshot | OSError:
    try:
        return look(location)
    except OSError as error:
        return error


def _as_json(location: Location, seen: Snapshot | OSError) -> dict[str, object]:
    if isinstance(seen, OSError):
        return {"pipe": location.label, "kind": location.kind, "error": reason_of(seen, "ls")}
    return pipe_as_json(location, seen)


def _table(pipes: list[tuple[Location, Snapshot | OSError]]) -> Table:
    """The columns of ss and lsipc where they fit: what, how full, who."""
    table = plain_table()
    table.add_column("PIPE", overflow="fold")
    table.add_column("KIND")
    for title in ("CAPACITY", "USED", "READERS", "WRITERS", "WAITING", "AGE"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("PROCESSES", overflow="fold")
    for location, seen in pipes:
        if isinstance(seen, FileNotFoundError):
            continue  # gone since it was found
        if isinstance(seen, OSError):
            cells = ["-"] * 6 + [printable(reason_of(seen, "ls"))]
        else:
            cells = [
                format_size(seen.capacity),
                format_size(seen.pending),
                str(seen.readers),
                str(seen.writers),
                str(seen.read_waiters + seen.write_waiters),
                format_age(age_of(seen)),
                ", ".join(process_text(process) for process in location.processes) or "-",
            ]
        table.add_row(printable(location.label), location.kind, *cells)
    return table
