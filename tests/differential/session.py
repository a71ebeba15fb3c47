"""One sequence, running: does each operation to both pipes and raises Difference if they differ."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from types import FrameType, TracebackType

from differential.child import Child
from differential.guard import may_wait_for_partner
from differential.ledger import CHILDREN, PARENT, Ledger
from differential.operations import ON_AN_END, READERS, WRITERS, Op
from differential.pair import Difference, Pair
from differential.setup import Setup
from differential.sides import SIGNALS

PATIENCE_SECONDS = 20.0
_EVERYTHING_EVERY = 16


class StuckError(Exception):
    """A call that the kernel had done at once does not return."""


class Session:
    """Runs on the main thread, because of the alarm that finds calls which hang.

    thorough: all facts of all ends after each operation; else those of one end, and all of them
    every 16 operations.
    """

    def __init__(
        self, setup: Setup, *, thorough: bool = False, patience: float = PATIENCE_SECONDS
    ) -> None:
        self.setup = setup
        self.pair = Pair(setup)
        self._all_facts_every = 1 if thorough else _EVERYTHING_EVERY
        self._patience = patience
        self._ledger = Ledger()
        self._children: dict[int, Child] = {}
        self._done = 0
        self._others: dict[str, Callable[..., bool]] = {
            "close": self._close,
            "pipe": self._pipe,
            "open": self._open,
            "mkfifo": self._mkfifo,
            "unlink": self._unlink,
            "poll": self._poll,
            "events": self._events,
            "rearm": self._rearm,
            "look": self._look,
            "fork": self._fork,
            "exit": self._exit,
            "kill": self._kill,
            "child": self._child,
        }

    def __enter__(self) -> Session:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPIPE, *SIGNALS})
        self._handler = signal.signal(signal.SIGALRM, self._stuck)
        signal.setitimer(signal.ITIMER_REAL, self._patience)
        if self.setup.named:
            self._mkfifo()
        else:
            self._pipe()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for child in self._children.values():
            child.kill()
        self.pair.kernel.shut()
        self.pair.shm.shut()
        while signal.sigtimedwait({signal.SIGPIPE, *SIGNALS}, 0):  # also those of closing
            pass
        signal.signal(signal.SIGALRM, self._handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def do(self, op: Op) -> bool:
        """One operation, and a look at everything.  False: it had nothing to work on."""
        name = op[0]
        try:
            if name in ON_AN_END:
                done = self._on_an_end(op)
            else:
                done = self._others[name](*op[1:])
            if done:
                self._done += 1
                self._compare(op)
        except StuckError:
            raise self._hang() from None
        return done

    def finish(self) -> None:
        """Compares what is left in the pipes, and signals that nobody has asked for."""
        try:
            self.pair.compare_all_facts()
            self.pair.drain()
        except StuckError:
            raise self._hang() from None
        if signal.SIGPIPE in signal.sigpending():
            raise Difference("SIGPIPE at the end", "none", "pending")

    def _hang(self) -> Difference:
        return Difference("end of the call", "returned", f"stuck in {self.pair.active}")

    def _stuck(self, _number: int, _frame: FrameType | None) -> None:
        raise StuckError

    def _compare(self, op: Op) -> None:
        if self._done % self._all_facts_every == 0:
            self.pair.compare_all_facts()
        elif len(op) > 1 and op[0] in ON_AN_END:
            self.pair.compare_facts(op[1])
        else:
            self.pair.compare_facts(READERS[0])
        if self.setup.polls_each:
            self.pair.compare_revents()
            if self.setup.looks == "edges":
                self.pair.compare_events()
        if self.setup.looks == "signals":
            self.pair.compare_signals()

    # -- Operations.  Each returns whether it was done.

    def _on_an_end(self, op: Op) -> bool:
        if not self._ledger.is_open(PARENT, op[1]):
            return False
        return self.pair.on_an_end(op, *self._partners(PARENT, op[1]))

    def _partners(self, holder: int, slot: int) -> tuple[int, int]:
        return self._ledger.readers_and_writers(self._ledger.pipe_of(holder, slot))

    def _close(self, slot: int) -> bool:
        if not self._ledger.is_open(PARENT, slot):
            return False
        self.pair.on_both("close", slot)
        self._ledger.closed(PARENT, slot)
        return True

    def _pipe(self) -> bool:
        ours = READERS[0], WRITERS[0]
        if self.setup.named or any(self._ledger.is_open(PARENT, slot) for slot in ours):
            return False
        self._ledger.pipe += 1
        self.pair.on_both("pair")
        self._ledger.opened(READERS[0], "r")
        self._ledger.opened(WRITERS[0], "w")
        return True

    def _open(self, slot: int, mode: str, flags: int) -> bool:
        if not self.setup.named or self._ledger.is_open(PARENT, slot):
            return False
        partners = self._ledger.readers_and_writers(self._ledger.pipe)
        if may_wait_for_partner(mode, flags, *partners):
            return False
        if self.pair.on_both("open", slot, mode, flags) == 0:
            self._ledger.opened(slot, mode)
        return True

    def _mkfifo(self) -> bool:
        if not self.setup.named:
            return False
        if self.pair.on_both("mkfifo") is None:
            self._ledger.pipe += 1
        return True

    def _unlink(self) -> bool:
        if not self.setup.named:
            return False
        self.pair.on_both("unlink")
        return True

    def _poll(self) -> bool:
        if self.setup.looks in ("never", "signals"):
            return False
        self.pair.compare_revents()
        return True

    def _events(self) -> bool:
        if self.setup.looks != "edges":
            return False
        self.pair.compare_events()
        return True

    def _rearm(self, slot: int) -> bool:
        if self.setup.looks != "edges" or not self._ledger.is_open(PARENT, slot):
            return False
        self.pair.on_both("rearm", slot)
        return True

    def _look(self) -> bool:
        self.pair.compare_all_facts()
        return True

    def _fork(self, number: int) -> bool:
        if number in self._children or number not in CHILDREN:
            return False
        self._children[number] = Child(self.pair)
        self._ledger.forked(number)
        return True

    def _exit(self, number: int) -> bool:
        if number not in self._children:
            return False
        self._children.pop(number).exit()
        self._ledger.gone(number)
        return True

    def _kill(self, number: int) -> bool:
        if number not in self._children:
            return False
        self._children.pop(number).kill()
        self._ledger.gone(number)
        return True

    def _child(self, number: int, op: Op) -> bool:
        if number not in self._children:
            return False
        if op[0] == "poll":
            return self.setup.looks not in ("never", "signals") and self._children[number].does(
                op, 0, 0
            )
        slot = op[1]
        if not self._ledger.is_open(number, slot):
            return False
        self.pair.active = f"child {number}"
        done = self._children[number].does(op, *self._partners(number, slot))
        if op[0] == "close":
            self._ledger.closed(number, slot)
        return done


def run(
    setup: Setup,
    ops: list[Op],
    *,
    thorough: bool = True,
    patience: float = PATIENCE_SECONDS,
) -> tuple[int, Difference] | None:
    """Runs a sequence: None, or the index of the operation after which the sides differ."""
    index = -1
    with contextlib.ExitStack() as stack:
        try:
            session = stack.enter_context(Session(setup, thorough=thorough, patience=patience))
            for index, op in enumerate(ops):  # noqa: B007  # it is the result
                session.do(op)
            index = len(ops)
            session.finish()
        except Difference as difference:
            return index, difference
    return None
