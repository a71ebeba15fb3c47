"""What happens in an episode: drawn from the seed and the episode's number alone."""

from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from shmpipe_tools.torture.board import ACTORS, HAND_BYTES
from shmpipe_tools.torture.records import PIPE_BUF, Records

# How an actor waits.  `direct` needs an end that blocks, the others work with both kinds.
MANNERS = ("direct", "poll", "select", "epoll", "edge", "wait")

# The last act: what the survivors must see.
FINALS = ("eof", "epipe", "leave", "massacre", "silence")

# Every so many episodes one is played on os.pipe: the oracles must agree with the kernel, and
# its delays stand beside ours.
CONTROL_EVERY = 8

RESIZES = (4096, 8192, 65536, 2 * 65536)
_STARTS = (0, 0, 2**32 - 3, 2**31 - 3, 2**32 - 40)


@dataclass(frozen=True)
class Episode:
    """One pipe and those at it."""

    number: int
    seed: str
    transport: str  # "anonymous", "named", "os.pipe"
    packets: bool
    cell: int
    most: int
    capacity: int
    first_index: int
    readers: int
    writers: int
    nonblocking_readers: bool
    nonblocking_writers: bool
    reader_manners: tuple[str, ...]
    writer_manners: tuple[str, ...]
    request: int  # bytes that a read asks for at most
    reader_pause: float  # seconds between two calls, on the average
    writer_pause: float
    resizes: bool
    seconds: float
    final: str

    @property
    def records(self) -> Records:
        """How its records look."""
        return Records(self.packets, self.cell, self.most)

    @property
    def most_bytes(self) -> int:
        """What can be in the pipe."""
        return max(self.capacity, *RESIZES) if self.resizes else self.capacity

    def as_json(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


def draw(seed: str, scene: int, number: int) -> Episode:
    """The episode of that number."""
    text = f"{seed}/{scene}/{number}"
    rng = Random(text)
    packets = rng.random() < 0.3
    cell, most, capacity = _sizes(rng, packets)
    readers = rng.choice((1, 1, 2, 2, 3, 4, 6, 8))
    writers = rng.randint(1, min(8, ACTORS - readers))
    nonblocking = rng.random() < 0.3, rng.random() < 0.3
    request = PIPE_BUF if packets else rng.choice((cell, 4 * cell, 65536, HAND_BYTES))
    control = number % CONTROL_EVERY == CONTROL_EVERY - 1
    lazy = rng.choice(("nobody", "nobody", "readers", "writers"))
    return Episode(
        number=number,
        seed=text,
        transport="os.pipe" if control else rng.choice(("anonymous", "anonymous", "named")),
        packets=packets,
        cell=cell,
        most=most,
        capacity=capacity,
        first_index=rng.choice(_STARTS),
        readers=readers,
        writers=writers,
        nonblocking_readers=nonblocking[0],
        nonblocking_writers=nonblocking[1],
        reader_manners=_manners(rng, nonblocking[0]),
        writer_manners=_manners(rng, nonblocking[1]),
        request=min(request, HAND_BYTES),
        reader_pause=0.001 if lazy == "readers" else 0.0,
        writer_pause=0.001 if lazy == "writers" else 0.0,
        resizes=rng.random() < 0.3,
        seconds=rng.uniform(0.1, 0.5),
        final=rng.choice(FINALS),
    )


def _sizes(rng: Random, packets: bool) -> tuple[int, int, int]:
    """Bytes of a cell, cells of a record at most, capacity."""
    if packets:
        return PIPE_BUF, 1, rng.choice((4096, 16384, 65536, 65536))
    kind = rng.choice(("small", "small", "atomic", "atomic", "long", "huge"))
    if kind == "small":
        cell = rng.choice((64, 256))
        return cell, 3, rng.choice((4096, 8192, 65536))
    if kind == "atomic":
        cell = rng.choice((64, 256, 1024, 4096))
        return cell, PIPE_BUF // cell, rng.choice((4096, 16384, 65536, 131072))
    if kind == "long":
        return 1024, 40, rng.choice((4096, 65536, 65536, 262144))
    return PIPE_BUF, 110, rng.choice((65536, 262144, 1 << 20))


def _manners(rng: Random, nonblocking: bool) -> tuple[str, ...]:
    """How the actors of a side wait; the first ones come first."""
    possible = MANNERS[1:] if nonblocking else MANNERS
    kind = rng.choice(("alike", "mixed", "mixed"))
    if kind == "alike":
        return (rng.choice(possible),) if nonblocking else ("direct",)
    return tuple(rng.choice(possible) for _ in range(4))
