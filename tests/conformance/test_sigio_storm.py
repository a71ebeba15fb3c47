"""One bounded read for each SIGIO while several writers go on writing: rules IO-9, IO-10, R0-4.

The shape of stress-ng's sigio stressor before August 2021.  Signals coalesce, so there are fewer
reads than writes; the reader takes at least as much as one write has put, and that keeps it going.
A reader that takes less than it was sent comes to a stop in the kernel, too (IO-10): for it there
is end.notifier() (tests/unit/test_notifier.py).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF, End
from conformance.marks import NONBLOCK
from conformance.sigio import F_SETOWN, arm
from support.actors import ProcessActor
from support.scale import rounds

pytestmark = pytest.mark.usefixtures("blocked")

SpawnProcess = Callable[..., ProcessActor]

STALLED_SECONDS = 20.0  # nobody has been told anything for so long: it will not come


def endless(writer: End, size: int) -> Callable[[], None]:
    def body() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # ended by the reader's close
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPIPE})
        while True:
            writer.write(b"s" * size)

    return body


@pytest.mark.parametrize(
    ("slots", "size", "writers"),
    [(1, 256, 3), (1, PIPE_BUF, 2), (16, PIPE_BUF, 3), (4, 3 * PIPE_BUF, 2)],
    ids=["stress-ng", "pages", "pages-16-slots", "long-writes"],
)
def test_IO_10_a_bounded_read_for_each_signal_goes_on(
    pipes: Pipes, processes: SpawnProcess, slots: int, size: int, writers: int
) -> None:
    reader, writer = pipes.make(slots=slots)
    reader.set_flag(NONBLOCK)
    arm(reader, 0)
    actors = [processes(endless(writer, size), keep=writer) for _ in range(writers)]
    taken = 0
    for _ in range(rounds(400)):
        told = signal.sigtimedwait({signal.SIGIO}, STALLED_SECONDS)
        assert told is not None, f"stalled after {taken} bytes, with {reader.pending()} to read"
        with contextlib.suppress(BlockingIOError):
            taken += len(reader.read(PIPE_BUF))
    reader.close()
    writer.close()
    for actor in actors:
        assert actor.wait_status() == -signal.SIGPIPE
    assert taken > 0


def test_IO_10_who_arms_a_full_pipe_hears_of_the_next_writer(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    # Nothing was signalled while it filled, and the writer comes only to wait: unless it says so,
    # a reader that waits for signals and the writer wait for each other (IO-4).
    reader, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(bytes(PIPE_BUF))
    writer.set_flag(NONBLOCK, on=False)
    arm(reader, 0)
    actor = processes(lambda: writer.write(b"x" * PIPE_BUF), keep=writer)
    assert signal.sigtimedwait({signal.SIGIO}, STALLED_SECONDS) is not None
    assert reader.read(PIPE_BUF) == bytes(PIPE_BUF)
    assert actor.result() == PIPE_BUF
    assert signal.sigtimedwait({signal.SIGIO}, STALLED_SECONDS) is not None
    assert reader.read(PIPE_BUF) == b"x" * PIPE_BUF


def test_IO_10_a_reader_that_handles_its_own_signals(pipes: Pipes, processes: SpawnProcess) -> None:
    # A handler of Python's that never nests: it only notes that there is something (IO-20).
    reader, writer = pipes.make(slots=1)
    reader.set_flag(NONBLOCK)
    actors = [processes(endless(writer, 256), keep=writer) for _ in range(2)]

    def body() -> int:
        noted = [False]

        def handler(*_: object) -> None:
            noted[0] = True

        signal.signal(signal.SIGIO, handler)
        reader.fcntl(F_SETOWN, os.getpid())
        reader.set_flag(os.O_ASYNC)
        total = 0
        noted[0] = True  # what was there before
        for _ in range(rounds(300)):
            while not noted[0]:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO})
            noted[0] = False
            with contextlib.suppress(BlockingIOError):
                total += len(reader.read(PIPE_BUF))
        return total

    owner = processes(body, keep=reader)
    reader.close()
    writer.close()
    assert owner.result(STALLED_SECONDS) > 0
    for actor in actors:
        assert actor.wait_status() == -signal.SIGPIPE
