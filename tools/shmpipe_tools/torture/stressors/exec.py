"""exec: actors become another program, without their end, or with it."""

import os

from shmpipe_tools.torture import program
from shmpipe_tools.torture.actor import Actor
from shmpipe_tools.torture.board import UNDERSTUDIES, Word
from shmpipe_tools.torture.stressor import Stressor
from shmpipe_tools.torture.tormentor import Tormentor

_WAYS = ("away from the pipe", "with the end", "a child with the end")


def _strike(tormentor: Tormentor) -> int:
    for victim in tormentor.victims(1):
        tormentor.order(victim)
    return 0


def _act(actor: Actor) -> None:
    actor.board.count(actor.slot, STRESSOR.counter("ops"))
    way = actor.rng.choice(("away from the pipe",) * 8 + _WAYS[1:])
    if way != "away from the pipe" and not program.can_take(actor):
        way = "away from the pipe"
    actor.board.count(actor.slot, STRESSOR.counter(way))
    if way == "away from the pipe":
        actor.state[Word.LEFT] = 1
        os.execv("/bin/true", ["true"])  # close-on-exec does the rest
    elif way == "with the end":
        program.become(actor, "go-on")
    elif not actor.board.get(actor.slot + UNDERSTUDIES, Word.PID):
        actor.bury(actor.understudy(lambda child: program.become(child, "work")))


STRESSOR = Stressor(
    name="exec",
    about="actors execute programs: one that loses the end, or one that takes it up again (attach)",
    operation="an exec",
    strike=_strike,
    pause=0.005,
    act=_act,
    counters=_WAYS,
    sometimes=(*_WAYS, "dead process reaped"),
    counts_itself=True,
)
