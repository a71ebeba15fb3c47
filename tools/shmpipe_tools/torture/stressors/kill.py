"""kill: SIGKILL at any instant."""

import signal

from shmpipe_tools.torture.stressor import Stressor
from shmpipe_tools.torture.tormentor import Tormentor, Victim

LOOKS = (
    "in write lock",
    "in read lock",
    "in companion lock",
    "asleep in pipe",
    "asleep in poll",
    "running in call",
    "hand-on owed",
    "sealed, tail not stored",
    "resizing",
    "opening",
    "newborn",
    "between calls",
)

_SELDOM = ("hand-on owed", "sealed, tail not stored", "opening")


def _strike(tormentor: Tormentor) -> int:
    rng = tormentor.rng
    kills = 0
    for victim in tormentor.victims(rng.choice((1, 1, 1, 1, 2, 3))):
        if rng.random() < 0.2:
            _look_and_kill(tormentor, victim)
            kills += 1
        else:
            kills += victim.signal(signal.SIGKILL)
    return kills


def _look_and_kill(tormentor: Tormentor, victim: Victim) -> None:
    """Stops the victim first: then it dies exactly where it was seen."""
    if victim.signal(signal.SIGSTOP):
        for state in tormentor.states_of(victim):
            tormentor.count(STRESSOR.counter(state))
        victim.signal(signal.SIGKILL)


STRESSOR = Stressor(
    name="kill",
    about="SIGKILL of any actor at any instant, often of several at once",
    operation="a kill",
    strike=_strike,
    pause=0.0005,
    counters=LOOKS,
    # Of 200,000 kills every fifth is looked at: 20 were before a tail, 52 owed a hand-on.
    # "resizing" is not due: few episodes do it, and it takes microseconds.
    sometimes=(
        *(state for state in LOOKS if state not in (*_SELDOM, "resizing")),
        "lock taken from the dead",
        "dead process reaped",
        "pipe empty: reader slept",
        "pipe full: writer slept",
        "EAGAIN",
        "merge",
        "wrap of the ring",
        "wrap of an index",
        "broadcast",
        "record of a killed writer",
        "of these: it was there",
        "cell that died with its reader",
        "massacre",
        "kill of a chosen one",
        "at rest: looked into the segment",
        "at rest: an entry of the dead",
        "curtain: all of the dead cleared away",
    ),
    seldom=(
        *_SELDOM,
        "eof",
        "eof, company",
        "epipe",
        "epipe, company",
        "leave",
        "single record",
        "at rest: a lock of the dead",
    ),
    counts_itself=True,
)
