"""What the user sees of a run: a line while it goes on, and the report at the end."""

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from shmpipe_tools.output import plain_table
from shmpipe_tools.torture.director import Outcome
from shmpipe_tools.torture.latency import (
    HARD_LIMIT,
    P50_LIMIT,
    P99_LIMIT,
    duration,
    picture,
)
from shmpipe_tools.torture.stressor import stressors


def progress_line(outcome: Outcome, seconds: float) -> str:
    """The state of a run in one line."""
    ops = ", ".join(f"{name} {count}" for name, count in outcome.ops.items())
    rate = outcome.kills / seconds if seconds else 0
    return (
        f"{ops}; {sum(outcome.episodes.values())} episodes, {outcome.actors} processes, "
        f"{outcome.cells} cells, {rate:.0f} kills/s"
    )


def report(outcome: Outcome) -> Iterator[RenderableType]:
    """The parts of the report, from top to bottom."""
    yield _ops_table(outcome)
    yield Text()
    yield Text(
        f"{outcome.kills} processes killed, {outcome.actors} started, {outcome.cells} cells read "
        f"and accounted for, in {outcome.episodes['shmpipe']} episodes "
        f"and {outcome.episodes['os.pipe']} on os.pipe, {outcome.seconds:.0f} s"
    )
    yield Text()
    yield _rare_table(outcome)
    latencies = outcome.latencies()
    if latencies:
        yield Text()
        yield from _latency(latencies)
    yield Text()
    yield from _verdict(outcome)


def _ops_table(outcome: Outcome) -> Table:
    table = plain_table()
    for title, justify in (("STRESSOR", "left"), ("OPS", "right"), ("PER S", "right")):
        table.add_column(title, justify="right" if justify == "right" else "left")
    table.add_column("ONE OP")
    for name, ops in outcome.ops.items():
        rate = ops / outcome.seconds if outcome.seconds else 0
        table.add_row(name, str(ops), f"{rate:.0f}", stressors()[name].operation)
    return table


def _rare_table(outcome: Outcome) -> Table:
    """How often each state was reached, and for which stressor a run like this must reach it."""
    table = plain_table()
    table.add_column("STATE REACHED")
    table.add_column("TIMES", justify="right")
    table.add_column("DUE FOR")
    due = {name: outcome.due(name) for name in outcome.run.instances}
    for state, count in outcome.rare.items():
        names = ", ".join(name for name, states in due.items() if state in states)
        table.add_row(state, str(count or "never"), names)
    for name, counters in outcome.counters.items():
        for counter, count in counters.items():
            row = f"{name}: {counter}", str(count or "never")
            table.add_row(*row, name if counter in due[name] else "")
    return table


def _latency(latencies: dict[str, dict[str, dict[str, Any]]]) -> Iterator[RenderableType]:
    table = plain_table()
    table.add_column("LAST PEER KILLED")
    for title in ("COUNT", "P50", "P90", "P99", "MAX"):
        table.add_column(title, justify="right")
    table.add_column("")
    for transport, kinds in latencies.items():
        for what, row in kinds.items():
            limits = ("", "limits met" if row["limits_met"] else "LIMITS MISSED")
            table.add_row(
                f"{transport}: {what}",
                str(row["count"]),
                *(duration(row[key]) for key in ("p50", "p90", "p99", "max")),
                limits[transport == "shmpipe"],
            )
    yield table
    yield Text(
        f"limits: p50 {duration(P50_LIMIT)}, p99 {duration(P99_LIMIT)}, max {duration(HARD_LIMIT)}",
        style="dim",
    )
    for end in sorted({what for kinds in latencies.values() for what in kinds}):
        rows = {name: kinds[end] for name, kinds in latencies.items() if end in kinds}
        yield Text()
        yield Text(f"{end}, from the kill to the survivor's return")
        for line in picture(rows):
            yield Text(line, no_wrap=True)


def _verdict(outcome: Outcome) -> Iterator[RenderableType]:
    seed = outcome.run.seed
    for failure in outcome.failures:
        yield Text(
            f"VIOLATION in episode {failure['episode']} of scene {failure['scene']}",
            style="bold red",
        )
        for finding in failure["findings"]:
            yield Text(f"  {finding}")
        yield Text(f"  {failure.get('errors', '')}\n  {failure.get('plan', '')}")
    for name, missing in outcome.ops_missing.items():
        yield Text(
            f"NOT DONE: {missing} of {outcome.run.ops} ops of {name}; the time was over",
            style="bold red",
        )
    for each in outcome.unreached:
        yield Text(
            f"NEVER REACHED in {each['ops']} ops of {each['stressor']}: {each['state']}",
            style="bold red",
        )
    if not outcome.failures:
        yield Text(f"no violation (seed {seed})", style="green" if outcome.ok else "")
    else:
        options = " ".join(f"--{name} {count}" for name, count in outcome.run.instances.items())
        episode = outcome.failures[0]["episode"] or 0
        yield Text(
            f"again: shmpipe torture {options} --seed {seed} --scenes {outcome.run.scenes} "
            f"--first-episode {episode} --episodes 1"
        )
