"""Random sequences.  Each has its own choice of what is frequent, rare or missing in it.

A uniform mixture of everything never fills a ring with one-byte packets, nor lets a thousand
operations pass between two resizes.  So the weights are random, too, and differ by sequence.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from differential.ledger import CHILDREN
from differential.operations import BOTH, READERS, SIZES, TOO_MANY_BUFFERS, WAYS, WRITERS, Op
from differential.setup import LOOKS, Setup

# Where both must agree: the kernel allows 1 MiB here, shmpipe 1 GiB (CP-4).
CAPACITIES = (
    *(0, 1, 4095, 4096, 4097, 8192, 12288, 16384, 65535, 65536, 65537, 131072, 1048576),
    *(-1, 2**31 + 1, 2**32 + 8192),
)
# Larger than what either allows.  A process with CAP_SYS_RESOURCE may have them in the kernel.
ABOVE_ALL_LIMITS = (2**31, -(2**31))
_CAP_SYS_RESOURCE = 24

FIRST_INDICES = (2**32 - 3, 0, 2**31 - 5, 2**32 - 1, 2**32 - 20)
_INITIAL_SLOTS = (0, 0, 1, 2, 4, 64)
_MOST_OPS = 600

Weighted = list[tuple[Op, float]]


@dataclass(frozen=True)
class Modes:
    """Which kinds of sequences are wanted."""

    kinds: Sequence[str] = ("pipe", "fifo")
    looks: Sequence[str] = LOOKS
    forks: float = 0.03
    """The share of sequences with forked holders, which take 20 times as long."""
    blocking: float = 0.25
    """The share of sequences whose ends are mostly blocking."""


def sequence(rng: random.Random, modes: Modes) -> tuple[Setup, list[Op], frozenset[str]]:
    """A setup, what to do, and tags for the statistics."""
    blocking = rng.random() < modes.blocking
    forks = rng.random() < modes.forks
    nonblock = 0 if blocking else os.O_NONBLOCK
    setup = Setup(
        named=rng.choice(modes.kinds) == "fifo",
        flags=nonblock | rng.choice((0, 0, 0, os.O_DIRECT)),
        first_index=rng.choice(FIRST_INDICES),
        looks=rng.choice(modes.looks),
    )
    if not setup.named:
        setup = Setup(**{**setup.as_json(), "slots": rng.choice(_INITIAL_SLOTS)})
    menu = _data(rng, setup) + _control(rng, setup, nonblock)
    if forks:
        menu += _forking(rng, menu)
    entries, weights = zip(*menu, strict=True)
    ops = rng.choices(entries, weights, k=rng.randint(20, _MOST_OPS))
    start: list[Op] = []
    if setup.named:
        start = _opens(rng, nonblock)
        ops = _with_new_lives(rng, ops, nonblock)
    if forks:
        start.append(("fork", CHILDREN[0]))
    tags = {setup.kind, setup.looks, "blocking" if blocking else "nonblocking"}
    if forks:
        tags.add("forked")
    return setup, start + ops, frozenset(tags)


def _slots_of(rng: random.Random, setup: Setup, usual: Sequence[int]) -> dict[int, float]:
    if not setup.named:
        wrong = READERS[0] + WRITERS[0] - usual[0]
        return {usual[0]: 1.0, wrong: 0.01}
    chosen = {slot: rng.choice((1.0, 1.0, 0.1)) for slot in (*usual, BOTH)}
    return {**chosen, rng.choice((*READERS, *WRITERS)): 0.02}


def _sizes(rng: random.Random) -> dict[int, float]:
    """Some of the sizes, mostly small or mostly any."""
    largest = rng.choice((99, 4096, 8192, 100000, 100000))
    sizes = {size: rng.choice((0.0, 0.3, 1.0, 1.0)) for size in SIZES if size <= largest}
    for size in rng.sample(SIZES, 2):
        sizes[size] = sizes.get(size, 0.0) + 0.2
    return sizes


def _data(rng: random.Random, setup: Setup) -> Weighted:
    menu: Weighted = []
    writes = rng.choice((0.5, 1.0, 1.0, 2.0))
    sides: tuple[tuple[str, Sequence[int], float, Iterable[str]], ...] = (
        ("write", WRITERS, writes, ("write", "writev")),
        ("read", READERS, 1.0, ("read", "readinto", "readv")),
    )
    for _, usual, share, names in sides:
        sizes = _sizes(rng)
        slots = _slots_of(rng, setup, usual)
        calls = {name: rng.choice((0.1, 1.0, 1.0)) for name in names}
        every: Weighted = []
        for name, often in calls.items():
            for slot, here in slots.items():
                for size, liked in sizes.items():
                    op: Op = (name, slot, size)
                    if name.endswith("v"):
                        op = (*op, rng.randrange(TOO_MANY_BUFFERS))
                    every.append((op, often * here * liked))
                if name.endswith("v"):
                    every.append(((name, slot, 99, rng.randrange(WAYS)), often * here * 0.05))
        menu += _scaled(every, share)
    return menu


def _control(rng: random.Random, setup: Setup, nonblock: int) -> Weighted:
    slots = (*READERS, *WRITERS, BOTH) if setup.named else (READERS[0], WRITERS[0])
    sizes = rng.sample(_capacities(), rng.randint(1, 6))
    flags = [
        nonblock | rng.choice((0, 0, os.O_DIRECT)) | rng.choice((0, 0, 0, os.O_ASYNC, os.O_APPEND))
        for _ in range(3)
    ]
    if rng.random() < 0.2:
        flags.append(flags[0] ^ os.O_NONBLOCK)
    menu = _scaled(
        [(("setsize", slot, size), 1.0) for slot in slots for size in sizes],
        rng.choice((0.0, 0.02, 0.2)),
    )
    menu += _scaled(
        [(("flags", slot, value), 1.0) for slot in slots for value in flags],
        rng.choice((0.0, 0.02, 0.2)),
    )
    on = int(bool(nonblock))
    menu += _scaled(
        [((name, slot, on), 1.0) for slot in slots for name in ("fionbio", "fioasync")]
        + [(("fioasync", slot, 0), 1.0) for slot in slots],
        rng.choice((0.0, 0.0, 0.02)),
    )
    menu += [(("poll",), rng.choice((0.01, 0.2))), (("look",), 0.005)]
    if setup.looks == "edges":
        menu += _scaled([(("rearm", slot), 1.0) for slot in slots], rng.choice((0.02, 0.3)))
    closing = [(("close", slot), 1.0) for slot in slots]
    if setup.named:
        life = rng.choice((0.01, 0.05, 0.3))
        menu += _scaled(closing, life * 0.6)
        menu += _scaled([(op, 1.0) for op in _opens(rng, nonblock) + _opens(rng, nonblock)], life)
        menu += _scaled([(("unlink",), 1.0), (("mkfifo",), 2.0)], rng.choice((0.0, 0.0, 0.005)))
    else:
        menu += _scaled(closing, rng.choice((0.0, 0.002, 0.01)))
        menu.append((("pipe",), 0.05))
    return menu


def _opens(rng: random.Random, nonblock: int) -> list[Op]:
    """Opens of all slots, in some order, by no means all possible."""
    wanted = [(slot, "r") for slot in READERS] + [(slot, "w") for slot in WRITERS] + [(BOTH, "r+")]
    rng.shuffle(wanted)
    return [
        ("open", slot, mode, rng.choice((nonblock, os.O_NONBLOCK, os.O_NONBLOCK | os.O_APPEND)))
        for slot, mode in wanted[: rng.randint(2, len(wanted))]
    ]


def _with_new_lives(rng: random.Random, ops: list[Op], nonblock: int) -> list[Op]:
    """Closes everything here and there and opens some again (FO-1), which is rare by chance."""
    for _ in range(rng.choice((0, 0, 2, 6))):
        at = rng.randrange(len(ops))
        closes: list[Op] = [("close", slot) for slot in (*READERS, *WRITERS, BOTH)]
        rng.shuffle(closes)
        ops[at:at] = closes + _opens(rng, nonblock)
    return ops


def _forking(rng: random.Random, menu: Weighted) -> Weighted:
    """Operations of the children: those of the parent, and closing."""
    share = rng.choice((0.1, 0.5))
    result: Weighted = []
    for child in CHILDREN:
        work = [
            (("child", child, op), weight)
            for op, weight in menu
            if op[0] not in ("pipe", "open", "mkfifo", "unlink", "look", "events", "close")
        ]
        slots = {op[1] for op, _ in menu if len(op) > 1}
        work += [(("child", child, ("close", slot)), 0.02) for slot in slots]
        result += _scaled(work, share / (child + 1))
        result += [(("fork", child), 0.02), (("exit", child), 0.004), (("kill", child), 0.004)]
    return result


def _scaled(menu: Weighted, total: float) -> Weighted:
    """The same proportions with another sum."""
    now = sum(weight for _, weight in menu)
    return [(op, weight * total / now) for op, weight in menu] if now else []


def _capacities() -> tuple[int, ...]:
    with open("/proc/self/status", encoding="ascii") as status:
        effective = next(line.split()[1] for line in status if line.startswith("CapEff"))
    if int(effective, 16) >> _CAP_SYS_RESOURCE & 1:
        return CAPACITIES
    return CAPACITIES + ABOVE_ALL_LIMITS
