"""An actor: a process that reads or writes records, and writes down what it is about to do and did.

What it writes down lies on the board, so that after its death the auditor knows which one record
is uncertain, and what a reader may have had in its hand.
"""

import contextlib
import ctypes
import os
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from random import Random
from time import monotonic_ns
from typing import NoReturn

import shmpipe
from shmpipe_tools.torture.board import (
    LOG_WORDS,
    UNDERSTUDIES,
    Board,
    Call,
    Log,
    Phase,
    Word,
)
from shmpipe_tools.torture.faults import Fault
from shmpipe_tools.torture.pipes import AnyEnd, Pipe
from shmpipe_tools.torture.plan import RESIZES, Episode
from shmpipe_tools.torture.stressor import stressors

EXIT_FAILED = 70
REST_SECONDS = 0.002
_BOW_SECONDS = 0.01

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


class ViolationError(Exception):
    """The pipe did what a pipe does not do."""


def die_with_parent(parent: int) -> None:
    """SIGKILL for this process when its parent ends, however that ends."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


class Actor:
    """A reader or a writer in a slot of the board."""

    def __init__(
        self, board: Board, slot: int, episode: Episode, incarnation: int, errors: int
    ) -> None:
        self.board = board
        self.slot = slot
        self.episode = episode
        self.records = episode.records
        self.number = incarnation
        self.errors = errors
        self.state = board.slot(slot)
        self.log = board.log(slot)
        self.mine = board.incarnation(incarnation)
        self.hand = board.hand(slot)
        self.rng = Random(f"{episode.seed}/{incarnation}")
        self.writes = bool(self.mine[Log.WRITES])
        manners = episode.writer_manners if self.writes else episode.reader_manners
        self.manner = manners[slot % len(manners)]
        self.pause = episode.writer_pause if self.writes else episode.reader_pause
        self.end: AnyEnd
        self.look: Callable[[], object] = _nothing
        self.fault = Fault.present()

    # -- Life

    def play(self, pipe: Pipe) -> NoReturn:
        """What a forked actor does, to its end."""

        def opened() -> AnyEnd:
            keep, other = (pipe.writer, pipe.reader) if self.writes else (pipe.reader, pipe.writer)
            other.close()
            if not pipe.name or self.rng.random() < 0.5:
                return keep
            self.begin(Call.OPEN, 0)
            end = pipe.open(self.writes)
            self.state[Word.CALL] = Call.NONE
            keep.close()
            return end

        self.run(opened)

    def run(self, opened: Callable[[], AnyEnd]) -> NoReturn:
        """Opens the end and goes on until the play is over."""
        code = EXIT_FAILED
        try:
            self.take_up(opened())
            while True:
                self.turn()
        except SystemExit as leaving:
            code = int(str(leaving.code or 0))
        except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
            self.state[Word.FAILED] = 1
            text = f"slot {self.slot}, pid {os.getpid()}: {traceback.format_exc()}"
            os.write(self.errors, text.encode(errors="replace"))
        finally:
            os._exit(code)

    def take_up(self, end: AnyEnd) -> None:
        """Gets ready to use an end."""
        self.end = end
        self.look = _looker(end, self.manner, self.writes)

    def turn(self) -> None:
        """One record, or one read, and what was asked for in between."""
        self._attend()
        if self.writes:
            self._write_record()
        else:
            self._read_records()
        if self.pause:
            time.sleep(self.rng.expovariate(1 / self.pause))

    def turn_if_ready(self) -> None:
        """The same for who must not wait for long: a turn if a call would do something now."""
        if select.select(*self._sets(), [], 0.01)[0:2] != ([], []):
            self.turn()

    def _sets(self) -> tuple[list[AnyEnd], list[AnyEnd]]:
        return ([], [self.end]) if self.writes else ([self.end], [])

    def play_on(self) -> None:
        """Turn after turn."""
        while True:
            self.turn()

    def look_on(self) -> None:
        """Looks after look, without taking anything."""
        while True:
            select.select(*self._sets(), [], 0.001)

    def drop_end(self) -> None:
        """Forgets the end without closing it: it is collected."""
        warnings.simplefilter("ignore", ResourceWarning)
        self.look = _nothing
        del self.end

    def leave(self) -> NoReturn:
        """Ends of its own will, the end closed or not."""
        self.state[Word.LEFT] = 1
        if self.rng.random() < 0.5:
            self.end.close()
        os._exit(0)

    def understudy(self, body: "Callable[[Actor], None]") -> int:
        """Forks a child with this actor's ends, which plays in a slot of its own."""
        slot = self.slot + UNDERSTUDIES
        self.state[Word.UNDERSTUDY] = 1
        parent = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = EXIT_FAILED
        try:
            die_with_parent(parent)
            child = Actor(self.board, slot, self.episode, self.number + 1, self.errors)
            child.state[Word.PID] = os.getpid()
            child.state[Word.INCARNATION] = child.number
            child.state[Word.WRITES] = int(self.writes)
            child.take_up(self.end)
            body(child)
            code = 0
        except SystemExit as leaving:
            code = int(str(leaving.code or 0))
        except BaseException:  # noqa: BLE001
            text = f"understudy {slot}, pid {os.getpid()}: {traceback.format_exc()}"
            os.write(self.errors, text.encode(errors="replace"))
        finally:
            os._exit(code)

    def bury(self, pid: int, *, within: float = 60.0) -> int:
        """Waits for an understudy: its exit code, negative for a signal."""
        until = time.monotonic() + within
        descriptor = os.pidfd_open(pid)
        try:
            while not select.select([descriptor], [], [], REST_SECONDS)[0]:
                if time.monotonic() > until:
                    raise ViolationError(f"child {pid} does not end within {within} s")
                if self.board.phase != Phase.RUN:
                    # It may wait for what no longer comes.
                    os.kill(pid, signal.SIGKILL)
        finally:
            os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self.state[Word.UNDERSTUDY] = 0
        if code not in (0, -signal.SIGKILL):
            raise ViolationError(f"child {pid} ended with {code}")
        return code

    # -- Between two calls

    def begin(self, call: Call, request: int) -> None:
        """Notes which call comes now, and how many bytes it may take."""
        self.state[Word.REQUEST] = request
        self.state[Word.SINCE] = monotonic_ns()
        self.state[Word.CALL] = call

    def _attend(self) -> None:
        order = self.state[Word.ORDER]
        if order:
            self.state[Word.ORDER] = 0
            stressor = list(stressors().values())[order - 1]
            assert stressor.act is not None
            if self.board.phase == Phase.RUN:
                stressor.act(self)
        if self.slot >= UNDERSTUDIES and self.board.phase != Phase.RUN:
            raise SystemExit(0)  # its actor waits for its end, and all for its actor
        while self.board.has_to_rest(writes=self.writes):
            self.state[Word.RESTS] = 1
            time.sleep(REST_SECONDS)
        self.state[Word.RESTS] = 0
        if self.writes and self.board.phase == Phase.LEAVE:
            self.leave()
        self.fault.between(self)

    # -- Reading

    def _read_records(self) -> None:
        data = self._wait_and_read()
        if data is not None:
            if not data:
                self._ended(self.board.end_of_file_is_due, "end of file")
            self.note(data)
        self.state[Word.CALL] = Call.NONE
        self.state[Word.PROGRESS] += 1

    def _wait_and_read(self) -> memoryview | None:
        if self.manner == "edge" and self.end.nonblocking:
            data = self._read()
            if data is None:
                self._wait()
            return data
        if self.manner != "direct":
            self._wait()
        return self._read()

    def _read(self) -> memoryview | None:
        state = self.state
        request = self.episode.request
        if self.rng.random() < 0.75:
            state[Word.BLIND] = 0
            self.begin(Call.READ, request)
            size = self.end.readinto(self.hand[:request])
            return None if size is None else self.fault.got(self, self.hand[:size])
        state[Word.BLIND] = 1
        self.begin(Call.READ, request)
        data = self.end.read(request)
        return None if data is None else self.fault.got(self, memoryview(data))

    def note(self, data: memoryview) -> None:
        """Verifies what was read, and logs it: from then on it is taken."""
        ids = self.records.decode(data)
        start = self.state[Word.LOGGED]
        end = start + len(ids)
        if end + 1 > LOG_WORDS:
            raise ViolationError("more was read than can have been written: the log is full")
        if isinstance(ids, list):
            self.log[start] = ids[0]
        else:
            self.log[start:end] = ids
        self.log[end] = 0  # the end of a read
        self.state[Word.LOGGED] = end + 1
        if end > LOG_WORDS // 2:
            self.board.note_full()

    # -- Writing

    def _write_record(self) -> None:
        mine, state = self.mine, self.state
        sequence = mine[Log.DONE] + 1
        data = memoryview(self.fault.sent(self, self.records.encode(self.number, sequence)))
        mine[Log.PART] = 0
        mine[Log.BEGUN] = sequence
        whole = self.records.is_atomic(self.number, sequence)
        while data:
            size = self._wait_and_write(data)
            if size is None:
                continue
            if whole and size != len(data):
                raise ViolationError(f"a write of {len(data)} bytes wrote {size}: WR-4")
            data = data[size:]
            mine[Log.PART] += size
        mine[Log.DONE] = sequence
        state[Word.CALL] = Call.NONE
        state[Word.PROGRESS] += 1
        if self.episode.resizes and sequence % 16 == 0:
            self._resize()

    def _wait_and_write(self, data: memoryview) -> int | None:
        if self.manner not in ("direct", "edge"):
            self._wait()
        self.begin(Call.WRITE, len(data))
        try:
            self.fault.writing(self)
            size = self.end.write(data)
        except BrokenPipeError:
            self._ended(self.board.broken_pipe_is_due, "EPIPE")
        if size is None and self.manner == "edge":
            self._wait()
        return size

    def _resize(self) -> None:
        self.begin(Call.RESIZE, 0)
        # Busy: more is in it than the new capacity holds (CP-6).
        with contextlib.suppress(OSError):
            self.end.capacity = self.rng.choice(RESIZES)
        self.state[Word.CALL] = Call.NONE

    # -- Waiting, and the end

    def _wait(self) -> None:
        self.begin(Call.POLL, 0)
        self.look()

    def _ended(self, due: Callable[[], bool], what: str) -> NoReturn:
        self.fault.ending()
        self.state[Word.ENDED_AT] = monotonic_ns()
        self.state[Word.CALL] = Call.NONE
        if not due():
            raise ViolationError(f"{what}, but the other side is open")
        # What comes now costs more than to see the end, and would keep those from a processor who
        # are still to see it.
        while self.board.phase != Phase.CURTAIN:
            time.sleep(_BOW_SECONDS)
        raise SystemExit(0)


def _looker(end: AnyEnd, manner: str, writes: bool) -> Callable[[], object]:
    """The function that waits until a call would not block, without a time-out."""
    if manner == "direct":
        return _nothing
    if manner == "wait" and isinstance(end, shmpipe.End):
        return end.wait
    descriptor = end.fileno()
    if manner == "select":
        sets: tuple[list[int], list[int]] = ([], [descriptor]) if writes else ([descriptor], [])
        return lambda: select.select(*sets, [])
    if manner in ("epoll", "edge"):
        poller = select.epoll()
        events = select.EPOLLOUT if writes else select.EPOLLIN
        if manner == "edge" and end.nonblocking:
            events |= select.EPOLLET
        poller.register(descriptor, events)
        return poller.poll
    plain = select.poll()
    plain.register(descriptor, select.POLLOUT if writes else select.POLLIN)
    return plain.poll


def _nothing() -> None:
    """Does not wait."""
