"""Random groups of processes at several pipes, most of them killed at once.

python -m tests.crash.groups [--rounds N] [--seed S]

Makers hold one side of some of the pipes, workers wait at the other side of one, in any way there
is, and listen at others.  Then all makers and some workers are killed in one go, asleep or in full
motion.  Each worker that is left must see end of file, or EPIPE, within `LIMIT` seconds.
"""

import argparse
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import shmpipe

# Sleepers look by themselves after a minute, so this tells a lost wake from a busy machine.
LIMIT = 20.0
CAPACITY = 4096


@dataclass(frozen=True)
class Plan:
    """What a round is: drawn from its seed alone."""

    full: tuple[bool, ...]  # for each pipe: writers wait there, else readers
    held: tuple[tuple[int, ...], ...]  # for each maker: the pipes that it holds
    workers: tuple["Worker", ...]
    survivors: frozenset[int]
    busy: bool  # makers operate, workers go on until the end
    order: str
    pause: float  # before the kills


@dataclass(frozen=True)
class Worker:
    """Waits at a pipe."""

    pipe: int
    manner: str
    also_holds: tuple[int, ...]
    listens: tuple[int, ...]


def draw(seed: str) -> Plan:
    """The round of that seed."""
    rng = Random(seed)
    pipes = range(rng.randint(1, 6))
    full = tuple(rng.random() < 0.4 for _ in pipes)
    makers = rng.randint(1, 3)
    held = tuple(
        tuple(i for i in pipes if rng.random() < 0.7 or i % makers == maker)
        for maker in range(makers)
    )
    workers = []
    for _ in range(rng.randint(2, 16)):
        pipe = rng.choice(pipes)
        also = tuple(i for i in pipes if i != pipe and rng.random() < 0.3)
        listens = tuple(i for i in (*also, pipe) if rng.random() < 0.4)
        workers.append(Worker(pipe, rng.choice(MANNERS), also, listens))
    survivors = rng.sample(range(len(workers)), rng.randint(1, len(workers)))
    return Plan(
        full=full,
        held=held,
        workers=tuple(workers),
        survivors=frozenset(survivors),
        busy=rng.random() < 0.4,
        order=rng.choice(("shuffled", "shuffled", "makers first", "makers last")),
        pause=rng.uniform(0, 0.01),
    )


# -- What the processes do ------------------------------------------------------------------------

End = shmpipe.Reader | shmpipe.Writer


def _operate(end: End) -> bool:
    """One operation; True at the end."""
    if isinstance(end, shmpipe.Reader):
        return end.read(100) == b""  # None: nothing there, with O_NONBLOCK
    try:
        end.write(bytes(CAPACITY))
    except BrokenPipeError:
        return True
    return False


def _directly(end: End) -> None:
    while not _operate(end):
        pass


def _in_threads(end: End) -> None:
    threads = [threading.Thread(target=_directly, args=(end,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _polling(wait: Callable[[End], None]) -> Callable[[End], None]:
    def go_on(end: End) -> None:
        over = False
        while not over:
            wait(end)
            over = _operate(end)  # which may sleep: somebody else was faster

    return go_on


def _events(end: End) -> int:
    return select.POLLIN if isinstance(end, shmpipe.Reader) else select.POLLOUT


def _by_poll(end: End) -> None:
    poller = select.poll()
    poller.register(end.fileno(), _events(end))
    poller.poll()


def _by_epoll(end: End) -> None:
    with select.epoll() as poller:
        poller.register(end.fileno(), _events(end) | select.EPOLLET)
        poller.poll()


def _by_select(end: End) -> None:
    reads = isinstance(end, shmpipe.Reader)
    select.select([end] if reads else [], [] if reads else [end], [])


def _by_our_poll(end: End) -> None:
    poller = shmpipe.poll()
    poller.register(end, _events(end))
    poller.poll()


WAYS: dict[str, Callable[[End], None]] = {
    "directly": _directly,
    "in threads": _in_threads,
    "poll": _polling(_by_poll),
    "epoll": _polling(_by_epoll),
    "select": _polling(_by_select),
    "shmpipe.poll": _polling(_by_our_poll),
}
MANNERS = ("directly", "directly", *WAYS)


def _work(plan: Plan, worker: Worker, pipes: list[tuple[shmpipe.Reader, shmpipe.Writer]]) -> None:
    ends: list[End | None] = []
    for i, (reader, writer) in enumerate(pipes):
        mine, other = (writer, reader) if plan.full[i] else (reader, writer)
        other.close()
        if i != worker.pipe and i not in worker.also_holds:
            mine.close()
        ends.append(mine)
    notifiers = [end.notifier() for i in worker.listens if (end := ends[i])]
    end = ends[worker.pipe]
    assert end is not None
    WAYS[worker.manner](end)
    for notifier in notifiers:
        notifier.close()


def _make(
    plan: Plan, held: tuple[int, ...], pipes: list[tuple[shmpipe.Reader, shmpipe.Writer]]
) -> None:
    ends: list[End] = []
    for i, (reader, writer) in enumerate(pipes):
        mine, other = (reader, writer) if plan.full[i] else (writer, reader)
        other.close()
        if i in held:
            ends.append(mine)
        else:
            mine.close()
    while not plan.busy:
        signal.pause()
    for end in ends:  # which all makers share, and no worker has
        end.nonblocking = True
    while True:
        for end in ends:
            with contextlib.suppress(BrokenPipeError):
                _operate(end)


# -- A round --------------------------------------------------------------------------------------


def _forked(body: Callable[[], None], ready: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.write(ready, b"x")
            body()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def _sleeps(pid: int) -> bool:
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] not in "SZ":
                    return False
    except OSError:
        return True
    return True


def play(seed: str) -> Iterator[str]:
    """What is wrong with the round."""
    plan = draw(seed)
    pipes = [shmpipe.pipe(capacity=CAPACITY) for _ in plan.full]
    for (_, writer), full in zip(pipes, plan.full, strict=True):
        if full:
            writer.write(bytes(CAPACITY))
    come, ready = os.pipe()
    makers = [_forked(lambda held=held: _make(plan, held, pipes), ready) for held in plan.held]  # type: ignore[misc]
    workers = {
        _forked(lambda each=each: _work(plan, each, pipes), ready): i  # type: ignore[misc]
        for i, each in enumerate(plan.workers)
    }
    for reader, writer in pipes:
        reader.close()
        writer.close()
    there = 0
    while there < len(makers) + len(workers):
        there += len(os.read(come, 64))
    os.close(come)
    os.close(ready)
    if plan.busy:
        time.sleep(plan.pause)
    else:
        while not all(map(_sleeps, workers)):
            os.sched_yield()
    dying = [pid for pid, i in workers.items() if i not in plan.survivors]
    dying = [*makers, *dying] if plan.order == "makers first" else [*dying, *makers]
    if plan.order == "shuffled":
        Random(seed).shuffle(dying)
    for pid in dying:
        os.kill(pid, signal.SIGKILL)
    for pid in dying:
        os.waitpid(pid, 0)
    yield from _wait_for(plan, {pid: i for pid, i in workers.items() if i in plan.survivors})


def _wait_for(plan: Plan, survivors: dict[int, int]) -> Iterator[str]:
    deadline = time.monotonic() + LIMIT
    while survivors and time.monotonic() < deadline:
        for pid in list(survivors):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                i = survivors.pop(pid)
                if status != 0:
                    code = os.waitstatus_to_exitcode(status)
                    yield f"worker {i} ended with {code}: {plan.workers[i]}"
        time.sleep(0.0003)
    for pid, i in survivors.items():
        with open(f"/proc/{pid}/wchan") as place:
            yield f"worker {i} sleeps on in {place.read()}: {plan.workers[i]}"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main() -> int:
    """Plays rounds, and says which went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    wrong = 0
    for number in range(options.rounds):
        for finding in play(f"{options.seed}/{number}"):
            print(f"{options.seed}/{number}: {finding}", flush=True)
            wrong += 1
        if sys.stderr.isatty() and number % 50 == 0:
            print(f"\r{number} of {options.rounds} rounds", end="", file=sys.stderr)
    print(f"groups: {options.rounds} rounds, {wrong} findings (seed {options.seed})")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
