"""shmpipe check: whether the memory of live pipes is in order."""

from dataclasses import asdict
from typing import Any

import click
from rich.text import Text

from shmpipe.checking import Check
from shmpipe_tools.failure import failure_of, reason_of
from shmpipe_tools.inspect.discover import Location, find_pipe, live_pipes
from shmpipe_tools.inspect.looking import examine
from shmpipe_tools.output import console, print_json
from shmpipe_tools.safe import printable

EXIT_DAMAGED = 1


@click.command()
@click.argument("pipe", metavar="[NAME|PID:FD]", required=False)
@click.option("--all", "everything", is_flag=True, help="Every live pipe that you may see.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def command(pipe: str | None, everything: bool, as_json: bool) -> int:
    """Examine the shared memory of a pipe and say in words what is wrong with it.

    It only reads, and the processes that use the pipe do not notice.  What a killed process
    leaves behind is a note: the next one that comes puts it right.  The exit code is 1 if
    a pipe is damaged or could not be examined.
    """
    if (pipe is None) != everything:
        raise click.UsageError("say which pipe, or --all")
    locations = live_pipes() if pipe is None else [find_pipe(pipe, "check")]
    results = [(location, _examined(location)) for location in locations]
    if everything:  # who is gone since it was found is no damage
        results = [each for each in results if not isinstance(each[1], FileNotFoundError)]
    if as_json:
        print_json({"pipes": [_as_json(location, result) for location, result in results]})
    else:
        for location, result in results:
            _show(location, result)
    return EXIT_DAMAGED if any(map(_is_bad, (result for _, result in results))) else 0


def _examined(location: Location) -> Check | OSError:
    try:
        return examine(location)
    except OSError as error:
        return error


def _is_bad(result: Check | OSError) -> bool:
    return isinstance(result, OSError) or result.errors > 0


def _show(location: Location, result: Check | OSError) -> None:
    if isinstance(result, OSError):
        failure_of(result, "check", location.label).show()
        return
    screen = console()
    screen.print(_headline(location, result))
    for finding in result.findings:
        style = "bold red" if finding.error else "dim"
        kind = "wrong" if finding.error else "note"
        screen.print(Text(f"  {kind}: {printable(finding.text)}", style=style))
    hidden = result.errors + result.notes - len(result.findings)
    if hidden:
        screen.print(Text(f"  and {hidden} more"))


def _headline(location: Location, result: Check) -> Text:
    text = Text(printable(location.label), style="bold")
    if result.errors:
        text.append(f"  damaged, {_counted(result.errors, 'finding')}", style="bold red")
    else:
        text.append("  in order", style="not bold green")
    if result.moving:
        text.append(" (in full motion: its slots were not judged)", style="not bold")
    return text


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _as_json(location: Location, result: Check | OSError) -> dict[str, Any]:
    where = {"pipe": location.label, "kind": location.kind}
    if isinstance(result, OSError):
        return {**where, "error": reason_of(result, "check")}
    return {**where, **asdict(result)}
