"""Where results go: a console that knows terminals, files and NO_COLOR, and JSON."""

import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from shmpipe_tools.failure import standard_output
from shmpipe_tools.sigpipe import die_of_sigpipe

JSON_SCHEMA = 1

# Lines for programs (grep, awk) must not be folded to a screen's width.
_WIDTH_OF_A_FILE = 500


class _Console(Console):
    """A console that fails and dies of a broken pipe as the rest of the command does."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints, or ends the command with what is wrong with standard output."""
        with standard_output():
            super().print(*objects, **options)

    def on_broken_pipe(self) -> None:
        die_of_sigpipe()


def console(*, stderr: bool = False) -> Console:
    """A console for untrusted text: no markup, no emoji codes, no guessing of highlights.

    rich itself honours NO_COLOR and sends no colours to what is not a terminal.
    """
    stream = sys.stderr if stderr else sys.stdout
    return _Console(
        file=stream,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
        width=None if stream.isatty() else _WIDTH_OF_A_FILE,
    )


def plain_table() -> Table:
    """A table in the manner of ss and lsipc: a header, columns, no frame."""
    return Table(
        box=None,
        pad_edge=False,
        header_style="bold",
    )


def print_json(document: dict[str, Any]) -> None:
    """One JSON document with its schema number first."""
    with standard_output():
        click.echo(json.dumps({"schema": JSON_SCHEMA, **document}, indent=2))
