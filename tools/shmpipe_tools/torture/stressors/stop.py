"""stop: SIGSTOP, and SIGCONT a little later."""

from shmpipe_tools.torture.stressor import Stressor
from shmpipe_tools.torture.tormentor import Tormentor

LOOKS = (
    "in write lock",
    "in read lock",
    "in companion lock",
    "asleep in pipe",
    "asleep in poll",
    "running in call",
)


def _strike(tormentor: Tormentor) -> int:
    rng = tormentor.rng
    stops = 0
    for victim in tormentor.victims(rng.choice((1, 1, 1, 2))):
        # Shorter than the slice of a sleeper, which would look for a wake that is with the stopped.
        seconds = 0.2 if rng.random() < 0.02 else rng.expovariate(1 / 0.004)
        if tormentor.stop(victim, min(seconds, 0.2)):
            stops += 1
            if rng.random() < 0.2:
                for state in tormentor.states_of(victim):
                    if state in LOOKS:
                        tormentor.count(STRESSOR.counter(state))
    return stops


STRESSOR = Stressor(
    name="stop",
    about="SIGSTOP of any actor at any instant, SIGCONT 4 ms later on the average, 200 ms at most",
    operation="a stop",
    strike=_strike,
    pause=0.002,
    counters=LOOKS,
    sometimes=("in write lock", "in read lock", "asleep in pipe", "asleep in poll"),
)
