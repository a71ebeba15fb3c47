"""Makes a failing sequence small: fewer operations first, then simpler ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial

from differential.operations import SIZES, VECTORED, Op
from differential.setup import LOOKS, Setup

Fails = Callable[[Setup, list[Op]], bool]


def shrink(setup: Setup, ops: list[Op], fails: Fails) -> tuple[Setup, list[Op]]:
    """A sequence that still fails, and from which nothing can be taken away."""
    while True:
        before = setup, ops
        ops = _fewer(ops, partial(fails, setup))
        for simpler in _simpler_setups(setup):
            if fails(simpler, ops):
                setup = simpler
                break
        ops = _simpler(ops, partial(fails, setup))
        if (setup, ops) == before:
            return before


def _fewer(ops: list[Op], fails: Callable[[list[Op]], bool]) -> list[Op]:
    """Delta debugging: leaves out runs of operations, long ones first."""
    size = max(1, len(ops) // 2)
    while True:
        start = 0
        while start < len(ops):
            without = ops[:start] + ops[start + size :]
            if fails(without):
                ops = without
            else:
                start += size
        if size == 1:
            return ops
        size //= 2


def _simpler(ops: list[Op], fails: Callable[[list[Op]], bool]) -> list[Op]:
    for index in range(len(ops)):
        for candidate in _simpler_ops(ops[index]):
            changed = [*ops[:index], candidate, *ops[index + 1 :]]
            if fails(changed):
                ops = changed
                break
    return ops


def _simpler_ops(op: Op) -> Iterator[Op]:
    name = op[0]
    if name == "child":
        yield op[2]
        for inner in _simpler_ops(op[2]):
            yield ("child", op[1], inner)
    elif name == "kill":
        yield ("exit", op[1])
    elif name in VECTORED:
        yield (name.removesuffix("v"), op[1], op[2])
    elif name == "readinto":
        yield ("read", op[1], op[2])
    elif name in ("read", "write", "setsize"):
        sizes = SIZES if name != "setsize" else (4096, 8192, 65536)
        for size in sizes[: sizes.index(op[2])] if op[2] in sizes else sizes:
            yield (name, op[1], size)


def _simpler_setups(setup: Setup) -> Iterator[Setup]:
    for looks in reversed(LOOKS):
        if LOOKS.index(looks) > LOOKS.index(setup.looks):
            yield dataclasses.replace(setup, looks=looks)
    default = Setup()
    for field in ("first_index", "slots"):
        if getattr(setup, field) != getattr(default, field):
            yield dataclasses.replace(setup, **{field: getattr(default, field)})
