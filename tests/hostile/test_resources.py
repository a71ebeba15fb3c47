"""Little of everything: a full or a small /dev/shm, no descriptors, no memory.

A clean error, and nothing left behind: no descriptor, no name, no mapping, no byte of /dev/shm.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import shmpipe

from support import proc
from support.leaks import RECORD
from support.run import run_id

from .conftest import in_a_child

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 0x4000 | 0x40000
LIBC = ctypes.CDLL(None, use_errno=True)
MIB = 1 << 20

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork beside threads


def failing(action: Callable[[], Any]) -> int:
    """The errno with which it fails, 0 if it does not."""
    try:
        action()
    except OSError as error:
        return error.errno or -1
    except MemoryError:
        return errno.ENOMEM
    return 0


def held() -> list[str]:
    """What this process has open of pipes, and which names there are."""
    descriptors = [each for each in proc.descriptors().values() if RECORD not in each]
    with open("/proc/self/maps") as maps:
        mapped = [line for line in maps if "shmpipe" in line and RECORD not in line]
    ours = [each for each in os.listdir("/dev/shm") if run_id() in each]
    return sorted(descriptors) + mapped + sorted(ours)


# ---- /dev/shm ------------------------------------------------------------------------------------


def own_dev_shm(size: int) -> Callable[[], None]:
    """A step of a child: a /dev/shm of its own, of this many bytes."""

    def mount() -> None:
        if LIBC.unshare(CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        LIBC.mount(None, b"/", None, MS_REC_PRIVATE, None)
        if LIBC.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={size}".encode()) != 0:
            raise OSError(ctypes.get_errno(), "mount")

    return mount


def with_dev_shm(size: int, step: Callable[[], Any]) -> Any:
    mount = own_dev_shm(size)
    refused = in_a_child(lambda: failing(mount))
    if refused:
        pytest.skip(f"cannot mount a /dev/shm of its own here: {os.strerror(refused)}")
    return in_a_child(mount, step)


def used() -> int:
    facts = os.statvfs("/dev/shm")
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


@pytest.mark.parametrize("size", [4096, 65536, MIB, 50 * MIB])
def test_a_small_dev_shm_fills_up_cleanly(size: int) -> None:
    def fill() -> tuple[int, int, list[str]]:
        empty, before = used(), held()
        made = 0
        while (code := failing(partial(shmpipe.mkfifo, f"p{made}"))) == 0:
            made += 1
        assert len(shmpipe.listdir()) == made
        for each in range(made):
            with shmpipe.open(f"p{each}", "r+") as end:  # what was made is whole
                end.write(bytes(end.capacity))
                assert len(end.read(end.capacity) or b"") == end.capacity
            shmpipe.unlink(f"p{each}")
        assert used() == empty
        assert os.listdir("/dev/shm") == []
        return made, code, [each for each in held() if each not in before]

    made, code, left = with_dev_shm(size, fill)
    assert (code, left) == (errno.ENOSPC, [])
    # A pipe has 36 pages: header and tables 18, slot words 1, data 16; and a FIFO's inode.
    assert size // (37 * 4096) <= made <= size // (35 * 4096)


def test_a_capacity_that_does_not_fit() -> None:
    def make_and_grow() -> tuple[int, int, int, int]:
        empty = used()
        too_large = failing(lambda: shmpipe.mkfifo("large", capacity=16 * MIB))
        left = used() - empty
        shmpipe.mkfifo("small")
        with shmpipe.open("small", "r+") as end:
            end.write(b"kept")
            growing = failing(lambda: setattr(end, "capacity", 16 * MIB))
            assert end.capacity == 65536
            assert end.read(10) == b"kept"
            assert shmpipe.check(end).errors == 0
            end.write(bytes(65536))
            assert len(end.read(65536) or b"") == 65536
        shmpipe.unlink("small")
        return too_large, left, growing, used() - empty

    assert with_dev_shm(4 * MIB, make_and_grow) == (errno.ENOSPC, 0, errno.ENOSPC, 0)


def test_a_pipe_goes_on_when_dev_shm_is_full() -> None:
    """Every page was allocated when the pipe was made: a write is never SIGBUS."""

    def fill_and_use() -> tuple[int | None, int]:
        shmpipe.mkfifo("pipe")
        with open("/dev/shm/ballast", "wb", buffering=0) as ballast:
            code = failing(lambda: [ballast.write(bytes(4096)) for _ in range(MIB)])
        with shmpipe.open("pipe", "r+") as end:
            end.fileno()
            written = end.write(bytes(65536))
            assert len(end.read(65536) or b"") == 65536
            assert shmpipe.check(end).errors == 0
        return written, code

    assert with_dev_shm(MIB, fill_and_use) == (65536, errno.ENOSPC)


def test_an_anonymous_pipe_needs_no_dev_shm() -> None:
    def use() -> bytes | None:
        reader, writer = shmpipe.pipe()
        with reader, writer:
            writer.write(b"elsewhere")
            return reader.read(100)

    assert with_dev_shm(4096, use) == b"elsewhere"


# ---- Descriptors ---------------------------------------------------------------------------------


def with_descriptors_left(count: int, action: Callable[[], Any]) -> tuple[int, list[str]]:
    """How the action fails when so many can still be opened, and what it leaves."""
    before = held()
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    while failing(lambda: taken.append(os.dup(0))) == 0:
        pass
    for _ in range(count):
        os.close(taken.pop())
    code = failing(action)
    for each in taken:
        os.close(each)
    return code, [each for each in held() if each not in before]


def exhaust(action: Callable[[], Any]) -> list[tuple[int, list[str]]]:
    """The same for every number from 0 on, until it succeeds."""
    results = []
    for count in range(20):
        result = in_a_child(partial(with_descriptors_left, count, action))
        results.append(result)
        if result[0] == 0:
            break
    return results


def pipe_and_close() -> None:
    reader, writer = shmpipe.pipe()
    reader.close()
    writer.close()


def named_and_gone() -> None:
    name = f"resources-{run_id()}"
    shmpipe.mkfifo(name)
    shmpipe.unlink(name)


def test_no_descriptors_for_a_pipe() -> None:
    *failed, last = exhaust(pipe_and_close)
    assert len(failed) >= 4
    assert all(each == (errno.EMFILE, []) for each in failed), failed
    assert last == (0, [])


def test_no_descriptors_for_a_name() -> None:
    *failed, last = exhaust(named_and_gone)
    assert failed
    assert all(code == errno.EMFILE for code, _ in failed), failed
    assert last == (0, [])
    # With too few to unlink it again, the name is all that may be there.
    names = {each for _, left in failed for each in left}
    assert all(run_id() in each for each in names)
    for each in os.listdir("/dev/shm"):
        if each.endswith(f".resources-{run_id()}"):
            os.unlink(f"/dev/shm/{each}")


def test_no_descriptors_for_an_open_and_for_looking() -> None:
    name = f"resources-{run_id()}"
    shmpipe.mkfifo(name)

    def opens() -> None:
        shmpipe.open(name, "r+").close()

    for action in (opens, lambda: shmpipe.snapshot(name), lambda: shmpipe.check(name)):
        *failed, last = exhaust(action)
        assert failed
        assert all(each == (errno.EMFILE, []) for each in failed), failed
        assert last == (0, [])
    shmpipe.unlink(name)


def test_a_fork_without_descriptors_loses_no_byte() -> None:
    """The child gets no record: it is noticed later when it dies, and works all the same."""
    reader, writer = shmpipe.pipe()
    with reader, writer:

        def forks() -> int:
            def child() -> int:
                return 0 if writer.write(b"from the child") == 14 else 1

            code = -1

            def fork_it() -> None:
                nonlocal code
                pid = os.fork()
                if pid == 0:
                    try:
                        os._exit(child())
                    except OSError as error:
                        os._exit(100 + (error.errno or 0) % 100)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

            with_descriptors_left(0, fork_it)
            return code

        code = in_a_child(forks)
        if code == 0:
            assert reader.read(100) == b"from the child"
        else:
            assert code == 100 + errno.EMFILE
        writer.write(b"x")
        assert reader.read(100) == b"x"


# ---- Memory --------------------------------------------------------------------------------------


def address_space() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def with_address_space_left(size: int, action: Callable[[], Any]) -> tuple[int, list[str]]:
    before = held()
    limit = address_space() + size
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    code = failing(action)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return code, [each for each in held() if each not in before]


@pytest.mark.parametrize("capacity", [65536, 16 * MIB])
def test_no_memory_for_a_pipe(capacity: int) -> None:
    def make() -> None:
        reader, writer = shmpipe.pipe(capacity=capacity)
        reader.close()
        writer.close()

    needed = 2 * capacity + 256 * 1024
    sizes = range(0, needed + MIB, needed // 12)
    outcomes = [in_a_child(partial(with_address_space_left, size, make)) for size in sizes]
    assert all(left == [] and code in (0, errno.ENOMEM) for code, left in outcomes), outcomes
    assert outcomes[-1][0] == 0


def test_no_memory_for_growth() -> None:
    def grow() -> tuple[Any, bytes | None, int]:
        reader, writer = shmpipe.pipe()
        with reader, writer:
            writer.write(b"kept")
            result = with_address_space_left(MIB, lambda: setattr(reader, "capacity", 64 * MIB))
            data = reader.read(10)
            writer.write(bytes(65536))
            reader.read(65536)
            return result, data, shmpipe.check(reader).errors

    (code, _), data, errors = in_a_child(grow)
    assert (code, data, errors) == (errno.ENOMEM, b"kept", 0)


def test_no_memory_for_what_is_read() -> None:
    """bytes of 64 MiB cannot be had: MemoryError, and the bytes stay in the pipe."""

    def read() -> tuple[Any, int, int]:
        reader, writer = shmpipe.pipe(capacity=64 * MIB)
        with reader, writer:
            writer.write(bytes(64 * MIB))
            result = with_address_space_left(8 * MIB, lambda: reader.read(64 * MIB))
            pending = reader.pending
            return result, pending, len(reader.read(64 * MIB) or b"")

    (code, _), pending, got = in_a_child(read)
    assert (code, pending, got) == (errno.ENOMEM, 64 * MIB, 64 * MIB)
