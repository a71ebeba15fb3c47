"""A process that is stopped for longer than anybody may be late: the others must go on meanwhile.

They may stand still for two reasons, both of them documented:

  - the stopped one owns a lock (crash-safety.md).  Then the snapshot must name it as the owner;
  - a wake is with it (decision 0024): it was chosen, and is stopped before it reads or writes.  Who
    sleeps behind it gets up when anybody operates, but pollers of the other side do not.

The news of a death can be with it, too, if it is stopped in the microseconds in which it passes
that on.  That is not excused here: it takes a kill beside the stop, and nobody has seen it yet.

Nothing is demanded where the others could not go on with a kernel pipe either: where one side is
alone, or rests because the logs are full, or where the play ends meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shmpipe_tools.torture.board import ACTORS, Board, Call, Phase, Word
from shmpipe_tools.torture.lateness import Looks
from shmpipe_tools.torture.procfs import state_of

if TYPE_CHECKING:
    from shmpipe.inspect import Snapshot
    from shmpipe_tools.torture.tormentor import Victim

HELD = "held: longer than anybody may be late"
WENT_ON = "held: the others went on"
IN_A_LOCK = "held in a lock: named as its owner"
WITH_A_WAKE = "held with a wake: the others slept"
OUTCOMES = (HELD, WENT_ON, IN_A_LOCK, WITH_A_WAKE)


class Hold:
    """One stopped process, from SIGSTOP to SIGCONT."""

    def __init__(
        self,
        board: Board,
        victim: Victim,
        seconds: float,
        patience: float,
        look: Callable[[], Snapshot | None],
    ) -> None:
        self.victim = victim
        self.finding = ""
        self.outcomes: list[str] = []
        self._board = board
        self._patience = patience
        self._look = look
        self._seconds = seconds
        self._looks = Looks()
        # By side: how long nobody of it has gone on, and how far each one was.
        self._still = {0: 0.0, 1: 0.0}
        self._progress = {side: self._progress_of(side) for side in (0, 1)}
        self._seen = WENT_ON

    def is_over(self) -> bool:
        """Looks at the others; whether it is time for SIGCONT.  Then `outcomes` are known."""
        if self._cannot_demand():
            return True
        step = self._looks.step()
        for side, before in self._progress.items():
            progress = self._progress_of(side)
            self._still[side] = self._still[side] + step if progress == before else 0.0
            self._progress[side] = progress
        if max(self._still.values()) > self._patience:
            self._judge()
        if self._looks.seconds < self._seconds:
            return False
        self.outcomes = [HELD] if self.finding else [HELD, self._seen]
        return True

    def _others(self, side: int) -> list[int]:
        board, mine = self._board, self.victim.slot
        return [
            slot
            for slot in range(ACTORS)
            if slot != mine and board.get(slot, Word.PID) and board.get(slot, Word.WRITES) == side
        ]

    def _progress_of(self, side: int) -> list[tuple[int, ...]]:
        words = (Word.INCARNATION, Word.PROGRESS)
        return [
            (slot, *(self._board.get(slot, word) for word in words)) for slot in self._others(side)
        ]

    def _cannot_demand(self) -> bool:
        board, victim = self._board, self.victim
        return (
            victim.pidfd < 0
            or state_of(victim.pid) != "T"
            or board.phase not in (Phase.RUN, Phase.FREE)
            or board.has_to_rest(writes=True)
            or not self._others(0)
            or not self._others(1)
        )

    def _judge(self) -> None:
        """A side has not gone on for longer than anybody may be late."""
        ring = self._look()
        others = self._others(0) + self._others(1)
        if any(state_of(self._board.get(slot, Word.PID)) != "S" for slot in others):
            self._still = dict.fromkeys(self._still, 0.0)  # who is awake only waits for a processor
            return
        owners = _owners_of(ring) if ring else set()
        if self.victim.pid in owners:
            self._seen = IN_A_LOCK
        elif ring and not owners and self._may_have_a_wake():
            self._seen = WITH_A_WAKE
        elif not self.finding:
            self.finding = (
                f"slot {self.victim.slot} (pid {self.victim.pid}) is stopped, and the others have "
                f"not gone on for {max(self._still.values()):.2f} s, while the locks are with "
                f"{sorted(owners) or 'nobody'}"
            )

    def _may_have_a_wake(self) -> bool:
        """It is in a call, and all of the other side poll, so that nobody operates."""
        board, slot = self._board, self.victim.slot
        polls = {
            board.get(each, Word.CALL) == Call.POLL
            for each in self._others(1 - board.get(slot, Word.WRITES))
        }
        return board.get(slot, Word.CALL) in (Call.READ, Call.WRITE) and polls == {True}


def _owners_of(ring: Snapshot) -> set[int]:
    """The pids of those who are in a lock; -1: of who is not in the table."""
    pids = {each.index + 1: each.pid for each in ring.processes}
    locks = ring.write_lock_owner, ring.read_lock_owner, ring.companion_lock_owner
    return {pids.get(owner, -1) for owner in locks if owner}
