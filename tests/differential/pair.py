"""Both sides together in one process: does an operation to each and compares what can be seen."""

from __future__ import annotations

import signal
from collections import Counter

from differential.ends import FuzzEnd
from differential.guard import may_sleep
from differential.operations import (
    BROKEN,
    INTO_BUFFERS,
    ON_AN_END,
    READS,
    SLOTS,
    WRITES,
    Op,
    Result,
    outcome,
)
from differential.setup import Setup
from differential.sides import KernelSide, ShmSide, Side

_SIGPIPE = frozenset({signal.SIGPIPE})


class Difference(Exception):  # noqa: N818  # it is what the fuzzer looks for
    """The two sides do not agree."""

    def __init__(self, what: str, kernel: object, shm: object) -> None:
        super().__init__(what, kernel, shm)
        self.what = what
        self.kernel = kernel
        self.shm = shm


class Pair:
    """A kernel's pipe and a shmpipe, always treated alike.

    A forked copy of it works on the same two pipes.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.kernel: Side = KernelSide(setup)
        self.shm: Side = ShmSide(setup)
        self.active = ""
        """The side that a call is in, for whoever finds us stuck."""
        self.step = 0
        self.tally: Counter[tuple[str, object]] = Counter()
        """How often which operation had which result: an errno, 0 or anything else (1)."""

    def on_an_end(self, op: Op, readers: int, writers: int) -> bool:
        """An operation on one end.  False: not done, as the end is closed or might sleep."""
        name, slot = op[0], op[1]
        kernel_end, shm_end = self.kernel.ends[slot], self.shm.ends[slot]
        if kernel_end is None or shm_end is None:
            return False
        if (name in WRITES or name in READS) and may_sleep(kernel_end, op, readers, writers):
            return False
        function = ON_AN_END[name]
        self.step += 1
        self.active = "kernel"
        expected = outcome(function, kernel_end, op, self.step)
        if expected == BROKEN:
            expected = self._broken()
        self.active = "shmpipe"
        result = outcome(function, shm_end, op, self.step)
        if result == BROKEN:
            result = self._broken()
        # In words (_broken) or bytes or a number; b"" and 0 are both the end of something.
        known = expected if type(expected) is int and expected < 0 else int(bool(expected))
        self.tally[name, known] += 1
        if expected != result:
            raise Difference("result", expected, result)
        if name in INTO_BUFFERS and kernel_end.received != shm_end.received:
            raise Difference("bytes", kernel_end.received, shm_end.received)
        return True

    def on_both(self, name: str, *arguments: object) -> Result:
        """An operation on the sides themselves: the result, which is the same."""
        self.active = "kernel"
        expected = outcome(getattr(self.kernel, name), *arguments)
        self.active = "shmpipe"
        result = outcome(getattr(self.shm, name), *arguments)
        self.tally[name, expected] += 1
        if expected != result:
            raise Difference("result", expected, result)
        return expected

    def compare_facts(self, slot: int) -> None:
        """FIONREAD, F_GETPIPE_SZ and F_GETFL of one end."""
        kernel_end, shm_end = self.kernel.ends[slot], self.shm.ends[slot]
        if kernel_end is None or shm_end is None:
            return
        expected, seen = kernel_end.facts(), shm_end.facts()
        if expected != seen:
            raise Difference(f"(FIONREAD, capacity, flags) of slot {slot}", expected, seen)

    def compare_all_facts(self) -> None:
        """The same of all ends."""
        for slot in range(SLOTS):
            self.compare_facts(slot)

    def compare_revents(self) -> None:
        """poll(2) with all bits."""
        expected, seen = self.kernel.poll(), self.shm.poll()
        if expected != seen:
            raise Difference("revents by slot", _in_hex(expected), _in_hex(seen))

    def compare_events(self) -> None:
        """Events since the last time, one by one: edge- and level-triggered, also those once."""
        expected, seen = self.kernel.events(), self.shm.events()
        for trigger, events in expected.items():
            if events != seen[trigger]:
                raise Difference(
                    f"events by slot, {trigger}", _in_hex(events), _in_hex(seen[trigger])
                )

    def compare_signals(self) -> None:
        """SIGIO since the last time, one by one (IO-2 to IO-7)."""
        expected, seen = self.kernel.signals(), self.shm.signals()
        if expected != seen:
            raise Difference("signals: slot, si_code, si_band", expected, seen)

    def drain(self) -> None:
        """Reads everything that is left; nobody may sleep in it."""
        for slot in range(SLOTS):
            ends = self.kernel.ends[slot], self.shm.ends[slot]
            if ends[0] is None or ends[1] is None or ends[0].mode == "w":
                continue
            while True:
                expected, seen = (self._piece(end) for end in ends if end)
                if expected != seen:
                    raise Difference(f"contents left in slot {slot}", expected, seen)
                if not isinstance(expected, bytes) or not expected:
                    break

    def _piece(self, end: FuzzEnd) -> Result:
        return outcome(end.read, 5000) if end.pending() else b""

    def _broken(self) -> Result:
        """EPIPE comes with one SIGPIPE, which the session has blocked (WR-15)."""
        return BROKEN if signal.sigtimedwait(_SIGPIPE, 0) else "EPIPE without SIGPIPE"


def _in_hex(events: list[tuple[int, int]]) -> str:
    return " ".join(f"{slot}:{revents:#x}" for slot, revents in events) or "none"
