"""What a stressor is.  Each is a module in `stressors/` with a `STRESSOR`; a new file joins.

A stressor strikes from outside (a tormentor process calls `strike` again and again) or gives an
actor an order, which the actor carries out itself between two calls (`act`).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from shmpipe_tools.torture.states import SCENE_STATES

if TYPE_CHECKING:
    from shmpipe_tools.torture.actor import Actor
    from shmpipe_tools.torture.tormentor import Tormentor

COUNTERS_PER_STRESSOR = 16


@dataclass(frozen=True)
class Stressor:
    """The descriptor of one stressor."""

    name: str
    about: str  # what it does, for --help
    operation: str  # what one op is
    strike: Callable[[Tormentor], int]  # strikes once; how many ops that were
    pause: float  # mean seconds between two strikes
    act: Callable[[Actor], None] | None = None  # carries out an order
    counters: tuple[str, ...] = ()  # what it counts besides ops
    # States, its own counters or the scene's, that a long run and a very long one must have reached
    # (see `states`).  Only those that any such run reaches; the others are just printed.
    sometimes: tuple[str, ...] = ()
    seldom: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()  # as `sometimes`, but only if no other stressor disturbs it
    counts_itself: bool = False  # the zygote or the actors count the ops, not the tormentor

    def counter(self, name: str) -> int:
        """The index of a counter on the board; "ops" is one of each stressor."""
        place = 0 if name == "ops" else 1 + self.counters.index(name)
        return number_of(self.name) * COUNTERS_PER_STRESSOR + place


@cache
def stressors() -> dict[str, Stressor]:
    """All there are, by name."""
    package = importlib.import_module("shmpipe_tools.torture.stressors")
    names = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    found = {name: importlib.import_module(f"{package.__name__}.{name}").STRESSOR for name in names}
    for name, stressor in found.items():
        assert stressor.name == name
        assert len(stressor.counters) < COUNTERS_PER_STRESSOR
        assert {*stressor.sometimes, *stressor.seldom, *stressor.alone} <= {
            *stressor.counters,
            *SCENE_STATES,
        }
    return found


@cache
def number_of(name: str) -> int:
    """A stressor's place among all."""
    return list(stressors()).index(name)
