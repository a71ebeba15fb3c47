"""The wake protocol and the companion, explored: what is built holds, what is weaker fails."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from model import labels

HERE = Path(__file__).parent
TESTS = labels.ROOT / "tests/unit_c"
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


@pytest.mark.watchdog(280)
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


def test_every_label_is_broken_by_something_that_is_noticed(built: Path) -> None:
    killers = labels.of_the_model(built) + labels.of_the_mutants()
    everywhere = labels.documented()
    assert len(everywhere) > 50
    assert labels.unknown(killers, everywhere) == []
    bare = {name for name in everywhere if not labels.killers_of(name, killers, everywhere)}
    assert bare == set(labels.OPEN)


def test_every_step_of_a_dialogue_is_broken_or_explained(built: Path) -> None:
    assert len(labels.in_dialogues()) > 10
    assert len(labels.without_a_label()) >= 3
    assert labels.unexplained(labels.of_the_model(built) + labels.of_the_mutants()) == []
    there = set(labels.in_dialogues()) | {
        known
        for known in labels.EXPLAINED
        for row in labels.without_a_label()
        if row.startswith(known)
    }
    assert set(labels.EXPLAINED) <= there


def test_every_mutant_can_still_be_made() -> None:
    stale = [
        mutant.title
        for program in (labels.MUTANTS, labels.ROOT / labels.SWEEP)
        for mutant in labels.mutants(program)
        if mutant.old not in (labels.ROOT / "cbits" / mutant.file).read_text(encoding="utf-8")
    ]
    assert stale == []


def test_every_mutant_names_tests_that_there_are() -> None:
    sources = {path.stem: path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.c")}
    names = [*sources, *re.findall(r"^TEST\w*\((\w+)", "\n".join(sources.values()), re.MULTILINE)]
    assert len(names) > 200
    nowhere = [
        (mutant.title, word)
        for mutant in labels.mutants()
        for word in mutant.tests.split()
        if not any(word in name for name in names)
    ]
    assert nowhere == []
    titles = [mutant.title for mutant in labels.mutants()]
    assert sorted(set(titles)) == sorted(titles)


def test_the_table_of_the_readme_is_the_present_one(built: Path) -> None:
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    assert "\n".join(labels.table(built)) in readme, "python tests/model/labels.py prints it"
