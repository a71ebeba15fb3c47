"""Who is told, and for how long: rules IO-11 to IO-15."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from conformance.backends import Pipes
from conformance.ends import End, KernelEnd, ShmEnd, shmpipe
from conformance.marks import NONBLOCK
from conformance.sigio import (
    F_GETOWN,
    F_GETOWN_EX,
    F_OWNER_PGRP,
    F_OWNER_PID,
    F_OWNER_TID,
    F_SETOWN,
    F_SETOWN_EX,
    F_SETSIG,
    OWNER,
    POLL_IN,
    POLL_OUT,
    QUEUED,
    arm,
    caught,
    taken,
)
from support.actors import ProcessActor
from support.errors import fails_with

pytestmark = pytest.mark.usefixtures("blocked")

SpawnProcess = Callable[..., ProcessActor]


def inherited(end: End) -> tuple[int, ...]:
    """What another process must have to have the end."""
    if isinstance(end, KernelEnd):
        return (end.fileno(),)
    numbers = vars(end)["_end"].pass_fds()
    assert isinstance(numbers, tuple)
    return numbers


def duplicate(end: End) -> End:
    """Another descriptor of the same description."""
    copies = [os.dup(number) for number in inherited(end)]
    if isinstance(end, KernelEnd):
        return KernelEnd(copies[0], end.writable)
    kind, _, _, *rest = vars(end)["_end"].token().split(":")
    return ShmEnd(shmpipe().attach(":".join([kind, *map(str, copies), *rest])), end.writable)


def owner_of(end: End) -> tuple[int, int]:
    answer = control(end, F_GETOWN_EX, bytes(OWNER.size))
    kind, number = OWNER.unpack(answer)
    return kind, number


def control(end: End, command: int, argument: bytes) -> bytes:
    """fcntl with a structure."""
    if isinstance(end, KernelEnd):
        return fcntl.fcntl(end.fileno(), command, argument)
    answer = shmpipe().fcntl(vars(end)["_end"], command, argument)
    assert isinstance(answer, bytes)
    return answer


def test_IO_11_the_number_stays_when_its_descriptor_is_closed(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    number = reader.fileno()
    copy = duplicate(reader)
    try:
        reader.close()
        writer.write(b"x")
        assert [notice.fd for notice in taken()] == [number]
    finally:
        copy.close()
    assert caught() == []


def test_IO_11_arming_again_through_a_duplicate_changes_nothing(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    copy = duplicate(reader)
    try:
        assert copy.flags() & os.O_ASYNC
        copy.set_flag(os.O_ASYNC)
        writer.write(b"x")
        assert [notice.fd for notice in taken()] == [reader.fileno()]
        copy.set_flag(os.O_ASYNC, on=False)
        assert not reader.flags() & os.O_ASYNC
        writer.write(b"x")
        assert taken() == []
        copy.set_flag(os.O_ASYNC)
        writer.write(b"x")
        assert [notice.fd for notice in taken()] == [copy.fileno()]
    finally:
        copy.close()


def test_IO_12_it_lives_as_long_as_its_description(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make(NONBLOCK)
    other = duplicate(reader) if isinstance(reader, KernelEnd) else None
    arm(reader)
    actor = processes(signal.pause, keep=reader)
    reader.close()
    if other:
        other.close()
    writer.write(b"x")
    assert caught() == [POLL_IN], "the child has the description, and we are its owner"
    actor.kill()
    actor.wait_status()
    assert caught() == []
    with fails_with(errno.EPIPE):
        writer.write(b"x")
    assert caught() == [], "it went with its last descriptor"


def test_IO_12_a_child_that_closes_its_copy_takes_nothing_away(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    processes(reader.close, keep=reader).result()
    writer.write(b"x")
    assert caught() == [POLL_IN]


def test_IO_12_a_child_disarms_it_for_all(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make(NONBLOCK)
    arm(reader)
    processes(lambda: reader.set_flag(os.O_ASYNC, on=False), keep=reader).result()
    assert not reader.flags() & os.O_ASYNC
    writer.write(b"x")
    assert caught() == []


def test_IO_12_a_child_arms_its_parent(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make(NONBLOCK)

    def body() -> None:
        reader.fcntl(F_SETOWN, os.getppid())
        reader.fcntl(F_SETSIG, QUEUED)
        reader.set_flag(os.O_ASYNC)

    processes(body, keep=reader).result()
    assert reader.flags() & os.O_ASYNC
    writer.write(b"x")
    assert caught() == [POLL_IN]


COUNT = f"""
import signal
print("ready", flush=True)
input()
count = 0
while signal.sigtimedwait({{{int(QUEUED)}}}, 0):
    count += 1
print(count, flush=True)
"""


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_IO_12_it_survives_exec(pipes: Pipes, side: str) -> None:
    reader, writer = pipes.make(NONBLOCK)
    end = reader if side == "reader" else writer
    with subprocess.Popen(
        [sys.executable, "-c", COUNT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=inherited(end),
        preexec_fn=lambda: arm(end),  # no other thread runs
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        for _ in range(7):
            if side == "reader":
                writer.write(b"x")
            else:
                with fails_with(errno.EAGAIN):
                    reader.read(1)
        assert program.communicate(b"\n")[0] == b"7\n"
    assert caught() == [], "it was all for the program"


def test_IO_12_a_program_writes_and_its_parent_is_told(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    if isinstance(writer, KernelEnd):
        first = f"import os; write = lambda data: os.write({writer.fileno()}, data)"
    else:
        first = f"import shmpipe; write = shmpipe.attach({vars(writer)['_end'].token()!r}).write"
    arm(reader)
    with subprocess.Popen(
        [sys.executable, "-c", f"{first}; [write(b'x') for _ in range(5)]; input()"],
        stdin=subprocess.PIPE,
        pass_fds=inherited(writer),
    ) as program:
        assert reader.read_exactly(5) == b"x" * 5
        program.communicate(b"\n")
    assert caught() == [POLL_IN] * 5


def test_IO_13_each_member_of_a_group_gets_one(pipes: Pipes, processes: SpawnProcess) -> None:
    reader, writer = pipes.make()

    def lead() -> Iterator[object]:
        os.setpgid(0, 0)
        reader.fcntl(F_SETOWN, -os.getpid())
        reader.fcntl(F_SETSIG, QUEUED)
        reader.set_flag(os.O_ASYNC)
        yield os.getpid()
        yield len(caught())

    leader = processes(lead, keep=reader)
    group = leader.receive()

    def follow() -> Iterator[object]:
        os.setpgid(0, group)
        yield None
        yield len(caught())

    follower = processes(follow, keep=reader)
    follower.receive()
    for _ in range(3):
        writer.write(b"x")
    for member in (leader, follower):
        member.go()
        assert member.receive() == 3
    assert caught() == []
    assert owner_of(reader) == (F_OWNER_PGRP, group)


@pytest.mark.parametrize("side", ["reader", "writer"])
def test_IO_13_a_thread_is_told_itself(pipes: Pipes, side: str) -> None:
    reader, writer = pipes.make(NONBLOCK)
    end = reader if side == "reader" else writer
    armed, over = threading.Event(), threading.Event()
    seen: list[tuple[int, int]] = []

    def own() -> None:
        control(end, F_SETOWN_EX, OWNER.pack(F_OWNER_TID, threading.get_native_id()))
        end.fcntl(F_SETSIG, QUEUED)
        end.set_flag(os.O_ASYNC)
        armed.set()
        over.wait(10)
        seen.extend(caught())

    thread = threading.Thread(target=own)
    thread.start()
    try:
        assert armed.wait(10)
        assert owner_of(end) == (F_OWNER_TID, thread.native_id)
        for _ in range(3):
            if side == "reader":
                writer.write(b"x")
            else:
                with fails_with(errno.EAGAIN):
                    reader.read(1)
        assert caught() == [], "not this thread"
    finally:
        over.set()
        thread.join()
    assert seen == [POLL_IN if side == "reader" else POLL_OUT] * 3
    writer.write(b"x")
    reader.read(4)
    assert caught() == [], "a thread that is gone is nobody (IO-14)"


@pytest.mark.parametrize("kind", [F_OWNER_TID, F_OWNER_PID, F_OWNER_PGRP])
def test_IO_13_owners_with_a_kind(pipes: Pipes, kind: int) -> None:
    reader, writer = pipes.make(NONBLOCK)
    owner = os.getpgrp() if kind == F_OWNER_PGRP else os.getpid()
    control(reader, F_SETOWN_EX, OWNER.pack(kind, owner))
    assert owner_of(reader) == (kind, owner)
    assert owner_of(writer)[1] == 0, "it belongs to the description"
    if kind != F_OWNER_PGRP:
        assert reader.fcntl(F_GETOWN) == owner
    with fails_with(errno.ESRCH):
        control(reader, F_SETOWN_EX, OWNER.pack(kind, 2**22 + 1))
    with fails_with(errno.EINVAL):
        control(reader, F_SETOWN_EX, OWNER.pack(3, owner))
    assert owner_of(reader) == (kind, owner), "what is refused changes nothing"
    control(reader, F_SETOWN_EX, OWNER.pack(kind, 0))
    assert owner_of(reader)[1] == 0


def test_IO_15_permission_is_asked_at_delivery(pipes: Pipes, processes: SpawnProcess) -> None:
    if os.geteuid() != 0:
        pytest.skip("to be refused takes two users")
    nobody = 65534
    reader, writer = pipes.make()

    def body() -> int:
        os.setresuid(nobody, nobody, nobody)
        reader.fcntl(F_SETOWN, os.getppid())
        return reader.fcntl(F_GETOWN)

    reader.fcntl(F_SETSIG, QUEUED)
    reader.set_flag(os.O_ASYNC)
    assert processes(body, keep=reader).result() == os.getpid(), "to name an owner is no crime"
    writer.write(b"x")
    assert caught() == [], "but nobody may not signal root"
    reader.fcntl(F_SETOWN, os.getpid())
    writer.write(b"x")
    assert caught() == [POLL_IN]
