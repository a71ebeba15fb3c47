"""Checking a live pipe: every invariant of its memory, read-only, without a lock."""

from __future__ import annotations

from dataclasses import dataclass

from shmpipe import _lib
from shmpipe.ends import End
from shmpipe.inspect import looked_at, refused


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that is broken, or one remark."""

    error: bool  # damage; else a note, of something that the protocol allows
    rule: str  # a word for programs: "slot-end"
    index: int  # of the slot, holder, description ... concerned
    text: str  # for people: "slot word 3: end 5000 > 4096"


@dataclass(frozen=True, slots=True)
class Check:
    """What is wrong with a pipe, errors first; of more than 64 findings the others are counted."""

    errors: int
    notes: int
    moving: bool  # the ring never stood still, so its slots were not judged
    findings: tuple[Finding, ...]


def check(pipe: End | str | int) -> Check:
    """Examines a pipe: an end, a name, or a descriptor of its shared memory, which stays open.

    It reads and maps nothing, takes no lock, and looks again at what it finds: only what stays is
    an error.  What a killed process may leave behind (a lock that names it, a sealed slot, its
    entry, registrations) is a note, and the next one that comes puts it right.

    FileNotFoundError (also for an object that is not a pipe yet), PermissionError;
    IncompatibleSegmentError if it is no pipe of this version; ValueError for a closed end.  The
    descriptor of a segment is closed by a process that holds that pipe as snapshot() says.
    """
    result, raw = looked_at(pipe, _lib.check)
    if result < 0:
        raise refused(-result, pipe)
    findings = tuple(
        Finding(bool(each.error), _lib.text(each.rule), each.index, _lib.text(each.text))
        for each in raw.findings[0 : raw.count]
    )
    return Check(raw.errors, raw.notes, bool(raw.moving), findings)
