"""What the segment itself says when a scene is at rest: its own oracles, `check` and the snapshot.

At the muster everybody is known and nobody moves, but the dead may have left what the next one
that comes puts right: their entries, a lock that names one of them, registrations.  At the curtain
nobody is left but the zygote, which comes: it takes every lock and sleeps on both sides, and after
that nothing of the dead may be there.
"""

import os
import select
import signal
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

import shmpipe
from shmpipe.checking import Check
from shmpipe.inspect import Snapshot
from shmpipe_tools.torture.board import Call, Word
from shmpipe_tools.torture.records import PIPE_BUF

if TYPE_CHECKING:
    from shmpipe_tools.torture.scene import Scene

# What is only on its way passes in that time.
_SETTLES_SECONDS = 5.0
_NAP_SECONDS = 0.005
_HEARD_SECONDS = 5.0  # a tick of 100 ms, and a machine that stands still
_SNAPSHOT_PROCESSES = 64  # it has no more of them; those behind are only counted
_READERS_LOOKED_AT = 0x101  # poll_usage: for good, or until the next change


class Rest:
    """The segment of a scene, which is at rest."""

    def __init__(self, scene: "Scene") -> None:
        self._scene = scene
        self._pipe = scene.pipe

    def look(self) -> None:
        """Everybody is known: no error, no lock of the living, and the table has who is there."""
        if not self._pipe.shared:
            return
        self._note(self._check_ring())
        self._scene.wait(
            lambda: not self._notes("lock-held"), "nobody is in a lock", _SETTLES_SECONDS
        )
        self._scene.wait(self._is_registered, "who sleeps is registered", _SETTLES_SECONDS)
        self._note(self._check_holders())
        self._scene.count("at rest: looked into the segment")
        self._scene.count("at rest: a lock of the dead", self._notes("lock-dead", "lock-abandoned"))
        self._scene.count("at rest: an entry of the dead", self._notes("holder-dead"))

    def clear(self) -> None:
        """Nobody is left but the zygote, which has both ends: whatever the dead left goes."""
        if not self._pipe.shared:
            return
        self.look()
        self._take_all_locks()
        self._scene.wait(self._nap, "no entry of the dead is left", _SETTLES_SECONDS)
        self._note(self._check_ring())
        for each in self._check().findings:
            if each.rule.startswith(("lock-", "holder-", "slot-")):
                self._scene.findings.append(f"left by the dead for good: {each.text}")
        self._scene.count("curtain: all of the dead cleared away")

    def _note(self, findings: Iterator[str]) -> None:
        self._scene.findings += findings

    # -- Looking

    def _check(self) -> Check:
        for end in (self._pipe.reader, self._pipe.writer):
            if isinstance(end, shmpipe.End) and not end.closed:
                return shmpipe.check(end)
        raise AssertionError("the zygote has no end left")

    def _snapshot(self) -> Snapshot:
        ring = self._pipe.snapshot()
        assert ring is not None
        return ring

    def _notes(self, *rules: str) -> int:
        return sum(each.rule in rules for each in self._check().findings)

    def _check_ring(self) -> Iterator[str]:
        report = self._check()
        if report.moving:
            yield "at rest, but the ring moves"
        for each in report.findings:
            if each.error:
                yield f"check: {each.rule} {each.index}: {each.text}"

    def _is_registered(self) -> bool:
        """Whoever sleeps is to be found by the one that wakes him: counted, or looked at."""
        board, ring = self._scene.board, self._snapshot()
        calls = [
            board.get(slot, Word.CALL)
            for slot in self._scene.cast.values()
            if not board.get(slot, Word.WRITES)
        ]
        polls = Call.POLL in calls
        return ring.read_waiters >= calls.count(Call.READ) and (
            not polls or bool(ring.poll_usage & _READERS_LOOKED_AT)
        )

    def _check_holders(self) -> Iterator[str]:
        """The living entries are those who live, each with what it has open."""
        board = self._scene.board
        due = {
            pid: (0, 1) if board.get(slot, Word.WRITES) else (1, 0)
            for pid, slot in self._scene.cast.items()
        }
        due[os.getpid()] = int(not self._pipe.reader.closed), int(not self._pipe.writer.closed)
        ring = self._snapshot()
        # A process that has taken its end through exec may have an entry of each of its programs:
        # its record locks go on with it.
        found = {(each.pid, (each.readers, each.writers)) for each in ring.processes if each.alive}
        is_whole = len(ring.processes) < _SNAPSHOT_PROCESSES
        if found - set(due.items()) or (is_whole and found != set(due.items())):
            yield f"the living are {sorted(due.items())}, but the table has {sorted(found)}"
        if ring.holders < len(due):
            yield f"{len(due)} processes are there, but the table has {ring.holders}"

    # -- Clearing

    def _take_all_locks(self) -> None:
        """Both of the ring, and the companion's: somebody looks, now."""
        for end, events in (
            (self._pipe.reader, select.POLLIN),
            (self._pipe.writer, select.POLLOUT),
        ):
            poller = select.poll()
            poller.register(end.fileno(), events)
            poller.poll(0)
        self._pipe.writer.capacity = self._pipe.episode.capacity
        self._pipe.writer.write(b"x")
        if self._pipe.reader.read(1) != b"x":
            self._scene.findings.append("the zygote does not read what it wrote")

    def _nap(self) -> bool:
        """Sleeps once on either side, which looks who else is there; whether nobody dead is.

        On either, for a sleeper does not notice those of his own side that died outside a call.
        """
        if not self._notes("holder-dead"):
            return True
        reader, writer = self._pipe.reader, self._pipe.writer

        def empty() -> None:
            while reader.pending:
                reader.read(1 << 16)

        reader.nonblocking = False
        self._sleep_in(lambda: reader.read(1), lambda: writer.write(b"x"))
        writer.nonblocking = True
        while writer.write(bytes(PIPE_BUF)):
            pass
        writer.nonblocking = False
        self._sleep_in(lambda: writer.write(b"x"), empty)
        empty()
        return not self._notes("holder-dead")

    def _sleep_in(self, call: Callable[[], object], wake: Callable[[], object]) -> None:
        """A call that sleeps, until a handler of this process wakes it.

        The signal may come while the call prepares to sleep: then it is heard after a tick (H50).
        """
        before = signal.signal(signal.SIGALRM, lambda _number, _frame: wake())
        start = monotonic()
        signal.setitimer(signal.ITIMER_REAL, _NAP_SECONDS)
        call()
        if (seconds := monotonic() - start) > _HEARD_SECONDS:
            self._scene.findings.append(f"a signal was heard after {seconds:.1f} s")
        signal.signal(signal.SIGALRM, before)
