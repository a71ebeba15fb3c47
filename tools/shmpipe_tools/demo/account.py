"""The account of a delivery: which packets arrived where, and whether every file is whole."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from shmpipe_tools.children import Child
from shmpipe_tools.demo.corpus import Corpus, digest_on_disk
from shmpipe_tools.demo.delivery import Delivery
from shmpipe_tools.demo.packets import Packet


@dataclass
class Account:
    """The figures, and a line for everything that is not as it must be."""

    sent: int
    taken: list[int]  # per consumer
    in_hand: int  # packets (0 or 1) that a killed consumer had read and not yet counted
    files: int  # with the right SHA-256
    problems: list[str] = field(default_factory=list)


def settle(delivery: Delivery, killed: Child | None = None) -> Account:
    """Adds up what the consumers took.

    `killed` is the consumer that was killed on purpose.  Its counted packets count;
    one more may have been in its hand, and that is the only one that may be missing
    from the journals.
    """
    corpus = delivery.corpus
    problems = _fates(delivery, killed)
    arrived: dict[int, Packet] = {}
    for child, journal in zip(delivery.consumers, delivery.journals, strict=True):
        for packet in journal.packets():
            if packet.number in arrived:
                problems.append(f"packet {packet.number} arrived twice, again at {child.role}")
            elif not 1 <= packet.number <= len(corpus.packets):
                problems.append(f"{child.role} took a packet that was never sent")
            arrived[packet.number] = packet

    in_hand = 0
    missing = set(range(1, len(corpus.packets) + 1)) - arrived.keys()
    if killed is not None and missing:
        last = delivery.journals[delivery.consumers.index(killed)].in_hand()
        if last is not None and last.number in missing:
            arrived[last.number] = last
            missing.remove(last.number)
            in_hand = 1
    if missing:
        problems.append(f"{len(missing)} packets are lost, the first is number {min(missing)}")

    wrong = _wrong_files(corpus, arrived.values())
    problems += [f"not as on disk: {path}" for path in wrong]
    return Account(
        sent=len(corpus.packets),
        taken=[journal.taken for journal in delivery.journals],
        in_hand=in_hand,
        files=len(corpus.paths) - len(wrong),
        problems=problems,
    )


def _fates(delivery: Delivery, killed: Child | None) -> list[str]:
    """Everybody must have ended well, but for the one that was killed."""
    return [
        f"the {child.role} process ended unexpectedly: {child.fate}"
        for child in (delivery.producer, *delivery.consumers)
        if child.status != 0 and child is not killed
    ]


def _wrong_files(corpus: Corpus, packets: Iterable[Packet]) -> list[str]:
    """The files whose pieces, put together again, are not what is on disk."""
    contents: dict[int, bytearray] = {}
    for packet in packets:
        content = contents.setdefault(packet.file, bytearray(packet.total))
        content[packet.offset : packet.offset + len(packet.payload)] = packet.payload
    return [
        path
        for file, path in enumerate(corpus.paths)
        if hashlib.sha256(contents.get(file, b"\0absent")).digest() != digest_on_disk(path)
    ]
