"""mkfifo, rm, write and cat: named pipes in shell pipelines, and how the command ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import shmpipe

from support import proc

COMMAND = [sys.executable, "-m", "shmpipe_tools"]

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a pipe of this test; removed afterwards."""
    name = f"test-cli-{os.getpid()}"
    yield name
    if name in shmpipe.listdir():
        shmpipe.unlink(name)


@pytest.fixture
def start() -> Iterator[Start]:
    """start("cat", name, stdin=...): the command with pipes around it, killed afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def popen(*arguments: str, **options: object) -> "subprocess.Popen[bytes]":
        standard: dict[str, object] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [*COMMAND, *arguments], **(standard | options)
        )  # type: ignore[call-overload]
        started.append(process)
        return process

    yield popen
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end without input."""
    return subprocess.run(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# -- mkfifo and rm


def test_mkfifo_makes_a_pipe_and_rm_removes_it(name: str) -> None:
    assert run("mkfifo", name).returncode == 0
    assert name in shmpipe.listdir()
    assert os.stat(f"/dev/shm/shmpipe.{name}").st_mode & 0o777 == 0o600
    assert run("rm", name).returncode == 0
    assert name not in shmpipe.listdir()


def test_mkfifo_takes_a_mode_and_a_capacity(name: str) -> None:
    assert run("mkfifo", "-m", "640", "--capacity", "1M", name).returncode == 0
    assert os.stat(f"/dev/shm/shmpipe.{name}").st_mode & 0o777 == 0o640
    assert shmpipe.snapshot(name).capacity == 1 << 20


def test_mkfifo_of_a_name_that_exists_says_what_to_do(name: str) -> None:
    shmpipe.mkfifo(name)
    done = run("mkfifo", name)
    assert done.returncode == 1
    assert done.stderr == (
        f"shmpipe: mkfifo '{name}': exists already (use it, or remove it with `shmpipe rm`)\n"
    )


def test_rm_goes_on_after_a_name_that_is_not_there(name: str) -> None:
    shmpipe.mkfifo(name)
    done = run("rm", f"{name}-absent", name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"shmpipe: rm '{name}-absent': no such pipe")
    assert done.stderr.count("\n") == 1
    assert name not in shmpipe.listdir()


@pytest.mark.parametrize(
    "arguments",
    [
        ("mkfifo",),
        ("mkfifo", "-m", "888", "x"),
        ("mkfifo", "-m", "1777", "x"),
        ("mkfifo", "--capacity", "many", "x"),
        ("rm",),
        ("cat",),
        ("write", "x", "y"),
        ("frobnicate",),
        ("ls", "--frobnicate"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


@pytest.mark.parametrize(
    ("verb", "advice"),
    [
        ("cat", "no such named pipe (`shmpipe ls` shows what there is; --create makes one)"),
        ("write", "no such named pipe (`shmpipe ls` shows what there is; --create makes one)"),
        ("rm", "no such pipe (`shmpipe ls` shows what there is)"),
    ],
)
def test_a_pipe_that_is_not_there_is_one_line_and_exit_code_1(
    verb: str, advice: str, name: str
) -> None:
    done = run(verb, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"shmpipe: {verb} '{name}': {advice}\n"


def test_an_impossible_name_is_one_line_and_cannot_reach_the_terminal() -> None:
    done = run("mkfifo", "\x1b[31mred")
    assert done.returncode == 1
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1


# -- write and cat


def test_bytes_go_through_unchanged_and_cat_ends_with_the_writer(
    name: str, start: Start, tmp_path: Path
) -> None:
    data = os.urandom(3 << 20)
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    with source.open("rb") as stdin, target.open("wb") as stdout:
        cat = start("cat", "--create", name, stdout=stdout)
        write = start("write", "--create", name, stdin=stdin)
        assert write.wait(timeout=30) == 0
        assert cat.wait(timeout=30) == 0
    assert target.read_bytes() == data
    assert name in shmpipe.listdir(), "a pipe made with --create stays, like a FIFO"


def test_tar_goes_through(name: str, tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    source.mkdir()
    target.mkdir()
    for number in range(50):
        (source / f"{number}").write_bytes(os.urandom(number * 1000))
    tool = " ".join(COMMAND)
    script = (
        f"tar cf - -C {source} . | {tool} write --create {name} & "
        f"{tool} cat --create {name} | tar xf - -C {target}; wait"
    )
    subprocess.run(["bash", "-c", script], check=True, timeout=30)
    for file in source.iterdir():
        assert (target / file.name).read_bytes() == file.read_bytes()


def test_create_uses_the_capacity_for_a_new_pipe(name: str, start: Start) -> None:
    cat = start("cat", "--create", "--capacity", "4M", name)
    proc.wait_until_blocked(cat.pid)
    assert shmpipe.snapshot(name).capacity == 4 << 20


def test_write_waits_for_a_reader(name: str, start: Start) -> None:
    shmpipe.mkfifo(name)
    write = start("write", name)
    proc.wait_until_blocked(write.pid)
    with shmpipe.open(name, "r") as reader:
        assert write.communicate(b"hello", timeout=30) == (b"", b"")
        assert reader.read(100) == b"hello"
        assert reader.read(100) == b""


def test_write_says_when_every_reader_is_gone(name: str, start: Start) -> None:
    shmpipe.mkfifo(name)
    write = start("write", name)
    shmpipe.open(name, "r").close()
    _, err = write.communicate(bytes(1 << 20), timeout=30)
    assert write.returncode == 1
    assert err.decode() == (
        f"shmpipe: write '{name}': every reader has closed it; what they had not read is lost\n"
    )


def test_cat_is_quiet_when_its_own_reader_goes_away(name: str, start: Start) -> None:
    shmpipe.mkfifo(name)
    cat = start("cat", name)
    assert cat.stdout is not None
    with shmpipe.open(name, "w") as writer:
        cat.stdout.close()
        writer.write(b"nobody wants this")
        cat.wait(timeout=30)
    assert cat.stderr is not None
    assert cat.stderr.read() == b""
    assert cat.returncode == -signal.SIGPIPE


def test_ls_is_quiet_when_its_reader_goes_away(start: Start) -> None:
    ls = start("ls")
    assert ls.stdout is not None
    ls.stdout.close()
    ls.wait(timeout=30)
    assert ls.stderr is not None
    assert ls.stderr.read() == b""
    assert ls.returncode == -signal.SIGPIPE


@pytest.mark.parametrize("arguments", [("ls",), ("ls", "--json"), ("bench", "--list")])
def test_a_full_disk_is_one_line_and_exit_code_1(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.stderr == "shmpipe: standard output: No space left on device\n"
    assert done.returncode == 1


def test_the_version_is_the_librarys() -> None:
    assert run("--version").stdout == f"shmpipe, version {shmpipe.__version__}\n"


@pytest.mark.parametrize("verb", ["cat", "write"])
def test_ctrl_c_ends_a_waiting_command_without_a_traceback(
    verb: str, name: str, start: Start
) -> None:
    shmpipe.mkfifo(name)
    command = start(verb, name)
    proc.wait_until_blocked(command.pid)
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=30) == 130
    assert command.communicate()[1] == b""


def test_help_lists_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    for verb in ("bench", "cat", "demo", "ls", "mkfifo", "rm", "stat", "write"):
        assert f"\n  {verb} " in done.stdout
