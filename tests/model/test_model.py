"""The wake protocol and the companion, explored: what is built holds, what is weaker fails."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LINE = re.compile(r"(ok|WRONG) +(.+?) +(\d+) states +(\d+) steps .*?(holds|refuted|cut)")


def make(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-s", "-C", str(HERE), *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.fixture(scope="module")
def built() -> Path:
    result = make("build/model", seconds=120)
    assert result.returncode == 0, result.stderr
    return HERE / "build/model"


def test_what_is_built_holds_and_what_is_weaker_is_refuted(built: Path) -> None:
    result = subprocess.run(
        [str(built), "quick"], capture_output=True, text=True, timeout=300, check=False
    )
    verdicts = [match.groups() for match in map(LINE.match, result.stdout.splitlines()) if match]
    assert [title for mark, title, *_ in verdicts if mark != "ok"] == [], result.stdout
    assert result.returncode == 0, result.stdout
    assert sum(verdict == "holds" for *_, verdict in verdicts) >= 7
    assert sum(verdict == "refuted" for *_, verdict in verdicts) >= 40
    assert sum(int(states) for _, _, states, *_ in verdicts) > 1_000_000


def test_a_refuted_protocol_shows_its_shortest_counterexample(built: Path) -> None:
    result = subprocess.run(
        [str(built), "look, then register"], capture_output=True, text=True, timeout=60, check=True
    )
    steps = [line for line in result.stdout.splitlines() if re.match(r" +\d+  ", line)]
    assert len(steps) == 13, result.stdout
    assert "R2" in steps[4] + steps[5] + steps[6] + steps[7] + steps[8]
    assert "futex_waitv: sleeps" in result.stdout


def test_nothing_to_explore_is_an_error(built: Path) -> None:
    result = subprocess.run(
        [str(built), "no such title"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 1


def test_without_spin_it_says_so() -> None:
    result = make("spin", "SPIN=no-such-spin", seconds=60)
    assert result.returncode != 0
    assert "spin is not installed" in result.stderr
