"""Results of read() that do not need a second actor: rules RD-1 to RD-4."""

from __future__ import annotations

import errno
import os

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF
from conformance.marks import NONBLOCK, both_modes, named_only
from support.errors import fails_with


@both_modes
def test_RD_01_reading_nothing_from_an_empty_pipe(pipes: Pipes, flags: int) -> None:
    reader, _ = pipes.make(flags)
    assert reader.read(0) == b"", "neither EAGAIN nor a wait"


@both_modes
def test_RD_01_reading_nothing_changes_nothing(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    writer.write(b"abc")
    assert reader.read(0) == b""
    assert reader.readv([bytearray(0)]) == 0
    assert reader.pending() == 3
    assert reader.read(3) == b"abc"


@both_modes
def test_RD_01_reading_nothing_at_end_of_file(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    writer.close()
    assert reader.read(0) == b""


@both_modes
def test_RD_02_a_read_takes_what_is_there(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    for byte in b"abc":
        writer.write(bytes([byte]) * 1000)
    assert reader.read(65536) == b"a" * 1000 + b"b" * 1000 + b"c" * 1000


@both_modes
@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500, 4095, 4096, 4097, 8000])
def test_RD_02_a_read_stops_at_its_count(pipes: Pipes, flags: int, count: int) -> None:
    reader, writer = pipes.make(flags)
    data = os.urandom(8000)
    writer.write(data)
    assert reader.read(count) == data[:count]
    assert reader.pending() == 8000 - count
    assert reader.read_exactly(8000 - count) == data[count:]


@both_modes
def test_RD_02_one_read_goes_over_many_slots(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    pieces = [bytes([index]) * 2049 for index in range(16)]
    for piece in pieces:
        writer.write(piece)
    assert reader.read(65536) == b"".join(pieces)


@both_modes
def test_RD_02_readv_fills_its_buffers_in_order(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    writer.write(b"abcdefgh")
    first, second, third = bytearray(3), bytearray(0), bytearray(10)
    assert reader.readv([first, second, third]) == 8
    assert (bytes(first), bytes(third[:5])) == (b"abc", b"defgh")
    assert third[5:] == bytearray(5), "beyond the result nothing is touched"


@both_modes
def test_RD_02_readv_over_slot_borders(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    data = os.urandom(10000)
    writer.write(data)
    buffers = [bytearray(size) for size in (1, 4095, 4097, 1807)]
    assert reader.readv(buffers) == 10000
    assert b"".join(buffers) == data


def test_RD_02_readv_takes_at_most_1024_buffers(pipes: Pipes) -> None:
    reader, writer = pipes.make(NONBLOCK)
    writer.write(b"abc")
    with fails_with(errno.EINVAL):
        reader.readv([bytearray(1) for _ in range(1025)])
    assert reader.readv([bytearray(1) for _ in range(1024)]) == 3


def test_RD_03_empty_with_a_writer_is_eagain(pipes: Pipes) -> None:
    reader, _ = pipes.make(NONBLOCK)
    with fails_with(errno.EAGAIN):
        reader.read(1)
    with fails_with(errno.EAGAIN):
        reader.readv([bytearray(1)])


@both_modes
def test_RD_03_empty_without_a_writer_is_end_of_file(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    writer.close()
    assert reader.read(10) == b""
    assert reader.readv([bytearray(4)]) == 0
    assert reader.read(10) == b"", "end of file stays"


@both_modes
@pytest.mark.parametrize("size", [1, PIPE_BUF, 3 * PIPE_BUF + 1])
def test_RD_03_data_comes_before_end_of_file(pipes: Pipes, flags: int, size: int) -> None:
    reader, writer = pipes.make(flags)
    data = os.urandom(size)
    writer.write(data)
    writer.close()
    assert reader.read_exactly(size) == data
    assert reader.read(1) == b""


@both_modes
def test_RD_03_end_of_file_comes_after_partial_reads(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    writer.write(b"abc")
    writer.close()
    assert [reader.read(2), reader.read(2), reader.read(2)] == [b"ab", b"c", b""]


@named_only
def test_RD_04_end_of_file_is_a_level(pipes: Pipes) -> None:
    name = pipes.create()
    reader = pipes.open(name, "r", NONBLOCK)
    assert reader.read(1) == b""
    first = pipes.open(name, "w")
    with fails_with(errno.EAGAIN):
        reader.read(1)
    first.write(b"one")
    assert reader.read(9) == b"one"
    first.close()
    assert reader.read(1) == b""
    second = pipes.open(name, "w")
    with fails_with(errno.EAGAIN):
        reader.read(1)
    second.write(b"two")
    second.close()
    assert reader.read(9) == b"two"
    assert reader.read(1) == b""


@both_modes
def test_RD_big_reads_of_small_contents(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags)
    for size in (1, 2, 4095, 4096, 4097, 60000):
        data = os.urandom(size)
        writer.write(data)
        assert reader.read(1 << 20) == data
