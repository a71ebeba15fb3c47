"""shmpipe bench: shmpipe beside os.pipe on this machine, in one run."""

from fnmatch import fnmatchcase

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from shmpipe_tools.bench import report
from shmpipe_tools.bench.cases import Case, all_cases
from shmpipe_tools.bench.measures import two_cores
from shmpipe_tools.bench.runner import Result, measurements, run_case
from shmpipe_tools.failure import standard_output
from shmpipe_tools.output import console, print_json


@click.command()
@click.option(
    "-c",
    "--case",
    "patterns",
    multiple=True,
    metavar="PATTERN",
    help="Only these cases (shell pattern on the key; may be repeated).",
)
@click.option("--list", "only_list", is_flag=True, help="Show the cases and leave.")
@click.option(
    "-r",
    "--runs",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Alternating runs of each pipe.",
)
@click.option(
    "-s",
    "--seconds",
    type=click.FloatRange(0.01, 600),
    default=0.3,
    show_default=True,
    help="Time of one measurement.",
)
@click.option("--json", "as_json", is_flag=True, help="Every figure, as JSON.")
def command(
    patterns: tuple[str, ...], only_list: bool, runs: int, seconds: float, as_json: bool
) -> None:
    """Compare shmpipe with os.pipe, from Python, on this machine.

    Each case alternates the two pipes; a ratio comes from two neighbouring runs, and
    the median of the ratios is shown with the smallest and the largest.  A ratio above 1
    means that shmpipe does better.  The default run takes about a minute.
    """
    cases = _chosen(patterns)
    if only_list:
        with standard_output():
            for case in cases:
                click.echo(f"{case.key:22} {case.title}")
        return
    results = _measure(cases, runs, seconds)
    if as_json:
        print_json(report.as_json(results, runs, seconds))
    else:
        console().print(report.result_table(results))


def _chosen(patterns: tuple[str, ...]) -> list[Case]:
    cases = all_cases()
    for pattern in patterns:
        if not any(fnmatchcase(case.key, pattern) for case in cases):
            raise click.UsageError(f"no case matches '{pattern}' (see --list)")
    if patterns:
        cases = [case for case in cases if any(fnmatchcase(case.key, p) for p in patterns)]
    return cases


def _measure(cases: list[Case], runs: int, seconds: float) -> list[Result]:
    """Measures with progress on stderr: a bar on a terminal, a line per case elsewhere."""
    screen = console(stderr=True)
    if two_cores() is None:
        for case in cases:
            if case.cores > 1:
                screen.print(f"left out, needs two cores: {case.title}")
        cases = [case for case in cases if case.cores == 1]
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=screen,
        transient=True,
        # The worker processes are forked: no thread of the progress bar may run then.
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not screen.is_terminal,
    )
    results = []
    with progress:
        task = progress.add_task("", total=sum(measurements(case, runs) for case in cases))

        def measured() -> None:
            progress.advance(task)
            progress.refresh()

        for number, case in enumerate(cases, 1):
            progress.update(task, description=case.title, refresh=True)
            if not screen.is_terminal:
                screen.print(f"{number}/{len(cases)} {case.title}")
            results.append(run_case(case, runs, seconds, measured))
    return results
