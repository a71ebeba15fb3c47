"""Other users, and what somebody has planted where a pipe is going to be.

/dev/shm is sticky and open to all, like /tmp: whoever comes first may put anything under any name.
A pipe is refused, or works as documented; nothing is followed, nothing is waited for.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import shmpipe
from shmpipe import _lib

from support.errors import fails_with
from support.run import run_id

from .conftest import become_nobody, in_a_child

Child = Callable[..., Any]
Call = Callable[[str], object]


@pytest.fixture
def name() -> Iterator[str]:
    name = f"planted-{run_id()}"
    yield name
    for each in os.listdir("/dev/shm"):
        if each.endswith("." + name):
            path = f"/dev/shm/{each}"
            os.rmdir(path) if stat.S_ISDIR(os.lstat(path).st_mode) else os.unlink(path)


def path_of(name: str) -> str:
    return f"/dev/shm/shmpipe.{name}"


def opened(name: str) -> None:
    with shmpipe.open(name, "r+"):
        pass


CALLS: dict[str, Call] = {
    "mkfifo": shmpipe.mkfifo,
    "open": opened,
    "unlink": shmpipe.unlink,
    "snapshot": shmpipe.snapshot,
    "check": shmpipe.check,
}


# ---- Planted things ----------------------------------------------------------------------------


def plant_symlink(path: str) -> None:
    os.symlink("/etc/passwd", path)


def plant_dangling_symlink(path: str) -> None:
    os.symlink(f"{path}-nowhere", path)


def plant_directory(path: str) -> None:
    os.mkdir(path)


def plant_fifo(path: str) -> None:
    os.mkfifo(path)


def plant_text(path: str) -> None:
    with open(path, "w") as file:
        file.write("not a pipe\n" * 500)


PLANTED = [
    plant_symlink,
    plant_dangling_symlink,
    plant_directory,
    plant_fifo,
    plant_text,
]


@pytest.mark.parametrize("call", CALLS, ids=str)
@pytest.mark.parametrize("plant", PLANTED, ids=lambda each: each.__name__)
def test_what_is_no_pipe_is_refused(plant: Callable[[str], None], call: str, name: str) -> None:
    plant(path_of(name))
    before = os.lstat(path_of(name))

    def refused() -> str:
        try:
            CALLS[call](name)
        except OSError as error:
            return error.strerror or ""
        return ""

    # In a child: one that waits for a writer of a planted FIFO would hang.
    reason = in_a_child(refused)
    if call == "unlink" and plant in (plant_fifo, plant_text):
        assert reason == ""  # who may remove the name removes it, whatever it is
        return
    assert reason
    after = os.lstat(path_of(name))
    assert (after.st_ino, after.st_size, after.st_mode) == (
        before.st_ino,
        before.st_size,
        before.st_mode,
    )
    assert not os.path.lexists(f"{path_of(name)}-nowhere")
    assert [each for each in os.listdir("/dev/shm") if each.endswith("." + name)] == [
        f"shmpipe.{name}"
    ]


def test_mkfifo_on_anything_is_eexist(name: str) -> None:
    """As mkfifo(3)."""
    for plant in PLANTED:
        plant(path_of(name))
        with fails_with(errno.EEXIST):
            shmpipe.mkfifo(name)
        os.rmdir(path_of(name)) if plant is plant_directory else os.unlink(path_of(name))


def test_another_name_of_a_file_of_ours_is_not_taken_over(name: str) -> None:
    """An empty file is what a creator that died leaves; but that has one name."""
    other = f"/dev/shm/{run_id()}-victim"
    try:
        with open(other, "wb"):
            pass
        os.link(other, path_of(name))
        with fails_with(errno.EEXIST):
            shmpipe.mkfifo(name)
        assert os.stat(other).st_size == 0
    finally:
        os.unlink(other)


def test_an_empty_file_of_another_user_is_not_taken_over(name: str, as_nobody: Child) -> None:
    """It would be the other user's pipe, with the mode the other one chose."""

    def plant() -> None:
        os.umask(0)
        os.close(os.open(path_of(name), os.O_RDWR | os.O_CREAT, 0o666))

    as_nobody(plant)
    with pytest.raises(OSError) as caught:
        shmpipe.mkfifo(name)
    assert caught.value.errno in (errno.EEXIST, errno.EACCES)  # fs.protected_regular
    assert os.stat(path_of(name)).st_size == 0
    with pytest.raises(FileNotFoundError):
        shmpipe.open(name, "r+")


def test_ones_own_empty_file_is_taken_over(name: str) -> None:
    os.close(os.open(path_of(name), os.O_RDWR | os.O_CREAT, 0o600))
    shmpipe.mkfifo(name)
    opened(name)


# ---- Other users ---------------------------------------------------------------------------------


def outcome(call: Callable[[], object]) -> int:
    """0, or the errno."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize(
    ("mode", "opens", "looks"),
    [(0o600, errno.EACCES, errno.EACCES), (0o644, errno.EACCES, 0), (0o666, 0, 0)],
    ids=oct,
)
def test_another_user(mode: int, opens: int, looks: int, name: str, as_nobody: Child) -> None:
    umask = os.umask(0)
    try:
        shmpipe.mkfifo(name, mode)
    finally:
        os.umask(umask)

    def tries() -> tuple[int, ...]:
        return (
            outcome(lambda: opened(name)),
            outcome(lambda: shmpipe.open(name, "r", flags=os.O_NONBLOCK).close()),
            outcome(lambda: shmpipe.snapshot(name)),
            outcome(lambda: shmpipe.check(name)),
            outcome(lambda: shmpipe.mkfifo(name)),
        )

    opening, reading, snapshot, check, making = as_nobody(tries)
    assert (opening, reading) == (opens, opens)
    assert (snapshot, check) == (looks, looks)
    assert making in (errno.EEXIST, errno.EACCES)
    assert as_nobody(lambda: outcome(lambda: shmpipe.unlink(name))) in (errno.EACCES, errno.EPERM)
    opened(name)  # nothing of that has changed it


def test_two_users_meet_in_one_pipe(name: str, as_nobody: Child) -> None:
    umask = os.umask(0)
    try:
        shmpipe.mkfifo(name, 0o666)
    finally:
        os.umask(umask)
    with shmpipe.open(name, "r+") as end:

        def writes() -> int | None:
            with shmpipe.open(name, "w") as writer:
                return writer.write(b"from nobody")

        assert as_nobody(writes) == 11
        assert end.read(100) == b"from nobody"
        assert shmpipe.check(end).errors == 0


def test_root_finds_the_pipes_of_others_in_order(name: str, as_nobody: Child) -> None:
    as_nobody(lambda: shmpipe.mkfifo(name))
    assert shmpipe.snapshot(name).creator_uid == 65534
    assert shmpipe.check(name).findings == ()
    opened(name)


@pytest.mark.parametrize("umask", [0, 0o077, 0o777], ids=oct)
@pytest.mark.parametrize("mode", [0o600, 0o666, 0o660], ids=oct)
def test_the_umask_applies_as_to_mkfifo(umask: int, mode: int, name: str) -> None:
    kernels = f"/dev/shm/{run_id()}-kernels"
    before = os.umask(umask)
    try:
        os.mkfifo(kernels, mode)
        shmpipe.mkfifo(name, mode)
    finally:
        os.umask(before)
    try:
        wanted = os.stat(kernels).st_mode & 0o7777
    finally:
        os.unlink(kernels)
    found = {
        each: os.stat(f"/dev/shm/{each}").st_mode & 0o7777
        for each in os.listdir("/dev/shm")
        if each.endswith("." + name)
    }
    assert len(found) == 2
    assert set(found.values()) == {wanted}


def test_a_mode_of_nothing_shuts_out_its_creator(name: str, as_nobody: Child) -> None:
    def makes_and_opens() -> tuple[int, int, int]:
        os.umask(0o777)
        return (
            outcome(lambda: shmpipe.mkfifo(name)),
            outcome(lambda: opened(name)),
            # A file can be removed by who may not open it; what FIFO lies beside it is written in
            # the object, which unlink() cannot read then.
            outcome(lambda: shmpipe.unlink(name)),
        )

    assert as_nobody(makes_and_opens) == (0, errno.EACCES, errno.EACCES)


def test_an_end_goes_on_when_its_process_gives_up_root(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give it up")
    shmpipe.mkfifo(name)

    def gives_up() -> bytes | None:
        with shmpipe.open(name, "r+") as end:
            end.write(b"before ")
            become_nobody()
            end.write(b"after")
            return end.read(100)

    assert in_a_child(gives_up) == b"before after"


# ---- Holders that can only read ----------------------------------------------------------------


def test_a_descriptor_without_write_permission_is_no_end() -> None:
    reader, writer = shmpipe.pipe()
    with reader, writer:
        segment, companion = reader.pass_fds()
        unwritable = os.open(f"/proc/self/fd/{segment}", os.O_RDONLY)
        copy = os.dup(companion)
        token = reader.token().replace(f":{segment}:{companion}:", f":{unwritable}:{copy}:")
        os.set_inheritable(unwritable, True)
        with pytest.raises(OSError) as caught:
            shmpipe.attach(token)
        assert caught.value.errno == errno.EINVAL
        assert shmpipe.snapshot(unwritable).capacity == 65536  # it is good for looking
        assert shmpipe.check(unwritable).errors == 0
        os.close(copy)
        _lib.close_segment(unwritable)  # which keeps the record locks on it
