"""threads: calls in threads that end while their process lives; processes that die meanwhile."""

import os
import signal
import threading

from shmpipe_tools.torture.actor import Actor
from shmpipe_tools.torture.stressor import Stressor
from shmpipe_tools.torture.tormentor import Tormentor

_WAYS = ("thread ended, process lives", "killed while a thread was in a call")


def _strike(tormentor: Tormentor) -> int:
    for victim in tormentor.victims(1):
        tormentor.order(victim)
    return 0


def _act(actor: Actor) -> None:
    actor.board.count(actor.slot, STRESSOR.counter("ops"))
    if actor.rng.random() < 0.1:
        actor.board.count(actor.slot, STRESSOR.counter("killed while a thread was in a call"))
        threading.Timer(actor.rng.expovariate(1 / 0.002), _die).start()

    def work() -> None:
        try:
            for _ in range(actor.rng.randint(1, 20)):
                actor.turn_if_ready()
        except BaseException:  # noqa: BLE001 - an end is reported by the main thread, which sees it too
            return

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    actor.board.count(actor.slot, STRESSOR.counter("thread ended, process lives"))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


STRESSOR = Stressor(
    name="threads",
    about="calls in threads that end while the process lives; SIGKILL while a thread is in a call",
    operation="a thread",
    strike=_strike,
    pause=0.002,
    act=_act,
    counters=_WAYS,
    sometimes=(*_WAYS, "dead process reaped"),
    counts_itself=True,
)
