"""Ends that go elsewhere: across exec and through a socket: rules LF-3 and LF-4."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable

from conformance.backends import Pipes
from conformance.ends import End, KernelEnd
from conformance.marks import NONBLOCK
from support import proc
from support.actors import ProcessActor
from support.errors import fails_with

SpawnProcess = Callable[..., ProcessActor]


def descriptors(end: End) -> tuple[int, ...]:
    """What another process must have to have the end."""
    if isinstance(end, KernelEnd):
        return (end.fileno(),)
    numbers = vars(end)["_end"].pass_fds()
    assert isinstance(numbers, tuple)
    return numbers


def program(end: End, rest: str) -> list[str]:
    """A program in which `end` is the inherited end, as a kernel descriptor or attached anew."""
    if isinstance(end, KernelEnd):
        first = f"import os; write = lambda data: os.write({end.fileno()}, data)"
    else:
        first = f"import shmpipe; write = shmpipe.attach({vars(end)['_end'].token()!r}).write"
    return [sys.executable, "-c", f"{first}; {rest}"]


def test_LF_03_exec_keeps_what_is_passed_on(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    command = program(writer, "write(b'from afar'); input()")
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=descriptors(writer)) as process:
        writer.close()
        assert reader.read(100) == b"from afar"
        reader.set_flag(os.O_NONBLOCK)
        with fails_with(errno.EAGAIN):
            reader.read(1)
        process.communicate(b"\n")
    assert reader.read(1) == b"", "it ended, and with it its end"


def test_LF_03_exec_shares_the_description(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(bytes(4096))
    # Written only once O_NONBLOCK has been taken away here.
    command = program(writer, "input(); write(b'!'); input()")
    with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=descriptors(writer)) as process:
        writer.set_flag(os.O_NONBLOCK, on=False)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        sleep = proc.wait_until_blocked(
            process.pid,
            control_fds=frozenset({0}),
            finished=lambda: process.poll() is not None,
        )
        assert sleep is not None, "it waits for room: the flag was taken away from both"
        assert reader.read(4096) == bytes(4096)
        reader.set_flag(os.O_NONBLOCK, on=False)
        assert reader.read(9) == b"!"
        process.communicate(b"\n")
    assert process.returncode == 0


def test_LF_04_an_end_on_its_way_keeps_end_of_file_away(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    there, back = socket.socketpair()
    with there, back:
        socket.send_fds(there, [b"-"], list(descriptors(writer)))
        writer.close()
        with fails_with(errno.EAGAIN):
            reader.read(1)
        assert reader.poll() == 0
    assert reader.read(1) == b"", "it was never received"


def test_LF_04_an_end_on_its_way_keeps_a_sleeper_asleep(
    pipes: Pipes, processes: SpawnProcess
) -> None:
    reader, writer = pipes.make()
    actor = processes(lambda: reader.read(1), keep=reader)
    there, back = socket.socketpair()
    with there, back:
        socket.send_fds(there, [b"-"], list(descriptors(writer)))
        writer.close()
        actor.wait_blocked()
    assert actor.result() == b""
