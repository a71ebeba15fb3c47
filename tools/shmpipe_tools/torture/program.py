"""An actor in a program of its own: it takes up an end that it inherited through exec.

`become` is the caller's last call.  The program is this module: it plays on in the same slot, or
ends its interpreter while daemon threads of it are in calls.
"""

import json
import os
import signal
import sys
import threading
import time
from dataclasses import asdict
from random import Random
from typing import NoReturn

import shmpipe
from shmpipe_tools.torture.actor import Actor
from shmpipe_tools.torture.board import Board, Word
from shmpipe_tools.torture.plan import Episode

# Until the program has handlers, the signals of a storm would end it.
_STORM = {signal.SIGUSR1, signal.SIGUSR2}


def can_take(actor: Actor) -> bool:
    """Whether the end goes through exec: the kernel's needs other means."""
    return isinstance(actor.end, shmpipe.End)


def become(actor: Actor, what: str) -> NoReturn:
    """Executes this module with the actor's end.  `what`: "go-on", "work" or "shutdown"."""
    end = actor.end
    assert isinstance(end, shmpipe.End)
    signal.pthread_sigmask(signal.SIG_BLOCK, _STORM)
    for descriptor in (actor.board.descriptor, actor.errors, *end.pass_fds()):
        os.set_inheritable(descriptor, True)
    task = {
        "what": what,
        "board": actor.board.descriptor,
        "errors": actor.errors,
        "slot": actor.slot,
        "incarnation": actor.number,
        "token": end.token(),
        "episode": asdict(actor.episode),
    }
    os.execv(sys.executable, [sys.executable, "-m", __name__, json.dumps(task)])


def main() -> None:
    """`python -m shmpipe_tools.torture.program TASK`."""
    task = json.loads(sys.argv[1])
    episode = Episode(**task["episode"])
    actor = Actor(Board(task["board"]), task["slot"], episode, task["incarnation"], task["errors"])

    def handled(_number: int, _frame: object) -> None:
        actor.state[Word.HANDLED] += 1

    for number in _STORM:
        signal.signal(number, handled)
        signal.siginterrupt(number, number == signal.SIGUSR2)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STORM)
    if task["what"] == "go-on":
        actor.run(lambda: shmpipe.attach(task["token"]))
    # The thread that takes the end up ends: it is the one that makes the process's record.
    taken: list[shmpipe.End] = []
    thread = threading.Thread(target=lambda: taken.append(shmpipe.attach(task["token"])))
    thread.start()
    thread.join()
    actor.take_up(taken[0])
    if task["what"] == "work":
        for _ in range(5):
            actor.turn_if_ready()
        return
    for target in (actor.look_on, actor.play_on):
        threading.Thread(target=target, daemon=True).start()
    time.sleep(Random(os.getpid()).uniform(0, 0.01))
    # And now the interpreter ends, with all of them where they are.


if __name__ == "__main__":
    main()
