"""Whether somebody is late, and not merely a machine that was too busy.

Time counts as far as somebody looked (Looks): who was not there to look was not there to be
looked at, either.  A limit on something that must happen (Patience) is over when its time is, and
all whom it waits for are asleep: who is ready only waits for a processor.

For a survivor that is to see an end (Survivors) the hard limit decides: one that sees end of file
or EPIPE more than a second after its last peer is a finding, asleep or not.  But what the machine
took from everybody is not the pipe's.  The episodes on os.pipe do not tell that: they are played at
other instants, so a machine that stood still for 1.5 s, or ran something else, shows in the figures
of one pipe and not of the other.  So it is measured in the act itself, by means that know nothing
of the pipe:

  - SIGKILL is not yet a death.  The dying need a processor to get to their end, and before the
    kernel has closed their descriptors neither pipe has anything to tell: the clock starts when the
    zygote has seen the last of them dead.
  - The kernel counts how long a thread was ready and had no processor (schedstat).  The longest of
    all survivors counts for each, for one may hear it from another.  A sleeper is not ready: what
    all of them sleep is never excused.
  - The zygote, which waits on a timer of 2 ms, sees when the machine as a whole stood still.

The last two may be the same time, so the larger one is taken off.  os.pipe goes through this very
rule, and is the control: where the machine alone could break the limit, it breaks it there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic, monotonic_ns

from shmpipe_tools.torture.board import Board, Word
from shmpipe_tools.torture.latency import HARD_LIMIT
from shmpipe_tools.torture.procfs import state_of, waited_for_cpu

# A turn of the zygote takes a few milliseconds; in one that takes longer it did not run.
_GAP_SECONDS = 0.05
# So many limits long somebody may be found ready, each time we look: then he spins.
_SPINS = 3


class Looks:
    """Time as far as somebody looked: each step counts no more than a look takes."""

    def __init__(self, longest: float = _GAP_SECONDS) -> None:
        self.seconds = 0.0
        self._longest = longest
        self._looked = monotonic()

    def step(self) -> float:
        """Looks: the seconds since the last look that count."""
        now = monotonic()
        step = min(now - self._looked, self._longest)
        self._looked = now
        self.seconds += step
        return step


class Patience:
    """With those who are to do something; asked every few milliseconds."""

    def __init__(self, seconds: float, pids: Callable[[], Iterable[int]]) -> None:
        self._limit = seconds
        self._pids = pids
        self._looks = Looks()

    def is_over(self) -> bool:
        """They had the time, and all of them sleep, or one has been ready for far too long."""
        self._looks.step()
        if self._looks.seconds <= self._limit:
            return False
        is_ready = any(state_of(pid) == "R" for pid in self._pids())
        return not is_ready or self._looks.seconds > _SPINS * self._limit


class Survivors:
    """Those who are to see an end: made before its cause, looked at again and again after it."""

    def __init__(self, board: Board, slots: list[int], what: str) -> None:
        self.waiting = set(slots)  # who has not been seen to have seen the end
        self._board = board
        self._what = what
        self._slots = slots
        self._before = {slot: self._waited(slot) for slot in slots}
        self._taken = [0.0]
        self._looked = monotonic_ns()
        self._due = 0
        self._stood_still = 0.0

    def _waited(self, slot: int) -> int:
        return waited_for_cpu(self._board.get(slot, Word.PID))

    def look(self, *, is_due: bool) -> None:
        """One turn of the zygote.  is_due: whether the last peer is gone."""
        now = monotonic_ns()
        if self._due and (gap := (now - self._looked) / 1e9) > _GAP_SECONDS:
            self._stood_still += gap
        self._looked = now
        if is_due and not self._due:
            self._due = now
        for slot in [each for each in self.waiting if self._board.get(each, Word.ENDED_AT)]:
            self.waiting.remove(slot)
            self._taken.append((self._waited(slot) - self._before[slot]) / 1e9)

    def findings(self) -> Iterator[str]:
        """Who was late, when all of them have ended."""
        taken = max(self._stood_still, *self._taken)
        for slot in self._slots:
            delay = (self._board.get(slot, Word.ENDED_AT) - self._due) / 1e9
            if delay - taken > HARD_LIMIT:
                yield (
                    f"slot {slot} saw {self._what} {delay:.3f} s after the last peer was gone, "
                    f"and the machine took only {taken:.3f} s of it"
                )
