"""The oracles over what went through: O1 to O4, from the logs alone.

Every cell for which a write returned was read once; one that nobody logged must be in the hand of
a reader that died in its call.  Nothing was read twice, nothing that nobody wrote, nothing torn,
nothing out of its writer's order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from shmpipe_tools.torture.board import Board, Log, Word
from shmpipe_tools.torture.records import Records, decode_id

Cell = tuple[int, int, int]  # writer, sequence, index


@dataclass
class Hand:
    """What a reader may have taken that died in a call."""

    cells: list[Cell] | None  # None: it read to a place that nobody can look at
    size: int


@dataclass
class Books:
    """What one writer says, when everything had been read."""

    begun: int
    done: int
    part: int


@dataclass
class Audit:
    """The books of one episode."""

    records: Records
    readers: int  # one reader sees the whole order
    capacity: int  # no read takes more (RD-2)
    books: dict[int, Books] = field(default_factory=dict)  # at the muster: the pipe was empty
    hands: list[Hand] = field(default_factory=list)
    cells: int = 0
    in_hand: int = 0  # cells that died with their readers
    uncertain: int = 0  # records whose writer died while it wrote them
    uncertain_seen: int = 0

    def take_from(self, board: Board, slot: int) -> None:
        """Looks into the hand of a reader that died in a call."""
        size = board.get(slot, Word.REQUEST)
        if board.get(slot, Word.BLIND):
            self.hands.append(Hand(None, size))
            return
        # What an earlier read left there follows what the last one took.
        step = 8 if self.records.packets else self.records.cell
        data = board.hand(slot)[:step] if self.records.packets else board.hand(slot)[:size]
        cells = []
        for number in data[: len(data) // step * step].cast("Q")[:: step // 8]:
            try:
                cells.append(decode_id(number)[:3])
            except ValueError:  # nothing, or not the whole first word yet
                break
        self.hands.append(Hand(cells, size))

    def close_books(self, board: Board, incarnations: int) -> None:
        """Notes what the writers had written when the pipe was empty."""
        for number in range(1, incarnations + 1):
            words = board.incarnation(number)
            if words[Log.BEGUN]:
                self.books[number] = Books(words[Log.BEGUN], words[Log.DONE], words[Log.PART])

    def findings(self, board: Board, slots: range) -> Iterator[str]:
        """Everything that is wrong."""
        seen: set[Cell] = set()
        for slot in slots:
            words = board.log(slot)[: board.get(slot, Word.LOGGED)]
            yield from self._read_by(slot, words, seen)
        self.cells = len(seen)
        yield from self._never_written(board, seen)
        missing = set(self._missing(seen))
        yield from self._broken_off(board, seen)
        yield from self._lost(missing, seen)

    # -- What a reader logged

    def _read_by(self, slot: int, words: "memoryview[int]", seen: set[Cell]) -> Iterator[str]:
        last: dict[int, tuple[int, int]] = {}
        before: tuple[int, int, int, int] | None = None
        for number in words:
            if not number:
                before = None
                continue
            try:
                cell = decode_id(number)
            except ValueError as error:
                yield f"slot {slot} read what is no record: {error}"
                continue
            writer, sequence, index, count = cell
            if cell[:3] in seen:
                yield f"slot {slot} read {_name(cell)}, which had been read"
            seen.add(cell[:3])
            if last.get(writer, (0, -1)) >= (sequence, index):
                yield f"slot {slot} read {_name(cell)} after {last[writer]} of the same writer"
            last[writer] = sequence, index
            if count != self.records.cells_of(writer, sequence) or index >= count:
                yield f"slot {slot} read {_name(cell)} as one of {count}"
            if before and not self._may_follow(before, cell):
                yield f"slot {slot} read {_name(cell)} right after {_name(before)}: a torn record"
            before = cell

    def _may_follow(
        self, before: tuple[int, int, int, int], cell: tuple[int, int, int, int]
    ) -> bool:
        """Whether two cells may be neighbours; long records may be mixed (WR-5)."""
        inside = before[2] + 1 < before[3] and self.records.is_atomic(*before[:2])
        begun = cell[2] > 0 and self.records.is_atomic(*cell[:2])
        if inside or begun:
            return before[:2] == cell[:2] and before[2] + 1 == cell[2]
        return True

    # -- What the writers say

    def _never_written(self, board: Board, seen: set[Cell]) -> Iterator[str]:
        newest: dict[int, int] = {}
        for writer, sequence, _ in seen:
            newest[writer] = max(sequence, newest.get(writer, 0))
        for writer, sequence in newest.items():
            if sequence > board.incarnation(writer)[Log.BEGUN]:
                yield f"record {sequence} of writer {writer} was read, but it never began it"

    def _missing(self, seen: set[Cell]) -> Iterator[Cell]:
        """Cells for which a write returned and that nobody logged."""
        for writer, book in self.books.items():
            for sequence in range(1, book.done + 1):
                for index in range(self.records.cells_of(writer, sequence)):
                    if (writer, sequence, index) not in seen:
                        yield writer, sequence, index
            if book.begun > book.done and not self.records.packets:
                for index in range(book.part // self.records.cell):
                    if (writer, book.begun, index) not in seen:
                        yield writer, book.begun, index

    def _broken_off(self, board: Board, seen: set[Cell]) -> Iterator[str]:
        """The one record of a dead writer that is uncertain: whole or not at all, or a prefix."""
        in_hands = {cell for hand in self.hands for cell in hand.cells or ()}
        blind = any(hand.cells is None for hand in self.hands)
        for writer, book in self.books.items():
            if book.begun == book.done:
                continue
            self.uncertain += 1
            count = self.records.cells_of(writer, book.begun)
            there = [(writer, book.begun, index) in seen for index in range(count)]
            self.uncertain_seen += any(there)
            if board.incarnation(writer)[Log.DONE] >= book.begun:
                continue  # its writer lives, and wrote the rest after the muster
            maybe = [
                there[index] or blind or (writer, book.begun, index) in in_hands
                for index in range(count)
            ]
            length = max((index + 1 for index in range(count) if there[index]), default=0)
            if not all(maybe[:length]):
                yield f"record {book.begun} of writer {writer} (dead) has a hole: {there}"
            if self.records.is_atomic(writer, book.begun) and any(there) and not all(maybe):
                yield f"record {book.begun} of writer {writer} (dead) was written in part: {there}"

    def _lost(self, missing: set[Cell], seen: set[Cell]) -> Iterator[str]:
        """What nobody logged must have died with somebody, and within what his call could take.

        A reader takes from the front.  What it copied behind a cell that somebody read after it, it
        did not take: the next one did, who is known, or is dead and has it in a hand of his own.
        """
        blind = 0
        behind: set[Cell] = set()
        for hand in self.hands:
            if hand.cells is None:
                most = min(hand.size, self.capacity) // self.records.cell
                blind += 1 if self.records.packets else most
                continue
            # Neither seen nor lost: of a record that its writer did not finish.
            first_seen = next((i for i, cell in enumerate(hand.cells) if cell in seen), None)
            taken = hand.cells[:first_seen]
            behind.update(hand.cells[len(taken) :])
            self.in_hand += len(missing.intersection(taken))
            missing.difference_update(taken)
        if len(missing) > blind:
            some = ", ".join(
                _name(cell)
                + " (a dead reader had it, but not what was in front of it)" * (cell in behind)
                for cell in sorted(missing)[:8]
            )
            yield f"{len(missing)} cells are lost, {blind} may have died with readers: {some}"
        self.in_hand += min(len(missing), blind)


def _name(cell: tuple[int, ...]) -> str:
    return f"cell {cell[2]} of record {cell[1]} of writer {cell[0]}"
