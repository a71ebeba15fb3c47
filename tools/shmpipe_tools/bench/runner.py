"""Runs cases: alternates the two pipes run by run and compares the neighbours in time.

Virtual cores move between near and far places within seconds, and the figures with
them by factors.  Two runs that follow each other mostly see the same place: so each
ratio is taken from such a pair, and the median of the ratios is the result.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from shmpipe_tools.bench.cases import Case


@dataclass(frozen=True)
class Spread:
    """Median and range of some figures."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(figures: list[float]) -> "Spread":
        """The spread of at least one figure."""
        return Spread(median(figures), min(figures), max(figures))


@dataclass
class Result:
    """The figures of one case, in the order in which they were taken."""

    case: Case
    shared: list[float] = field(default_factory=list)
    kernel: list[float] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """How many times better shmpipe did, pair by pair."""
        if self.case.unit.more_is_better:
            return [ours / theirs for ours, theirs in zip(self.shared, self.kernel, strict=True)]
        return (
            [theirs / ours for ours, theirs in zip(self.shared, self.kernel, strict=True)]
            if self.kernel
            else []
        )

    @property
    def target_met(self) -> bool:
        """Whether the median does what the project aims at."""
        target = self.case.target
        if target.ratio_at_least is not None:
            return median(self.ratios) >= target.ratio_at_least
        assert target.below is not None
        return median(self.shared) < target.below


def run_case(
    case: Case, runs: int, seconds: float, measured: Callable[[], None] = lambda: None
) -> Result:
    """Measures one case `runs` times with each pipe; calls `measured` after each measurement."""
    result = Result(case)
    for run in range(runs if case.timed else 1):
        order = [(case.shared, result.shared)]
        if case.kernel is not None:
            order.append((case.kernel, result.kernel))
        if run % 2 == 0:  # who goes first alternates too
            order.reverse()
        for measure, figures in order:
            figures.append(measure(seconds))
            measured()
    return result


def measurements(case: Case, runs: int) -> int:
    """How many measurements run_case() will make."""
    return (runs if case.timed else 1) * (1 if case.kernel is None else 2)
