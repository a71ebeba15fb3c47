"""shmpipe mkfifo: create named pipes."""

import re

import click

import shmpipe
from shmpipe_tools.failure import explained
from shmpipe_tools.sizes import size_option


def _mode_option(_ctx: click.Context, _param: click.Parameter, value: str) -> int:
    """Permission bits in octal, as mkfifo(1) and chmod(1) take them."""
    if not re.fullmatch("[0-7]{1,4}", value) or int(value, 8) > 0o777:
        raise click.BadParameter(f"{value!r} is not an octal mode between 0 and 777")
    return int(value, 8)


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option(
    "-m",
    "--mode",
    metavar="MODE",
    callback=_mode_option,
    default="600",
    show_default=True,
    help="Permission bits.",
)
@click.option(
    "--capacity",
    metavar="SIZE",
    callback=size_option,
    default="64K",
    show_default=True,
    help="Bytes it holds: 64K, 1M ...",
)
def command(names: tuple[str, ...], mode: int, capacity: int) -> None:
    """Create named pipes, like mkfifo(1).

    The umask applies to the mode.  A pipe stays until `shmpipe rm` removes it or the
    machine restarts.  Large messages are fastest from a capacity of 4M on.
    """
    for name in names:
        with explained("mkfifo", name):
            shmpipe.mkfifo(name, mode, capacity=capacity)
