"""Nobody waits for ever while others are served: rules WR-20 and WK-13."""

from __future__ import annotations

from collections.abc import Callable

from conformance.backends import Pipes
from conformance.ends import PIPE_BUF
from support.actors import Actor
from support.scale import rounds

Spawn = Callable[..., Actor]


def test_WR_20_a_greedy_writer_does_not_starve_another(pipes: Pipes, spawn: Spawn) -> None:
    reader, writer = pipes.make(slots=1)

    def greedy() -> None:
        try:
            while True:
                writer.write(b"g" * PIPE_BUF)
        except BrokenPipeError:
            return

    hogs = [spawn(greedy, keep=writer) for _ in range(2)]
    modest = spawn(lambda: [writer.write(b"m" * PIPE_BUF) for _ in range(20)], keep=writer)
    while not modest.finished():
        assert len(set(reader.read(PIPE_BUF))) == 1
    assert modest.result() == [PIPE_BUF] * 20
    reader.close()
    for hog in hogs:
        hog.result()


def test_WK_13_a_dialogue_of_many_through_full_and_empty_rings(pipes: Pipes, spawn: Spawn) -> None:
    """Each message fills the only slot, so each is an edge in both directions."""
    reader, writer = pipes.make(slots=1)
    count, actors = rounds(500), []

    def send() -> None:
        for _ in range(count):
            writer.write(bytes(PIPE_BUF))

    def receive() -> int:
        return sum(len(reader.read(PIPE_BUF)) for _ in range(count))

    for _ in range(3):
        actors += [spawn(receive, keep=reader), spawn(send, keep=writer)]
    assert [actor.result(30.0) for actor in actors] == [count * PIPE_BUF, None] * 3
    assert reader.pending() == 0
