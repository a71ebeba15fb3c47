"""What a consumer took, in memory that outlives it: the evidence after a kill -9.

The packet is read straight into its slot, then counted.  A consumer that dies in
between leaves its last packet uncounted in the next slot: it had it in its hand.
"""

import mmap
from collections.abc import Iterator

from shmpipe_tools.children import shared_numbers
from shmpipe_tools.demo.packets import PACKET_BYTES, Packet, decode


class Journal:
    """One consumer's packets, shared with the parent that will ask for them."""

    def __init__(self, packets: int) -> None:
        # One slot more: the read that finds the end of file needs a place too.
        self._bytes = memoryview(mmap.mmap(-1, (packets + 1) * PACKET_BYTES))
        self._numbers = shared_numbers(2)

    @property
    def taken(self) -> int:
        """How many packets were read and counted."""
        return int(self._numbers[0])

    @property
    def finished_at(self) -> float:
        """Says that the end of file was seen."""
        """When the consumer saw the end of file (perf_counter); 0 if it never did."""
        return self._numbers[1]

    def touch(self) -> None:
        """Makes every page present, so that page faults are not measured as the pipe's time."""
        for start in range(0, len(self._bytes), PACKET_BYTES):
            self._bytes[start] = 0

    def slot(self, number: int) -> memoryview:
        """The place of one packet."""
        return self._bytes[number * PACKET_BYTES : (number + 1) * PACKET_BYTES]

    def count(self, taken: int) -> None:
        """Says that so many packets are in their slots."""
        self._numbers[0] = taken

    def finish(self, now: float) -> None:
        """Says that the end of file was seen, and when."""
        self._numbers[1] = now

    def packets(self) -> Iterator[Packet]:
        """Every counted packet."""
        for number in range(self.taken):
            yield decode(self.slot(number))

    def in_hand(self) -> Packet | None:
        """The packet that a dead consumer had read, wholly or in part, and not yet counted."""
        packet = decode(self.slot(self.taken))
        return packet if packet.number else None
