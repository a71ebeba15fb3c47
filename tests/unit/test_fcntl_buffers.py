"""fcntl() and ioctl(): what they take, and that the kernel never writes beyond it."""

from __future__ import annotations

import array
import fcntl
import os
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest
import shmpipe

F_GETOWN_EX = 16
OWNER_BYTES = 8


@pytest.fixture
def end() -> Iterator[shmpipe.Reader]:
    reader, writer = shmpipe.pipe()
    yield reader
    reader.close()
    writer.close()


def test_a_short_structure_is_not_overrun() -> None:
    """F_GETOWN_EX writes 8 bytes, however few it was given: the debug allocator sees the rest."""
    program = """
import shmpipe
r, w = shmpipe.pipe()
for size in (0, 1, 2, 4, 7):
    for _ in range(100):
        assert len(shmpipe.fcntl(r, 16, bytes(size))) == size
r.close(); w.close()
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env=os.environ | {"PYTHONMALLOC": "debug"},
        timeout=40,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize("size", [0, 1, 7, OWNER_BYTES, 100, 1024])
def test_the_answer_is_as_long_as_the_argument(end: shmpipe.Reader, size: int) -> None:
    read, write = os.pipe()
    expected = fcntl.fcntl(read, F_GETOWN_EX, bytes(size))
    os.close(read)
    os.close(write)
    assert shmpipe.fcntl(end, F_GETOWN_EX, bytes(size)) == expected
    assert len(expected) == size


def test_a_long_structure_is_refused(end: shmpipe.Reader) -> None:
    with pytest.raises(ValueError, match="1024"):
        shmpipe.fcntl(end, F_GETOWN_EX, bytes(1025))


def test_the_argument_is_not_written_to(end: shmpipe.Reader) -> None:
    """Whatever has the buffer protocol is copied; its items may be longer than a byte."""
    argument = array.array("i", [77, 77])
    assert shmpipe.fcntl(end, F_GETOWN_EX, argument) != argument.tobytes()
    assert argument.tolist() == [77, 77]


@pytest.mark.parametrize("request_", [termios.FIONREAD, termios.FIONBIO, termios.FIOASYNC])
def test_ioctl_takes_no_buffer(end: shmpipe.Reader, request_: int) -> None:
    with pytest.raises(TypeError):
        shmpipe.ioctl(end, request_, b"")  # type: ignore[arg-type]


def test_a_descriptor_in_place_of_an_end_is_a_type_error(end: shmpipe.Reader) -> None:
    descriptor = end.fileno()
    with pytest.raises(TypeError, match="an end of shmpipe is needed"):
        shmpipe.fcntl(descriptor, fcntl.F_GETFL)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="an end of shmpipe is needed"):
        shmpipe.ioctl(descriptor, termios.FIONREAD)  # type: ignore[arg-type]
