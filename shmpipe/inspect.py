"""Looking at a live pipe: one consistent picture, read-only, without a lock and without waiting."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from shmpipe import _lib, named
from shmpipe.ends import End
from shmpipe.errors import os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot in use: the bytes from start to end of its page wait to be read."""

    start: int
    end: int
    flags: int

    @property
    def can_merge(self) -> bool:
        """Whether a later small write may append to it (WR-2)."""
        return bool(self.flags & _lib.SLOT_CAN_MERGE)

    @property
    def packet(self) -> bool:
        """Whether it is a packet: read alone, never merged (PK-1)."""
        return bool(self.flags & _lib.SLOT_PACKET)

    @property
    def whole(self) -> bool:
        """Whether it is a record that is never split."""
        return bool(self.flags & _lib.SLOT_WHOLE)

    @property
    def loss(self) -> bool:
        """Whether records were lost after it."""
        return bool(self.flags & _lib.SLOT_LOSS)

    @property
    def sealed(self) -> bool:
        """Whether a reader has closed it to merging."""
        return bool(self.flags & _lib.SLOT_SEALED)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds ends of the pipe."""

    index: int
    pid: int  # in the pid namespace of that process
    readers: int  # open descriptions of each kind
    writers: int
    alive: bool  # False: proven dead and not yet cleaned up
    generation: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What shmp_inspect_fd says of a pipe; the names are those of struct shmp_snapshot."""

    abi_version: int
    named: bool
    instance: int  # random identity of this pipe
    name: str
    created_ns: int  # CLOCK_REALTIME
    creator_pid: int
    creator_uid: int
    segment_bytes: int
    ring_size: int  # slots
    max_usage: int  # slots that writes may fill
    capacity: int  # bytes
    head: int
    tail: int
    tail_offset: int  # bytes already read from the tail slot
    occupancy: int  # slots in use
    pending: int  # bytes, what FIONREAD says
    torn: bool  # the ring moved too fast for one consistent picture
    readers: int  # open descriptions, of all processes
    writers: int
    holders: int  # processes
    read_waiters: int  # hints: never too low, perhaps too high after a death
    write_waiters: int
    read_epoch: int
    write_epoch: int
    # 1, 2: somebody looks at read ends, at write ends; 0x100, 0x200: until the first change;
    # 4: a write end has O_ASYNC; 8, 16: read ends, write ends have notifiers.
    poll_usage: int
    write_lock_owner: int  # index of a holder + 1, 0 if free
    read_lock_owner: int
    companion_lock_owner: int
    bytes_written: int
    writes: int
    bytes_read: int
    reads: int
    write_sleeps: int
    read_sleeps: int
    read_wakes: int  # wake calls for readers
    write_wakes: int
    broadcasts: int
    recoveries: int  # locks taken over from the dead
    reaped: int  # dead processes cleaned up
    slice_found_work: int  # lost wakes that the safety net found: must be 0
    write_again: int  # EAGAIN
    read_again: int
    slots: tuple[Slot, ...]  # the oldest in use, at most 64
    processes: tuple[Holder, ...]  # at most 64


def snapshot(pipe: End | str | int) -> Snapshot:
    """A picture of a pipe: of an end, a name, or a descriptor of its shared memory.

    The descriptor stays the caller's.  A process that holds ends of that pipe must not simply close
    such a descriptor: POSIX record locks, which prove that a process lives, go with any close.

    FileNotFoundError, PermissionError; IncompatibleSegmentError if it is no pipe,
    CorruptSegmentError; ValueError for a closed end.
    """
    result, raw = looked_at(pipe, _lib.snapshot)
    if result < 0:
        raise refused(-result, pipe)
    return _picture(raw)


def refused(code: int, pipe: End | str | int) -> OSError:
    """The exception for a pipe that cannot be looked at."""
    if isinstance(pipe, End):
        return os_error(code, repr(pipe), advice=_lib.reason())
    return os_error(code, "", pipe, _lib.reason())


def looked_at(pipe: End | str | int, look: Callable[[int], tuple[int, Any]]) -> tuple[int, Any]:
    """What look() says of the descriptor of a pipe's segment."""
    if isinstance(pipe, End):
        return _looked_at_end(pipe, look)
    if isinstance(pipe, int):
        return look(pipe)
    fd = named.object_fd(pipe, read_only=True)
    try:
        return look(fd)
    finally:
        _lib.close_segment(fd)


def _looked_at_end(end: End, look: Callable[[int], tuple[int, Any]]) -> tuple[int, Any]:
    raw: list[Any] = []

    def look_at(address: int) -> int:
        result, picture = look(_lib.segment_fd(address))
        raw.append(picture)
        return result

    return _lib.call(end, look_at), raw[-1]


_SCALARS = [each.name for each in fields(Snapshot) if each.name not in ("slots", "processes")]


def _picture(raw: Any) -> Snapshot:
    values = {name: getattr(raw, name) for name in _SCALARS}
    values |= {"name": _lib.text(raw.name), "named": bool(raw.named), "torn": bool(raw.torn)}
    return Snapshot(**values, slots=tuple(_slots(raw)), processes=tuple(_processes(raw)))


def _slots(raw: Any) -> Iterator[Slot]:
    for slot in raw.slots[0 : raw.slot_count]:
        yield Slot(slot.start, slot.end, slot.flags)


def _processes(raw: Any) -> Iterator[Holder]:
    for each in raw.holder[0 : raw.holder_count]:
        yield Holder(
            each.index, each.pid, each.readers, each.writers, bool(each.alive), each.generation
        )
