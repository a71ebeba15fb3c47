"""stop: SIGSTOP, and SIGCONT a little later."""

from shmpipe_tools.torture.hold import HELD, IN_A_LOCK, OUTCOMES, WENT_ON
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

_LOCKS = {"in write lock", "in read lock", "in companion lock"}


def _strike(tormentor: Tormentor) -> int:
    rng = tormentor.rng
    stops = 0
    for victim in tormentor.victims(rng.choice((1, 1, 1, 2))):
        seconds = 0.2 if rng.random() < 0.02 else rng.expovariate(1 / 0.004)
        if tormentor.stop(victim, min(seconds, 0.2)):
            stops += 1
            seen = [*tormentor.states_of(victim)] if rng.random() < 0.2 else []
            for state in seen:
                if state in LOOKS:
                    tormentor.count(STRESSOR.counter(state))
            # About one of fifty: every hundredth, and who is seen in a lock.
            if rng.random() < 0.01 or set(seen) & _LOCKS:
                tormentor.hold(victim)
    return stops


STRESSOR = Stressor(
    name="stop",
    about="SIGSTOP of any actor at any instant, SIGCONT 4 ms later on the average, at times 1.5 s",
    operation="a stop",
    strike=_strike,
    pause=0.002,
    counters=(*LOOKS, *OUTCOMES),
    sometimes=(*LOOKS, "at rest: looked into the segment"),
    alone=(HELD, WENT_ON, IN_A_LOCK),  # beside `kill` nobody is held for so long
)
