"""Delays from the kill of the last peer to the survivor's return, as figures and as a picture."""

from collections.abc import Iterable
from math import log10
from typing import Any

# The project's promise, in seconds.
P50_LIMIT = 1e-3
P99_LIMIT = 10e-3
HARD_LIMIT = 1.0

# Four classes for each power of ten, from 10 us to 1 s.
_LOWEST = -5
_CLASSES = 20


def percentile(ordered: list[float], share: float) -> float:
    """The value below which that share lies; of a sorted list that is not empty."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def figures(delays: Iterable[float]) -> dict[str, Any]:
    """Count, percentiles in seconds, and the histogram's classes."""
    ordered = sorted(delays)
    if not ordered:
        return {"count": 0}
    return {
        "count": len(ordered),
        "p50": percentile(ordered, 0.5),
        "p90": percentile(ordered, 0.9),
        "p99": percentile(ordered, 0.99),
        "max": ordered[-1],
        "limits_met": percentile(ordered, 0.5) <= P50_LIMIT
        and percentile(ordered, 0.99) <= P99_LIMIT
        and ordered[-1] <= HARD_LIMIT,
        "classes": [{"below": bound, "count": n} for bound, n in _histogram(ordered)],
    }


def _histogram(delays: list[float]) -> list[tuple[float, int]]:
    counts = [0] * (_CLASSES + 1)
    for delay in delays:
        place = int((log10(max(delay, 1e-9)) - _LOWEST) * 4 + 1)
        counts[min(max(place, 0), _CLASSES)] += 1
    return [(10 ** (_LOWEST + place / 4), count) for place, count in enumerate(counts)]


def picture(rows: dict[str, dict[str, Any]], width: int = 30) -> Iterable[str]:
    """The histograms beside each other, one line for each class that anybody has."""
    rows = {name: row for name, row in rows.items() if row["count"]}
    if not rows:
        return
    yield "  " + " ".join([f"{'below':>8}"] + [f"{name:<{width + 7}}" for name in rows])
    classes = list(zip(*(row["classes"] for row in rows.values()), strict=True))
    used = [place for place, line in enumerate(classes) if any(each["count"] for each in line)]
    for line in classes[used[0] : used[-1] + 1]:
        cells = []
        for row, each in zip(rows.values(), line, strict=True):
            most = max(other["count"] for other in row["classes"])
            bar = "#" * -(-each["count"] * width // most)
            cells.append(f"{bar:<{width}} {each['count']:<6}")
        yield "  " + " ".join([f"{duration(line[0]['below']):>8}", *cells]).rstrip()


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s"
