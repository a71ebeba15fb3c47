"""shmpipe check, stat and ls on damaged pipes: words and an exit code, never a traceback."""

from __future__ import annotations

import io
import json
import mmap
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator

import click
import pytest
import shmpipe
from click.testing import CliRunner
from rich.console import Console
from shmpipe.inspect import snapshot
from shmpipe_tools.commands import ls
from shmpipe_tools.commands.check import command as check_command
from shmpipe_tools.commands.ls import command as ls_command
from shmpipe_tools.inspect.as_json import pipe_as_json
from shmpipe_tools.inspect.discover import find_pipe
from shmpipe_tools.inspect.report import report

from support.run import run_id

AREA = 73728  # slot words of a new pipe (docs/explanation/memory-layout.md)
WRITE_LOCK = 384
STEPS = int(os.environ.get("HOSTILE_STEPS", "60"))  # `make hostile` asks for more


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shmpipe_tools", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


class Damaged:
    """A named pipe with 5000 bytes in it, and its memory to scribble on."""

    def __init__(self) -> None:
        self.name = f"damaged-{run_id()}"
        shmpipe.mkfifo(self.name)
        self.end = shmpipe.open(self.name, "r+", flags=os.O_NONBLOCK)
        self.end.write(bytes(5000))
        # Beside the library, and closed as it wants such descriptors closed: last.
        self._fd = os.open(f"/dev/shm/shmpipe.{self.name}", os.O_RDWR)
        self.memory = mmap.mmap(self._fd, 0)
        self.whole = self.memory[:]

    def word(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self.memory, offset, value)

    def restore(self) -> None:
        self.memory[:] = self.whole

    def close(self) -> None:
        self.restore()
        self.memory.close()
        self.end.close()
        os.close(self._fd)
        shmpipe.unlink(self.name)


@pytest.fixture
def pipe() -> Iterator[Damaged]:
    made = Damaged()
    yield made
    made.close()


def test_a_pipe_in_order(pipe: Damaged) -> None:
    done = run("check", pipe.name)
    assert (done.returncode, done.stdout.strip()) == (0, f"{pipe.name}  in order")
    assert run("check", "--all").returncode in (0, 1)  # others may have pipes here, too
    assert shmpipe.check(pipe.end).findings == ()
    assert shmpipe.check(pipe.name) == shmpipe.check(pipe.end)


def test_damage_is_said_in_words(pipe: Damaged) -> None:
    pipe.word(AREA + 4, 5000 | 1 << 25)
    pipe.word(WRITE_LOCK, 0x40000000)
    done = run("check", pipe.name)
    assert done.returncode == 1
    assert "wrong: slot word 1: end 5000 > 4096" in done.stdout
    assert "wrong: write lock: 0x40000000 names no holder" in done.stdout
    document = json.loads(run("check", pipe.name, "--json").stdout)
    (found,) = document["pipes"]
    assert (found["pipe"], found["errors"]) == (pipe.name, 2)
    assert {each["rule"] for each in found["findings"]} == {"slot-end", "lock-word"}
    assert f"{pipe.name}  damaged, 2 findings" in run("check", "--all").stdout


def test_a_note_is_no_damage(pipe: Damaged) -> None:
    pipe.word(WRITE_LOCK, 0xFFF)
    done = run("check", pipe.name)
    assert done.returncode == 0
    assert "note: write lock: given up without repair" in done.stdout
    (finding,) = shmpipe.check(pipe.end).findings
    assert not finding.error


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("check",), 2, "say which pipe, or --all"),
        (("check", "x", "--all"), 2, "say which pipe, or --all"),
        (("check", "no-such-pipe"), 1, "check 'no-such-pipe': no such pipe"),
        (("check", "../../etc/passwd"), 1, "no such pipe"),
    ],
)
def test_what_cannot_be_examined(arguments: tuple[str, ...], code: int, words: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_another_version_is_no_damage_but_cannot_be_examined(pipe: Damaged) -> None:
    pipe.word(8, 77)
    done = run("check", pipe.name)
    assert done.returncode == 1
    assert "layout version is 77" in done.stderr
    with pytest.raises(shmpipe.IncompatibleSegmentError):
        shmpipe.check(pipe.name)


def test_stat_of_a_truncated_pipe_is_one_line() -> None:
    name = f"cut-{run_id()}"
    shmpipe.mkfifo(name)
    path = f"/dev/shm/shmpipe.{name}"
    try:
        for size in (AREA, 4096, 1):
            os.truncate(path, size)
            for command in ("stat", "check"):
                done = run(command, name)
                assert done.returncode == 1, done
                assert "Traceback" not in done.stderr + done.stdout
            with pytest.raises(shmpipe.CorruptSegmentError):
                snapshot(name)
            assert shmpipe.check(name).errors > 0
    finally:
        for each in os.listdir("/dev/shm"):
            if each.endswith("." + name):
                os.unlink(f"/dev/shm/{each}")


def show(name: str) -> None:
    """What `shmpipe stat` does, without a process for each case."""
    location = find_pipe(name)
    seen = snapshot(name)
    json.dumps(pipe_as_json(location, seen))
    for width in (20, 80, 500):
        console = Console(file=io.StringIO(), width=width, markup=False)
        for part in report(location, seen):
            console.print(part)


def surprise(action: Callable[[str], None], name: str) -> str:
    """Any exception but the ones that are promised."""
    try:
        action(name)
    except (OSError, ValueError) as error:
        known = (shmpipe.CorruptSegmentError, shmpipe.IncompatibleSegmentError, FileNotFoundError)
        return "" if isinstance(error, known) else repr(error)
    except Exception as error:
        return repr(error)
    return ""


def say(command: click.Command, *arguments: str) -> str:
    """What a command prints, without a process for each case: it explains all errors itself."""
    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.output


def examine(name: str) -> None:
    """What `shmpipe check` does."""
    said = say(check_command, name)
    assert name in said
    (found,) = json.loads(say(check_command, name, "--json"))["pipes"]
    if "error" not in found:
        assert len(found["findings"]) <= found["errors"] + found["notes"]
        assert (f"{name}  damaged, " in said) == (found["errors"] > 0)


def list_it(name: str) -> None:
    """The row of `shmpipe ls`."""
    assert name in say(ls_command)
    (row,) = json.loads(say(ls_command, "--json"))["pipes"]
    assert row["pipe"] == name


def test_random_damage(pipe: Damaged, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every word of the header and some of the tables, changed one at a time and many at a time."""
    location = find_pipe(pipe.name)
    monkeypatch.setattr(ls, "live_pipes", lambda: [location])  # and not those of other tests
    monkeypatch.setenv("COLUMNS", "200")  # a name on one line
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    values = (0, 1, 0xFFF, 0x1000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
    places = [*range(0, 1200, 4), *range(8192, 8192 + 192, 4), *range(AREA, AREA + 64, 4)]
    for step in range(STEPS):
        for place in chance.sample(places, 1 if step % 2 else 8):
            pipe.word(place, chance.choice(values) ^ chance.getrandbits(32) * (step % 3 == 0))
        # Those that would only make it another kind of file.
        pipe.memory[0:32] = pipe.whole[0:32]
        for action in (show, examine, list_it):
            found = surprise(action, pipe.name)
            assert not found, f"{action.__name__}, seed {seed}, step {step}: {found}"
        pipe.restore()
