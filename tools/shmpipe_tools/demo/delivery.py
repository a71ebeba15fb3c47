"""One delivery: a producer process, two consumer processes and a pipe between them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic, perf_counter

from shmpipe_tools.children import Child, Children, shared_numbers
from shmpipe_tools.demo.corpus import Corpus
from shmpipe_tools.demo.journal import Journal
from shmpipe_tools.demo.streams import Stream
from shmpipe_tools.failure import Failure

CONSUMERS = 2

# The work takes well below a second; what is not done by then never will be.
LIMIT_SECONDS = 10.0
LOOK_EVERY_SECONDS = 0.0005


@dataclass
class Delivery:
    """What is going on, or went on: the parent's view."""

    corpus: Corpus
    producer: Child
    consumers: list[Child]
    journals: list[Journal]
    started_at: "memoryview[float]"

    @property
    def taken(self) -> int:
        """Packets that the consumers have counted so far."""
        return sum(journal.taken for journal in self.journals)

    @property
    def seconds(self) -> float:
        """From the first write to the last consumer's end of file."""
        return max(journal.finished_at for journal in self.journals) - self.started_at[0]


def deliver(
    stream: Stream, corpus: Corpus, watch: Callable[[Delivery], None] = lambda _delivery: None
) -> Delivery:
    """Creates the stream, sends the corpus through it and removes it.

    `watch` is called again and again meanwhile.  A Failure if it does not end in time;
    whether all ended well is the account's matter.
    """
    journals = [Journal(len(corpus.packets)) for _ in range(CONSUMERS)]
    started_at = shared_numbers(1)

    def produce(ready: int) -> None:
        writer = stream.open_writer()
        _wait_for_consumers(ready)
        started_at[0] = perf_counter()
        for packet in corpus.packets:
            writer.write(packet)
        writer.close()

    def consume(journal: Journal, ready: int) -> None:
        journal.touch()
        reader = stream.open_reader()
        os.write(ready, b".")
        os.close(ready)
        taken = 0
        while reader.readinto(journal.slot(taken)):
            taken += 1
            journal.count(taken)
        journal.finish(perf_counter())

    try:
        stream.create()
        with Children() as children:
            ready_reader, ready_writer = os.pipe()
            consumers = [
                children.start(f"consumer {letter}", partial(consume, journal, ready_writer))
                for letter, journal in zip("AB", journals, strict=True)
            ]
            os.close(ready_writer)
            producer = children.start("producer", partial(produce, ready_reader))
            os.close(ready_reader)
            stream.detach()
            delivery = Delivery(corpus, producer, consumers, journals, started_at)
            _wait(delivery, children, watch)
            return delivery
    finally:
        stream.remove()


def _wait(delivery: Delivery, children: Children, watch: Callable[[Delivery], None]) -> None:
    """Until all have ended; a Failure if they do not in time."""
    deadline = monotonic() + LIMIT_SECONDS
    while not children.wait_for_any(LOOK_EVERY_SECONDS):
        if monotonic() > deadline:
            raise Failure(_stuck(delivery))
        watch(delivery)


def _wait_for_consumers(ready: int) -> None:
    """Returns when both consumers have the pipe open, so that both get their share."""
    arrived = 0
    while data := os.read(ready, CONSUMERS):
        arrived += len(data)
    if arrived != CONSUMERS:
        raise Failure("demo: a consumer did not come up")


def _stuck(delivery: Delivery) -> str:
    states = [f"producer {delivery.producer.fate}"]
    for child, journal in zip(delivery.consumers, delivery.journals, strict=True):
        states.append(f"{child.role} {child.fate} with {journal.taken} packets")
    return f"demo: not done after {LIMIT_SECONDS:.0f} s: " + ", ".join(states)
