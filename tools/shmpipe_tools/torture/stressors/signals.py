"""signals: storms of signals that have Python handlers, with and without SA_RESTART."""

import signal

from shmpipe_tools.torture.board import Word
from shmpipe_tools.torture.stressor import Stressor
from shmpipe_tools.torture.tormentor import Tormentor


def _strike(tormentor: Tormentor) -> int:
    rng = tormentor.rng
    sent = 0
    for victim in tormentor.victims(1):
        before = tormentor.board.get(victim.slot, Word.HANDLED)
        # SIGUSR1 restarts system calls, SIGUSR2 interrupts them: see the zygote.
        numbers = rng.choice(
            ((signal.SIGUSR1,), (signal.SIGUSR2,), (signal.SIGUSR1, signal.SIGUSR2))
        )
        for _ in range(rng.randint(1, 30)):
            sent += victim.signal(rng.choice(numbers))
            tormentor.sleep(rng.expovariate(1 / 0.0001))
        if tormentor.board.get(victim.slot, Word.HANDLED) != before:
            tormentor.count(STRESSOR.counter("storms that were heard"))
    return sent


STRESSOR = Stressor(
    name="signals",
    about="storms of SIGUSR1 (SA_RESTART) and SIGUSR2 (without) with Python handlers",
    operation="a signal",
    strike=_strike,
    pause=0.0005,
    counters=("storms that were heard",),
    sometimes=("storms that were heard", "signal handler ran"),
)
