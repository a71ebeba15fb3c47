"""The documentation: its links lead somewhere, its code runs, its offsets are the core's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))
SECONDS = 60


class Block(NamedTuple):
    """A fenced block: where it begins, what it is, what is in it."""

    page: Path
    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
        else:
            text = "\n".join(lines[start + 1 : number]) + "\n"
            found.append(Block(page, start + 1, lines[start].removeprefix("```"), text))
            start = None
    assert start is None, f"{page}:{(start or 0) + 1}: the block is not closed"
    return found


def name_of(what: Block | Path) -> str:
    page = what.page if isinstance(what, Block) else what
    where = page.relative_to(ROOT if page == README else ROOT / "docs").as_posix()
    return f"{where}:{what.line}" if isinstance(what, Block) else where


BLOCKS = [block for page in [README, *PAGES] for block in blocks(page)]
PYTHON = [block for block in BLOCKS if block.language == "python"]


def test_there_is_something_to_check() -> None:
    assert len(PAGES) > 10
    assert len(PYTHON) > 5


@pytest.mark.parametrize("block", PYTHON, ids=name_of)
def test_the_python_block_runs(block: Block, tmp_path: Path) -> None:
    program = tmp_path / "block.py"  # a file, because spawned processes import it
    # The name in the README is short, and may be somebody's.
    text = block.text.replace('"jobs"', f'"jobs-{os.getpid()}"')
    program.write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        # Forking is the subject, also in programs that import threads.
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", str(program)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_the_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    missing = [
        target
        for target in re.findall(r"\]\(([^)\s]+)\)", text)
        if not re.match(r"[a-z]+:", target)
        and not (page.parent / target.partition("#")[0]).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_the_files_and_tests_it_names_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`((?:cbits|tests|shmpipe|tools)/[\w./-]+)`", text)
    assert [path for path in named if not generated(path) and not (ROOT / path).exists()] == []
    tests = re.findall(r"`(test_[A-Za-z]+_\d+_\w+|test_K\d+_\w+)`", text)
    sources = "".join(
        each.read_text(encoding="utf-8") for each in (ROOT / "tests").rglob("test_*.py")
    )
    assert [name for name in tests if f"def {name}(" not in sources] == []


def generated(path: str) -> bool:
    return path.startswith("cbits/build")


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    unnamed = [name_of(page) for page in PAGES if f"]({name_of(page)})" not in index]
    assert unnamed == ["index.md"]


# -- Memory layout -------------------------------------------------------------------------------

LAYOUT = ROOT / "docs/explanation/memory-layout.md"


def documented() -> dict[str, list[tuple[str, int, int]]]:
    """For each structure: its fields with offset and size, as the page has them."""
    tables: dict[str, list[tuple[str, int, int]]] = {}
    current: list[tuple[str, int, int]] = []
    for line in LAYOUT.read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"`struct (\w+)`", line):
            current = tables.setdefault(heading[1], [])
        elif row := re.match(r"\| (\d+) \| (\d+) \| `(\w+)` \|", line):
            current.append((row[3], int(row[1]), int(row[2])))
    return tables


def declared(structure: str) -> list[str]:
    """The names of a structure's fields, as abi.h has them."""
    source = (ROOT / "cbits/abi.h").read_text(encoding="utf-8")
    body = re.search(rf"struct {structure} \{{(.*?)\n\}};", source, re.DOTALL)
    assert body is not None, structure
    text = re.sub(r"/\*.*?\*/|alignas\(\w+\)", "", body[1], flags=re.DOTALL)
    fields = [re.search(r"(\w+)\s*(\[[^]]*\])*\s*$", each) for each in text.split(";")]
    return [field[1] for field in fields if field]


def test_the_layout_page_has_every_field() -> None:
    tables = documented()
    assert len(tables) == 10
    for structure, rows in tables.items():
        assert [name for name, _, _ in rows] == declared(structure), structure


def test_the_layout_page_has_the_compilers_offsets(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: the offsets of docs/explanation/memory-layout.md are unchecked")
    checks = "".join(
        f"_Static_assert(offsetof(struct {structure}, {name}) == {offset} && "
        f"sizeof(((struct {structure} *)0)->{name}) == {size}, "
        f'"{structure}.{name} is not at {offset} with {size} bytes");\n'
        for structure, rows in documented().items()
        for name, offset, size in rows
    )
    where = re.findall(
        r"^ +(\d+)  (\w+ table|area)", LAYOUT.read_text(encoding="utf-8"), re.MULTILINE
    )
    macros = {
        "description table": "SHMP_DESCRIPTIONS_OFFSET",
        "holder table": "SHMP_HOLDERS_OFFSET",
        "area": "SHMP_FIXED_BYTES",
    }
    assert {what for _, what in where} == set(macros)
    checks += "".join(
        f'_Static_assert({macros[what]} == {offset}, "{what} is not at {offset}");\n'
        for offset, what in where
    )
    source = tmp_path / "layout.c"
    source.write_text(f'#include "abi.h"\n{checks}int unused;\n', encoding="utf-8")
    result = subprocess.run(
        [compiler, "-std=c11", "-D_GNU_SOURCE", f"-I{ROOT / 'cbits'}", "-fsyntax-only", source],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 0, result.stderr
