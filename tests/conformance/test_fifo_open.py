"""The open() rendezvous of named pipes: rules FO-3 to FO-10 and FO-16."""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Callable, Iterator

import pytest

from conformance.backends import MkFifo, Pipes
from conformance.marks import NONBLOCK, named_only
from support.actors import Actor, ProcessActor
from support.errors import fails_with
from support.signals import InterruptedByTest, Probe, raise_interrupted

pytestmark = named_only

Spawn = Callable[..., Actor]
Other = {"r": "w", "w": "r"}
sides = pytest.mark.parametrize("side", ["r", "w"])


def opener(pipes: Pipes, name: str, mode: str) -> Callable[[], Iterator[str]]:
    """The body of an actor that opens an end and holds it until go()."""

    def body() -> Iterator[str]:
        end = pipes.open(name, mode)
        yield "open"
        end.close()

    return body


def no_reader(pipes: Pipes, name: str) -> None:
    """Assert with the one question that a FIFO answers: has anybody the read end open?"""
    with fails_with(errno.ENXIO):
        pipes.open(name, "w", NONBLOCK)


@sides
def test_FO_03_open_blocks_until_the_other_side_opens(
    pipes: Pipes, spawn: Spawn, side: str
) -> None:
    name = pipes.create()
    first = spawn(opener(pipes, name, side))
    first.wait_blocked()
    second = pipes.open(name, Other[side])
    assert first.receive() == "open"
    first.go()
    first.result()
    second.close()


def test_FO_03_data_flows_after_the_rendezvous(pipes: Pipes, spawn: Spawn) -> None:
    name = pipes.create()

    def reading() -> bytes:
        end = pipes.open(name, "r")
        try:
            return end.read_exactly(100)
        finally:
            end.close()

    actor = spawn(reading)
    writer = pipes.open(name, "w")
    writer.write(b"hello")
    writer.close()
    assert actor.result() == b"hello"


def test_FO_04_nonblocking_reader_opens_at_once(pipes: Pipes) -> None:
    name = pipes.create()
    reader = pipes.open(name, "r", NONBLOCK)
    assert reader.flags() & NONBLOCK
    assert reader.flags() & os.O_ACCMODE == os.O_RDONLY
    assert reader.read(1) == b"", "no writer: end of file, not EAGAIN"


def test_FO_04_nonblocking_writer_needs_a_reader(pipes: Pipes) -> None:
    name = pipes.create()
    no_reader(pipes, name)
    reader = pipes.open(name, "r", NONBLOCK)
    writer = pipes.open(name, "w", NONBLOCK)
    assert writer.flags() & NONBLOCK
    assert writer.flags() & os.O_ACCMODE == os.O_WRONLY
    writer.close()
    reader.close()
    no_reader(pipes, name)


def test_FO_04_a_failed_open_leaves_no_writer_behind(pipes: Pipes) -> None:
    name = pipes.create()
    no_reader(pipes, name)
    reader = pipes.open(name, "r", NONBLOCK)
    assert reader.poll() == 0, "no HUP: there was no writer yet"


def test_FO_05_a_blocked_reader_counts_as_reader(pipes: Pipes, spawn: Spawn) -> None:
    name = pipes.create()
    reader = spawn(opener(pipes, name, "r"))
    reader.wait_blocked()
    writer = pipes.open(name, "w", NONBLOCK)
    assert reader.receive() == "open"
    assert writer.write(b"x") == 1
    reader.go()
    reader.result()


def test_FO_05_a_blocked_writer_counts_as_writer(pipes: Pipes, spawn: Spawn) -> None:
    name = pipes.create()
    writer = spawn(opener(pipes, name, "w"))
    writer.wait_blocked()
    reader = pipes.open(name, "r", NONBLOCK)
    assert writer.receive() == "open"
    with fails_with(errno.EAGAIN):
        reader.read(1)
    writer.go()
    writer.result()
    assert reader.read(1) == b""


@sides
def test_FO_06_a_partner_that_is_gone_again_releases_too(
    pipes: Pipes, spawn: Spawn, side: str
) -> None:
    name = pipes.create()
    first = spawn(opener(pipes, name, side))
    first.wait_blocked()
    pipes.open(name, Other[side], NONBLOCK).close()
    assert first.receive() == "open"
    first.go()
    first.result()


def test_FO_06_a_released_reader_then_sees_end_of_file(pipes: Pipes, spawn: Spawn) -> None:
    name = pipes.create()

    def body() -> tuple[bytes, int]:
        end = pipes.open(name, "r")
        try:
            return end.read(1), end.poll()
        finally:
            end.close()

    reader = spawn(body)
    reader.wait_blocked()
    pipes.open(name, "w", NONBLOCK).close()
    assert reader.result() == (b"", select.POLLHUP)


@sides
@pytest.mark.parametrize("releaser", ["other", "r+"])
def test_FO_07_one_open_releases_all(pipes: Pipes, spawn: Spawn, side: str, releaser: str) -> None:
    name = pipes.create()
    waiting = [spawn(opener(pipes, name, side)) for _ in range(5)]
    for actor in waiting:
        actor.wait_blocked()
    end = pipes.open(name, Other[side] if releaser == "other" else "r+", NONBLOCK)
    assert [actor.receive() for actor in waiting] == ["open"] * 5
    for actor in waiting:
        actor.go()
        actor.result()
    end.close()


def test_FO_07_readers_do_not_release_readers(pipes: Pipes, spawn: Spawn) -> None:
    name = pipes.create()
    first = spawn(opener(pipes, name, "r"))
    first.wait_blocked()
    nonblocking = pipes.open(name, "r", NONBLOCK)
    second = spawn(opener(pipes, name, "r"))
    second.wait_blocked()
    first.wait_blocked()
    assert not first.finished()
    nonblocking.close()
    writer = pipes.open(name, "w")
    assert (first.receive(), second.receive()) == ("open", "open")
    for actor in (first, second):
        actor.go()
        actor.result()
    writer.close()


@pytest.mark.parametrize("flags", [0, NONBLOCK], ids=["blocking", "nonblocking"])
def test_FO_08_read_write_never_blocks(pipes: Pipes, flags: int) -> None:
    name = pipes.create()
    end = pipes.open(name, "r+", flags)
    assert end.flags() & os.O_ACCMODE == os.O_RDWR
    assert end.poll() == select.POLLOUT | select.POLLWRNORM
    assert end.write(b"abc") == 3
    assert end.poll() == select.POLLIN | select.POLLRDNORM | select.POLLOUT | select.POLLWRNORM
    assert end.read(10) == b"abc"


def test_FO_08_read_write_sees_no_end_of_its_own(pipes: Pipes) -> None:
    name = pipes.create()
    end = pipes.open(name, "r+", NONBLOCK)
    with fails_with(errno.EAGAIN):
        end.read(1)
    end.fill(4096)
    with fails_with(errno.EAGAIN):
        end.write(b"x")
    assert end.poll() == select.POLLIN | select.POLLRDNORM


def test_FO_08_read_write_counts_as_reader_and_as_writer(pipes: Pipes) -> None:
    name = pipes.create()
    both = pipes.open(name, "r+")
    reader = pipes.open(name, "r")  # does not block
    writer = pipes.open(name, "w")
    writer.write(b"x")
    writer.close()
    assert reader.read(9) == b"x"
    reader.set_flag(NONBLOCK)
    with fails_with(errno.EAGAIN):
        reader.read(1)
    both.close()
    assert reader.read(1) == b""


@sides
def test_FO_09_an_interrupted_open_restores_the_counts(
    pipes: Pipes, processes: Callable[..., ProcessActor], probe: Probe, side: str
) -> None:
    name = pipes.create()

    def body() -> Iterator[str]:
        probe.install(signal.SIGUSR1, raise_interrupted)
        try:
            pipes.open(name, side)
        except InterruptedByTest:
            yield "interrupted"

    actor = processes(body)
    actor.wait_blocked()
    actor.kill(signal.SIGUSR1)
    assert actor.receive() == "interrupted"
    if side == "r":
        no_reader(pipes, name)
    else:
        reader = pipes.open(name, "r", NONBLOCK)
        assert reader.read(1) == b""
    actor.go()
    actor.result()


@sides
def test_FO_09_open_goes_on_after_a_handler(
    pipes: Pipes, processes: Callable[..., ProcessActor], probe: Probe, side: str
) -> None:
    name = pipes.create()

    def body() -> str:
        probe.install(signal.SIGUSR1)
        pipes.open(name, side).close()
        return "open"

    actor = processes(body)
    for _ in range(3):
        actor.wait_blocked()
        actor.kill(signal.SIGUSR1)
        probe.wait_handled()
    actor.wait_blocked()
    pipes.open(name, Other[side], NONBLOCK)
    assert actor.result() == "open"


@sides
def test_FO_09_a_killed_opener_leaves_nothing_behind(
    pipes: Pipes, processes: Callable[..., ProcessActor], side: str
) -> None:
    name = pipes.create()
    actor = processes(opener(pipes, name, side))
    actor.wait_blocked()
    actor.kill()
    assert actor.wait_status() == -signal.SIGKILL
    if side == "r":
        no_reader(pipes, name)
    else:
        assert pipes.open(name, "r", NONBLOCK).read(1) == b""


@pytest.mark.parametrize("flags", [0, NONBLOCK])
def test_FO_10_access_mode_three_is_einval(pipes: Pipes, flags: int) -> None:
    # shmpipe's open() takes the modes of the built-in one; there is no fourth.
    name = pipes.create()
    if isinstance(pipes.backend, MkFifo):
        with fails_with(errno.EINVAL):
            os.open(name, os.O_WRONLY | os.O_RDWR | flags)
    else:
        with pytest.raises(ValueError, match="mode"):
            pipes.backend.open(name, "rw", flags)  # type: ignore[attr-defined]


def test_FO_16_no_hup_before_the_first_writer(pipes: Pipes) -> None:
    name = pipes.create()
    reader = pipes.open(name, "r", NONBLOCK)
    assert reader.poll() == 0
    assert reader.read(1) == b"", "but read says end of file"
    writer = pipes.open(name, "w")
    assert reader.poll() == 0
    writer.close()
    assert reader.poll() == select.POLLHUP


def test_FO_16_the_suppression_belongs_to_the_description(pipes: Pipes) -> None:
    name = pipes.create()
    first = pipes.open(name, "r", NONBLOCK)
    pipes.open(name, "w").close()
    second = pipes.open(name, "r", NONBLOCK)
    assert (first.poll(), second.poll()) == (select.POLLHUP, 0)
    pipes.open(name, "w").close()
    assert (first.poll(), second.poll()) == (select.POLLHUP, select.POLLHUP)


def test_FO_16_a_new_writer_takes_hup_away(pipes: Pipes) -> None:
    name = pipes.create()
    reader = pipes.open(name, "r", NONBLOCK)
    pipes.open(name, "w").close()
    assert reader.poll() == select.POLLHUP
    writer = pipes.open(name, "w")
    assert reader.poll() == 0
    writer.write(b"x")
    assert reader.poll() == select.POLLIN | select.POLLRDNORM
