"""Counts of nonblocking writes, merging, and what room means: rules WR-1 to WR-10, WR-17."""

from __future__ import annotations

import errno
import os
import select

import pytest

from conformance.backends import DEFAULT_CAPACITY, Pipes
from conformance.ends import PIPE_BUF, End
from conformance.marks import NONBLOCK, both_modes
from support.errors import fails_with


def would_block(writer: End, size: int) -> None:
    with fails_with(errno.EAGAIN):
        writer.write(b"x" * size)


@both_modes
def test_WR_01_nothing_is_written_without_a_look_at_the_readers(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    assert writer.write(b"") == 0
    reader.close()
    assert writer.write(b"") == 0, "no EPIPE for an empty write"


def test_WR_01_an_empty_write_to_a_full_pipe_is_zero(pipes: Pipes) -> None:
    _, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"x" * PIPE_BUF)
    assert writer.write(b"") == 0
    assert writer.writev([b"", b""]) == 0


@both_modes
@pytest.mark.parametrize("size", [1, PIPE_BUF, PIPE_BUF + 1, 2 * DEFAULT_CAPACITY])
def test_WR_01_no_reader_is_epipe(pipes: Pipes, flags: int, size: int) -> None:
    reader, writer = pipes.make(flags)
    reader.close()
    with fails_with(errno.EPIPE):
        writer.write(b"x" * size)


def test_WR_01_no_reader_is_epipe_also_when_full(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.fill(PIPE_BUF)
    reader.close()
    with fails_with(errno.EPIPE):
        writer.write(b"x")


@both_modes
@pytest.mark.parametrize(
    ("first", "second"),
    [(10, 4086), (1, 4095), (4095, 1), (2048, 2048), (1, 1), (4000, 96)],
)
def test_WR_02_a_write_that_fits_is_merged(
    pipes: Pipes, flags: int, first: int, second: int
) -> None:
    reader, writer = pipes.make(flags, slots=1)
    assert writer.write(b"a" * first) == first
    assert writer.write(b"b" * second) == second
    assert reader.read(2 * PIPE_BUF) == b"a" * first + b"b" * second


@pytest.mark.parametrize(("first", "second"), [(10, 4087), (4095, 2), (1, 4096), (4096, 1)])
def test_WR_02_a_write_that_does_not_fit_needs_a_slot(
    pipes: Pipes, first: int, second: int
) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)
    assert writer.write(b"a" * first) == first
    would_block(writer, second)
    assert reader.read(2 * PIPE_BUF) == b"a" * first, "EAGAIN leaves nothing behind"


@both_modes
def test_WR_02_merging_goes_on_until_the_slot_is_full(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags, slots=1)
    for index in range(16):
        assert writer.write(bytes([index]) * 256) == 256
    assert reader.read(PIPE_BUF) == b"".join(bytes([index]) * 256 for index in range(16))


@both_modes
def test_WR_02_whole_pages_never_merge(pipes: Pipes, flags: int) -> None:
    # 10 bytes and a page use two slots: there is room for both only with two.
    reader, writer = pipes.make(flags, slots=2)
    assert writer.write(b"a" * 10) == 10
    assert writer.write(b"b" * PIPE_BUF) == PIPE_BUF
    assert not writer.poll() & select.POLLOUT
    assert reader.read(2 * PIPE_BUF) == b"a" * 10 + b"b" * PIPE_BUF


def test_WR_02_the_first_bytes_are_the_ones_that_merge(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=2)
    writer.write(b"0123456789")
    data = bytes(range(100)) + b"p" * PIPE_BUF
    assert writer.write(data) == len(data)
    assert not writer.poll() & select.POLLOUT
    assert reader.read(3 * PIPE_BUF) == b"0123456789" + data


@both_modes
def test_WR_02_nothing_merges_into_an_empty_pipe(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags, slots=1)
    for _ in range(5):  # after a full read the slot is free again and starts anew
        assert writer.write(b"a" * PIPE_BUF) == PIPE_BUF
        assert reader.read(PIPE_BUF) == b"a" * PIPE_BUF


def test_WR_03_no_merge_into_an_older_slot(pipes: Pipes) -> None:
    # Slot 0 has 4086 bytes of room, but only the newest slot is looked at.
    _, writer = pipes.make(NONBLOCK, slots=2)
    writer.write(b"a" * 10)
    writer.write(b"b" * PIPE_BUF)
    would_block(writer, 1)


def test_WR_06_room_is_a_merge_or_a_slot_not_bytes(pipes: Pipes) -> None:
    _, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"x")
    would_block(writer, PIPE_BUF)
    assert writer.write(b"y" * (PIPE_BUF - 1)) == PIPE_BUF - 1


@pytest.mark.parametrize("size", [1, 100, 4095, 4096])
def test_WR_06_small_writes_are_all_or_nothing(pipes: Pipes, size: int) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=2)
    count = writer.fill(size)  # asserts that each block is written whole
    assert reader.pending() == count * size
    would_block(writer, size)
    assert reader.pending() == count * size


def test_WR_07_a_write_can_succeed_without_pollout(pipes: Pipes) -> None:
    _, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"0123456789")
    assert not writer.poll() & select.POLLOUT
    assert writer.write(b"x" * 4086) == 4086


@pytest.mark.parametrize(
    ("before", "size", "written"),
    [
        (0, 70000, 65536),
        (0, 65536, 65536),
        (0, 65537, 65536),
        (1, 65536, 61440),
        (1, 65535, 65535),
        (1, 100000, 63136),
        (1, 4097, 4097),
        (4095, 61441, 61441),
        (4095, 61442, 61440),
    ],
)
def test_WR_08_nonblocking_partial_counts(
    pipes: Pipes, before: int, size: int, written: int
) -> None:
    reader, writer = pipes.make(NONBLOCK)
    if before:
        assert writer.write(b"a" * before) == before
    assert writer.write(b"b" * size) == written
    assert reader.pending() == before + written
    assert reader.read_exactly(before + written) == b"a" * before + b"b" * written


@pytest.mark.parametrize(
    ("before", "size", "written"),
    [(10, 4097, 1), (1, 5000, 904), (1, 4097, 1), (4095, 4097, 1), (100, 8192 + 3996, 3996)],
)
def test_WR_08_without_a_free_slot_only_the_merge_part_is_written(
    pipes: Pipes, before: int, size: int, written: int
) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"a" * before)
    data = os.urandom(size)
    assert writer.write(data) == written
    assert reader.read(2 * PIPE_BUF) == b"a" * before + data[:written]


@pytest.mark.parametrize(("before", "size"), [(10, 8192), (4095, 4098), (4096, 4097)])
def test_WR_08_eagain_only_when_not_even_the_merge_part_fits(
    pipes: Pipes, before: int, size: int
) -> None:
    _, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"a" * before)
    would_block(writer, size)


@pytest.mark.parametrize("free", [1, 2, 3])
def test_WR_08_as_many_whole_pages_as_slots_are_free(pipes: Pipes, free: int) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=4)
    writer.fill(PIPE_BUF)
    for _ in range(free):
        reader.read(PIPE_BUF)
    assert writer.write(b"x" * 5 * PIPE_BUF) == free * PIPE_BUF


def test_WR_09_a_partial_read_makes_no_room(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"x" * PIPE_BUF)
    assert reader.read(PIPE_BUF - 1) == b"x" * (PIPE_BUF - 1)
    assert not writer.poll() & select.POLLOUT
    would_block(writer, 1)
    assert reader.read(1) == b"x"
    assert writer.poll() & select.POLLOUT
    assert writer.write(b"y" * PIPE_BUF) == PIPE_BUF


def test_WR_09_bytes_read_from_the_front_of_a_slot_are_not_reused(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"x" * 100)
    assert len(reader.read(50)) == 50
    would_block(writer, 3997)
    assert writer.write(b"y" * 3996) == 3996
    assert reader.read(PIPE_BUF) == b"x" * 50 + b"y" * 3996


@pytest.mark.parametrize(
    ("size", "count"), [(1, 65536), (3000, 16), (2049, 16), (2048, 32), (4095, 16), (4096, 16)]
)
def test_WR_10_capacity_depends_on_the_size_of_the_writes(
    pipes: Pipes, size: int, count: int
) -> None:
    reader, writer = pipes.make(NONBLOCK)
    assert writer.fill(size) == count
    assert reader.pending() == size * count
    # 16 blocks of 4095 bytes leave one byte of merge room in the newest slot.
    if size == 4095:
        assert writer.write(b"y") == 1
    if PIPE_BUF % size == 0 or size == 4095:
        would_block(writer, 1)


@both_modes
def test_WR_17_writev_is_one_write(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    assert writer.writev([b"ab", b"", bytearray(b"cd"), memoryview(b"ef")]) == 6
    assert reader.read(100) == b"abcdef"


@pytest.mark.parametrize("total", [4096, 4097])
def test_WR_17_the_total_of_a_writev_decides(pipes: Pipes, total: int) -> None:
    _, writer = pipes.make(NONBLOCK, slots=1)
    writer.write(b"0123456789")
    pieces = [b"a" * 2048, b"b" * (total - 2048)]
    if total == PIPE_BUF:
        with fails_with(errno.EAGAIN):
            writer.writev(pieces)
    else:
        assert writer.writev(pieces) == 1


def test_WR_17_a_partial_writev_stops_inside_a_piece(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=2)
    pieces = [b"a" * 5000, b"b" * 5000]
    assert writer.writev(pieces) == 8192
    assert reader.read(10000) == b"a" * 5000 + b"b" * 3192


def test_WR_17_a_slot_is_filled_across_pieces(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=1)
    pieces = [bytes([index]) * 4 for index in range(250)]
    assert writer.writev(pieces) == 1000
    assert writer.write(b"z" * 3096) == 3096
    assert reader.read(PIPE_BUF) == b"".join(pieces) + b"z" * 3096


@both_modes
@pytest.mark.parametrize("count", [1024, 1025])
def test_WR_17_at_most_1024_pieces(pipes: Pipes, flags: int, count: int) -> None:
    reader, writer = pipes.make(flags)
    if count > 1024:
        with fails_with(errno.EINVAL):
            writer.writev([b"x"] * count)
        assert reader.pending() == 0
    else:
        assert writer.writev([b"x"] * count) == count


def test_WR_17_pieces_around_the_slot_size(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    pieces = [bytes([65 + index]) * size for index, size in enumerate([4095, 1, 4096, 4097, 0, 3])]
    assert writer.writev(pieces) == 12292
    assert reader.read(20000) == b"".join(pieces)


@both_modes
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_WR_any_bytes_like_object(pipes: Pipes, flags: int, kind: type) -> None:
    reader, writer = pipes.make(flags)
    assert writer.write(kind(b"payload")) == 7
    assert reader.read(100) == b"payload"


def test_WR_data_is_unchanged_over_many_wraps(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK, slots=2)
    stream = os.urandom(40 * PIPE_BUF)
    sent = 0
    received = b""
    sizes = [1, 17, 4095, 4096, 4097, 8192, 9000]
    step = 0
    while len(received) < len(stream):
        size = sizes[step % len(sizes)]
        try:
            sent += writer.write(stream[sent : sent + size])
        except BlockingIOError:
            received += reader.read(sizes[(step * 5) % len(sizes)])
        if sent == len(stream):
            received += reader.read(PIPE_BUF)
        step += 1
    assert received == stream
