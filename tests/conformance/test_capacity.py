"""Capacity, resizing and FIONREAD: rules CP-1 to CP-12."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import select

import pytest

from conformance.backends import DEFAULT_CAPACITY, Backend, Pipes
from conformance.ends import F_GETPIPE_SZ, F_SETPIPE_SZ, PIPE_BUF
from conformance.marks import NONBLOCK, both_modes
from support.errors import fails_with

# fcntl.fcntl takes a C int; the kernel reads it as unsigned.
TWO_TO_31 = -(2**31)
KERNEL_MAX = 1 << 20
SHM_MAX = 1 << 30


def test_CP_01_the_default_is_sixteen_slots(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    assert reader.capacity() == writer.capacity() == DEFAULT_CAPACITY
    assert writer.fill(PIPE_BUF) == 16


@both_modes
@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (0, 4096),
        (1, 4096),
        (4095, 4096),
        (4096, 4096),
        (4097, 8192),
        (8192, 8192),
        (10000, 16384),
        (65537, 131072),
        (1 << 20, 1 << 20),
    ],
)
def test_CP_02_sizes_are_rounded_up_and_returned(
    pipes: Pipes, flags: int, asked: int, given: int
) -> None:
    reader, writer = pipes.make(flags)
    assert writer.resize(asked) == given
    assert reader.capacity() == writer.capacity() == given


@pytest.mark.parametrize("slots", [1, 2, 32, 256])
def test_CP_02_the_new_size_is_what_fits(pipes: Pipes, slots: int) -> None:
    _, writer = pipes.make(NONBLOCK)
    writer.resize(slots * PIPE_BUF)
    assert writer.fill(PIPE_BUF) == slots


@pytest.mark.parametrize("size", [-1, TWO_TO_31 + 1], ids=["-1", "2^31+1"])
def test_CP_03_more_than_2_to_the_31_is_einval(pipes: Pipes, size: int) -> None:
    reader, writer = pipes.make()
    for end in (reader, writer):
        with fails_with(errno.EINVAL):
            end.resize(size)
        assert end.capacity() == DEFAULT_CAPACITY


@pytest.mark.parametrize("size", [TWO_TO_31, 2**31 - 1], ids=["2^31", "2^31-1"])
def test_CP_04_growth_beyond_the_limit_is_eperm(pipes: Pipes, size: int) -> None:
    # Needs a process without CAP_SYS_RESOURCE where the kernel's limit is concerned.
    _, writer = pipes.make()
    with fails_with(errno.EPERM):
        writer.resize(size)
    assert writer.capacity() == DEFAULT_CAPACITY


def test_CP_04_the_limit(pipes: Pipes, backend: Backend) -> None:
    # Documented difference: shmpipe's limit is 1 GiB, the kernel's is pipe-max-size.
    _, writer = pipes.make()
    with fails_with(errno.EPERM):
        writer.resize((SHM_MAX if backend.shm else KERNEL_MAX) + 1)
    assert writer.resize(KERNEL_MAX) == KERNEL_MAX


@both_modes
def test_CP_06_shrinking_below_the_slots_in_use_is_ebusy(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    data = os.urandom(PIPE_BUF + 1)
    writer.write(data)
    with fails_with(errno.EBUSY):
        writer.resize(PIPE_BUF)
    assert writer.capacity() == DEFAULT_CAPACITY, "and nothing has changed"
    assert reader.read(PIPE_BUF) == data[:PIPE_BUF]
    assert writer.resize(PIPE_BUF) == PIPE_BUF
    assert reader.read(PIPE_BUF) == data[PIPE_BUF:]


def test_CP_06_slots_count_not_bytes(pipes: Pipes) -> None:
    reader, writer = pipes.make(os.O_DIRECT)
    writer.write(b"a")
    writer.write(b"b")
    with fails_with(errno.EBUSY):
        writer.resize(PIPE_BUF)
    assert reader.read(9) == b"a"
    assert writer.resize(PIPE_BUF) == PIPE_BUF


def test_CP_06_a_partly_read_slot_is_in_use(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    writer.write(b"x" * (PIPE_BUF + 1))
    reader.read(PIPE_BUF - 1)
    with fails_with(errno.EBUSY):
        reader.resize(PIPE_BUF)


@pytest.mark.parametrize("size", [1, 4096])
def test_CP_06_one_used_slot_fits_into_one(pipes: Pipes, size: int) -> None:
    reader, writer = pipes.make()
    writer.write(b"x" * size)
    assert writer.resize(PIPE_BUF) == PIPE_BUF
    assert reader.read(PIPE_BUF) == b"x" * size


def test_CP_06_shrinking_to_exactly_what_is_used(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    data = os.urandom(4 * PIPE_BUF)
    writer.write(data)
    assert writer.resize(4 * PIPE_BUF) == 4 * PIPE_BUF
    assert not writer.poll() & select.POLLOUT
    with fails_with(errno.EAGAIN):
        writer.write(b"x")
    assert reader.read(5 * PIPE_BUF) == data


def test_CP_07_growing_keeps_contents_and_makes_room(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"a" * 4000)
    with fails_with(errno.EAGAIN):
        writer.write(b"b" * 97)
    writer.resize(2 * PIPE_BUF)
    assert writer.write(b"b" * 97) == 97
    assert reader.read(8192) == b"a" * 4000 + b"b" * 97


def test_CP_07_merging_goes_on_after_a_resize(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.write(b"a" * 10)
    writer.resize(PIPE_BUF)
    assert writer.write(b"b" * 4086) == 4086
    assert reader.read(8192) == b"a" * 10 + b"b" * 4086


def test_CP_07_packets_stay_packets(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK | os.O_DIRECT, slots=4)
    for packet in (b"1", b"22", b"333"):
        writer.write(packet)
    reader.resize(16 * PIPE_BUF)
    assert [reader.read(9), reader.read(9), reader.read(9)] == [b"1", b"22", b"333"]


@pytest.mark.parametrize("seed", range(4))
def test_CP_07_random_resizes_of_a_wrapped_ring(pipes: Pipes, seed: int) -> None:
    chance = random.Random(seed)
    reader, writer = pipes.make(NONBLOCK, slots=4)
    sent, received = bytearray(), bytearray()
    for _ in range(600):
        action = chance.randrange(5)
        try:
            if action < 2:
                data = chance.randbytes(chance.choice([1, 100, 4095, 4096, 4097, 9000]))
                sent += data[: writer.write(data)]
            elif action < 4:
                received += reader.read(chance.choice([1, 50, 4096, 5000, 20000]))
            else:
                writer.resize(PIPE_BUF << chance.randrange(6))
        except BlockingIOError:
            pass
        except OSError as error:
            assert error.errno == errno.EBUSY  # noqa: PT017 - any other result is fine here
        assert reader.pending() == len(sent) - len(received)
    received += reader.read_exactly(len(sent) - len(received))
    assert received == sent


@both_modes
def test_CP_09_fionread_on_both_ends(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    total = 0
    for size in (1, 4095, 4096, 10000):
        writer.write(b"x" * size)
        total += size
        assert reader.pending() == writer.pending() == total
    for count in (1, 4096, 9000):
        total -= len(reader.read(count))
        assert reader.pending() == writer.pending() == total
    assert total == 18192 - 13097


def test_CP_09_fionread_at_end_of_file_and_without_readers(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    writer.write(b"abc")
    writer.close()
    assert reader.pending() == 3
    reader, writer = pipes.make()
    writer.write(b"abc")
    reader.close()
    assert writer.pending() == 3


def cycles_until_stuck(pipes: Pipes, slots: int, limit: int) -> int:
    """How often a make jobserver can take one of ten tokens and put it back."""
    reader, writer = pipes.make(NONBLOCK, slots=slots)
    writer.write(b"+" * 10)
    for cycle in range(limit):
        token = reader.read(1)
        try:
            writer.write(token)
        except BlockingIOError:
            assert reader.pending() == 9
            return cycle
    return limit


def test_CP_10_one_slot_is_dangerous_for_tokens(pipes: Pipes) -> None:
    assert cycles_until_stuck(pipes, 1, 10000) == 4086


@pytest.mark.parametrize("slots", [2, 16])
def test_CP_10_two_slots_are_not(pipes: Pipes, slots: int) -> None:
    assert cycles_until_stuck(pipes, slots, 10000) == 10000


def test_CP_12_sizes_of_what_is_no_pipe(tmp_path: os.PathLike[str]) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        for command in (F_GETPIPE_SZ, F_SETPIPE_SZ):
            with fails_with(errno.EBADF):
                fcntl.fcntl(descriptor, command, PIPE_BUF)
    finally:
        os.close(descriptor)
