"""Packet mode: rules PK-1 to PK-8."""

from __future__ import annotations

import errno
import os

import pytest

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF
from conformance.marks import PACKETS, both_modes
from support.errors import fails_with


def test_PK_01_the_mode_of_the_read_end_has_no_effect(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    reader.set_flag(os.O_DIRECT)
    writer.write(b"ab")
    writer.write(b"cd")
    assert reader.read(100) == b"abcd"


def test_PK_01_the_mode_is_taken_when_writing(pipes: Pipes) -> None:
    reader, writer = pipes.make(PACKETS)
    writer.write(b"ab")
    writer.set_flag(os.O_DIRECT, False)
    writer.write(b"cd")
    writer.write(b"ef")
    assert reader.read(100) == b"ab", "what was written as a packet stays one"
    assert reader.read(100) == b"cdef"


def test_PK_01_a_stream_turns_into_packets(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    writer.set_flag(os.O_DIRECT)
    for packet in (b"1", b"22", b"333"):
        writer.write(packet)
    assert [reader.read(100) for _ in range(3)] == [b"1", b"22", b"333"]


def test_PK_02_one_write_is_one_packet(pipes: Pipes) -> None:
    reader, writer = pipes.make(PACKETS)
    packets = [b"a", b"bb" * 500, b"c" * PIPE_BUF, b"d"]
    for packet in packets:
        assert writer.write(packet) == len(packet)
    assert [reader.read(65536) for _ in packets] == packets
    with fails_with(errno.EAGAIN):
        reader.read(1)


@pytest.mark.parametrize(
    ("size", "pieces"), [(5000, [4096, 904]), (8192, [4096, 4096]), (8193, [4096, 4096, 1])]
)
def test_PK_02_a_larger_write_is_several_packets(
    pipes: Pipes, size: int, pieces: list[int]
) -> None:
    reader, writer = pipes.make(PACKETS)
    data = os.urandom(size)
    assert writer.write(data) == size
    read = [reader.read(65536) for _ in pieces]
    assert [len(piece) for piece in read] == pieces
    assert b"".join(read) == data


def test_PK_02_a_larger_write_may_be_partial(pipes: Pipes) -> None:
    _, writer = pipes.make(PACKETS, slots=2)
    writer.write(b"x")
    assert writer.write(b"y" * 5000) == PIPE_BUF
    with fails_with(errno.EAGAIN):
        writer.write(b"z")


def test_PK_02_writev_makes_one_packet(pipes: Pipes) -> None:
    reader, writer = pipes.make(PACKETS)
    assert writer.writev([b"ab", b"cd"]) == 4
    assert writer.writev([b"e"]) == 1
    assert [reader.read(100), reader.read(100)] == [b"abcd", b"e"]


def test_PK_03_the_rest_of_a_packet_is_discarded(pipes: Pipes) -> None:
    reader, writer = pipes.make(PACKETS)
    writer.write(b"abcdef")
    writer.write(b"gh")
    assert reader.read(2) == b"ab"
    assert reader.pending() == 2
    assert reader.read(100) == b"gh"
    with fails_with(errno.EAGAIN):
        reader.read(1)


@pytest.mark.parametrize("size", [1, 6, PIPE_BUF])
def test_PK_03_an_exact_read_discards_nothing(pipes: Pipes, size: int) -> None:
    reader, writer = pipes.make(PACKETS)
    writer.write(b"a" * size)
    writer.write(b"next")
    assert reader.read(size) == b"a" * size
    assert reader.read(size + 9) == b"next"


def test_PK_03_readv_fills_its_buffers_from_one_packet(pipes: Pipes) -> None:
    reader, writer = pipes.make(PACKETS)
    writer.write(b"abc")
    writer.write(b"def")
    first, second = bytearray(2), bytearray(10)
    assert reader.readv([first, second]) == 3
    assert (bytes(first), bytes(second[:1])) == (b"ab", b"c")
    assert reader.pending() == 3


def test_PK_03_a_discarded_rest_frees_the_slot(pipes: Pipes) -> None:
    reader, writer = pipes.make(PACKETS, slots=1)
    writer.write(b"a" * PIPE_BUF)
    assert reader.read(1) == b"a"
    assert writer.write(b"b" * PIPE_BUF) == PIPE_BUF


@both_modes
def test_PK_04_there_are_no_empty_packets(pipes: Pipes, flags: int) -> None:
    reader, writer = pipes.make(flags | os.O_DIRECT)
    assert writer.write(b"") == 0
    assert writer.writev([b"", b""]) == 0
    assert reader.pending() == 0
    writer.write(b"abc")
    assert reader.read(0) == b""
    assert reader.pending() == 3, "reading nothing drops no packet"
    assert reader.read(100) == b"abc"


@pytest.mark.parametrize("slots", [1, 2, 16, 64])
def test_PK_05_packets_never_merge(pipes: Pipes, slots: int) -> None:
    reader, writer = pipes.make(PACKETS, slots=slots)
    assert writer.fill(1) == slots
    assert reader.pending() == slots
    assert reader.read(100) == b"f"
    assert writer.fill(1) == 1


def test_PK_06_a_read_goes_from_the_stream_into_a_packet_and_stops(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    writer.write(b"A" * PIPE_BUF)  # a full slot, so that the packet cannot merge into it
    writer.set_flag(os.O_DIRECT)
    writer.write(b"BB")
    writer.write(b"CC")
    assert reader.read(2 * PIPE_BUF) == b"A" * PIPE_BUF + b"BB"
    assert reader.read(100) == b"CC"


def test_PK_06_a_packet_merges_into_a_stream_slot_with_room(pipes: Pipes) -> None:
    # The merge step of WR-2 looks at the slot only, not at the mode of the write:
    # these "packets" become part of the stream, also one after the other.
    reader, writer = pipes.make()
    writer.write(b"AA")
    writer.set_flag(os.O_DIRECT)
    writer.write(b"BB")
    writer.write(b"CC")
    assert reader.read(100) == b"AABBCC"


def test_PK_06_only_the_first_piece_of_a_packet_merges(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    writer.write(b"AA")
    writer.set_flag(os.O_DIRECT)
    writer.write(b"B" * (PIPE_BUF + 3))
    writer.write(b"CC")
    assert reader.read(3 * PIPE_BUF) == b"AA" + b"B" * (PIPE_BUF + 3)
    assert reader.read(100) == b"CC"


def test_PK_06_stream_bytes_after_a_packet_are_separate(pipes: Pipes) -> None:
    reader, writer = pipes.make(os.O_DIRECT)
    writer.write(b"AA")
    writer.set_flag(os.O_DIRECT, False)
    writer.write(b"BB")
    assert reader.read(100) == b"AA"
    assert reader.read(100) == b"BB"


def test_PK_06_a_read_that_ends_inside_the_packet_discards_its_rest(pipes: Pipes) -> None:
    reader, writer = pipes.make(os.O_NONBLOCK)
    writer.write(b"A" * PIPE_BUF)
    writer.set_flag(os.O_DIRECT)
    writer.write(b"BBBB")
    assert reader.read(PIPE_BUF + 1) == b"A" * PIPE_BUF + b"B"
    with fails_with(errno.EAGAIN):
        reader.read(9)


def test_PK_07_a_stream_write_does_not_merge_into_a_packet(pipes: Pipes) -> None:
    reader, writer = pipes.make(PACKETS, slots=2)
    writer.write(b"packet")
    writer.set_flag(os.O_DIRECT, False)
    writer.write(b"stream")
    writer.write(b"+more")
    assert reader.read(100) == b"packet"
    assert reader.read(100) == b"stream+more"


def test_PK_07_with_one_slot_there_is_no_room_after_a_packet(pipes: Pipes) -> None:
    _, writer = pipes.make(PACKETS, slots=1)
    writer.write(b"packet")
    writer.set_flag(os.O_DIRECT, False)
    with fails_with(errno.EAGAIN):
        writer.write(b"s")


def test_PK_08_fionread_sums_all_packets(pipes: Pipes) -> None:
    reader, writer = pipes.make(PACKETS)
    for size in (1, 200, 4096):
        writer.write(b"x" * size)
    assert reader.pending() == writer.pending() == 4297
    reader.read(100)
    assert reader.pending() == 4296


def test_PK_data_comes_before_end_of_file(pipes: Pipes) -> None:
    reader, writer = pipes.make(PACKETS)
    writer.write(b"ab")
    writer.write(b"cd")
    writer.close()
    assert [reader.read(1), reader.read(9), reader.read(9)] == [b"a", b"cd", b""]
