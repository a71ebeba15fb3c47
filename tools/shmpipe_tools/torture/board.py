"""The memory that all processes of a scene share: orders, states, logs.  It survives its writers.

No pipe is involved in it, so it says what happened even if the pipe does not.  Each word has one
writer at a time; a word is stored whole.
"""

import mmap
import os
from enum import IntEnum

from shmpipe_tools.torture.stressor import COUNTERS_PER_STRESSOR, stressors

ACTORS = 16
UNDERSTUDIES = ACTORS  # slot + ACTORS is the child that the actor in `slot` has
ZYGOTE = ACTORS + UNDERSTUDIES  # the zygote reads, too, when nobody else is left
SLOTS = ZYGOTE + 1
TORMENTORS = 32
INCARNATIONS = 8192
LOG_WORDS = 1 << 15
HAND_BYTES = 1 << 18

_SLOT_WORDS = 24
_INCARNATION_WORDS = 4


class Phase(IntEnum):
    """What the actors of a scene are to do."""

    SETUP = 0
    RUN = 1
    WRITERS_REST = 2
    READERS_REST = 3  # the writers go on until the pipe is full
    LEAVE = 4  # the writers close their ends and end
    FREE = 5  # as RUN, but nobody strikes
    CURTAIN = 6  # all have seen the end that was due, and leave


class Call(IntEnum):
    """The call of the pipe in which an actor is."""

    NONE = 0
    OPEN = 1
    READ = 2
    WRITE = 3
    POLL = 4
    RESIZE = 5


class Word(IntEnum):
    """The words of an actor's slot."""

    PID = 0
    INCARNATION = 1
    WRITES = 2  # 1: a writer, 0: a reader
    CALL = 3
    SINCE = 4  # monotonic nanoseconds
    PROGRESS = 5
    ORDER = 6  # which stressor wants something of it, + 1
    RESTS = 7
    ENDED_AT = 8  # when it saw end of file or EPIPE
    LOGGED = 9
    REQUEST = 10  # bytes that the present call may take
    BLIND = 11  # 1: the present call does not read into the hand
    HANDLED = 12  # runs of signal handlers
    FAILED = 13  # 1: it died of an exception, which is in the errors
    LEFT = 14  # 1: it goes of its own will
    UNDERSTUDY = 15  # 1: its child may be at the pipe


class Log(IntEnum):
    """The words of an incarnation: what one writer said about its records."""

    BEGUN = 0  # it was about to write this one
    DONE = 1  # write returned for this one
    PART = 2  # bytes of BEGUN for which a partial write returned
    WRITES = 3


class Board:
    """One mapping; every process of a scene inherits it, or gets its descriptor."""

    def __init__(self, descriptor: int | None = None) -> None:
        self._slots = 64
        self._incarnations = self._slots + SLOTS * _SLOT_WORDS
        self._counters = self._incarnations + INCARNATIONS * _INCARNATION_WORDS
        self.row = COUNTERS_PER_STRESSOR * len(stressors())
        self._logs = self._counters + (SLOTS + TORMENTORS) * self.row
        words = self._logs + SLOTS * LOG_WORDS
        self._hands = words * 8
        size = self._hands + SLOTS * HAND_BYTES
        if descriptor is None:
            descriptor = os.memfd_create("torture")
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        self._mapping = mmap.mmap(descriptor, size)
        self._bytes = memoryview(self._mapping)
        self.words = self._bytes[: words * 8].cast("Q")

    def close(self) -> None:
        """For who does not end with it."""
        self.words.release()
        self._bytes.release()
        self._mapping.close()
        os.close(self.descriptor)

    # -- The scene

    @property
    def phase(self) -> int:
        """A Phase."""
        return self.words[0]

    def set_phase(self, phase: Phase) -> None:
        """Tells all; the tormentors also learn that it is another one than before."""
        self.words[1] += 1
        self.words[0] = phase

    def has_to_rest(self, *, writes: bool) -> bool:
        """Whether writers (readers) begin nothing now.

        Writers also when a log is nearly full: from the first moment on, for the zygote may be kept
        from running before it says that the play begins.
        """
        if not writes:
            return self.phase == Phase.READERS_REST
        full = self.full and self.phase in (Phase.SETUP, Phase.RUN, Phase.FREE)
        return self.phase == Phase.WRITERS_REST or full

    @property
    def turn(self) -> int:
        """Changes with each phase."""
        return self.words[1]

    @property
    def episode(self) -> int:
        """The number of the present one."""
        return self.words[2]

    @property
    def full(self) -> bool:
        """Whether somebody's log will soon be full."""
        return bool(self.words[3])

    @property
    def segment(self) -> int:
        """The zygote's descriptor of the segment, + 1; 0 if the kernel's pipe is on."""
        return self.words[4]

    def begin_episode(self, number: int, segment: int) -> None:
        """Forgets the last one."""
        end = self._counters
        self._bytes[self._slots * 8 : end * 8] = bytes((end - self._slots) * 8)
        self.words[2:8] = memoryview(bytes(48)).cast("Q")
        self.words[2] = number
        self.words[4] = segment

    def note_full(self) -> None:
        """Asks the zygote to end the episode."""
        self.words[3] = 1

    def end_of_file_is_due(self) -> bool:
        """Whether the zygote has given up its write end."""
        return bool(self.words[5])

    def broken_pipe_is_due(self) -> bool:
        """Whether the zygote has given up its read end."""
        return bool(self.words[6])

    def expect_end(self, *, writers: bool = False, readers: bool = False) -> None:
        """From now on the writers (readers) may all be gone."""
        if writers:
            self.words[5] = 1
        if readers:
            self.words[6] = 1

    @property
    def held(self) -> int:
        """The slot + 1 of who is stopped for long; 0 if nobody is."""
        return self.words[7]

    @held.setter
    def held(self, slot: int) -> None:
        self.words[7] = slot

    def acknowledge(self, tormentor: int) -> None:
        """A tormentor has seen this turn and holds nobody."""
        self.words[16 + tormentor] = self.turn

    def acknowledged(self, tormentors: int) -> bool:
        """Whether all of them have."""
        return all(self.words[16 + each] == self.turn for each in range(tormentors))

    def enough(self, stressor: int) -> bool:
        """Whether a stressor has done its ops."""
        return bool(self.words[48 + stressor // 64] >> (stressor % 64) & 1)

    def note_enough(self, stressor: int) -> None:
        """Its tormentors strike no more."""
        self.words[48 + stressor // 64] |= 1 << (stressor % 64)

    # -- Actors

    def get(self, slot: int, word: Word) -> int:
        """A word of a slot."""
        return self.words[self._slots + slot * _SLOT_WORDS + word]

    def set(self, slot: int, word: Word, value: int) -> None:
        """Stores a word of a slot."""
        self.words[self._slots + slot * _SLOT_WORDS + word] = value

    def slot(self, slot: int) -> "memoryview[int]":
        """The words of a slot, indexed by Word."""
        start = self._slots + slot * _SLOT_WORDS
        return self.words[start : start + _SLOT_WORDS]

    def incarnation(self, number: int) -> "memoryview[int]":
        """The words of an incarnation, indexed by Log."""
        start = self._incarnations + number * _INCARNATION_WORDS
        return self.words[start : start + _INCARNATION_WORDS]

    def log(self, slot: int) -> "memoryview[int]":
        """What a slot's readers got."""
        start = self._logs + slot * LOG_WORDS
        return self.words[start : start + LOG_WORDS]

    def hand(self, slot: int) -> memoryview:
        """Where a slot's readers read to."""
        start = self._hands + slot * HAND_BYTES
        return self._bytes[start : start + HAND_BYTES]

    def clear_hand(self, slot: int) -> None:
        """For the next reader: what another one left there is nobody's any more."""
        self.hand(slot)[:] = bytes(HAND_BYTES)

    # -- Counters: one row for each process that counts

    def count(self, row: int, counter: int, by: int = 1) -> None:
        """Adds to a counter of this process's row."""
        self.words[self._counters + row * self.row + counter] += by

    def total(self, counter: int) -> int:
        """The sum over all rows."""
        rows = range(SLOTS + TORMENTORS)
        return sum(self.words[self._counters + row * self.row + counter] for row in rows)
