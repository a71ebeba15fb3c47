"""Sequences as files: what failed once is run again for ever."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from differential.operations import Op
from differential.setup import Setup

DIRECTORY = Path(__file__).with_name("corpus")


@dataclass(frozen=True)
class Entry:
    """A sequence, and why it is kept."""

    setup: Setup
    ops: list[Op]
    why: str = ""

    def as_json(self) -> str:
        """One operation a line: these files are read by people."""
        ops = ",\n".join(f"    {json.dumps(op)}" for op in self.ops)
        head = json.dumps({"why": self.why, "setup": self.setup.as_json()})[1:-1]
        return f'{{\n  {head},\n  "ops": [\n{ops}\n  ]\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Entry:
        fields = json.loads(text)
        return cls(
            Setup(**fields["setup"]), [_tuple(op) for op in fields["ops"]], fields.get("why", "")
        )


def load(path: Path) -> Entry:
    """The sequence in a file."""
    return Entry.from_json(path.read_text())


def keep(entry: Entry, directory: Path) -> Path:
    """Writes it, under a name that depends on what is in it."""
    digest = hashlib.sha256(repr((entry.setup, entry.ops)).encode()).hexdigest()[:10]
    path = directory / f"{entry.setup.kind}-{digest}.json"
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(entry.as_json())
    return path


def _tuple(op: list[Any]) -> Op:
    return tuple(_tuple(each) if isinstance(each, list) else each for each in op)
