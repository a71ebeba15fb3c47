"""shutdown: interpreters end while daemon threads are in calls of the pipe (P29)."""

from shmpipe_tools.torture import program
from shmpipe_tools.torture.actor import Actor
from shmpipe_tools.torture.board import UNDERSTUDIES, Word
from shmpipe_tools.torture.stressor import Stressor
from shmpipe_tools.torture.tormentor import Tormentor

# Longer than this an interpreter does not take to end, not on a busy machine either.
END_SECONDS = 20.0


def _strike(tormentor: Tormentor) -> int:
    for victim in tormentor.victims(1):
        tormentor.order(victim)
    return 0


def _act(actor: Actor) -> None:
    if not program.can_take(actor) or actor.board.get(actor.slot + UNDERSTUDIES, Word.PID):
        return
    pid = actor.understudy(lambda child: program.become(child, "shutdown"))
    if actor.bury(pid, within=END_SECONDS) == 0:
        actor.board.count(actor.slot, STRESSOR.counter("interpreter ended in calls"))
    actor.board.count(actor.slot, STRESSOR.counter("ops"))


STRESSOR = Stressor(
    name="shutdown",
    about="interpreters that end while daemon threads of theirs read, write and poll",
    operation="an interpreter's end",
    strike=_strike,
    pause=0.01,
    act=_act,
    counters=("interpreter ended in calls",),
    sometimes=("interpreter ended in calls", "dead process reaped"),
    counts_itself=True,
)
