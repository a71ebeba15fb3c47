"""Creation and flags: rules CR-1 to CR-10."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections.abc import Callable

import pytest

from conformance.backends import Backend, Pipes
from conformance.ends import PIPE_BUF, End, shmpipe
from conformance.marks import NONBLOCK, anonymous_only, both_modes
from support.errors import fails_with

ACCEPTED = os.O_CLOEXEC | os.O_NONBLOCK | os.O_DIRECT | os.O_EXCL
OTHER_BITS = [1 << bit for bit in range(31) if not (1 << bit) & ACCEPTED]


def raw_pipe(backend: Backend, flags: int) -> None:
    """pipe2(flags) itself, without what the adapters add."""
    if backend.shm:
        for end in shmpipe().pipe(flags):
            end.close()
    else:
        for descriptor in os.pipe2(flags):
            os.close(descriptor)


def test_CR_01_access_modes(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    assert reader.flags() & os.O_ACCMODE == os.O_RDONLY
    assert writer.flags() & os.O_ACCMODE == os.O_WRONLY


@anonymous_only
def test_CR_01_getfl_is_exactly_the_access_mode(pipes: Pipes) -> None:
    # A FIFO adds O_LARGEFILE here, as every open() does on a 64-bit kernel.
    reader, writer = pipes.make()
    assert (reader.flags(), writer.flags()) == (0, 1)


@anonymous_only
@pytest.mark.parametrize("flags", OTHER_BITS, ids=lambda bit: f"{bit:#o}")
def test_CR_02_unknown_flag_is_einval(backend: Backend, flags: int) -> None:
    with fails_with(errno.EINVAL):
        raw_pipe(backend, flags)


@anonymous_only
@pytest.mark.parametrize("flags", [0xDEAD, os.O_NONBLOCK | os.O_APPEND])
def test_CR_02_known_and_unknown_flags_together_are_einval(backend: Backend, flags: int) -> None:
    with fails_with(errno.EINVAL):
        raw_pipe(backend, flags)


@anonymous_only
@pytest.mark.parametrize("flags", [0, os.O_CLOEXEC, os.O_NONBLOCK, os.O_DIRECT])
def test_CR_02_accepted_flags(backend: Backend, flags: int) -> None:
    raw_pipe(backend, flags)


@both_modes
def test_CR_03_nonblock_is_set_on_both_ends(pipes: Pipes, flags: int) -> None:
    for end in pipes.make(flags):
        assert end.flags() & NONBLOCK == flags


def test_CR_03_direct_is_set_on_the_write_end_only(pipes: Pipes) -> None:
    reader, writer = pipes.make(os.O_DIRECT)
    assert reader.flags() & os.O_DIRECT == 0
    assert writer.flags() & os.O_DIRECT == os.O_DIRECT


def test_CR_07_size_and_content_are_seen_from_both_ends(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    assert reader.resize(2 * PIPE_BUF) == 2 * PIPE_BUF
    assert writer.capacity() == 2 * PIPE_BUF
    writer.write(b"12345")
    assert (reader.pending(), writer.pending()) == (5, 5)


@both_modes
def test_CR_08_setfl_keeps_what_it_cannot_change(pipes: Pipes, flags: int) -> None:
    for end in pipes.make(flags):
        before = end.flags()
        end.fcntl(fcntl.F_SETFL, os.O_WRONLY | os.O_RDWR | os.O_SYNC | os.O_CREAT)
        assert end.flags() & (os.O_ACCMODE | os.O_SYNC | os.O_CREAT) == before & os.O_ACCMODE
        assert end.flags() & NONBLOCK == 0, "what it can change is taken literally"


def test_CR_08_setfl_accepts_append_without_effect(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    writer.set_flag(os.O_APPEND)
    assert writer.flags() & os.O_APPEND
    assert writer.write(b"ab") == 2
    assert reader.read(9) == b"ab"


@pytest.mark.parametrize("flag", [NONBLOCK, os.O_APPEND, os.O_DIRECT], ids=oct)
@pytest.mark.parametrize("side", [0, 1], ids=["reader", "writer"])
def test_CR_08_setfl_sets_and_clears_on_one_end_only(pipes: Pipes, flag: int, side: int) -> None:
    ends = pipes.make()
    ends[side].set_flag(flag)
    assert ends[side].flags() & flag == flag
    assert ends[1 - side].flags() & flag == 0
    ends[side].set_flag(flag, False)
    assert ends[side].flags() & flag == 0


@both_modes
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_CR_10_read_on_the_write_end_is_ebadf(pipes: Pipes, flags: int, count: int) -> None:
    _, writer = pipes.make(flags)
    with fails_with(errno.EBADF):
        writer.read(count)


@both_modes
@pytest.mark.parametrize("count", [0, 1, 5000])
def test_CR_10_write_on_the_read_end_is_ebadf(pipes: Pipes, flags: int, count: int) -> None:
    reader, _ = pipes.make(flags)
    with fails_with(errno.EBADF):
        reader.write(b"x" * count)


def wrong_side_readv(reader: End, writer: End) -> None:
    writer.readv([bytearray(3)])


def wrong_side_writev(reader: End, writer: End) -> None:
    reader.writev([b"abc"])


@pytest.mark.parametrize("call", [wrong_side_readv, wrong_side_writev])
def test_CR_10_vectors_on_the_wrong_end_are_ebadf(
    pipes: Pipes, call: Callable[[End, End], None]
) -> None:
    with fails_with(errno.EBADF):
        call(*pipes.make())


NEVER: dict[str, tuple[Callable[[int], object], int]] = {
    "lseek": (lambda fd: os.lseek(fd, 0, os.SEEK_SET), errno.ESPIPE),
    "pread": (lambda fd: os.pread(fd, 1, 0), errno.ESPIPE),
    "pwrite": (lambda fd: os.pwrite(fd, b"x", 0), errno.ESPIPE),
    "fallocate": (lambda fd: os.posix_fallocate(fd, 0, 1), errno.ESPIPE),
    "ftruncate": (lambda fd: os.ftruncate(fd, 0), errno.EINVAL),
    "fsync": (lambda fd: os.fsync(fd), errno.EINVAL),
    "fdatasync": (lambda fd: os.fdatasync(fd), errno.EINVAL),
    "mmap": (lambda fd: mmap.mmap(fd, PIPE_BUF, access=mmap.ACCESS_READ), errno.ENODEV),
}


@pytest.mark.parametrize("name", NEVER)
def test_CR_10_calls_that_never_work_on_the_descriptor(pipes: Pipes, name: str) -> None:
    # shmpipe hands out the companion's descriptor: as much a pipe as the kernel's.
    call, expected = NEVER[name]
    reader, writer = pipes.make()
    # pread asks for a readable descriptor first, the others for a writable one.
    with fails_with(expected):
        call((reader if name in ("pread", "mmap") else writer).fileno())


@anonymous_only
def test_CR_02_direct_alone_gives_packets(pipes: Pipes) -> None:
    reader, writer = pipes.make(os.O_DIRECT)
    writer.write(b"one")
    writer.write(b"two")
    assert reader.read(100) == b"one"
    assert reader.read(100) == b"two"


@both_modes
def test_CR_close_is_final_and_can_be_repeated(pipes: Pipes, flags: int) -> None:
    # Not a kernel rule (a descriptor number is reused): the adapters' and shmpipe's own.
    for end in pipes.make(flags):
        end.close()
        assert end.closed
        end.close()
