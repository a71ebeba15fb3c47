"""The records that go through a tortured pipe: each of their parts says whose and which it is.

A record consists of cells of one size.  Each 8-byte word of a cell is the cell's id:
writer, sequence, number of the cell, cells in the record, and a check over all of these.  So any
reader can verify any cell by itself, a cell of two halves is seen, and so is one that is missing.
In packet mode a record is one cell of any length, repeated words cut off at its end.
"""

import struct
from dataclasses import dataclass

PIPE_BUF = 4096

WRITERS = 1 << 16
SEQUENCES = 1 << 24

_WORD = struct.Struct("=Q")


def check_of(number: int) -> int:
    """The lowest byte of an id: any change of one byte of the others changes it."""
    check = 0x5A
    while number := number >> 8:
        check = (check * 31 + (number & 0xFF)) & 0xFF
    return check


def encode_id(writer: int, sequence: int, index: int, count: int) -> int:
    """writer:16 | sequence:24 | index:8 | count - 1:8 | check:8.  Never 0."""
    number = (writer << 48) | (sequence << 24) | (index << 16) | ((count - 1) << 8)
    return number | check_of(number)


def decode_id(number: int) -> tuple[int, int, int, int]:
    """(writer, sequence, index, count); ValueError if it is not an id."""
    if number & 0xFF != check_of(number):
        raise ValueError(f"{number:#018x} is not the id of a cell")
    return number >> 48, (number >> 24) & 0xFFFFFF, (number >> 16) & 0xFF, (number >> 8 & 0xFF) + 1


def _mix(writer: int, sequence: int) -> int:
    """A number that looks random, for sizes."""
    return ((writer << 24 | sequence) * 0x9E3779B97F4A7C15 >> 32) & 0xFFFFFF


@dataclass(frozen=True)
class Records:
    """How records of one episode look."""

    packets: bool
    cell: int  # bytes, divides PIPE_BUF; of a packet: the most
    most: int  # cells of a record at most

    def cells_of(self, writer: int, sequence: int) -> int:
        """How many cells a record has: the auditor need not ask the writer."""
        if self.packets:
            return 1
        return 1 + _mix(writer, sequence) % self.most

    def bytes_of(self, writer: int, sequence: int) -> int:
        """The length of a record."""
        if self.packets:
            return 8 + _mix(writer, sequence) % (self.cell - 7)
        return self.cell * self.cells_of(writer, sequence)

    def is_atomic(self, writer: int, sequence: int) -> bool:
        """Whether it is written whole or not at all (WR-4)."""
        return self.bytes_of(writer, sequence) <= PIPE_BUF

    def encode(self, writer: int, sequence: int) -> bytes:
        """The bytes of a record."""
        count = self.cells_of(writer, sequence)
        if self.packets:
            size = self.bytes_of(writer, sequence)
            return (_WORD.pack(encode_id(writer, sequence, 0, 1)) * (size // 8 + 1))[:size]
        words = self.cell // 8
        ids = [encode_id(writer, sequence, index, count) for index in range(count)]
        return b"".join([_WORD.pack(each) * words for each in ids])

    def decode(self, data: memoryview) -> "memoryview[int] | list[int]":
        """The ids of the cells that a read returned; ValueError if they are damaged."""
        if self.packets:
            return [self._decode_packet(data)]
        if len(data) % self.cell:
            raise ValueError(f"a read of {len(data)} bytes: not whole cells of {self.cell}")
        words = data.cast("Q")
        step = self.cell // 8
        ids = words[::step]
        if step <= 8:
            for place in range(1, step):
                if words[place::step] != ids:
                    raise ValueError(f"a damaged cell: {bytes(data[:256]).hex()}...")
        else:
            for index, number in enumerate(ids):
                if data[index * self.cell : (index + 1) * self.cell] != _WORD.pack(number) * step:
                    raise ValueError(f"a damaged cell: {bytes(data[:256]).hex()}...")
        return ids

    def _decode_packet(self, data: memoryview) -> int:
        if len(data) < 8:
            raise ValueError(f"a packet of {len(data)} bytes")
        number: int = _WORD.unpack_from(data)[0]
        writer, sequence, _, _ = decode_id(number)
        size = self.bytes_of(writer, sequence)
        if len(data) != size or data != (_WORD.pack(number) * (size // 8 + 1))[:size]:
            raise ValueError(f"a damaged packet: {len(data)} of {size} bytes")
        return number
