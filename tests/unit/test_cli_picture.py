"""The picture of the ring: every byte is drawn where it lies."""

import dataclasses
import io

from rich.console import Console
from shmpipe.inspect import Holder, Slot, Snapshot
from shmpipe_tools.inspect.discover import Location
from shmpipe_tools.inspect.picture import RingPicture
from shmpipe_tools.inspect.report import report

FULL = Slot(0, 4096, 0)
CAN_MERGE, PACKET = 1, 2


def snapshot_of(tail: int, *slots: Slot, ring_size: int = 16, **facts: object) -> Snapshot:
    """A snapshot of a ring that holds `slots` from `tail` on."""
    values: dict[str, object] = {field.name: 0 for field in dataclasses.fields(Snapshot)}
    values |= {
        "name": "p",
        "ring_size": ring_size,
        "max_usage": ring_size,
        "capacity": ring_size * 4096,
        "tail": tail,
        "head": tail + len(slots),
        "occupancy": len(slots),
        "pending": sum(slot.end - slot.start for slot in slots),
        "slots": slots[:64],
        "processes": (),
    }
    return Snapshot(**(values | facts))  # type: ignore[arg-type]


def drawn(what: object, width: int = 100, encoding: str = "utf-8") -> list[str]:
    """The lines that rich prints."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(file=stream, width=width, markup=False, highlight=False)
    console.print(what)
    stream.seek(0)
    return stream.read().splitlines()


def test_an_empty_ring() -> None:
    line, tail, head, sentence = drawn(RingPicture(snapshot_of(5)))
    assert line.split() == ["···"] * 16
    assert tail.index("↑") == head.index("↑") == 2 + 5 * 4
    assert sentence.strip() == "empty: 0 of 16 slots in use"


def test_slots_are_drawn_by_how_full_they_are_and_where_they_lie() -> None:
    picture = RingPicture(snapshot_of(14, FULL, Slot(0, 1, CAN_MERGE), Slot(96, 2144, PACKET)))
    line, tail, head, sentence = drawn(picture)
    cells = line.split()
    assert cells[14] == "███"
    assert cells[15] == "▁▁▁", "a single byte must be seen"
    assert cells[0] == "▄▄▄", "the ring goes on at its beginning"
    assert cells[1:14] == ["···"] * 13
    assert tail.strip() == "↑ tail 14"
    assert head.index("↑") == 2 + 1 * 4
    assert sentence.strip() == "6145 of 65536 bytes, in 3 of 16 slots"


def test_a_full_ring_says_so() -> None:
    lines = drawn(RingPicture(snapshot_of(3, *[FULL] * 16)))
    assert lines[0].split() == ["███"] * 16
    assert lines[-1].strip().startswith("full: ")


def test_a_large_ring_is_drawn_in_fewer_cells_and_slots_beyond_the_snapshot_count() -> None:
    picture = RingPicture(snapshot_of(1024, *[FULL] * 512, ring_size=1024))
    assert drawn(picture)[0].strip() == "█" * 32 + "·" * 32
    assert drawn(picture, width=40)[0].strip() == "█" * 16 + "·" * 16


def test_a_terminal_without_unicode_gets_ascii() -> None:
    lines = drawn(RingPicture(snapshot_of(0, FULL)), encoding="ascii")
    assert lines[0].split() == ["###"] + ["___"] * 15
    assert lines[1].strip() == "^ tail 0"


def test_a_torn_snapshot_says_so() -> None:
    assert "not one consistent moment" in drawn(RingPicture(snapshot_of(0, torn=True)))[-1]


def test_the_report_names_dead_holders_and_who_has_a_lock() -> None:
    here = Location("p\x1b[2J", "/nowhere", "named", 0o640, 1, 2)
    snapshot = snapshot_of(
        0,
        FULL,
        processes=(Holder(0, 1, 1, 0, True, 1), Holder(4, 999999, 0, 1, False, 1)),
        holders=3,
        write_lock_owner=5,
        slice_found_work=1,
    )
    lines = [line for part in report(here, snapshot) for line in drawn(part)]
    assert lines[0].startswith("p\\x1b[2J  named pipe, 64 KiB in 16 slots, mode 0640")
    (dead,) = (line for line in lines if "999999" in line)
    assert "dead" in dead
    assert "write" in dead
    assert "1 more processes hold ends." in lines
    assert any("lost wakes" in line for line in lines)
