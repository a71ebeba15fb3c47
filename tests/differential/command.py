"""The long-running command: random sequences until there is a difference or they are enough.

python -m tests.differential --ops 5000000 --seed 1
python -m tests.differential --replay tests/differential/corpus/NAME.json
"""

from __future__ import annotations

import argparse
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from differential import corpus
from differential.generate import Modes, sequence
from differential.operations import Op
from differential.pair import Difference
from differential.session import Session, run
from differential.setup import LOOKS, Setup
from differential.shrink import shrink
from differential.supervise import Announce, supervised

_REPORT_SECONDS = 10.0
_SHRINK_PATIENCE = 2.0


class Failure(Exception):  # noqa: N818  # an outcome, not an error of the fuzzer
    """A sequence after which the sides differ."""

    def __init__(self, seed: str, setup: Setup, ops: list[Op], difference: Difference) -> None:
        super().__init__(seed)
        self.seed = seed
        self.setup = setup
        self.ops = ops
        self.difference = difference


class Totals:
    """What has been done so far."""

    def __init__(self) -> None:
        self.ops = 0
        self.sequences = 0
        self.by_tag: Counter[str] = Counter()
        self.results: Counter[tuple[str, object]] = Counter()
        self.started = time.monotonic()

    def line(self, seed: int) -> str:
        """Progress."""
        seconds = time.monotonic() - self.started
        rate = self.ops / seconds if seconds else 0.0
        return (
            f"seed {seed}: {self.ops:,} operations in {self.sequences:,} sequences,"
            f" {seconds:.0f} s, {rate:,.0f}/s"
        )

    def table(self) -> str:
        """By mode, and which operation had which result how often."""
        lines = ["operations by mode:"]
        lines += [f"  {tag:12} {count:>12,}" for tag, count in sorted(self.by_tag.items())]
        lines.append("results by operation (negative: errno; the kernel's and ours agree):")
        for name in sorted({name for name, _ in self.results}):
            kinds = {key[1]: n for key, n in self.results.items() if key[0] == name}
            text = "  ".join(
                f"{_kind(kind)}: {count:,}" for kind, count in sorted(kinds.items(), key=repr)
            )
            lines.append(f"  {name:9} {text}")
        return "\n".join(lines)


def _kind(result: object) -> str:
    if isinstance(result, int) and result < 0:
        return os.strerror(-result)
    return "0" if result == 0 else "done"


def fuzz(
    ops: int, seed: int, modes: Modes, totals: Totals, announce: Announce | None = None
) -> None:
    """Runs sequences until so many operations were compared.  Failure if there is a difference.

    announce: told the name of each sequence; then progress is printed, too.
    """
    reported = time.monotonic()
    while totals.ops < ops:
        name = f"{seed}/{totals.sequences}"
        if announce:
            announce(name)
        _one_sequence(name, modes, totals)
        if announce and time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            print(totals.line(seed), flush=True)


def _one_sequence(name: str, modes: Modes, totals: Totals) -> None:
    setup, ops, tags = sequence(random.Random(name), modes)
    done = index = 0
    with Session(setup) as session:
        do = session.do
        try:
            for index, op in enumerate(ops):  # noqa: B007  # needed where it fails
                if do(op):
                    done += 1
            session.finish()
        except Difference as difference:
            raise Failure(name, setup, ops[: index + 1], difference) from None
        totals.results.update(session.pair.tally)
    totals.ops += done
    totals.sequences += 1
    for tag in tags:
        totals.by_tag[tag] += done


def explain(failure: Failure, directory: Path, announce: Announce | None = None) -> str:
    """Shrinks it, keeps it, and says everything about it."""

    def fails(setup: Setup, ops: list[Op]) -> bool:
        if announce:
            announce(f"{failure.seed}, shrinking")
        return run(setup, ops, patience=_SHRINK_PATIENCE) is not None

    lines = [f"DIFFERENCE in sequence {failure.seed}, after {len(failure.ops)} operations"]
    if not fails(failure.setup, failure.ops):
        lines.append("It does not show when the sequence is run again:")
        lines += [*_sequence(failure.setup, failure.ops), *_observations(failure.difference)]
        return "\n".join(lines)
    setup, ops = shrink(failure.setup, failure.ops, fails)
    found = run(setup, ops, patience=_SHRINK_PATIENCE)
    why = f"found with seed {failure.seed}"
    if found:
        lines += [*_sequence(setup, ops), *_observations(found[1])]
        why = f"{found[1].what}: {why}"
    path = corpus.keep(corpus.Entry(setup, ops, why), directory)
    lines.append(f"replay: python -m tests.differential --replay {path}")
    return "\n".join(lines)


def _sequence(setup: Setup, ops: list[Op]) -> list[str]:
    return [f"{setup}", "[", *(f"    {op!r}," for op in ops), "]"]


def _observations(difference: Difference) -> list[str]:
    return [
        f"{difference.what}:",
        f"    kernel   {_short(difference.kernel)}",
        f"    shmpipe  {_short(difference.shm)}",
    ]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 without a difference, 1 with one."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.differential",
        description="Applies random operations to a kernel's pipe and to a shmpipe.",
    )
    parser.add_argument("--ops", type=int, default=1_000_000, help="how many to compare")
    parser.add_argument("--seed", type=int, default=None, help="printed if not given")
    parser.add_argument("--kind", choices=("pipe", "fifo"), help="only one kind")
    parser.add_argument("--looks", choices=LOOKS, help="only this way of asking for readiness")
    parser.add_argument("--forks", type=float, default=Modes.forks, help="share with children")
    parser.add_argument("--blocking", type=float, default=Modes.blocking, help="share of blocking")
    parser.add_argument("--corpus", type=Path, default=corpus.DIRECTORY, help="where to keep it")
    parser.add_argument("--replay", type=Path, help="run one file and stop")
    parser.add_argument("--only", metavar="SEED/N", help="run one sequence, telling each operation")
    options = parser.parse_args(arguments)
    if options.replay:
        return _replay(options.replay)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    modes = Modes(
        kinds=(options.kind,) if options.kind else Modes.kinds,
        looks=(options.looks,) if options.looks else Modes.looks,
        forks=options.forks,
        blocking=options.blocking,
    )
    if options.only:
        return _only(options.only, modes)
    return supervised(lambda announce: _long_run(options, seed, modes, announce))


def _long_run(options: argparse.Namespace, seed: int, modes: Modes, announce: Announce) -> int:
    totals = Totals()
    try:
        fuzz(options.ops, seed, modes, totals, announce)
    except Failure as failure:
        print(totals.line(seed), flush=True)
        print(explain(failure, options.corpus, announce))
        return 1
    print(totals.line(seed))
    print(totals.table())
    print("no difference")
    return 0


def _only(name: str, modes: Modes) -> int:
    setup, ops, _ = sequence(random.Random(name), modes)
    print(setup)
    try:
        with Session(setup) as session:
            for op in ops:
                print(op, flush=True)
                session.do(op)
            session.finish()
    except Difference as difference:
        print("\n".join(_observations(difference)))
        return 1
    print("no difference")
    return 0


def _replay(path: Path) -> int:
    entry = corpus.load(path)
    print("\n".join(_sequence(entry.setup, entry.ops)))
    found = run(entry.setup, entry.ops)
    if found is None:
        print("no difference")
        return 0
    index, difference = found
    after = entry.ops[index] if 0 <= index < len(entry.ops) else "the end"
    print(f"DIFFERENCE after operation {index}, {after}")
    print("\n".join(_observations(difference)))
    return 1


if __name__ == "__main__":
    sys.exit(main())
