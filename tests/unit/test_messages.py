"""What an exception says to somebody who did the obvious, where the errno is a riddle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import shmpipe


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test-messages-{os.getpid()}"
    shmpipe.mkfifo(name)
    yield name
    shmpipe.unlink(name)


def test_packets_asked_for_at_open(name: str) -> None:
    with pytest.raises(OSError, match=r"afterwards: shmpipe\.fcntl\(end, F_SETFL, os\.O_DIRECT\)"):
        shmpipe.open(name, "r+", flags=os.O_DIRECT)


def test_another_flag_is_not_blamed_on_packets(name: str) -> None:
    with pytest.raises(OSError) as refusal:
        shmpipe.open(name, "r", flags=os.O_DIRECTORY | os.O_NONBLOCK)
    assert "packets" not in str(refusal.value)


@pytest.mark.parametrize("named", [False, True])
def test_who_loses_his_last_reader(name: str, named: bool) -> None:
    reader, writer = (
        (shmpipe.open(name, "r", flags=os.O_NONBLOCK), shmpipe.open(name, "w"))
        if named
        else shmpipe.pipe()
    )
    reader.close()
    with pytest.raises(BrokenPipeError, match="no process has a read end open: Writer of") as gone:
        writer.write(b"x")
    writer.close()
    assert gone.value.filename == (name if named else None)
    assert len(gone.value.args) == 2  # errno and text, as os.write's


_FAULTS = """
import os, resource, shmpipe

def faults(write, end):
    from_child, to_parent = os.pipe()
    if os.fork() == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        try: write(end, b"x")
        except BrokenPipeError: pass
        after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        os.write(to_parent, str(after - before).encode())
        os._exit(0)
    os.wait()
    return int(os.read(from_child, 9))

r, w = os.pipe()
os.close(r)
reader, writer = shmpipe.pipe()
reader.close()
kernel = min(faults(os.write, w) for _ in range(9))
shmpipes = min(faults(lambda end, data: end.write(data), writer) for _ in range(9))
print(kernel, shmpipes, shmpipes - kernel)
"""


def test_a_fork_child_learns_cheaply_that_all_readers_are_gone() -> None:
    """Each of a crowd of survivors needs the CPU for it: with a text of its own it was 50 more."""
    counted = subprocess.run([sys.executable, "-c", _FAULTS], capture_output=True, text=True)
    assert int(counted.stdout.split()[2]) < 30, counted
