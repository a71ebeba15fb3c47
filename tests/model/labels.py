"""Each labelled operation of docs/explanation, and what breaks it and is noticed.

python tests/model/labels.py: the table of README.md.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGES = ROOT / "docs/explanation"
MUTANTS = ROOT / "tests/unit_c/mutants.py"

# Without a mutant yet.  A label may leave this list, and none may be added without a reason.
OPEN: dict[str, str] = {}

# Steps of dialogues, and rows without a label, that no mutant names: who would notice, or why
# nothing need.
NO_LABEL = "\u2013"
SWEEP = "tests/crash/sweep/mutants.py"
EXPLAINED = {
    "attach-and-fork F2": f"`{SWEEP}`: a fork child has no entry of its own",
    "attach-and-fork F4": f"`{SWEEP}`: a fork child's entry does not say which ends it has",
    "attach-and-fork F5": "A3, by the child: announce() is one function for both",
    "companion-sync S0": "the side's lock: G1 of resize, and L2 that waits for it",
    "companion-sync A1": "without the flag A3 says that it was taken back, and nobody ever sleeps",
    "companion-sync A4": "the kernel's",
    "notifier K4": "the eventfd's count, of which no order is asked: `test_notify` compares it",
    "resize G5": "an unlock: without it the next operation of anybody waits for ever",
    "resize E1": "the side's lock: G1 is its partner",
    "wait-and-wake R5": "the loop around R2: without it a wake in vain would be an end of file",
    "wait-and-wake: gather whom to watch": "the model: gather, then register; look, then gather",
    "wait-and-wake: load `tail` for": "the model: the other index is loaded before W1",
    "resize: `shmp_shape_read`": "E2: the geometry is read once",
}

# Operations that the tables do not label, and the model does.
UNLABELLED = {"G": "gather whom to watch", "H": "hand-on", "O": "is the other side overdue?"}
# Rows that are the operations of another page.
ELSEWHERE = re.compile(r"notifier (P1|P2|T4)$")


class Killer(NamedTuple):
    """Something broken on purpose, and who notices."""

    title: str
    by: str
    labels: tuple[str, ...]


def split(labels: str) -> tuple[str, ...]:
    return tuple(label.strip() for label in labels.split(",") if label.strip())


def documented() -> list[str]:
    """'page label' for each row of the tables of operations."""
    found: list[str] = []
    for page in sorted(PAGES.glob("*.md")):
        inside = False
        for line in page.read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if not line.startswith("|"):
                inside = False
            elif cells[1] == "label":
                inside = True
            elif inside and re.match(r"[A-Z]", cells[1]):
                found += [f"{page.stem} {label}" for label in split(cells[1])]
    return [label for label in found if not ELSEWHERE.match(label)]


def without_a_label() -> list[str]:
    """'page: operation' for each row that has no label and asks for an order."""
    found = []
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8").partition("## Operations")[2].partition("\n## ")[0]
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if cells[1:2] == [NO_LABEL] and cells[3] != "relaxed":
                found.append(f"{page.stem}: {cells[2]}")
    return found


def unexplained(killers: list[Killer]) -> list[str]:
    """Steps and rows of which no killer, and no line of EXPLAINED, says anything."""
    named = {label for killer in killers for label in killer.labels}
    steps = [label for label in in_dialogues() if label not in named and label not in EXPLAINED]
    return steps + [row for row in without_a_label() if not row.startswith(tuple(EXPLAINED))]


def in_dialogues() -> list[str]:
    """'page label' for each step of the dialogues that no table of operations has."""
    found: list[str] = []
    for page in sorted(PAGES.glob("*.md")):
        for dialogue in page.read_text(encoding="utf-8").split("```")[1::2]:
            steps = re.findall(r"(?:^ ?|\s{2,})([A-Z]\d[a-z]?)\s+\S", dialogue, re.MULTILINE)
            found += [f"{page.stem} {label}" for label in steps]
    tables = documented()
    return [
        label
        for label in dict.fromkeys(found)
        if label not in tables and not ELSEWHERE.match(label)
    ]


def of_the_model(model: Path) -> list[Killer]:
    result = subprocess.run([str(model), "labels"], capture_output=True, text=True, check=True)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    return [Killer(title, "the model", split(labels)) for title, labels in rows]


def mutants(program: Path = MUTANTS) -> list[Any]:
    """Those of a program that breaks the core, which is no module."""
    spec = importlib.util.spec_from_file_location(f"mutants of {program.parent.name}", program)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return list(module.MUTANTS)


def of_the_mutants() -> list[Killer]:
    return [
        Killer(
            mutant.title,
            f"`{mutant.tests}`" + (", TSan" if mutant.target == "tsan" else ""),
            split(mutant.labels),
        )
        for mutant in mutants()
        if mutant.labels
    ]


def killers_of(label: str, killers: list[Killer], everywhere: list[str]) -> list[Killer]:
    """A bare label means the only page that has it."""
    bare = label.split(" ", 1)[1]
    unique = sum(other.endswith(f" {bare}") for other in everywhere) == 1
    return [
        killer for killer in killers if label in killer.labels or (unique and bare in killer.labels)
    ]


def unknown(killers: list[Killer], everywhere: list[str]) -> list[str]:
    """Labels that killers name and no page has."""
    known = set(everywhere) | set(UNLABELLED) | set(in_dialogues())
    known |= {label.split(" ", 1)[1] for label in everywhere}
    return sorted({label for killer in killers for label in killer.labels} - known)


def table(model: Path) -> list[str]:
    killers = of_the_model(model) + of_the_mutants()
    everywhere = documented()
    lines = ["| label | broken like this | noticed by |", "|---|---|---|"]
    for label in dict.fromkeys(everywhere):
        found = killers_of(label, killers, everywhere)
        if not found:
            lines.append(f"| {label} | open: {OPEN.get(label) or 'no mutant yet'} | |")
        lines += [f"| {label} | {killer.title} | {killer.by} |" for killer in found]
    for label, meaning in UNLABELLED.items():
        found = [killer for killer in killers if label in killer.labels]
        lines += [f"| {meaning} | {killer.title} | {killer.by} |" for killer in found]
    for label in in_dialogues():
        found = [killer for killer in killers if label in killer.labels]
        lines += [f"| {label} | {killer.title} | {killer.by} |" for killer in found]
    lines += [f"| {label} | {reason} | |" for label, reason in EXPLAINED.items()]
    return lines


if __name__ == "__main__":
    print("\n".join(table(HERE / "build/model")))
