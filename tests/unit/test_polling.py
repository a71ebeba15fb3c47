"""shmpipe.poll() and shmpipe.wait(): revents as select.poll has them, and deadlines that hold."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import shmpipe

EVERYTHING = (
    select.POLLIN
    | select.POLLPRI
    | select.POLLOUT
    | select.POLLRDNORM
    | select.POLLRDBAND
    | select.POLLWRNORM
    | select.POLLWRBAND
    | select.POLLRDHUP
)
Step = Callable[["Both"], None]


class Both:
    """A kernel's pipe and one of ours, in the same state."""

    def __init__(self) -> None:
        self.kernel = list(os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        self.ours = list(shmpipe.pipe(os.O_NONBLOCK, first_index=2**32 - 3))
        self.open = [True, True]

    def write(self, count: int) -> None:
        assert os.write(self.kernel[1], bytes(count)) == self.ours[1].write(bytes(count))

    def read(self, count: int) -> None:
        assert os.read(self.kernel[0], count) == self.ours[0].read(count)

    def close(self, side: int) -> None:
        self.open[side] = False
        os.close(self.kernel[side])
        self.ours[side].close()

    def revents(self, events: int) -> tuple[list[int], list[int]]:
        """Of the ends that are open: (the kernel's, ours)."""
        theirs, mine = select.poll(), shmpipe.poll()
        sides = [side for side in (0, 1) if self.open[side]]
        for side in sides:
            theirs.register(self.kernel[side], events)
            mine.register(self.ours[side], events)
        kernel, ours = dict(theirs.poll(0)), dict(mine.poll(0))
        return (
            [kernel.get(self.kernel[side], 0) for side in sides],
            [ours.get(self.ours[side], 0) for side in sides],
        )


@pytest.fixture
def both() -> Iterator[Both]:
    made = Both()
    yield made
    for side in (0, 1):
        if made.open[side]:
            made.close(side)


STATES: dict[str, list[Step]] = {
    "empty": [],
    "some": [lambda b: b.write(100)],
    "full": [lambda b: b.write(65536)],
    "full in slots": [lambda b: b.write(65536), lambda b: b.read(4095)],
    "room again": [lambda b: b.write(65536), lambda b: b.read(4096)],
    "drained": [lambda b: b.write(100), lambda b: b.read(100)],
    "data, no writers": [lambda b: b.write(1), lambda b: b.close(1)],
    "end of file": [lambda b: b.close(1)],
    "no readers": [lambda b: b.close(0)],
    "full, no readers": [lambda b: b.write(65536), lambda b: b.close(0)],
}


@pytest.mark.parametrize("events", [EVERYTHING, select.POLLIN, select.POLLOUT, 0])
@pytest.mark.parametrize("looked", [False, True], ids=["first-look", "looked-before"])
@pytest.mark.parametrize("state", STATES)
def test_revents_are_the_kernels(both: Both, state: str, looked: bool, events: int) -> None:
    for step in STATES[state]:
        if looked:
            both.revents(events)
        step(both)
    kernel, ours = both.revents(events)
    assert ours == kernel


def test_a_closed_end_is_reported_as_such(both: Both) -> None:
    poller = shmpipe.poll()
    poller.register(both.ours[0])
    poller.register(both.ours[1])
    both.close(0)
    found = dict(poller.poll(0))
    assert found[both.ours[0]] == select.POLLNVAL
    assert found[both.ours[1]] & select.POLLERR


def test_hundreds_of_ends_and_a_socket() -> None:
    pipes = [shmpipe.pipe() for _ in range(200)]
    left, right = socket.socketpair()
    poller = shmpipe.poll()
    for reader, _ in pipes:
        poller.register(reader, select.POLLIN)
    poller.register(left, select.POLLIN)
    assert poller.poll(0) == []
    for _, writer in pipes[::7]:
        writer.write(b"x")
    right.send(b"x")
    found = poller.poll()
    assert [target for target, _ in found] == [*(reader for reader, _ in pipes[::7]), left]
    assert shmpipe.wait([reader for reader, _ in pipes], 0) == [reader for reader, _ in pipes[::7]]
    for each in (left, right, *(end for pair in pipes for end in pair)):
        each.close()


def test_wait_knows_what_an_end_waits_for(both: Both) -> None:
    reader, writer = both.ours
    assert shmpipe.wait([reader, writer], 0) == [writer]
    both.write(65536)
    assert shmpipe.wait([reader, writer], 0) == [reader]
    both.close(1)
    both.read(65536)
    assert shmpipe.wait([reader], 0) == [reader], "end of file is no reason to wait"


def test_wait_for_one_end_instead_of_several_reads_nothing(both: Both) -> None:
    """An end is iterable: taken for the several, its lines would be read."""
    both.ours[1].write(b"a line\n")
    both.ours[1].close()  # or a wait that reads would not return
    with pytest.raises(TypeError, match=r"such as \[end\]"):
        shmpipe.wait(both.ours[0], 0)  # type: ignore[type-var]
    assert both.ours[0].read(100) == b"a line\n"


@pytest.mark.parametrize("way", ["poll", "wait", "end.wait"])
def test_a_timeout_is_a_deadline_that_signals_do_not_stretch(both: Both, way: str) -> None:
    reader = both.ours[0]
    poller = shmpipe.poll()
    poller.register(reader, select.POLLIN)
    handled = 0

    def count(*_: object) -> None:
        nonlocal handled
        handled += 1

    before = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        start = time.monotonic()
        if way == "poll":
            assert poller.poll(300) == []
        elif way == "wait":
            assert shmpipe.wait([reader], 0.3) == []
        else:
            assert not reader.wait(0.3)
        took = time.monotonic() - start
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled >= 5, "each of them interrupted the wait"
    assert took >= 0.299
    assert took < 0.3 + 0.005 * handled, "a wait that began again each time would not end"


def test_a_handler_that_raises_ends_the_wait(both: Both) -> None:
    class RaisedError(Exception):
        pass

    def throw(*_: object) -> None:
        raise RaisedError

    before = signal.signal(signal.SIGALRM, throw)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(RaisedError):
            shmpipe.wait([both.ours[0]])
    finally:
        signal.signal(signal.SIGALRM, before)
