"""The last act of an episode: what the survivors must see, each way in a method of its own."""

import os
import select
import signal
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING

from shmpipe_tools.torture.actor import Actor
from shmpipe_tools.torture.board import ZYGOTE, Call, Log, Phase, Word
from shmpipe_tools.torture.lateness import Survivors
from shmpipe_tools.torture.procfs import state_of
from shmpipe_tools.torture.rest import Rest

if TYPE_CHECKING:
    from shmpipe_tools.torture.scene import Scene

# A survivor must see the end within a second; so much longer is waited to tell late from never.
END_SECONDS = 10.0


class LastAct:
    """Of one scene, when the tormentors have let go."""

    def __init__(self, scene: "Scene") -> None:
        self._scene = scene
        self._board = scene.board
        self._episode = scene.episode
        self._pipe = scene.pipe
        self._rest = Rest(scene)

    def play(self) -> None:
        """The episode's final; what is wrong is in the scene's findings."""
        final = self._episode.final
        if final != "massacre":
            self._muster()
            self._scene.note_ring()
        getattr(self, f"_{final}")()

    def _slots(self, *, writes: bool) -> list[int]:
        board = self._board
        return [
            slot for slot in self._scene.cast.values() if board.get(slot, Word.WRITES) == writes
        ]

    def _muster(self) -> None:
        """Everything is read, writers rest, readers sleep: here the books are closed."""
        self._board.set_phase(Phase.WRITERS_REST)
        self._settle(self._is_mustered, "writers rest, the pipe is empty, readers wait")
        self._scene.replaces = False
        self._scene.audit.close_books(self._board, self._scene.incarnation)
        self._check_levels()
        self._rest.look()

    def _is_mustered(self) -> bool:
        board = self._board
        readers, writers = self._slots(writes=False), self._slots(writes=True)
        return (
            bool(readers and writers)
            and all(board.get(slot, Word.RESTS) for slot in writers)
            and self._pipe.reader.pending == 0
            and all(self._sleeps(slot) for slot in readers)
            and not any(board.get(slot, Word.UNDERSTUDY) for slot in readers + writers)
            and not self._scene.strangers()
        )

    def _sleeps(self, slot: int) -> bool:
        in_call = self._board.get(slot, Word.CALL) in (Call.READ, Call.WRITE, Call.POLL)
        return in_call and state_of(self._board.get(slot, Word.PID)) == "S"

    def _settle(self, condition: Callable[[], bool], what: str) -> None:
        """Until a condition holds twice, with nothing happened in between."""
        before: list[int] = []

        def settled() -> bool:
            nonlocal before
            now = [self._board.get(slot, Word.PROGRESS) for slot in self._scene.cast.values()]
            now += self._scene.cast
            is_same, before = now == before, now
            return condition() and is_same

        self._scene.wait(settled, what, 20)

    def _check_levels(self) -> None:
        """Empty and at rest: pollers must be told just that (PL-1, PL-2)."""
        ring = self._pipe.snapshot()
        if ring is None:
            return
        told = self._levels(ring.poll_usage)
        if told.get(select.POLLIN) and self._scene.kills:
            # What somebody foretold to pollers who died before he published it.  It stands until
            # somebody reads, for only a reader can take the companion's byte.
            self._scene.count("readiness left by the dead")
            self._pipe.reader.nonblocking = True
            self._pipe.reader.read(1)
            self._pipe.reader.nonblocking = self._episode.nonblocking_readers
            told = self._levels(ring.poll_usage)
        due = {select.POLLIN: 0, select.POLLOUT: select.POLLOUT}
        if any(told[asked] != due[asked] for asked in told):
            self._scene.findings.append(f"empty and at rest, but poll says {told} (asked: told)")

    def _levels(self, poll_usage: int) -> dict[int, int]:
        """What poll says of those ends that somebody looks at: a look of ours changes nothing."""
        told = {}
        for bit, end, events in (
            (1, self._pipe.reader, select.POLLIN),
            (2, self._pipe.writer, select.POLLOUT),
        ):
            if poll_usage & bit:
                poller = select.poll()
                poller.register(end.fileno(), events)
                told[events] = sum(revents for _, revents in poller.poll(0))
        return told

    def _eof(self) -> None:
        """The last writer is killed: readers that sleep see end of file."""
        self._board.expect_end(writers=True)
        self._pipe.writer.close()
        self._kill_last(self._slots(writes=True), self._slots(writes=False), "eof")
        self._pipe.reader.nonblocking = True
        if self._pipe.reader.read(1) != b"":
            self._scene.findings.append(
                "no writer is left, but the zygote's reader is not at the end"
            )

    def _epipe(self) -> None:
        """The last reader is killed: writers that sleep at a full pipe get EPIPE."""
        self._board.set_phase(Phase.READERS_REST)
        self._settle(self._is_full, "readers rest, the pipe is full, writers wait")
        self._board.expect_end(readers=True)
        self._pipe.reader.close()
        self._kill_last(self._slots(writes=False), self._slots(writes=True), "epipe")

    def _is_full(self) -> bool:
        board = self._board
        readers, writers = self._slots(writes=False), self._slots(writes=True)
        rest = all(board.get(slot, Word.RESTS) for slot in readers)
        return rest and all(self._sleeps(slot) for slot in writers)

    def _kill_last(self, victims: list[int], survivors: list[int], what: str) -> None:
        company = self._company(survivors)
        ended = f"{what}, company" if company else what
        manners = {slot: self._manner_of(slot) for slot in survivors if slot not in company}
        self._scene.kill(victims[1:])
        pid = next(pid for pid, slot in self._scene.cast.items() if slot == victims[0])
        dying = [pid] + [each for each, slot in self._scene.cast.items() if slot in company]
        self._scene.rng.shuffle(dying)
        watched = Survivors(self._board, list(manners), ended)
        killed_at = monotonic_ns()
        for each in dying:
            os.kill(each, signal.SIGKILL)
        self._await_the_end(watched, dying, ended)
        for slot, manner in manners.items():
            delay = (self._board.get(slot, Word.ENDED_AT) - killed_at) / 1e9
            # Several have to share the processors, so who was alone is told apart.
            row = ended if company else f"{what}, {manner if len(manners) == 1 else 'a crowd'}"
            self._scene.delays.setdefault(row, []).append(delay)
        self._scene.count(ended)

    def _await_the_end(self, survivors: Survivors, dying: list[int], what: str) -> None:
        """Until everybody has ended; who ended too late after these were gone is a finding."""
        cast = self._scene.cast

        def all_have_seen() -> bool:
            are_dead = not any(pid in cast for pid in dying)
            survivors.look(is_due=are_dead)
            return are_dead and survivors.waiting.isdisjoint(cast.values())

        self._scene.wait(all_have_seen, f"survivors see {what}", END_SECONDS)
        self._board.set_phase(Phase.CURTAIN)
        self._scene.wait(lambda: not cast, "survivors leave", END_SECONDS)
        self._scene.findings += survivors.findings()

    def _company(self, survivors: list[int]) -> list[int]:
        """Who is killed with the last peer: the wake that its death gives them dies with them."""
        if self._scene.rng.random() < 0.5:
            return []
        return self._scene.rng.sample(survivors, self._scene.rng.randint(0, len(survivors) - 1))

    def _manner_of(self, slot: int) -> str:
        return "polling" if self._board.get(slot, Word.CALL) == Call.POLL else "blocked"

    def _leave(self) -> None:
        """The writers go by themselves, and then the zygote."""
        self._board.set_phase(Phase.LEAVE)
        self._scene.wait(lambda: not self._slots(writes=True), "writers leave", END_SECONDS)
        self._board.expect_end(writers=True)
        survivors = Survivors(self._board, self._slots(writes=False), "the end")
        self._pipe.writer.close()
        self._await_the_end(survivors, [], "the end")
        self._scene.count("leave")

    def _silence(self) -> None:
        """One record at a time for readers that sleep, while one of them may be killed."""
        self._scene.incarnation += 1
        number = self._scene.incarnation
        books = self._board.incarnation(number)
        for sequence in range(1, 9):
            if self._episode.records.bytes_of(number, sequence) > self._episode.capacity // 2:
                break  # the zygote must not wait for room
            self._settle(lambda: all(map(self._sleeps, self._slots(writes=False))), "readers wait")
            readers = self._slots(writes=False)
            dies = self._scene.rng.choice(readers) if len(readers) > 1 else -1
            books[Log.BEGUN] = sequence
            self._pipe.writer.write(self._episode.records.encode(number, sequence))
            books[Log.DONE] = sequence
            if dies >= 0:
                self._scene.kill([dies])
                self._scene.spawn(dies)
            self._scene.wait(lambda: self._pipe.reader.pending == 0, "somebody takes the record", 5)
            self._scene.count("kill of a chosen one" if dies >= 0 else "single record")
        self._scene.kill(list(self._scene.cast.values()))
        self._scene.audit.close_books(self._board, self._scene.incarnation)
        self._rest.clear()

    def _massacre(self) -> None:
        """All are killed in full motion; the zygote reads what is left."""
        self._scene.replaces = False
        self._scene.note_ring()
        self._scene.kill(list(self._scene.cast.values()))
        self._scene.await_strangers()
        self._scene.audit.close_books(self._board, self._scene.incarnation)
        self._pipe.reader.nonblocking = True
        reader = Actor(
            self._board, ZYGOTE, self._episode, self._scene.incarnation + 1, self._scene.errors
        )
        if not self._pipe.reader.nonblocking:
            self._scene.findings.append("O_NONBLOCK was set by the only holder, and is not set")
        while self._pipe.reader.pending:
            data = self._pipe.reader.read(65536)
            if not data:
                self._scene.findings.append(f"{data!r} from a pipe that is not empty")
                break
            reader.note(memoryview(data))
        self._rest.clear()
        self._scene.count("massacre")
