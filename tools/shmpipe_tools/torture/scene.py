"""One episode from the first actor to the audit, as the zygote directs it."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from shmpipe_tools.torture import judge
from shmpipe_tools.torture.actor import EXIT_FAILED, Actor, die_with_parent
from shmpipe_tools.torture.audit import Audit
from shmpipe_tools.torture.board import (
    ACTORS,
    INCARNATIONS,
    SLOTS,
    UNDERSTUDIES,
    Board,
    Call,
    Log,
    Phase,
    Word,
)
from shmpipe_tools.torture.judge import HangError, Judge
from shmpipe_tools.torture.last_act import LastAct
from shmpipe_tools.torture.lateness import Patience
from shmpipe_tools.torture.pipes import Pipe
from shmpipe_tools.torture.plan import Episode
from shmpipe_tools.torture.states import SCENE_STATES
from shmpipe_tools.torture.tormentor import NEWS

SHORT = 0.002

# Those who kill and replace must get a processor among those who are always busy.
ACTORS_NICE = 5
# For those who are killed between "the board is full" and the end of the play.
SPARE_INCARNATIONS = 1024


class Scene:
    """The actors at one pipe."""

    def __init__(
        self,
        board: Board,
        episode: Episode,
        pipe: Pipe,
        news: list[socket.socket],
        errors: int,
        patience: float,
    ) -> None:
        self.board = board
        self.episode = episode
        self.pipe = pipe
        self.audit = Audit(episode.records, episode.readers, episode.most_bytes)
        self.rng = Random(f"{episode.seed}/scene")
        self.findings: list[str] = []
        self.kills = 0
        self.struck = 0  # of these: before the last act, which kills, too
        self.delays: dict[str, list[float]] = {}
        self.rare = dict.fromkeys(SCENE_STATES, 0)
        self.cast: dict[int, int] = {}  # pid -> slot
        self._news = news
        self.errors = errors
        self._judge = Judge(board, pipe, patience)
        self.incarnation = 0
        self.replaces = True
        self._is_struck = True
        self.helpers: set[int] = set()  # children that are no actors

    # -- The play

    def play(self, is_over: Callable[[], bool]) -> None:
        """Everything; what is wrong is in `findings` afterwards."""
        try:
            for slot in range(self.episode.readers + self.episode.writers):
                self.spawn(slot)
            self.board.set_phase(Phase.RUN)
            until = time.monotonic() + self.episode.seconds
            self.wait(lambda: time.monotonic() > until or is_over(), "the play", 60)
            self.board.set_phase(Phase.FREE)
            self.wait(lambda: self.board.acknowledged(len(self._news)), "the tormentors", 10)
            self.findings += self._heard()
            self._is_struck = False
            LastAct(self).play()
            self.findings += self.audit.findings(self.board, range(SLOTS))
        except HangError as hang:
            self.findings.append(f"hang: {hang}")
            slots = sorted(self.cast.values())
            self.findings.append(judge.dump(self.board, self.pipe, slots, self.errors))
        finally:
            self._clear()

    # -- Coming and going

    def spawn(self, slot: int) -> None:
        """Forks an actor."""
        board = self.board
        writes = slot >= self.episode.readers
        number = self.incarnation + 1
        if number > INCARNATIONS - SPARE_INCARNATIONS:
            board.note_full()  # those who die until the play is over are replaced, too
        if number + 2 > INCARNATIONS:
            raise HangError("the play does not end: no incarnation is left")
        self.incarnation += 2  # the next one is its understudy's
        for each in (slot, slot + UNDERSTUDIES):
            logged = board.get(each, Word.LOGGED)
            handled = board.get(each, Word.HANDLED)
            state = board.slot(each)
            for word in Word:
                state[word] = 0
            state[Word.LOGGED], state[Word.HANDLED] = logged, handled
            state[Word.WRITES] = int(writes)
            if not writes:
                board.clear_hand(each)
        board.set(slot, Word.INCARNATION, number)
        for each in (number, number + 1):
            board.incarnation(each)[Log.WRITES] = int(writes)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_actor(parent, slot, number)
        board.set(slot, Word.PID, pid)
        self.cast[pid] = slot
        pidfd = os.pidfd_open(pid)
        for each_news in self._news:
            # A tormentor that does not listen misses a victim, no more.
            with contextlib.suppress(BlockingIOError):
                socket.send_fds(each_news, [NEWS.pack(slot, pid, number)], [pidfd])
        os.close(pidfd)

    def _become_actor(self, parent: int, slot: int, number: int) -> None:
        try:
            die_with_parent(parent)
            os.nice(ACTORS_NICE)
            for each in self._news:
                each.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, set())
            actor = Actor(self.board, slot, self.episode, number, self.errors)
            ON_STAGE.append(actor)
            actor.play(self.pipe)
        finally:
            os._exit(EXIT_FAILED)

    def reap(self) -> None:
        """Buries those who have ended, and replaces them while the play goes on.

        Not more than there were at first: a tormentor may kill as fast as this replaces, and then
        the play would never end.
        """
        for _ in range(len(self.cast) + 1):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.helpers:
                raise HangError(f"a tormentor ended: {os.waitstatus_to_exitcode(status)}")
            slot = self.cast.pop(pid, None)
            if slot is not None:  # else an orphan: the understudy of a dead actor
                self._bury(pid, slot, os.waitstatus_to_exitcode(status))

    def _bury(self, pid: int, slot: int, code: int) -> None:
        board = self.board
        if code == -signal.SIGKILL:
            self.kills += 1
            self.struck += self._is_struck
        elif code == EXIT_FAILED:
            self.findings.append(f"slot {slot} (pid {pid}) failed")
        elif code != 0:
            self.findings.append(f"slot {slot} (pid {pid}) ended with {code}")
        if board.get(slot, Word.UNDERSTUDY):
            self.await_strangers()
        for each in (slot, slot + UNDERSTUDIES):
            if not board.get(each, Word.WRITES) and board.get(each, Word.CALL) == Call.READ:
                self.audit.take_from(board, each)
        if self.replaces:
            self.spawn(slot)

    def strangers(self) -> set[int]:
        """Children that nobody forked here: understudies whose actor is dead."""
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            return {int(pid) for pid in children.read().split()} - set(self.cast) - self.helpers

    def await_strangers(self) -> None:
        """Buries those whom nobody forked here."""
        # They die with their actors, so this takes no time.
        for pid in self.strangers():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def kill(self, slots: list[int]) -> None:
        """SIGKILL, and waits until they are buried."""
        pids = [pid for pid, slot in self.cast.items() if slot in slots]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.wait(lambda: not any(pid in self.cast for pid in pids), "killed actors", 10)

    def wait(self, condition: Callable[[], bool], what: str, limit: float) -> None:
        """Goes on with the play until the condition holds; HangError after `limit` seconds.

        Of seconds in which the actors could have done it: Patience.
        """
        patience = Patience(limit, lambda: self.cast)
        while not condition():
            if patience.is_over():
                raise HangError(f"not within {limit} s: {what}")
            self._judge.look(lambda: list(self.cast.values()))
            signal.sigtimedwait([signal.SIGCHLD], SHORT)
            self.reap()

    def _heard(self) -> Iterator[str]:
        """What the tormentors found."""
        for each in self._news:
            with contextlib.suppress(BlockingIOError):
                while text := each.recv(1 << 16):
                    yield text.decode()

    def _clear(self) -> None:
        self.replaces = False
        for pid in self.cast:
            os.kill(pid, signal.SIGKILL)
        patience = Patience(10, lambda: self.cast)
        while (self.cast or self.strangers()) and not patience.is_over():
            for pid in self.strangers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            signal.sigtimedwait([signal.SIGCHLD], SHORT)
            self.reap()
        if self.cast or self.strangers():
            self.findings.append(f"killed processes do not end: {self.cast} {self.strangers()}")

    # -- Rare states

    def count(self, state: str, by: int = 1) -> None:
        """Adds to a counter of rare states."""
        self.rare[state] += by

    def note_ring(self) -> None:
        """What the pipe's own statistics say happened."""
        ring = self.pipe.snapshot()
        if ring is None:
            return
        if ring.slice_found_work:
            self.findings.append(f"slice_found_work is {ring.slice_found_work}: lost wakes")
        slots = (ring.head - self.episode.first_index) % 2**32
        self.count("lock taken from the dead", ring.recoveries)
        self.count("dead process reaped", ring.reaped)
        self.count("pipe empty: reader slept", ring.read_sleeps)
        self.count("pipe full: writer slept", ring.write_sleeps)
        self.count("EAGAIN", ring.read_again + ring.write_again)
        self.count("merge", max(0, ring.writes - slots) if self.episode.most == 3 else 0)
        self.count("wrap of the ring", slots // ring.ring_size)
        self.count("wrap of an index", int(ring.head < self.episode.first_index))
        self.count("broadcast", ring.broadcasts)

    def result(self) -> dict[str, Any]:
        """What the episode was and brought."""
        audit = self.audit
        self.count("record of a killed writer", audit.uncertain)
        self.count("of these: it was there", audit.uncertain_seen)
        self.count("cell that died with its reader", audit.in_hand)
        self.count("signal handler ran", sum(self._handled()))
        return {
            "episode": self.episode.number,
            "transport": self.episode.transport,
            "kills": self.kills,
            "actors": self.incarnation // 2,
            "cells": audit.cells,
            "delays": self.delays,
            "rare": self.rare,
            "findings": self.findings,
        }

    def _handled(self) -> Iterator[int]:
        return (self.board.get(slot, Word.HANDLED) for slot in range(ACTORS))


ON_STAGE: list[Actor] = []


def on_signal(_number: int, _frame: object) -> None:
    """The handler of every actor: it counts."""
    for actor in ON_STAGE[-1:]:
        actor.state[Word.HANDLED] += 1
