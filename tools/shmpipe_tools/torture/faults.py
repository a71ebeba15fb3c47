"""Faults that an actor commits on purpose, so that tests see the oracles fail.

`SHMPIPE_TORTURE_FAULT` names one; without it there is none.  Each is committed again and again, for
the one that commits it may be killed before anybody saw it.
"""

from __future__ import annotations

import os
import select
import signal
import time
from typing import TYPE_CHECKING

from shmpipe_tools.torture.board import Call, Word
from shmpipe_tools.torture.latency import HARD_LIMIT

if TYPE_CHECKING:
    from shmpipe_tools.torture.actor import Actor

VARIABLE = "SHMPIPE_TORTURE_FAULT"

_EVERY = 20


class Fault:
    """None: everything goes through as it is."""

    def got(self, actor: Actor, data: memoryview) -> memoryview | None:  # noqa: ARG002
        """What an actor takes for the result of its read; None as if it had not read."""
        return data

    def sent(self, actor: Actor, data: bytes) -> bytes:  # noqa: ARG002
        """What an actor writes instead of a record."""
        return data

    def writing(self, actor: Actor) -> None:
        """Right before the call that writes; what it raises seems to come from there."""

    def ending(self) -> None:
        """Before an actor notes that it has seen the end."""

    def between(self, actor: Actor) -> None:
        """Between two calls."""

    @staticmethod
    def present() -> Fault:
        """The one that the environment asks for."""
        return FAULTS[os.environ.get(VARIABLE, "")]()


def _is_due(actor: Actor) -> bool:
    return actor.state[Word.PROGRESS] % _EVERY == _EVERY - 1


class _Lose(Fault):
    """What was read is gone, as if the pipe had lost it."""

    def got(self, actor: Actor, data: memoryview) -> memoryview | None:
        return None if data and _is_due(actor) else data


class _Twice(Fault):
    """What was read is read again."""

    def got(self, actor: Actor, data: memoryview) -> memoryview:
        if data and _is_due(actor):
            actor.note(data)
        return data


class _Corrupt(Fault):
    """A bit of what was read is another one."""

    def got(self, actor: Actor, data: memoryview) -> memoryview:
        copy = bytearray(data)
        if copy and _is_due(actor):
            copy[-1] ^= 0x10
        return memoryview(copy)


class _Forget(Fault):
    """A record that write returned for was never written."""

    def sent(self, actor: Actor, data: bytes) -> bytes:
        return b"" if _is_due(actor) else data


class _EarlyEnd(Fault):
    """End of file while there are writers."""

    def got(self, actor: Actor, data: memoryview) -> memoryview:
        return data[:0] if _is_due(actor) else data


class _EarlyPipe(Fault):
    """EPIPE while there are readers."""

    def writing(self, actor: Actor) -> None:
        if _is_due(actor):
            raise BrokenPipeError


class _LateEnd(Fault):
    """The end of the other side is seen a moment later than it may be."""

    def ending(self) -> None:
        time.sleep(HARD_LIMIT + 0.2)


class _Sleep(Fault):
    """Readers look for data for ever, and do not see it."""

    def between(self, actor: Actor) -> None:
        if not actor.writes:
            actor.begin(Call.POLL, 0)
            select.poll().poll()


class _Crash(Fault):
    """The process dies of a signal that nobody sent."""

    def between(self, actor: Actor) -> None:
        if _is_due(actor):
            os.kill(os.getpid(), signal.SIGSEGV)


FAULTS: dict[str, type[Fault]] = {
    "": Fault,
    "lose": _Lose,
    "twice": _Twice,
    "corrupt": _Corrupt,
    "forget": _Forget,
    "early-end": _EarlyEnd,
    "early-epipe": _EarlyPipe,
    "late-end": _LateEnd,
    "sleep": _Sleep,
    "crash": _Crash,
}
