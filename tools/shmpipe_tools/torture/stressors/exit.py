"""exit: actors leave of their own will, with and without closing their end."""

import gc
import os

from shmpipe_tools.torture.actor import Actor
from shmpipe_tools.torture.board import Word
from shmpipe_tools.torture.stressor import Stressor
from shmpipe_tools.torture.tormentor import Tormentor

_WAYS = ("without closing", "after closing", "after the end was collected", "from a finally")


def _strike(tormentor: Tormentor) -> int:
    for victim in tormentor.victims(1):
        tormentor.order(victim)
    return 0


def _act(actor: Actor) -> None:
    actor.board.count(actor.slot, STRESSOR.counter("ops"))
    way = actor.rng.choice(_WAYS)
    actor.board.count(actor.slot, STRESSOR.counter(way))
    actor.state[Word.LEFT] = 1
    if way == "after closing":
        actor.end.close()
    elif way == "after the end was collected":
        actor.drop_end()
        gc.collect()
    elif way == "from a finally":
        raise SystemExit(0)
    os._exit(0)


STRESSOR = Stressor(
    name="exit",
    about="actors leave: os._exit with the end open, closed or collected, or by an exception",
    operation="an exit",
    strike=_strike,
    pause=0.003,
    act=_act,
    counters=_WAYS,
    sometimes=(*_WAYS, "dead process reaped"),
    counts_itself=True,
)
