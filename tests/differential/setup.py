"""What a sequence starts with: the kind of pipe, its options, and who looks at it how often."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

LOOKS = ("each", "edges", "signals", "asked", "never")


@dataclass(frozen=True)
class Setup:
    """The part of a sequence that is not an operation."""

    named: bool = False
    flags: int = 0
    """Of pipe2(2)."""
    slots: int = 0
    """Of the anonymous pipes at their start; 0 is the default of 16."""
    first_index: int = 0
    """Of shmpipe's ring: the kernel has nothing like it."""
    looks: str = "each"
    """poll after "each" operation; the same, and the events of three epolls ("edges"); SIGIO of all
    ends, and no poll ("signals"); poll when an operation says so ("asked"); or "never": a pipe that
    nobody looks at takes other ways."""

    def __post_init__(self) -> None:
        if self.looks not in LOOKS:
            raise ValueError(f"looks is one of {LOOKS}, not {self.looks!r}")

    @property
    def polls_each(self) -> bool:
        return self.looks in ("each", "edges")

    @property
    def kind(self) -> str:
        return "fifo" if self.named else "pipe"

    def as_json(self) -> dict[str, Any]:
        """The fields that are not the default."""
        return {
            field.name: value
            for field in dataclasses.fields(self)
            if (value := getattr(self, field.name)) != field.default
        }
