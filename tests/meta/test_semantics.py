"""docs/reference/semantics.md is the contract: complete, and true about the tests it cites."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "semantics.md"
SUITE = "tests/conformance"

# The rules that must match, by number.
MUST = {
    "CR": [1, 2, 3, 5, 7, 10],
    "FO": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 16],
    "WR": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20],
    "RD": [1, 2, 3, 4, 5, 6, 9, 10],
    "PK": [1, 2, 3, 4, 5, 6, 7],
    "CP": [1, 2, 3, 4, 6, 7, 8, 9, 10, 12],
    "PL": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16],
    "WK": [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 16],
    "IO": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18],
    "SP": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 19, 20],
    "LF": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    "SG": [1, 2, 3, 4, 5, 6],
}
# How many rules there are of each kind: a row that is lost is noticed.
RULES = {
    "CR": 12, "FO": 16, "WR": 21, "RD": 10, "PK": 8, "CP": 13, "PL": 17, "WK": 16, "IO": 20,
    "SP": 21, "WQ": 15, "LF": 12, "SG": 6, "FS": 8,
}  # fmt: skip
VERDICTS = ["same", "different", "not offered", "gap", "later issue"]


class Row(NamedTuple):
    """One rule."""

    rule: str
    tag: str
    shmpipe: str
    verdict: str
    tests: list[str]


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and cells[0] not in ("Rule", "---"):
            match = re.fullmatch(r"([A-Z]{2}(?:-\d+)?)(?: \[([MSX])\])?", cells[0])
            assert match, f"not a rule: {cells[0]!r}"
            cited = re.findall(r"`([^`]+)`", cells[4])
            found.append(Row(match[1], match[2] or "", cells[2], cells[3], cited))
    return found


def numbered() -> list[Row]:
    """The rows of numbered rules; a few others collect what has no number."""
    return [row for row in rows() if "-" in row.rule]


def functions(path: Path) -> dict[str, ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def conformance_tests() -> dict[str, ast.FunctionDef]:
    found: dict[str, ast.FunctionDef] = {}
    for path in sorted((ROOT / SUITE).glob("test_*.py")):
        for name, node in functions(path).items():
            assert name not in found, f"{name} is there twice: a row could not cite it"
            found[name] = node
    return found


def cited_everywhere() -> list[str]:
    """Each test that the page names, also in its table of Python's habits."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(r"`((?:tests/[\w/]+\.py::)?test_\w+)`", text)


def test_each_rule_has_one_row() -> None:
    expected = Counter(f"{kind}-{n}" for kind, last in RULES.items() for n in range(1, last + 1))
    assert Counter(row.rule for row in numbered()) == expected


def test_the_rules_that_must_match_are_marked() -> None:
    must = {f"{kind}-{number}" for kind, numbers in MUST.items() for number in numbers}
    assert {row.rule for row in rows() if row.tag == "M"} == must


def test_each_row_has_a_verdict_and_says_something() -> None:
    for row in rows():
        assert row.verdict in VERDICTS, row.rule
        assert row.shmpipe, row.rule


def test_the_totals_are_right() -> None:
    totals = Counter(row.verdict for row in numbered())
    counted = ", ".join(f"{totals[verdict]} {verdict}" for verdict in VERDICTS)
    assert f"\n{totals.total()} rules: {counted}.\n" in PAGE.read_text(encoding="utf-8")


def test_each_cited_test_exists() -> None:
    known = conformance_tests()
    for cited in cited_everywhere():
        path, _, name = cited.rpartition("::")
        assert name in (functions(ROOT / path) if path else known), f"{cited} does not exist"


def test_each_conformance_test_is_cited() -> None:
    assert set(conformance_tests()) - set(cited_everywhere()) == set()


def test_a_test_named_after_a_rule_is_in_the_row_of_that_rule() -> None:
    by_rule = {row.rule: row.tests for row in rows()}
    for name in conformance_tests():
        if match := re.match(r"test_([A-Z]{2})_(\d+)_", name):
            assert name in by_rule[f"{match[1]}-{int(match[2])}"], name


@pytest.mark.parametrize(
    "row", [row for row in rows() if row.verdict in ("same", "gap")], ids=lambda row: row.rule
)
def test_what_is_claimed_of_a_rule_that_must_match_is_tested(row: Row) -> None:
    assert row.tests or row.tag != "M"


def test_each_difference_has_a_decision_record() -> None:
    for row in rows():
        links = re.findall(r"\]\(\.\./decisions/([\w-]+\.md)\)", row.shmpipe)
        assert links or row.verdict != "different", f"{row.rule} gives no reason"
        for link in links:
            assert (ROOT / "docs" / "decisions" / link).is_file(), link


def test_gaps_are_the_failures_that_are_expected() -> None:
    expected = {name for name, node in conformance_tests().items() if "xfail" in ast.dump(node)}
    gaps = [row for row in rows() if row.verdict == "gap"]
    assert all(expected & set(row.tests) for row in gaps), "a gap without a failing test"
    assert expected <= {test for row in gaps for test in row.tests}
