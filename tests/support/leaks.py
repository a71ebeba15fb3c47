"""pytest plugin: a test that leaves descriptors, mappings, names, children or threads fails."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import proc
from support.run import run_id

# Each process keeps one record page for its whole life; peers map it, too.
RECORD = "shmpipe-record"


@dataclass(frozen=True)
class Holdings:
    """What a process holds that a test could leave behind."""

    descriptors: Counter[str]
    mappings: Counter[str]
    names: frozenset[str]
    threads: frozenset[int]

    @classmethod
    def now(cls) -> Holdings:
        return cls(
            Counter(target for target in proc.descriptors().values() if RECORD not in target),
            Counter(_mappings()),
            frozenset(filter(_is_ours, os.listdir("/dev/shm"))),
            frozenset(thread.ident or 0 for thread in threading.enumerate()),
        )

    def leaks_since(self, before: Holdings) -> list[str]:
        lines = [
            f"descriptor: {t} (x{n})" for t, n in (self.descriptors - before.descriptors).items()
        ]
        lines += [f"mapping: {t} (x{n})" for t, n in (self.mappings - before.mappings).items()]
        lines += [f"name: /dev/shm/{name}" for name in sorted(self.names - before.names)]
        lines += [f"thread: {ident}" for ident in self.threads - before.threads]
        return lines


def _is_ours(name: str) -> bool:
    """Whether this test run has made the name of a pipe: other programs come and go meanwhile.

    The names that tests give their pipes contain run_id(), which is os.getpid() of the run.
    """
    return name.startswith("shmpipe") and run_id() in name


def _mappings() -> list[str]:
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        target = line.split(maxsplit=5)[5] if line.count(" ") >= 5 and "/" in line else ""
        is_segment = "memfd:shmpipe" in target or "/dev/shm/shmpipe" in target
        if is_segment and RECORD not in target:
            found.append(target)
    return found


def _own_record_descriptors() -> list[str]:
    return [target for target in proc.descriptors().values() if RECORD in target]


def _children() -> list[str]:
    """Children that were not waited for; they are killed and reaped to spare the next test."""
    lines: list[str] = []
    while True:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return lines
        for pid in proc.descendants(os.getpid()):
            lines.append(f"child: {pid} (state {proc.state(pid)})")
            os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_ALL, 0, os.WEXITED)


_BEFORE = pytest.StashKey[Holdings]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish() -> None:
    # What collection left is garbage or stays for ever: not to be looked at again each time.
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    item.stash[_BEFORE] = Holdings.now()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield  # fixtures are taken down first: what is left now is left by the test
    gc.collect()
    before = item.stash[_BEFORE]
    leaks = _children()
    after = Holdings.now()
    if after.threads - before.threads:
        for thread in threading.enumerate():
            if thread.ident not in before.threads:
                thread.join(1.0)  # it may be on its way out; one that blocks is a leak
        after = Holdings.now()
    leaks += after.leaks_since(before)
    records = _own_record_descriptors()
    if len(records) > 1:
        leaks.append(f"more than one process record: {records}")
    if leaks:
        pytest.fail("left behind by this test:\n  " + "\n  ".join(leaks), pytrace=False)
