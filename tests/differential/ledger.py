"""Who holds which open description: what a call would have to wait for depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from differential.operations import SLOTS

PARENT = -1
CHILDREN = (0, 1)


@dataclass
class Description:
    """An open file description of the pipe that had its name at that time."""

    pipe: int
    mode: str


class Ledger:
    """The descriptions in the slots of each process."""

    def __init__(self) -> None:
        self.pipe = 0
        """Counts up with each new pipe of the name."""
        self.slots: dict[int, list[Description | None]] = {PARENT: [None] * SLOTS}
        self._counted: dict[int, tuple[int, int]] = {}

    def opened(self, slot: int, mode: str) -> None:
        """The parent has opened an end."""
        self.slots[PARENT][slot] = Description(self.pipe, mode)
        self._counted.clear()

    def closed(self, holder: int, slot: int) -> None:
        """A process has closed its copy."""
        self.slots[holder][slot] = None
        self._counted.clear()

    def forked(self, child: int) -> None:
        """A child has a copy of everything that the parent has open."""
        self.slots[child] = list(self.slots[PARENT])

    def gone(self, child: int) -> None:
        """A child has ended."""
        del self.slots[child]
        self._counted.clear()

    def is_open(self, holder: int, slot: int) -> bool:
        return self.slots[holder][slot] is not None

    def pipe_of(self, holder: int, slot: int) -> int:
        description = self.slots[holder][slot]
        assert description is not None, "not open"
        return description.pipe

    def readers_and_writers(self, pipe: int) -> tuple[int, int]:
        """The open descriptions of each kind that some process holds."""
        if pipe in self._counted:
            return self._counted[pipe]
        readers = writers = 0
        seen: set[int] = set()
        for table in self.slots.values():
            for each in table:
                if each and each.pipe == pipe and id(each) not in seen:
                    seen.add(id(each))
                    readers += each.mode != "w"
                    writers += each.mode != "r"
        self._counted[pipe] = readers, writers
        return readers, writers
