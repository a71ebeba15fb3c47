"""Program: how long after SIGKILL of the last holder does the survivor know?  JSON on stdout.

The survivor sleeps in read (eof), in write (epipe), or in epoll_wait on the read or the write end
(hup, err).

Two lists of seconds, taken in turns: of the backend, and of os.pipe on the same machine in the
same minute.

A program of its own, because the kernel frees a dead process's memory before it closes its
descriptors: the victim must be a small process, not the copy of a whole test run.

    kill_latency.py BACKEND eof|epipe|hup|err KILLS [SURVIVORS]

With more than one survivor the time of each of them counts.
"""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from conformance.backends import ALL, OsPipe, Pipes
from conformance.ends import PIPE_BUF, End
from support.actors import ProcessActor

EVENTS = {"hup": select.EPOLLHUP, "err": select.EPOLLERR}


def measure(pipes: Pipes, what: str, survivors: int) -> list[float]:
    """One pipe, survivors asleep in read or write, one victim with the only other end."""
    reader, writer = pipes.make(slots=1)
    mine, others = (reader, writer) if what in ("eof", "hup") else (writer, reader)
    if mine is writer:
        writer.write(b"f" * PIPE_BUF)

    def hold() -> Iterator[str]:
        yield "holding"

    def wait() -> float:
        if what == "eof":
            assert mine.read(1) == b""
        elif what in EVENTS:
            with select.epoll() as poller:
                poller.register(mine.fileno(), select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
                assert poller.poll() == [(mine.fileno(), EVENTS[what])]
        else:
            try:
                mine.write(b"x")
            except BrokenPipeError:
                pass
            else:
                raise AssertionError("the write was not refused")
        return time.monotonic()

    victim = spawn(pipes, hold, others)
    assert victim.receive() == "holding"
    crowd = [spawn(pipes, wait, mine) for _ in range(survivors)]
    others.close()
    for survivor in crowd:
        survivor.wait_blocked()
    killing = time.monotonic()  # before, because kill() may return after a survivor woke
    victim.kill()
    returned = [survivor.result() for survivor in crowd]
    victim.dispose()
    mine.close()
    return [at - killing for at in returned if isinstance(at, float)]


def spawn(pipes: Pipes, body: object, keep: End) -> ProcessActor:
    """A child that keeps one end."""
    assert callable(body)
    return ProcessActor(body, before=lambda: pipes.close_all_but(keep))


if __name__ == "__main__":
    backend = next(backend for backend in ALL if backend.name == sys.argv[1])
    latencies: tuple[list[float], list[float]] = ([], [])
    crowd_size = int(sys.argv[4]) if len(sys.argv) > 4 else 1
    with Pipes(backend) as measured, Pipes(OsPipe()) as control:
        for _ in range(int(sys.argv[3])):
            latencies[0].extend(measure(measured, sys.argv[2], crowd_size))
            latencies[1].extend(measure(control, sys.argv[2], crowd_size))
    print(json.dumps(latencies))
