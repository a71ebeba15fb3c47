"""One episode from the first actor to the audit, as the zygote directs it."""

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from random import Random
from time import monotonic_ns
from typing import Any

from shmpipe_tools.torture import judge
from shmpipe_tools.torture.actor import EXIT_FAILED, Actor, die_with_parent
from shmpipe_tools.torture.audit import Audit
from shmpipe_tools.torture.board import (
    ACTORS,
    INCARNATIONS,
    SLOTS,
    UNDERSTUDIES,
    ZYGOTE,
    Board,
    Call,
    Log,
    Phase,
    Word,
)
from shmpipe_tools.torture.judge import HangError, Judge
from shmpipe_tools.torture.pipes import Pipe
from shmpipe_tools.torture.plan import Episode
from shmpipe_tools.torture.tormentor import NEWS, state_of

# A survivor must see the end within a second; so much longer is waited to tell late from never.
END_SECONDS = 10.0
LATE_SECONDS = 1.0
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
        self.audit = Audit(episode.records, episode.readers)
        self.rng = Random(f"{episode.seed}/scene")
        self.findings: list[str] = []
        self.kills = 0
        self.delays: dict[str, list[float]] = {}
        self.rare: dict[str, int] = {}
        self.cast: dict[int, int] = {}  # pid -> slot
        self._news = news
        self._errors = errors
        self._judge = Judge(board, pipe, patience)
        self._incarnation = 0
        self._replaces = True
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
            self._last_act()
            self.findings += self.audit.findings(self.board, range(SLOTS))
        except HangError as hang:
            self.findings.append(f"hang: {hang}")
            slots = sorted(self.cast.values())
            self.findings.append(judge.dump(self.board, self.pipe, slots, self._errors))
        finally:
            self._clear()

    def _last_act(self) -> None:
        self.board.set_phase(Phase.FREE)
        self.wait(lambda: self.board.acknowledged(len(self._news)), "the tormentors", 10)
        if self.episode.final == "massacre":
            self._massacre()
            return
        self._muster()
        self._note_ring()
        getattr(self, f"_{self.episode.final}")()

    # -- Coming and going

    def spawn(self, slot: int) -> None:
        """Forks an actor."""
        board = self.board
        writes = slot >= self.episode.readers
        number = self._incarnation + 1
        if number > INCARNATIONS - SPARE_INCARNATIONS:
            board.note_full()  # those who die until the play is over are replaced, too
        if number + 2 > INCARNATIONS:
            raise HangError("the play does not end: no incarnation is left")
        self._incarnation += 2  # the next one is its understudy's
        for each in (slot, slot + UNDERSTUDIES):
            logged = board.get(each, Word.LOGGED)
            handled = board.get(each, Word.HANDLED)
            state = board.slot(each)
            for word in Word:
                state[word] = 0
            state[Word.LOGGED], state[Word.HANDLED] = logged, handled
            state[Word.WRITES] = int(writes)
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
            actor = Actor(self.board, slot, self.episode, number, self._errors)
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
        elif code == EXIT_FAILED:
            self.findings.append(f"slot {slot} (pid {pid}) failed")
        elif code != 0:
            self.findings.append(f"slot {slot} (pid {pid}) ended with {code}")
        if board.get(slot, Word.UNDERSTUDY):
            self._await_strangers()
        for each in (slot, slot + UNDERSTUDIES):
            if not board.get(each, Word.WRITES) and board.get(each, Word.CALL) == Call.READ:
                self.audit.take_from(board, each)
        if self._replaces:
            self.spawn(slot)

    def _strangers(self) -> set[int]:
        """Children that nobody forked here: understudies whose actor is dead."""
        with open(f"/proc/self/task/{os.getpid()}/children") as children:
            return {int(pid) for pid in children.read().split()} - set(self.cast) - self.helpers

    def _await_strangers(self) -> None:
        # They die with their actors, so this takes no time.
        for pid in self._strangers():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)

    def kill(self, slots: list[int]) -> None:
        """SIGKILL, and waits until they are buried."""
        pids = [pid for pid, slot in self.cast.items() if slot in slots]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.wait(lambda: not any(pid in self.cast for pid in pids), "killed actors", 10)

    def wait(self, condition: Callable[[], bool], what: str, limit: float) -> None:
        """Goes on with the play until the condition holds; HangError after `limit` seconds."""
        deadline = time.monotonic() + limit
        while not condition():
            if time.monotonic() > deadline:
                raise HangError(f"not within {limit} s: {what}")
            self._judge.look(lambda: list(self.cast.values()))
            signal.sigtimedwait([signal.SIGCHLD], SHORT)
            self.reap()

    def _clear(self) -> None:
        self._replaces = False
        for pid in self.cast:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while (self.cast or self._strangers()) and time.monotonic() < deadline:
            for pid in self._strangers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            signal.sigtimedwait([signal.SIGCHLD], SHORT)
            self.reap()
        if self.cast or self._strangers():
            self.findings.append(f"killed processes do not end: {self.cast} {self._strangers()}")

    # -- Last acts

    def _slots(self, *, writes: bool) -> list[int]:
        board = self.board
        return [slot for slot in self.cast.values() if board.get(slot, Word.WRITES) == writes]

    def _muster(self) -> None:
        """Everything is read, writers rest, readers sleep: here the books are closed."""
        self.board.set_phase(Phase.WRITERS_REST)
        self._settle(self._is_mustered, "writers rest, the pipe is empty, readers wait")
        self._replaces = False
        self.audit.close_books(self.board, self._incarnation)
        self._check_levels()

    def _is_mustered(self) -> bool:
        board = self.board
        readers, writers = self._slots(writes=False), self._slots(writes=True)
        return (
            bool(readers and writers)
            and all(board.get(slot, Word.RESTS) for slot in writers)
            and self.pipe.reader.pending == 0
            and all(self._sleeps(slot) for slot in readers)
            and not any(board.get(slot, Word.UNDERSTUDY) for slot in readers + writers)
            and not self._strangers()
        )

    def _sleeps(self, slot: int) -> bool:
        in_call = self.board.get(slot, Word.CALL) in (Call.READ, Call.WRITE, Call.POLL)
        return in_call and state_of(self.board.get(slot, Word.PID)) == "S"

    def _settle(self, condition: Callable[[], bool], what: str) -> None:
        """Until a condition holds twice, with nothing happened in between."""
        before: list[int] = []

        def settled() -> bool:
            nonlocal before
            now = [self.board.get(slot, Word.PROGRESS) for slot in self.cast.values()]
            now += self.cast
            is_same, before = now == before, now
            return condition() and is_same

        self.wait(settled, what, 20)

    def _check_levels(self) -> None:
        """Empty and at rest: pollers must be told just that (PL-1, PL-2)."""
        ring = self.pipe.snapshot()
        if ring is None:
            return
        told = self._levels(ring.poll_usage)
        if told.get(select.POLLIN) and self.kills:
            # What somebody foretold to pollers who died before he published it.  It stands until
            # somebody reads, for only a reader can take the companion's byte.
            self._count("readiness left by the dead")
            self.pipe.reader.nonblocking = True
            self.pipe.reader.read(1)
            self.pipe.reader.nonblocking = self.episode.nonblocking_readers
            told = self._levels(ring.poll_usage)
        due = {select.POLLIN: 0, select.POLLOUT: select.POLLOUT}
        if any(told[asked] != due[asked] for asked in told):
            self.findings.append(f"empty and at rest, but poll says {told} (asked: told)")

    def _levels(self, poll_usage: int) -> dict[int, int]:
        """What poll says of those ends that somebody looks at: a look of ours changes nothing."""
        told = {}
        for bit, end, events in (
            (1, self.pipe.reader, select.POLLIN),
            (2, self.pipe.writer, select.POLLOUT),
        ):
            if poll_usage & bit:
                poller = select.poll()
                poller.register(end.fileno(), events)
                told[events] = sum(revents for _, revents in poller.poll(0))
        return told

    def _eof(self) -> None:
        """The last writer is killed: readers that sleep see end of file."""
        self.board.expect_end(writers=True)
        self.pipe.writer.close()
        self._kill_last(self._slots(writes=True), self._slots(writes=False), "eof")
        self.pipe.reader.nonblocking = True
        if self.pipe.reader.read(1) != b"":
            self.findings.append("no writer is left, but the zygote's reader is not at the end")

    def _epipe(self) -> None:
        """The last reader is killed: writers that sleep at a full pipe get EPIPE."""
        self.board.set_phase(Phase.READERS_REST)
        self._settle(self._is_full, "readers rest, the pipe is full, writers wait")
        self.board.expect_end(readers=True)
        self.pipe.reader.close()
        self._kill_last(self._slots(writes=False), self._slots(writes=True), "epipe")

    def _is_full(self) -> bool:
        board = self.board
        readers, writers = self._slots(writes=False), self._slots(writes=True)
        rest = all(board.get(slot, Word.RESTS) for slot in readers)
        return rest and all(self._sleeps(slot) for slot in writers)

    def _kill_last(self, victims: list[int], survivors: list[int], what: str) -> None:
        company = self._company(survivors)
        manners = {slot: self._manner_of(slot) for slot in survivors if slot not in company}
        self.kill(victims[1:])
        pid = next(pid for pid, slot in self.cast.items() if slot == victims[0])
        dying = [pid] + [each for each, slot in self.cast.items() if slot in company]
        self.rng.shuffle(dying)
        killed_at = monotonic_ns()
        for each in dying:
            os.kill(each, signal.SIGKILL)
        asleep: set[int] = set()
        reaped_at = 0

        def all_have_ended() -> bool:
            nonlocal reaped_at
            if pid not in self.cast:
                reaped_at = reaped_at or monotonic_ns()
                # Who is awake only waits for a processor.
                if monotonic_ns() - reaped_at > LATE_SECONDS * 1e9:
                    asleep.update(slot for slot in self.cast.values() if self._sleeps(slot))
            return not self.cast

        self.wait(all_have_ended, f"survivors see {what}", END_SECONDS)
        for slot, manner in manners.items():
            delay = (self.board.get(slot, Word.ENDED_AT) - killed_at) / 1e9
            self.delays.setdefault(f"{what} {manner}", []).append(delay)
            if slot in asleep:
                self.findings.append(f"slot {slot} ({manner}) slept on, {what} after {delay:.3f} s")
        self._count(f"{what} in company" if company else what)

    def _company(self, survivors: list[int]) -> list[int]:
        """Who is killed with the last peer: the wake that its death gives them dies with them."""
        if self.rng.random() < 0.5:
            return []
        return self.rng.sample(survivors, self.rng.randint(0, len(survivors) - 1))

    def _manner_of(self, slot: int) -> str:
        return "polling" if self.board.get(slot, Word.CALL) == Call.POLL else "blocked"

    def _leave(self) -> None:
        """The writers go by themselves, and then the zygote."""
        self.board.set_phase(Phase.LEAVE)
        self.wait(lambda: not self._slots(writes=True), "writers leave", END_SECONDS)
        self.board.expect_end(writers=True)
        self.pipe.writer.close()
        self.wait(lambda: not self.cast, "readers see the end", END_SECONDS)

    def _silence(self) -> None:
        """One record at a time for readers that sleep, while one of them may be killed."""
        self._incarnation += 1
        number = self._incarnation
        books = self.board.incarnation(number)
        for sequence in range(1, 9):
            if self.episode.records.bytes_of(number, sequence) > self.episode.capacity // 2:
                break  # the zygote must not wait for room
            self._settle(lambda: all(map(self._sleeps, self._slots(writes=False))), "readers wait")
            readers = self._slots(writes=False)
            dies = self.rng.choice(readers) if len(readers) > 1 else -1
            books[Log.BEGUN] = sequence
            self.pipe.writer.write(self.episode.records.encode(number, sequence))
            books[Log.DONE] = sequence
            if dies >= 0:
                self.kill([dies])
                self.spawn(dies)
            self.wait(lambda: self.pipe.reader.pending == 0, "somebody takes the record", 5)
            self._count("kill of a chosen one" if dies >= 0 else "single record")
        self.kill(list(self.cast.values()))
        self.audit.close_books(self.board, self._incarnation)

    def _massacre(self) -> None:
        """All are killed in full motion; the zygote reads what is left."""
        self._replaces = False
        self._note_ring()
        self.kill(list(self.cast.values()))
        self._await_strangers()
        self.audit.close_books(self.board, self._incarnation)
        self.pipe.reader.nonblocking = True
        reader = Actor(self.board, ZYGOTE, self.episode, self._incarnation + 1, self._errors)
        if not self.pipe.reader.nonblocking:
            self.findings.append("O_NONBLOCK was set by the only holder, and is not set")
        while self.pipe.reader.pending:
            data = self.pipe.reader.read(65536)
            if not data:
                self.findings.append(f"{data!r} from a pipe that is not empty")
                break
            reader.note(memoryview(data))
        self._count("massacre")

    # -- Rare states

    def _count(self, state: str, by: int = 1) -> None:
        if by:
            self.rare[state] = self.rare.get(state, 0) + by

    def _note_ring(self) -> None:
        """What the pipe's own statistics say happened."""
        ring = self.pipe.snapshot()
        if ring is None:
            return
        if ring.slice_found_work:
            self.findings.append(f"slice_found_work is {ring.slice_found_work}: lost wakes")
        slots = (ring.head - self.episode.first_index) % 2**32
        self._count("lock taken from the dead", ring.recoveries)
        self._count("dead process reaped", ring.reaped)
        self._count("pipe empty: reader slept", ring.read_sleeps)
        self._count("pipe full: writer slept", ring.write_sleeps)
        self._count("EAGAIN", ring.read_again + ring.write_again)
        self._count("merge", max(0, ring.writes - slots) if self.episode.most == 3 else 0)
        self._count("wrap of the ring", slots // ring.ring_size)
        self._count("wrap of an index", int(ring.head < self.episode.first_index))
        self._count("broadcast", ring.broadcasts)

    def result(self) -> dict[str, Any]:
        """What the episode was and brought."""
        audit = self.audit
        self._count("record of a killed writer", audit.uncertain)
        self._count("of these: it was there", audit.uncertain_seen)
        self._count("cell that died with its reader", audit.in_hand)
        self._count("signal handler ran", sum(self._handled()))
        return {
            "episode": self.episode.number,
            "transport": self.episode.transport,
            "kills": self.kills,
            "actors": self._incarnation // 2,
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
