"""The result of a benchmark, as a table for people and as JSON for programs."""

import os
import platform
from statistics import median
from typing import Any

from rich.table import Table
from rich.text import Text

import shmpipe
from shmpipe_tools.bench.cases import Case, Unit
from shmpipe_tools.bench.runner import Result, Spread
from shmpipe_tools.output import plain_table
from shmpipe_tools.sizes import format_size


def result_table(results: list[Result]) -> Table:
    """One line per case: both medians, the ratio with its range, the target beside it."""
    table = plain_table()
    table.add_column("CASE")
    for title in ("OS.PIPE", "SHMPIPE", "RATIO", "MIN..MAX", "TARGET"):
        table.add_column(title, justify="right", no_wrap=True)
    for result in results:
        table.add_row(
            result.case.title,
            _figure(median(result.kernel), result.case.unit) if result.kernel else "-",
            _figure(median(result.shared), result.case.unit),
            *_ratio_cells(result),
            _target_cell(result),
        )
    return table


def as_json(results: list[Result], runs: int, seconds: float) -> dict[str, Any]:
    """The same with every figure, in bytes, seconds and bytes per second."""
    return {
        "kind": "bench",
        "shmpipe": shmpipe.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "runs": runs,
        "seconds": seconds,
        "cases": [_case_as_json(result) for result in results],
    }


def _case_as_json(result: Result) -> dict[str, Any]:
    target = result.case.target
    return {
        "case": result.case.key,
        "title": result.case.title,
        "unit": result.case.unit.value,
        "os_pipe": _spread_as_json(result.kernel),
        "shmpipe": _spread_as_json(result.shared),
        "ratio": _spread_as_json(result.ratios),
        "target": {"ratio_at_least": target.ratio_at_least, "below": target.below},
        "target_met": result.target_met,
    }


def _spread_as_json(figures: list[float]) -> dict[str, Any] | None:
    if not figures:
        return None
    spread = Spread.of(figures)
    return {"median": spread.median, "min": spread.low, "max": spread.high, "samples": figures}


def _ratio_cells(result: Result) -> tuple[str, str]:
    if not result.ratios:
        return "-", "-"
    spread = Spread.of(result.ratios)
    return f"{_times(spread.median)}x", f"{_times(spread.low)}..{_times(spread.high)}"


def _target_cell(result: Result) -> Text:
    text = _target_text(result.case)
    if result.target_met:
        return Text(f"{text} met", style="green")
    return Text(f"{text} missed", style="bold red")


def _target_text(case: Case) -> str:
    if case.target.ratio_at_least is not None:
        return f">= {_times(case.target.ratio_at_least)}x"
    assert case.target.below is not None
    return f"< {_figure(case.target.below, case.unit)}"


def _times(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _figure(value: float, unit: Unit) -> str:
    if unit is Unit.BYTES:
        return format_size(value)
    if unit is Unit.SECONDS:
        return f"{value * 1e6:.3g} us" if value < 1e-3 else f"{value * 1e3:.3g} ms"
    for scale, name in ((1e9, "GB/s"), (1e6, "MB/s")):
        if value >= scale:
            return f"{value / scale:.3g} {name}"
    return f"{value / 1e3:.3g} kB/s"
