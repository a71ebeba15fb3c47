"""What a peer can do to the size of a pipe's memory: docs/caveats.md, "a peer can kill"."""

from __future__ import annotations

import errno
import os
import resource
import signal
import warnings
from collections.abc import Callable, Iterator

import pytest
import shmpipe


@pytest.fixture
def path() -> Iterator[str]:
    """The object of a named pipe.

    Its files are removed by name: the companion's is in the header, where unlink() cannot read it
    any more.
    """
    name = f"test-truncation-{os.getpid()}"
    shmpipe.mkfifo(name)
    yield f"/dev/shm/shmpipe.{name}"
    for each in os.listdir("/dev/shm"):
        if each.endswith("." + name):
            os.unlink(f"/dev/shm/{each}")


def fate_of(action: Callable[[], object]) -> int:
    """Of a child that does it: 0, 1 for an exception, or minus the signal that killed it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside the watchdog's threads
        pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGBUS, signal.SIG_DFL)  # pytest's would print where it happened
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_truncated_named_pipe_kills_who_touches_it(path: str) -> None:
    """Not as it should be, but as it is: an object with a name takes no seals."""

    def fate(size: int | None) -> int:
        def act() -> None:
            with shmpipe.open(path.partition("shmpipe.")[2], "r+") as end:
                if size is not None:
                    os.truncate(path, size)
                end.write(b"x")

        return fate_of(act)

    assert fate(None) == 0
    assert fate(0) == -signal.SIGBUS


def test_an_anonymous_pipe_cannot_be_truncated() -> None:
    reader, writer = shmpipe.pipe()
    segment = reader.pass_fds()[0]
    size = os.fstat(segment).st_size
    for wanted in (0, 4096, size - 1):
        with pytest.raises(PermissionError) as caught:
            os.ftruncate(segment, wanted)
        assert caught.value.errno == errno.EPERM
    assert os.fstat(segment).st_size == size
    with reader, writer:
        writer.write(b"still works")
        assert reader.read(100) == b"still works"
