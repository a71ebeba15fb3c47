"""Flags and permissions of named pipes: rules FO-11 to FO-14."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest

from conformance.backends import Backend, Pipes
from conformance.marks import NONBLOCK, named_only
from support.actors import ProcessActor
from support.errors import fails_with

SpawnProcess = Callable[..., ProcessActor]

NOBODY = 65534


@named_only
@pytest.mark.parametrize("flag", [os.O_TRUNC, os.O_APPEND, os.O_CREAT, os.O_SYNC, os.O_NOFOLLOW])
def test_FO_11_flags_of_files_do_no_harm(pipes: Pipes, flag: int) -> None:
    name = pipes.create()
    keeper = pipes.open(name, "r+", NONBLOCK)
    keeper.write(b"kept")
    pipes.open(name, "w", flag).write(b"!")
    assert keeper.read(9) == b"kept!"


@named_only
@pytest.mark.parametrize(
    ("flags", "expected"),
    [(os.O_CREAT | os.O_EXCL, errno.EEXIST), (os.O_DIRECTORY, errno.ENOTDIR)],
)
def test_FO_11_flags_that_no_fifo_can_obey(pipes: Pipes, flags: int, expected: int) -> None:
    with fails_with(expected):
        pipes.open(pipes.create(), "r", flags | NONBLOCK)


@named_only
def test_FO_12_open_refuses_O_DIRECT(pipes: Pipes) -> None:
    with fails_with(errno.EINVAL):
        pipes.open(pipes.create(), "r+", os.O_DIRECT)


@named_only
def test_FO_12_packets_are_switched_on_later(pipes: Pipes) -> None:
    end = pipes.open(pipes.create(), "r+", NONBLOCK)
    end.set_flag(os.O_DIRECT)
    end.write(b"one")
    end.write(b"two")
    assert [end.read(9), end.read(9)] == [b"one", b"two"]


@named_only
def test_FO_13_O_ASYNC_of_open_is_shown_and_does_nothing(pipes: Pipes) -> None:
    end = pipes.open(pipes.create(), "r+", NONBLOCK | os.O_ASYNC)
    assert end.flags() & os.O_ASYNC


@named_only
@pytest.mark.parametrize(
    ("mode", "readable", "writable"),
    [(0o666, True, True), (0o444, True, False), (0o222, False, True), (0o600, False, False)],
)
def test_FO_14_the_permission_bits_decide_who_may_open(
    pipes: Pipes,
    processes: SpawnProcess,
    backend: Backend,
    mode: int,
    readable: bool,
    writable: bool,
) -> None:
    umask = os.umask(0)
    try:
        name = pipes.create(mode)
    finally:
        os.umask(umask)
    keeper = pipes.open(name, "r+", NONBLOCK)

    def opens(access: str) -> bool:
        try:
            pipes.open(name, access, NONBLOCK).close()
        except PermissionError:
            return False
        return True

    def body() -> tuple[bool, bool]:
        if directory := os.path.dirname(name):
            os.chmod(directory, 0o755)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        return opens("r"), opens("w")

    if os.getuid() != 0:
        pytest.skip("needs root: only it can become somebody else")
    if backend.shm and readable != writable:
        # Both sides write to the segment, so it takes both bits (decision 0020).
        readable = writable = False
    assert processes(body, keep=keeper).result() == (readable, writable)
