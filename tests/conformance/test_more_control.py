"""What is around the data: descriptors, ioctl, stat, locks: rules CR-4 to CR-11, FS-1 to FS-8."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import resource
import stat
import termios
from collections.abc import Callable

import pytest

from conformance.backends import Backend, Pipes
from conformance.ends import PIPE_BUF, End, KernelEnd, shmpipe
from conformance.marks import anonymous_only, both_modes, named_only
from support import proc
from support.actors import ProcessActor
from support.errors import fails_with

SpawnProcess = Callable[..., ProcessActor]

# termios has no FIOQSIZE and the like; any terminal request will do.
OTHER_REQUESTS = {"TIOCOUTQ": termios.TIOCOUTQ, "TIOCGWINSZ": termios.TIOCGWINSZ, "TCGETS": 0x5401}


def ioctl(end: End, request: int, value: int = 0) -> int:
    """ioctl(2) with a pointer to an int; what the int is afterwards."""
    if isinstance(end, KernelEnd):
        memory = array.array("i", [value])
        fcntl.ioctl(end.fileno(), request, memory)
        return memory[0]
    return int(shmpipe().ioctl(vars(end)["_end"], request, value))


@anonymous_only
@pytest.mark.parametrize("flags", [os.O_APPEND, os.O_NONBLOCK | os.O_SYNC, 0xDEAD])
def test_CR_05_a_refused_pipe_leaves_nothing_open(pipes: Pipes, flags: int) -> None:
    pipes.make()  # whatever a process needs only once is there now
    before = proc.descriptors()
    with fails_with(errno.EINVAL):
        pipes.make(flags)
    assert proc.descriptors() == before


@pytest.mark.parametrize("free", range(6))
def test_CR_06_without_descriptors_it_is_emfile_and_nothing_stays(
    pipes: Pipes, processes: SpawnProcess, free: int
) -> None:
    name = pipes.create() if pipes.backend.named else ""
    kept = [pipes.open(name, "r+")] if name else pipes.make()

    def make() -> list[End]:
        return [pipes.open(name, "w")] if name else list(pipes.make())

    def body() -> tuple[bool, int, bool]:
        for end in make():  # whatever a process needs only once is there after this
            end.close()
        before = proc.descriptors()
        limit = [number for number in range(1024) if number not in before][free]
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        made, failure = [], errno.EMFILE
        try:
            made = make()
        except OSError as error:
            failure = error.errno or 0
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for end in made:
            end.close()
        return bool(made), failure, proc.descriptors() == before

    succeeded, failure, unchanged = processes(body, keep=kept).result()
    assert unchanged
    assert failure == errno.EMFILE
    assert not succeeded or free > 0


@both_modes
def test_CR_09_FIONBIO_is_O_NONBLOCK(pipes: Pipes, flags: int) -> None:
    for end in pipes.make(flags):
        before = end.flags()
        ioctl(end, termios.FIONBIO, 1)
        assert end.flags() == before | os.O_NONBLOCK
        ioctl(end, termios.FIONBIO, 0)
        assert end.flags() == before & ~os.O_NONBLOCK


def test_CR_09_FIOASYNC_is_O_ASYNC(pipes: Pipes) -> None:
    for end in pipes.make():
        before = end.flags()
        ioctl(end, termios.FIOASYNC, 1)
        assert end.flags() == before | os.O_ASYNC
        ioctl(end, termios.FIOASYNC, 0)
        assert end.flags() == before


@pytest.mark.parametrize("name", OTHER_REQUESTS)
def test_CR_09_other_requests_are_enotty(pipes: Pipes, name: str) -> None:
    for end in pipes.make():
        with fails_with(errno.ENOTTY):
            ioctl(end, OTHER_REQUESTS[name])


def test_CR_11_the_descriptor_can_be_locked(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    for end in (reader, writer):
        fcntl.flock(end.fileno(), fcntl.LOCK_EX)
        fcntl.flock(end.fileno(), fcntl.LOCK_UN)
    fcntl.lockf(writer.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.lockf(writer.fileno(), fcntl.LOCK_UN)


@anonymous_only
def test_CR_11_mode_owner_and_times_are_seen_through_both_ends(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    os.fchmod(writer.fileno(), 0o640)
    os.utime(writer.fileno(), (1, 2))
    seen = os.fstat(reader.fileno())
    assert (stat.S_IMODE(seen.st_mode), seen.st_atime, seen.st_mtime) == (0o640, 1, 2)


def test_FS_01_stat_of_the_descriptors(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    writer.write(b"x" * 5000)
    for seen in (os.fstat(reader.fileno()), os.fstat(writer.fileno())):
        assert seen.st_mode == stat.S_IFIFO | 0o600
        assert (seen.st_nlink, seen.st_size, seen.st_blocks) == (1, 0, 0)
        assert (seen.st_uid, seen.st_gid) == (os.getuid(), os.getgid())
        assert seen.st_blksize == PIPE_BUF


def test_FS_01_both_ends_are_one_object_and_two_pipes_are_two(pipes: Pipes) -> None:
    pairs = [pipes.make(), pipes.make()]
    identities = []
    for pair in pairs:
        first, second = (os.fstat(end.fileno()) for end in pair)
        assert (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
        identities.append((first.st_dev, first.st_ino))
    assert identities[0] != identities[1]


@anonymous_only
def test_FS_02_data_changes_no_time_of_an_anonymous_pipe(pipes: Pipes) -> None:
    reader, writer = pipes.make()
    os.utime(writer.fileno(), (1, 2))
    writer.write(b"abc")
    reader.read(2)
    seen = os.fstat(reader.fileno())
    assert (seen.st_atime, seen.st_mtime) == (1, 2)


@anonymous_only
def test_FS_03_the_link_in_proc_names_a_pipe(pipes: Pipes) -> None:
    for end in pipes.make():
        number = end.fileno()
        assert os.readlink(f"/proc/self/fd/{number}") == f"pipe:[{os.fstat(number).st_ino}]"


def test_FS_06_PIPE_BUF_is_a_page(pipes: Pipes) -> None:
    for end in pipes.make():
        assert os.fpathconf(end.fileno(), "PC_PIPE_BUF") == PIPE_BUF


@named_only
def test_FS_08_the_descriptor_is_a_fifo(pipes: Pipes) -> None:
    end = pipes.open(pipes.create(0o640), "r+")
    assert stat.filemode(os.fstat(end.fileno()).st_mode) == "prw-r-----"


@anonymous_only
def test_CR_04_a_notification_pipe_is_enopkg_without_watch_queues(
    pipes: Pipes, backend: Backend
) -> None:
    if not backend.shm and kernel_has_watch_queues():
        pytest.skip("this kernel has watch queues")
    with fails_with(errno.ENOPKG):
        pipes.make(os.O_EXCL)


def kernel_has_watch_queues() -> bool:
    try:
        ends = os.pipe2(os.O_EXCL)
    except OSError:
        return False
    for end in ends:
        os.close(end)
    return True
