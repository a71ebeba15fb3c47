"""fork: actors fork, and the children hold, use, close and leave the ends in every way."""

import os
import signal
import time

from shmpipe_tools.torture.actor import Actor, die_with_parent
from shmpipe_tools.torture.board import UNDERSTUDIES, Word
from shmpipe_tools.torture.stressor import Stressor
from shmpipe_tools.torture.tormentor import Tormentor

# What a child that only holds the ends does.
_HOLDERS = ("exit", "close", "sleep", "look", "exec", "fork")

_WAYS = ("child worked and left", "child killed at work", "child that only held")


def _strike(tormentor: Tormentor) -> int:
    for victim in tormentor.victims(1):
        tormentor.order(victim)
    return 0


def _act(actor: Actor) -> None:
    actor.board.count(actor.slot, STRESSOR.counter("ops"))
    # One understudy in a life: what it was in when it died is looked at when the actor is buried.
    has_played = actor.board.get(actor.slot + UNDERSTUDIES, Word.PID)
    if not has_played and actor.rng.random() < 0.7:
        _understudy(actor)
    else:
        _storm(actor)


def _understudy(actor: Actor) -> None:
    """A child that goes on with its parent's end, to its own end or to its death."""
    is_killed = actor.rng.random() < 0.5

    def body(child: Actor) -> None:
        for _ in range(1000 if is_killed else 10):
            # It must not sleep for ever at a pipe at which nothing happens: no writer waits for it.
            child.turn_if_ready()

    pid = actor.understudy(body)
    if is_killed:
        time.sleep(actor.rng.expovariate(1 / 0.003))
        os.kill(pid, signal.SIGKILL)
        actor.board.count(actor.slot, STRESSOR.counter("child killed at work"))
    else:
        actor.board.count(actor.slot, STRESSOR.counter("child worked and left"))
    actor.bury(pid)


def _storm(actor: Actor) -> None:
    """Several children at once, which only hold the ends."""
    children = []
    for _ in range(actor.rng.randint(1, 4)):
        how = actor.rng.choice(_HOLDERS)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                die_with_parent(parent)
                _hold(actor, how)
            finally:
                os._exit(0)
        children.append((pid, how))
    actor.board.count(actor.slot, STRESSOR.counter("child that only held"), len(children))
    for pid, how in children:
        if how == "sleep":
            os.kill(pid, signal.SIGKILL)
        actor.bury(pid)


def _hold(actor: Actor, how: str) -> None:
    if how == "close":
        actor.end.close()
    elif how == "sleep":
        time.sleep(60)
    elif how == "look":
        actor.end.fileno()
    elif how == "exec":
        os.execv("/bin/true", ["true"])
    elif how == "fork":
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)


STRESSOR = Stressor(
    name="fork",
    about="children that use, hold, close or leave the ends they inherited, or are killed",
    operation="an order to fork",
    strike=_strike,
    pause=0.002,
    act=_act,
    counters=_WAYS,
    sometimes=(*_WAYS, "dead process reaped", "lock taken from the dead"),
    counts_itself=True,
)
