"""What Linux offers against the truncation of an object with a name: decision 0031's table.

If one of these answers changes, the gap that the decision describes may be closed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Callable, Iterator

import pytest

from support.errors import fails_with
from support.run import run_id

F_ADD_SEALS = 1033
F_SEAL_SHRINK = 2
FS_IOC_SETFLAGS = 0x40086602
IMMUTABLE, APPEND_ONLY = 0x10, 0x20
LIBC = ctypes.CDLL(None, use_errno=True)
NOBODY = 65534


@pytest.fixture
def path() -> Iterator[str]:
    path = f"/dev/shm/shmpipe-facts-{run_id()}"
    yield path
    if os.path.exists(path):
        os.unlink(path)


@pytest.fixture
def fd(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(fd, 8192)
    yield fd
    os.close(fd)


def set_flags(fd: int, flags: int) -> None:
    fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack("l", flags))


def knows_flags(fd: int) -> bool:
    """A tmpfs has them since Linux 6.6; setting them takes CAP_LINUX_IMMUTABLE."""
    try:
        set_flags(fd, IMMUTABLE)
    except OSError:
        return False
    set_flags(fd, 0)
    return True


def test_a_file_of_dev_shm_takes_no_seals(fd: int) -> None:
    with fails_with(errno.EPERM):
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)


def test_nor_does_one_without_a_name_yet() -> None:
    fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR, 0o600)
    try:
        with fails_with(errno.EPERM):
            fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)
    finally:
        os.close(fd)


def test_a_memfd_takes_no_name(path: str) -> None:
    fd = os.memfd_create("facts", os.MFD_ALLOW_SEALING)
    try:
        fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK)
        here, follow = -100, 0x400  # AT_FDCWD, AT_SYMLINK_FOLLOW
        source = f"/proc/self/fd/{fd}"
        result = LIBC.linkat(here, source.encode(), here, path.encode(), follow)
        assert (result, ctypes.get_errno()) == (-1, errno.EXDEV)
    finally:
        os.close(fd)


def test_an_immutable_object_can_be_cut_and_not_be_opened(path: str, fd: int) -> None:
    if not knows_flags(fd):
        pytest.skip("this kernel or this user cannot set file flags on a tmpfs")
    set_flags(fd, IMMUTABLE)
    try:
        with fails_with(errno.EPERM):
            os.open(path, os.O_RDWR)
        os.ftruncate(fd, 4096)  # who has it open already is not stopped
    finally:
        set_flags(fd, 0)


def test_an_append_only_object_cannot_be_mapped_for_writing(fd: int) -> None:
    if not knows_flags(fd):
        pytest.skip("this kernel or this user cannot set file flags on a tmpfs")
    set_flags(fd, APPEND_ONLY)
    try:
        with fails_with(errno.EPERM):
            os.ftruncate(fd, 4096)
        with fails_with(errno.EACCES):
            mmap.mmap(fd, 4096)
    finally:
        set_flags(fd, 0)


def test_a_lease_stops_nobody_with_the_same_description(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    os.ftruncate(fd, 4096)
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def test_without_privilege_there_are_no_flags_at_all(as_nobody: Callable[..., object]) -> None:
    def flags_refused() -> int:
        path = f"/dev/shm/shmpipe-facts-nobody-{run_id()}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.unlink(path)
        try:
            set_flags(fd, IMMUTABLE)
        except OSError as error:
            return error.errno or 0
        return 0

    assert as_nobody(flags_refused) in (errno.EPERM, errno.ENOTTY)
