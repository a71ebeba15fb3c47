"""The demonstration, step by step, for people."""

import os
import signal
import sys
from collections.abc import Callable
from statistics import median

from rich.console import Console
from rich.table import Table

from shmpipe import inspect
from shmpipe_tools.children import Child
from shmpipe_tools.demo import corpus as corpora
from shmpipe_tools.demo.account import Account, settle
from shmpipe_tools.demo.corpus import Corpus
from shmpipe_tools.demo.delivery import Delivery, deliver
from shmpipe_tools.demo.streams import KernelPipe, NamedSharedPipe, Stream
from shmpipe_tools.failure import Failure
from shmpipe_tools.inspect.discover import find_pipe
from shmpipe_tools.inspect.picture import RingPicture
from shmpipe_tools.inspect.report import report
from shmpipe_tools.output import plain_table
from shmpipe_tools.sizes import format_size

TIMED_RUNS = 5
PICTURES_AT = (0.2, 0.5, 0.8)  # of the packets
KILL_ATTEMPTS = 5


def demonstrate(screen: Console) -> None:
    """The three parts; a Failure at the first thing that is not as it must be."""
    # SIGTERM, too, must leave nothing in /dev/shm.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    corpus = corpora.load()
    screen.print(
        f"The standard library of this Python: {len(corpus.paths)} files, "
        f"{format_size(corpus.total_bytes)}, cut into {len(corpus.packets)} packets.\n"
    )
    watched = show_the_ring(screen, corpus)
    seconds = compare_with_the_kernel(screen, corpus)
    killed = kill_a_consumer(screen, corpus)
    screen.print("Packets, and who took them:")
    screen.print(account_table({"watched": watched, "one killed half-way": killed}))
    screen.print("\nThe same job on both pipes, from the first write to the last end of file:")
    screen.print(speed_table(corpus, seconds))


def show_the_ring(screen: Console, corpus: Corpus) -> Account:
    """Part one: a delivery that is looked at while it runs."""
    stream = _named_pipe()
    screen.print(
        f"1. One producer, two consumers, one named pipe: '{stream.name}'.\n"
        "   What `shmpipe stat` sees meanwhile:\n"
    )
    due = [share * len(corpus.packets) for share in PICTURES_AT]

    def look(delivery: Delivery) -> None:
        if not due or delivery.taken < due[0]:
            return
        while due and delivery.taken >= due[0]:
            due.pop(0)
        snapshot = inspect.snapshot(stream.name)
        if due:
            screen.print(RingPicture(snapshot))
        else:  # the last time everything
            screen.print(*report(find_pipe(stream.name), snapshot), sep="\n")
        screen.print()

    account = settle(deliver(stream, corpus, look))
    _demand(account)
    screen.print(f"   {account.files} files arrived, each with the right SHA-256.\n")
    return account


def compare_with_the_kernel(screen: Console, corpus: Corpus) -> dict[str, list[float]]:
    """Part two: the same job on both pipes in turn; the seconds of each run."""
    screen.print(
        f"2. The same beside os.pipe, packet mode too: {TIMED_RUNS} runs of each in turn.\n"
    )
    makers: tuple[Callable[[], Stream], ...] = (KernelPipe, _named_pipe)
    seconds: dict[str, list[float]] = {}
    for _ in range(TIMED_RUNS):
        for make in makers:
            stream = make()
            delivery = deliver(stream, corpus)
            _demand(settle(delivery))
            seconds.setdefault(stream.label, []).append(delivery.seconds)
    return seconds


def kill_a_consumer(screen: Console, corpus: Corpus) -> Account:
    """Part three: kill -9 for one consumer in the middle of its work."""
    screen.print(
        "3. The same, and when half has arrived the consumer that took more is killed "
        "with SIGKILL.\n"
    )
    for _ in range(KILL_ATTEMPTS):
        victims: list[Child] = []

        def strike(delivery: Delivery, victims: list[Child] = victims) -> None:
            if not victims and delivery.taken >= len(corpus.packets) // 2:
                first, second = delivery.journals
                victims.append(delivery.consumers[int(second.taken > first.taken)])
                victims[0].kill()

        delivery = deliver(_named_pipe(), corpus, strike)
        account = settle(delivery, killed=victims[0] if victims else None)
        _demand(account)
        if victims and victims[0].status:  # 0: it had finished before the signal came
            break
    else:
        raise Failure(f"demo: all was over before the kill, {KILL_ATTEMPTS} times")
    dead = delivery.consumers.index(victims[0])
    in_hand = f", and {account.in_hand} more was in its hand" if account.in_hand else ""
    screen.print(
        f"   {'AB'[dead]} is dead ({victims[0].fate}) and had taken {account.taken[dead]} "
        f"packets{in_hand}.\n"
        f"   {'BA'[dead]} took the other {account.taken[1 - dead]}; the producer never noticed.  "
        "Nothing is lost.\n"
    )
    return account


def account_table(accounts: dict[str, Account]) -> Table:
    """Who took how much."""
    table = plain_table()
    table.add_column("DELIVERY")
    for title in ("SENT", "TAKEN BY A", "TAKEN BY B", "IN A DEAD HAND", "LOST", "FILES RIGHT"):
        table.add_column(title, justify="right")
    for label, account in accounts.items():
        lost = account.sent - sum(account.taken) - account.in_hand
        figures = (account.sent, *account.taken, account.in_hand, lost, account.files)
        table.add_row(label, *(str(figure) for figure in figures))
    return table


def speed_table(corpus: Corpus, seconds: dict[str, list[float]]) -> Table:
    """How long the same job took on either pipe."""
    table = plain_table()
    table.add_column("PIPE")
    for title in ("MEDIAN", "MIN..MAX", "MB/s"):
        table.add_column(title, justify="right")
    for label, figures in seconds.items():
        middle = median(figures)
        table.add_row(
            label,
            f"{middle * 1e3:.1f} ms",
            f"{min(figures) * 1e3:.1f}..{max(figures) * 1e3:.1f}",
            f"{corpus.total_bytes / middle / 1e6:.0f}",
        )
    return table


def _named_pipe() -> NamedSharedPipe:
    return NamedSharedPipe(f"demo-{os.getpid()}")


def _demand(account: Account) -> None:
    if account.problems:
        raise Failure("demo: " + "; ".join(account.problems[:3]))
