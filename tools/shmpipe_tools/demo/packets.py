"""The records of the demonstration: self-describing packets, so that any consumer may take any.

A packet is at most PIPE_BUF bytes and travels in packet mode (O_DIRECT): one write is
one read, whoever reads.  That is how two consumers share a pipe without a lock.
"""

import struct
from typing import NamedTuple

PACKET_BYTES = 4096

_HEADER = struct.Struct("<IIII")
PAYLOAD_BYTES = PACKET_BYTES - _HEADER.size


class Packet(NamedTuple):
    """A piece of a file."""

    number: int  # from 1 on, in the order of sending; 0 never travels
    file: int  # index into the corpus
    offset: int
    total: int  # size of the file
    payload: bytes


def encode(number: int, file: int, offset: int, content: bytes) -> bytes:
    """The packet that carries the piece of `content` which starts at `offset`."""
    payload = content[offset : offset + PAYLOAD_BYTES]
    return _HEADER.pack(number, file, offset, len(content)) + payload


def decode(slot: memoryview) -> Packet:
    """The packet at the start of `slot`; its length follows from its header."""
    number, file, offset, total = _HEADER.unpack_from(slot)
    size = min(PAYLOAD_BYTES, max(0, total - offset))
    return Packet(number, file, offset, total, bytes(slot[_HEADER.size : _HEADER.size + size]))
