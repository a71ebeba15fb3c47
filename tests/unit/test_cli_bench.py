"""The benchmark: what it concludes from figures, and one short real run."""

import json
import subprocess
import sys

import pytest
from shmpipe_tools.bench.cases import Case, Target, Unit, all_cases
from shmpipe_tools.bench.runner import Result, run_case


def case_of(unit: Unit, target: Target, ours: list[float], theirs: list[float]) -> Case:
    """A case whose measurements come from lists."""
    return Case(
        "k",
        "title",
        unit,
        target,
        lambda _seconds: ours.pop(0),
        (lambda _seconds: theirs.pop(0)) if theirs else None,
    )


def test_a_ratio_compares_neighbouring_runs_and_is_above_one_when_shmpipe_is_better() -> None:
    rate = run_case(case_of(Unit.BYTES_PER_SECOND, Target(2), [40, 20], [10, 10]), 2, 0.1)
    assert rate.ratios == [4, 2]
    time = run_case(case_of(Unit.SECONDS, Target(2), [1, 2], [4, 4]), 2, 0.1)
    assert time.ratios == [4, 2]


@pytest.mark.parametrize(("target", "met"), [(2.9, True), (3.1, False)])
def test_a_ratio_target_is_held_against_the_median(target: float, met: bool) -> None:
    case = case_of(Unit.BYTES_PER_SECOND, Target(ratio_at_least=target), [], [1])
    assert Result(case, shared=[1, 3, 9], kernel=[1, 1, 1]).target_met is met


@pytest.mark.parametrize(("below", "met"), [(5, False), (6, True)])
def test_a_figure_of_its_own_is_held_against_the_median(below: float, met: bool) -> None:
    case = case_of(Unit.SECONDS, Target(below=below), [], [])
    assert Result(case, shared=[1, 5, 9]).target_met is met


def test_who_goes_first_alternates() -> None:
    order: list[str] = []

    def measured(who: str) -> float:
        order.append(who)
        return 1.0

    case = Case(
        "k",
        "t",
        Unit.SECONDS,
        Target(2),
        lambda _seconds: measured("ours"),
        lambda _seconds: measured("theirs"),
    )
    run_case(case, 3, 0.1)
    assert order == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]


def test_keys_are_unique() -> None:
    keys = [case.key for case in all_cases()]
    assert len(set(keys)) == len(keys)


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `shmpipe bench`."""
    return subprocess.run(
        [sys.executable, "-m", "shmpipe_tools", "bench", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_short_run_of_every_case_as_json() -> None:
    done = bench("--json", "--runs", "1", "--seconds", "0.02")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == 1
    assert [case["case"] for case in document["cases"]] == [case.key for case in all_cases()]
    for case in document["cases"]:
        assert case["shmpipe"]["median"] > 0, case
        if not case["case"].startswith("memory"):
            assert len(case["ratio"]["samples"]) == 1


def test_cases_are_chosen_by_pattern() -> None:
    done = bench("--case", "create*", "--case", "memory-named", "-r", "1", "-s", "0.01")
    assert done.returncode == 0, done.stderr
    titles = [line.split("  ")[0] for line in done.stdout.splitlines()[1:]]
    assert titles == ["create and close a pipe", "memory, named"]


def test_a_pattern_without_a_case_is_a_usage_error() -> None:
    done = bench("--case", "nonsense")
    assert done.returncode == 2
    assert "no case matches 'nonsense'" in done.stderr
