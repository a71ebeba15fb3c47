"""ls and stat: what they find and what they show of it."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shmpipe
from shmpipe_tools.failure import failure_of, reason_of
from shmpipe_tools.inspect.discover import find_pipe, live_pipes, own_segments


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command."""
    return subprocess.run(
        [sys.executable, "-m", "shmpipe_tools", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def document(*arguments: str) -> Any:
    """Runs the command and reads its JSON."""
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["schema"] == 1
    return result


@pytest.fixture
def name() -> Iterator[str]:
    """A named pipe with nobody at it."""
    name = f"test-inspect-{os.getpid()}"
    shmpipe.mkfifo(name)
    yield name
    if name in shmpipe.listdir():
        shmpipe.unlink(name)


@pytest.fixture
def ends() -> Iterator[tuple[shmpipe.Reader, shmpipe.Writer]]:
    """An anonymous pipe of this process."""
    reader, writer = shmpipe.pipe()
    with reader, writer:
        yield reader, writer


def own_label(device_and_inode: tuple[int, int]) -> str:
    """PID:FD of a segment of this process."""
    for fd in os.listdir("/proc/self/fd"):
        try:
            facts = os.stat(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if (facts.st_dev, facts.st_ino) == device_and_inode:
            return f"{os.getpid()}:{fd}"
    raise AssertionError("no such segment")


def test_ls_shows_a_named_pipe(name: str) -> None:
    (row,) = [line for line in run("ls").stdout.splitlines() if line.startswith(name)]
    assert row.split()[:4] == [name, "named", "64", "KiB"]
    (entry,) = [pipe for pipe in document("ls")["pipes"] if pipe["pipe"] == name]
    assert entry["kind"] == "named"
    assert entry["mode"] == "0600"
    assert entry["capacity"] == 65536
    assert entry["open_in"] == []


def test_ls_shows_an_anonymous_pipe_once_with_its_process(
    ends: tuple[shmpipe.Reader, shmpipe.Writer],
) -> None:
    ends[1].write(b"12345")
    (identity,) = own_segments()
    found = [
        pipe
        for pipe in document("ls")["pipes"]
        if (pipe.get("device"), pipe.get("inode")) == identity
    ]
    assert len(found) == 1
    assert found[0]["kind"] == "anonymous"
    assert found[0]["pending"] == 5
    assert os.getpid() in [process["pid"] for process in found[0]["open_in"]]


def test_stat_shows_an_anonymous_pipe_by_pid_and_descriptor(
    ends: tuple[shmpipe.Reader, shmpipe.Writer],
) -> None:
    ends[1].write(bytes(5000))
    ends[0].read(1000)
    (identity,) = own_segments()
    label = own_label(identity)
    done = run("stat", label)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{label}  anonymous pipe, 64 KiB in 16 slots")
    assert "4000 of 65536 bytes, in 2 of 16 slots" in done.stdout
    assert str(os.getpid()) in done.stdout
    entry = document("stat", label)
    assert (entry["writes"], entry["bytes_written"], entry["bytes_read"]) == (1, 5000, 1000)
    assert (entry["readers"], entry["writers"], entry["pending"]) == (1, 1, 4000)
    assert sum(slot["end"] - slot["start"] for slot in entry["slots"]) in (4000, 5000)


def test_stat_says_who_is_told_of_each_operation(
    ends: tuple[shmpipe.Reader, shmpipe.Writer],
) -> None:
    (identity,) = own_segments()
    label = own_label(identity)
    sentence = "Operations are counted for notifiers of the read"
    assert sentence not in run("stat", label).stdout
    with ends[0].notifier():
        assert sentence + " ends." in run("stat", label).stdout
        with ends[1].notifier():
            assert sentence + " and the write ends." in run("stat", label).stdout


def test_looking_does_not_disturb(ends: tuple[shmpipe.Reader, shmpipe.Writer]) -> None:
    ends[1].write(b"before")
    (identity,) = own_segments()
    before = os.stat(f"/proc/self/fd/{own_label(identity).split(':')[1]}")
    run("ls")
    run("stat", own_label(identity))
    ends[1].write(b" after")
    assert ends[0].read(100) == b"before after"
    assert before.st_mtime == os.stat(f"/proc/self/fd/{own_label(identity).split(':')[1]}").st_mtime


def test_a_pipe_that_lost_its_name_is_still_found(name: str) -> None:
    with shmpipe.open(name, "r+") as end:
        end.write(b"kept")
        shmpipe.unlink(name)
        own = [pipe for pipe in live_pipes() if pipe.label.startswith(f"{os.getpid()}:")]
        (found,) = [pipe for pipe in own if pipe.kind == "unlinked"]
        done = run("stat", found.label)
        assert f"once named '{name}'" in done.stdout


def test_a_name_wins_over_pid_and_descriptor() -> None:
    name = f"{os.getpid()}:0"
    shmpipe.mkfifo(name)
    try:
        assert find_pipe(name).kind == "named"
    finally:
        shmpipe.unlink(name)


@pytest.mark.parametrize(
    ("pipe", "message"),
    [
        ("no-such-pipe", "stat 'no-such-pipe': no such pipe"),
        ("1:999999", "stat '1:999999': "),
        ("\x1b[2J", "stat '\\x1b[2J': no such pipe"),
        ("../../etc/passwd", "stat '../../etc/passwd': no such pipe"),
        ("", "stat '': no such pipe"),
    ],
)
def test_what_is_no_pipe_is_one_line_and_exit_code_1(pipe: str, message: str) -> None:
    done = run("stat", pipe)
    assert done.returncode == 1
    assert done.stderr.startswith(f"shmpipe: {message}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("action", "advice"),
    [
        ("stat", "looking needs read permission"),
        ("check", "looking needs read permission"),
        ("rm", "only its owner and root may remove it"),
        ("cat", "both sides need read and write permission"),
    ],
)
def test_who_may_not_is_told_what_that_command_needs(action: str, advice: str) -> None:
    failure = failure_of(PermissionError(errno.EACCES, "Permission denied"), action, "p")
    assert failure.message.startswith(f"{action} 'p': permission denied ({advice}")


def test_the_reason_of_a_refusal_names_no_descriptor_of_the_command(tmp_path: Path) -> None:
    """The descriptor is the exception's filename, as that of os.fstat() is."""
    (tmp_path / "file").write_bytes(b"no pipe" * 30000)
    with (tmp_path / "file").open("rb") as file:
        with pytest.raises(shmpipe.IncompatibleSegmentError) as refusal:
            shmpipe.snapshot(file.fileno())
        assert refusal.value.filename == file.fileno()
        assert str(file.fileno()) not in reason_of(refusal.value, "ls")


def test_a_descriptor_that_is_no_pipe_is_refused() -> None:
    done = run("stat", f"{os.getpid()}:0")
    assert done.returncode == 1
    assert "is not a pipe's segment" in done.stderr


def test_a_strangers_file_with_an_evil_name_is_shown_harmlessly() -> None:
    path = f"/dev/shm/shmpipe.test-{os.getpid()}\x1b]0;title\x07[red]"
    with open(path, "wb") as stranger:
        stranger.write(b"not a pipe" * 1000)
    try:
        done = run("ls")
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout
        assert f"test-{os.getpid()}\\x1b]0;title\\x07[red]" in done.stdout
        (entry,) = [pipe for pipe in document("ls")["pipes"] if "title" in pipe["pipe"]]
        assert entry["error"]
    finally:
        os.unlink(path)
