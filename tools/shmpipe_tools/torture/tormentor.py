"""A tormentor: one instance of a stressor, in a process beside the actors."""

import contextlib
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import NoReturn

from shmpipe.inspect import Snapshot, snapshot
from shmpipe_tools.torture.actor import die_with_parent
from shmpipe_tools.torture.board import SLOTS, Board, Call, Phase, Word
from shmpipe_tools.torture.hold import Hold
from shmpipe_tools.torture.procfs import FUTEXES, POLLS, state_of, system_call
from shmpipe_tools.torture.stressor import Stressor, number_of

NEWS = struct.Struct("=III")  # slot, pid, incarnation; with a pidfd

# So much longer than anybody may be late a stopped process is held; but none for longer than the
# scene waits for its tormentors.
_HOLD_MORE_SECONDS = 0.5
_LONGEST_HOLD_SECONDS = 5.0


@dataclass
class Victim:
    """An actor, through a descriptor that never names another process."""

    slot: int
    pid: int
    incarnation: int
    pidfd: int

    def forget(self) -> None:
        """It is gone, or will be: whoever still has it signals nobody."""
        os.close(self.pidfd)
        self.pidfd = -1

    def signal(self, number: int) -> int:
        """Sends a signal; 0 if the process is gone."""
        if self.pidfd < 0:
            return 0
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            return 0
        return 1


class Tormentor:
    """What a stressor's `strike` may use."""

    def __init__(
        self,
        board: Board,
        number: int,
        stressor: Stressor,
        seed: str,
        news: socket.socket,
        patience: float,
    ) -> None:
        self.board = board
        self.stressor = stressor
        self.rng = Random()
        self._seed = f"{seed}/{stressor.name}/{number}"
        self._number = number
        self._news = news
        self._known: dict[int, Victim] = {}
        self._stopped: list[tuple[float, Victim]] = []
        self._segment = -1
        self._patience = patience
        self._hold: Hold | None = None

    def live(self, parent: int) -> NoReturn:
        """The whole life of the process."""
        die_with_parent(parent)
        while True:
            self._wait_for_run()
            self.rng.seed(f"{self._seed}/{self.board.episode}")
            self._open_segment()
            while self.board.phase == Phase.RUN:
                if self.board.enough(number_of(self.stressor.name)):
                    self.sleep(0.01)
                    continue
                ops = self.stressor.strike(self)
                if not self.stressor.counts_itself:
                    self.count(self.stressor.counter("ops"), ops)
                self.sleep(self.rng.expovariate(1 / self.stressor.pause))
            self._let_go()

    # -- For stressors

    def victims(self, count: int) -> list[Victim]:
        """So many actors at random, fewer if there are not as many."""
        self._hear()
        alive = list(self._known.values())
        return self.rng.sample(alive, min(count, len(alive)))

    def order(self, victim: Victim) -> int:
        """Tells an actor to do what the stressor's `act` says; 0 if it has another order."""
        if self.board.get(victim.slot, Word.ORDER):
            return 0
        self.board.set(victim.slot, Word.ORDER, number_of(self.stressor.name) + 1)
        return 1

    def stop(self, victim: Victim, seconds: float) -> int:
        """SIGSTOP; SIGCONT comes by itself."""
        if self.board.held == victim.slot + 1:
            return 0
        sent = victim.signal(signal.SIGSTOP)
        if sent:
            self._stopped.append((time.monotonic() + seconds, victim))
        return sent

    def hold(self, victim: Victim) -> None:
        """Lets one that is stopped stay so for longer than anybody may be late; one at a time."""
        seconds = self._patience + _HOLD_MORE_SECONDS
        if self.board.held or seconds > _LONGEST_HOLD_SECONDS:
            return
        self.board.held = victim.slot + 1
        self._stopped = [each for each in self._stopped if each[1] is not victim]
        self._hold = Hold(self.board, victim, seconds, self._patience, self._look)

    def sleep(self, seconds: float) -> None:
        """Waits, and wakes meanwhile whose time has come; short when the episode is over."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until and self.board.phase == Phase.RUN:
            self._continue(now)
            self._hear()
            time.sleep(min(until - now, 0.002))
        self._continue(time.monotonic())

    def count(self, counter: int, by: int = 1) -> None:
        """Adds to a counter of the stressor."""
        self.board.count(SLOTS + self._number, counter, by)

    def states_of(self, victim: Victim) -> Iterator[str]:
        """Where a stopped victim is, by the names that the stressors count."""
        if not self._is_stopped(victim):
            return
        call = self.board.get(victim.slot, Word.CALL)
        sleeps_in = system_call(victim.pid)
        if call == Call.NONE:
            yield "between calls"
            if self.board.get(victim.slot, Word.PROGRESS) == 0:
                yield "newborn"
        elif sleeps_in in FUTEXES:
            yield "asleep in pipe"
        elif sleeps_in in POLLS:
            yield "asleep in poll"
        else:
            yield "running in call"
        if call == Call.OPEN:
            yield "opening"
        if call == Call.RESIZE:
            yield "resizing"
        ring = self._look()
        if ring is not None:
            yield from _locks_of(ring, victim.pid)
            awake = call == Call.READ and sleeps_in not in FUTEXES
            if awake and ring.pending and ring.read_waiters:
                yield "hand-on owed"

    # -- The rest is its own business

    def _wait_for_run(self) -> None:
        while self.board.phase != Phase.RUN:
            self.board.acknowledge(self._number)
            time.sleep(0.001)

    def _let_go(self) -> None:
        while self._hold and self.board.phase == Phase.FREE:
            self._continue(time.monotonic())
            self._hear()
            time.sleep(0.002)
        self._continue(float("inf"))
        if self._segment >= 0:
            os.close(self._segment)
            self._segment = -1
        self._hear()
        for victim in self._known.values():
            victim.forget()
        self._known.clear()

    def _continue(self, now: float) -> None:
        for entry in [each for each in self._stopped if each[0] <= now]:
            self._stopped.remove(entry)
            entry[1].signal(signal.SIGCONT)
        hold = self._hold
        if hold and hold.is_over():
            hold.victim.signal(signal.SIGCONT)
            self._hold = None
            self.board.held = 0
            for outcome in hold.outcomes:
                self.count(self.stressor.counter(outcome))
            if hold.finding:
                self._news.send(hold.finding.encode())

    def _hear(self) -> None:
        """The news from the zygote: who has come."""
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._news, NEWS.size, 1)
            except BlockingIOError:
                return
            if not data:
                os._exit(0)  # the zygote is gone
            slot, pid, incarnation = NEWS.unpack(data)
            if old := self._known.pop(slot, None):
                self._stopped = [each for each in self._stopped if each[1] is not old]
                old.forget()
            self._known[slot] = Victim(slot, pid, incarnation, fds[0])

    def _open_segment(self) -> None:
        if self.board.segment:
            path = f"/proc/{os.getppid()}/fd/{self.board.segment - 1}"
            # A process that holds no end may open and close the segment as it likes.
            with contextlib.suppress(OSError):
                self._segment = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _look(self) -> Snapshot | None:
        return snapshot(self._segment) if self._segment >= 0 else None

    def _is_stopped(self, victim: Victim) -> bool:
        for _ in range(20):
            state = state_of(victim.pid)
            if state == "T":
                return self.board.get(victim.slot, Word.PID) == victim.pid
            if state in ("", "Z", "X"):
                return False
            time.sleep(0.0001)
        return False


def _locks_of(ring: Snapshot, pid: int) -> Iterator[str]:
    indices = {each.index + 1 for each in ring.processes if each.pid == pid}
    if ring.write_lock_owner in indices:
        yield "in write lock"
    if ring.companion_lock_owner in indices:
        yield "in companion lock"
    if ring.read_lock_owner in indices:
        yield "in read lock"
        if ring.slots and ring.slots[-1].sealed and ring.occupancy == len(ring.slots):
            yield "sealed, tail not stored"
