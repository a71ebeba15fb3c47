"""The watchdog: who sleeps although he could go on, and what everybody was doing then."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from time import monotonic_ns

from shmpipe_tools.torture.board import Board, Call, Phase, Word
from shmpipe_tools.torture.lateness import Looks
from shmpipe_tools.torture.pipes import Pipe
from shmpipe_tools.torture.procfs import state_of

DUMP_SIGNAL = signal.SIGQUIT  # faulthandler answers it


class HangError(Exception):
    """Somebody does not go on; the text says who and where everybody is."""


class Judge:
    """Looks now and then at those who have been in a call for long."""

    LOOK_EVERY = 0.1

    def __init__(self, board: Board, pipe: Pipe, patience: float) -> None:
        self._board = board
        self._pipe = pipe
        self._patience = patience
        self._next = 0.0
        self._looks = Looks(2 * self.LOOK_EVERY)
        # slot -> ((call, since, switches), first seen beside work: a time of our looks)
        self._beside_work: dict[int, tuple[tuple[int, int, str], float]] = {}

    def look(self, slots: Callable[[], list[int]]) -> None:
        """A HangError if one of them sleeps in one call for too long while it could go on."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.LOOK_EVERY
        self._looks.step()
        if self._board.held:
            # Who waits for what the stopped one has: its tormentor looks at all of them (Hold).
            self._beside_work.clear()
            return
        late = [each for each in slots() if self._is_late(each)]
        self._beside_work = {k: v for k, v in self._beside_work.items() if k in late}
        if not late:
            return
        data, room = self._work()
        for slot in late:
            call = self._board.get(slot, Word.CALL)
            since = self._board.get(slot, Word.SINCE)
            if not (room if self._board.get(slot, Word.WRITES) else data):
                self._beside_work.pop(slot, None)
                continue
            sleep = call, since, _switches(self._board.get(slot, Word.PID))
            known = self._beside_work.get(slot)
            if known is None or known[0] != sleep:
                self._beside_work[slot] = sleep, self._looks.seconds
            elif self._looks.seconds - known[1] > self._patience:
                what = f"slot {slot} sleeps in {Call(call).name} beside {data} bytes, room: {room}"
                raise HangError(what)

    def _is_late(self, slot: int) -> bool:
        call = self._board.get(slot, Word.CALL)
        if call == Call.NONE or self._board.phase == Phase.SETUP:
            return False
        if monotonic_ns() - self._board.get(slot, Word.SINCE) < 1e9 * self._patience / 2:
            return False
        return state_of(self._board.get(slot, Word.PID)) == "S"

    def _work(self) -> tuple[int, bool]:
        """Bytes to read, and whether there is room."""
        ring = self._pipe.snapshot()
        if ring is not None:
            return ring.pending, ring.occupancy < ring.max_usage
        end = self._pipe.reader if not self._pipe.reader.closed else self._pipe.writer
        return end.pending, end.pending == 0


def _switches(pid: int) -> str:
    """How often the process went to sleep: a sleeper that looks and sleeps again raises it."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("voluntary_ctxt_switches"):
                return line
    return ""


def dump(board: Board, pipe: Pipe, slots: list[int], errors: int) -> str:
    """Where everybody is: kernel stack, wait channel, system call, Python stack, and the ring."""
    lines = list(_of_the_ring(pipe))
    for slot in slots:
        pid = board.get(slot, Word.PID)
        words = {word.name.lower(): board.get(slot, word) for word in Word}
        lines.append(f"--- slot {slot}: {json.dumps(words)}")
        lines.append(f"state {state_of(pid)}")
        for file in ("wchan", "syscall", "schedstat", "stack"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{file}") as source:
                lines.append(f"{file}: {source.read().strip()}")
    # The stacks of the interpreters come last: asking for them wakes a sleeper.
    for slot in slots:
        with contextlib.suppress(ProcessLookupError, OSError):
            os.write(errors, f"--- slot {slot}, Python\n".encode())
            os.kill(board.get(slot, Word.PID), DUMP_SIGNAL)
            time.sleep(0.05)
    return "\n".join(lines)


def _of_the_ring(pipe: Pipe) -> Iterator[str]:
    ring = pipe.snapshot()
    if ring is not None:
        yield "--- the ring"
        yield json.dumps(asdict(ring))
