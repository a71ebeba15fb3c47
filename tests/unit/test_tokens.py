"""A token that is refused, by attach() or by unpickling, costs nobody a descriptor."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
import shmpipe

Files = list[IO[str]]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """Two files that have nothing to do with pipes; one may be passed on, one not."""
    opened: Files = []
    for name in ("one", "two"):
        (tmp_path / name).write_text(name * 10000)  # longer than a pipe's header
        opened.append((tmp_path / name).open())
    os.set_inheritable(opened[0].fileno(), True)
    yield opened
    for each in opened:
        each.close()


def are_untouched(files: Files) -> bool:
    inheritable = [os.get_inheritable(each.fileno()) for each in files]
    contents = [each.read(3) for each in files]
    return contents == ["one", "two"] and inheritable == [True, False]


def token(segment: int, companion: int, mode: int = os.O_RDONLY) -> str:
    return f"shmpipe-1:{segment}:{companion}:{2**32 - 1}:0:{mode}:0"


def test_a_token_of_two_files(files: Files) -> None:
    one, two = files
    with pytest.raises(OSError) as caught:
        shmpipe.attach(token(one.fileno(), two.fileno()))
    assert caught.value.errno == errno.EINVAL
    assert are_untouched(files)


def test_a_token_with_a_file_for_the_segment(files: Files) -> None:
    """The companion is one, so it is the segment that is found out."""
    read, write = os.pipe()
    for each in files:
        with pytest.raises(shmpipe.IncompatibleSegmentError):
            shmpipe.attach(token(each.fileno(), read))
    os.close(read)
    os.close(write)
    assert are_untouched(files)


def test_a_token_with_one_descriptor_missing(files: Files) -> None:
    missing = os.dup(0)
    os.close(missing)
    for segment, companion in ((files[0].fileno(), missing), (missing, files[0].fileno())):
        with pytest.raises(OSError) as caught:
            shmpipe.attach(token(segment, companion))
        assert caught.value.errno == errno.EBADF
    assert are_untouched(files)


def test_a_token_with_a_damaged_segment(files: Files) -> None:
    """Also when it is open here: its locks and the pipe's are not disturbed."""
    reader, writer = shmpipe.pipe()
    segment, companion = reader.pass_fds()
    damaged = os.memfd_create("damaged")
    os.write(damaged, os.pread(segment, 4096, 0)[:100])
    with pytest.raises(shmpipe.CorruptSegmentError):
        shmpipe.attach(token(damaged, companion))
    assert os.fstat(damaged).st_size == 100
    os.close(damaged)
    with pytest.raises(OSError) as caught:
        shmpipe.attach(token(segment, files[0].fileno()))
    assert caught.value.errno == errno.EINVAL
    assert are_untouched(files)
    with reader, writer:
        writer.write(b"still works")
        assert reader.read(100) == b"still works"


def test_a_number_that_no_descriptor_has() -> None:
    with pytest.raises(ValueError, match="not a token"):
        shmpipe.attach(token(2**31, 0))


def test_a_token_that_is_no_text() -> None:
    with pytest.raises(TypeError, match=r"a token of end\.token\(\) is a str, not bytes"):
        shmpipe.attach(token(0, 1).encode())  # type: ignore[arg-type]


def test_a_pickle_that_is_refused_closes_its_copies(tmp_path: Path) -> None:
    """multiprocessing made them for the new end, so nobody else would.

    In a process of its own, because the sharer is a thread that stays.
    """
    program = """
import os, sys, time
from multiprocessing import resource_sharer
from shmpipe import passing

path = sys.argv[1]
one, two = open(path), open(path)

def copies():
    links = (f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd"))
    return sum(os.path.exists(each) and os.readlink(each) == path for each in links)

class Lost:
    def detach(self):
        raise EOFError

for second in (resource_sharer.DupFd(two.fileno()), Lost()):
    try:
        passing._rebuild(resource_sharer.DupFd(one.fileno()), second, [2**32 - 1, 0, 0, 0])
    except (OSError, EOFError) as error:
        print(type(error).__name__)
until = time.monotonic() + 5  # the sharer closes its own copies a little later
while copies() != 2 and time.monotonic() < until:
    time.sleep(0.01)
print(copies(), one.read(), two.read())
"""
    file = tmp_path / "file"
    file.write_text("here")
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        capture_output=True,
        timeout=40,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "OSError\nEOFError\n2 here here\n",
        "",
    )
