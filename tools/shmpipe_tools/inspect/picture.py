"""The ring as a line of coloured slots, with its head and its tail below."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from shmpipe.inspect import Snapshot

SLOT_BYTES = 4096

# A ring of more slots is drawn with several slots in one cell, as is one that is too
# wide for the terminal.
MAX_CELLS = 64

_LEVELS = " ▁▂▃▄▅▆▇█"
_ASCII_LEVELS = " .:-=+*%#"
_FREE = "·"
_ASCII_FREE = "_"

_STREAM_STYLE = "green"
_PACKET_STYLE = "cyan"
_LOSS_STYLE = "bold red"
_FREE_STYLE = "dim"


@dataclass
class _Cell:
    """One character cell: some neighbouring slots."""

    occupied: int = 0
    filled: float = 0.0  # bytes
    packet: bool = False
    loss: bool = False

    @property
    def style(self) -> str:
        if self.loss:
            return _LOSS_STYLE
        if self.packet:
            return _PACKET_STYLE
        return _STREAM_STYLE if self.occupied else _FREE_STYLE


class RingPicture:
    """Draws a snapshot: rich prints it at the width and in the characters of the terminal."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        snapshot = self._snapshot
        cells = _cells(snapshot, _cell_count(snapshot.ring_size, options.max_width))
        width, gap = _cell_width(len(cells), options.max_width)
        levels, free = (_ASCII_LEVELS, _ASCII_FREE) if options.ascii_only else (_LEVELS, _FREE)
        room = snapshot.ring_size // len(cells) * SLOT_BYTES
        line = Text("  ", no_wrap=True, overflow="crop")
        for cell in cells:
            level = free
            if cell.occupied:
                # One byte in a slot must not look like none.
                level = levels[max(1, round(cell.filled / room * (len(levels) - 1)))]
            line.append(level * width, cell.style)
            line.append(" " * gap)
        line.rstrip()
        yield line
        yield from self._marks(len(cells), width + gap, options)
        yield Text("  " + self._sentence())

    def _marks(self, cells: int, step: int, options: ConsoleOptions) -> Iterator[Text]:
        """A line each for tail and head: where the next read and the next write go."""
        snapshot = self._snapshot
        part = f", {snapshot.tail_offset} B of its slot read" if snapshot.tail_offset else ""
        arrow = "^" if options.ascii_only else "↑"
        for name, index, extra in (("tail", snapshot.tail, part), ("head", snapshot.head, "")):
            column = 2 + index % snapshot.ring_size * cells // snapshot.ring_size * step
            label = f"{name} {index}{extra}"
            if column + len(label) + 2 <= options.max_width:
                yield Text(f"{'':{column}}{arrow} {label}", style="dim")
            else:
                yield Text(f"{label:>{column - 1}} {arrow}", style="dim")

    def _sentence(self) -> str:
        snapshot = self._snapshot
        slots = f"{snapshot.occupancy} of {snapshot.max_usage} slots"
        if snapshot.occupancy == 0:
            text = f"empty: {slots} in use"
        else:
            full = "full: " if snapshot.occupancy >= snapshot.max_usage else ""
            text = f"{full}{snapshot.pending} of {snapshot.capacity} bytes, in {slots}"
        if snapshot.torn:
            text += " (in full motion: not one consistent moment)"
        return text


def _cells(snapshot: Snapshot, count: int) -> list[_Cell]:
    """The ring in the order of memory, the occupied slots filled in from the tail on."""
    cells = [_Cell() for _ in range(count)]
    known = 0
    for position, slot in enumerate(snapshot.slots):
        cell = cells[(snapshot.tail + position) % snapshot.ring_size * count // snapshot.ring_size]
        size = max(0, min(slot.end - slot.start, SLOT_BYTES))
        cell.occupied += 1
        cell.filled += size
        cell.packet |= slot.packet
        cell.loss |= slot.loss
        known += size
    # A snapshot shows the oldest slots one by one; of the others the sum is known.
    others = snapshot.occupancy - len(snapshot.slots)
    if others > 0:
        mean = min(SLOT_BYTES, max(0, snapshot.pending - known) / others)
        for position in range(len(snapshot.slots), snapshot.occupancy):
            index = (snapshot.tail + position) % snapshot.ring_size
            cells[index * count // snapshot.ring_size].occupied += 1
            cells[index * count // snapshot.ring_size].filled += mean
    return cells


def _cell_count(slots: int, room: int) -> int:
    """How many cells to draw: a power of two, as the number of slots is."""
    count = min(slots, MAX_CELLS)
    while count > 1 and 2 + count > room:
        count //= 2
    return count


def _cell_width(cells: int, room: int) -> tuple[int, int]:
    """Characters of a cell, and between two of them."""
    for width, gap in ((3, 1), (2, 1), (1, 1), (1, 0)):
        if 2 + cells * (width + gap) <= room:
            return width, gap
    return 1, 0
