"""shmpipe torture: kills and disturbs processes at a pipe while every byte is accounted for."""

import secrets
import time
from collections.abc import Callable
from typing import Any

import click
from rich.live import Live
from rich.text import Text

from shmpipe_tools.output import console, print_json
from shmpipe_tools.torture.director import Director, Outcome, Run
from shmpipe_tools.torture.report import progress_line, report
from shmpipe_tools.torture.stressor import stressors

# What runs if nobody says what.
_DEFAULT = {"kill": 1}
_LINE_EVERY_SECONDS = 10.0


def _stressor_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each stressor that there is."""
    for name, stressor in reversed(stressors().items()):
        option = click.option(
            f"--{name}",
            f"instances_{name}",
            type=click.IntRange(0, 4),
            default=0,
            metavar="N",
            help=f"N times: {stressor.about}. One op: {stressor.operation}.",
        )
        function = option(function)
    return function


@click.command()
@_stressor_options
@click.option(
    "--ops",
    type=click.IntRange(0),
    default=0,
    help="End when each stressor has done so many; 0: when the time is over.",
)
@click.option("--timeout", type=click.FloatRange(0.1), help="End after so many seconds.")
@click.option("--seed", help="What the episodes are drawn from; printed, random by default.")
@click.option(
    "--scenes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Pipes at the same time, each with its own processes and stressors.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0.1),
    default=1.0,
    show_default=True,
    help="Seconds that a process may sleep beside what it waits for.",
)
@click.option("--first-episode", type=click.IntRange(0), default=0, help="To repeat one.")
@click.option("--episodes", type=click.IntRange(0), default=0, help="So many in each scene.")
@click.option("--keep-going", is_flag=True, help="Do not end at the first violation.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def command(
    ops: int,
    timeout: float | None,
    seed: str | None,
    scenes: int,
    patience: float,
    first_episode: int,
    episodes: int,
    keep_going: bool,
    as_json: bool,
    **instances: int,
) -> None:
    """Torture pipes: processes at them are killed, stopped and disturbed at any instant.

    An episode is one pipe with 2 to 16 processes that read and write records in every
    manner.  Everything is accounted for: no byte lost or twice, no record torn, nobody
    asleep beside work, end of file and EPIPE when they are due and not before.  Every
    eighth episode is played on os.pipe, under the same oracles.

    Ctrl-C ends the run with its report.  Exit code 1 if anything was wrong; the seed
    then draws the same episodes again.
    """
    chosen = {name.removeprefix("instances_"): count for name, count in instances.items() if count}
    if not ops and timeout is None and not episodes:
        timeout = 60.0
    run = Run(
        instances=chosen or _DEFAULT,
        ops=ops,
        seconds=timeout,
        seed=seed or secrets.token_hex(4),
        scenes=scenes,
        patience=patience,
        first_episode=first_episode,
        episodes=episodes,
        keep_going=keep_going,
    )
    outcome = _direct(run)
    if as_json:
        print_json(outcome.as_json())
    else:
        screen = console()
        for part in report(outcome):
            screen.print(part)
    if not outcome.ok:
        raise SystemExit(1)
    if outcome.interrupted:
        raise KeyboardInterrupt


def _direct(run: Run) -> Outcome:
    """Runs, with the state on stderr: a line that changes on a terminal, now and then elsewhere."""
    screen = console(stderr=True)
    started = shown = time.monotonic()
    screen.print(f"seed {run.seed}")
    with Live(console=screen, auto_refresh=False, transient=True) as live:

        def show(outcome: Outcome) -> None:
            nonlocal shown
            now = time.monotonic()
            if now - shown < (0.2 if screen.is_terminal else _LINE_EVERY_SECONDS):
                return
            shown = now
            line = f"{now - started:.0f} s: {progress_line(outcome, now - started)}"
            if screen.is_terminal:
                live.update(Text(line), refresh=True)
            else:
                screen.print(line)

        return Director(run).direct(show)
