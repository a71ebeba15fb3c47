"""C programs and Python programs at two ends of one named pipe."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import shmpipe

ROOT = Path(__file__).parents[2]
SECONDS = 60
DATA = random.Random(1).randbytes(3_000_001)  # many times the capacity, and no whole page


@pytest.fixture(scope="module")
def built() -> Path:
    """The directory with libshmpipe.a and the example programs, as `make cbits` builds them."""
    compiler = shutil.which(os.environ.get("CC") or "gcc") or shutil.which("cc")
    if compiler is None or shutil.which("make") is None:
        pytest.skip("no C compiler or no make: the C examples are not tested")
    build = ROOT / "cbits/build" / Path(compiler).name
    command = ["make", "-s", "-j2", "-C", str(ROOT / "cbits"), f"CC={compiler}", f"BUILD={build}"]
    # A make around us would lend us its job slots, which subprocess does not pass on.
    environment = {key: value for key, value in os.environ.items() if "MAKE" not in key}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, check=False
    )
    assert result.returncode == 0, result.stderr
    return build


@pytest.fixture
def name() -> Iterator[str]:
    """The name of a pipe that does not exist yet, and will not afterwards."""
    chosen = f"test-{os.getpid()}-c-example"
    yield chosen
    if chosen in shmpipe.listdir():
        shmpipe.unlink(chosen)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_from_c_to_python(built: Path, name: str, tmp_path: Path) -> None:
    source = tmp_path / "to send"
    source.write_bytes(DATA)
    shmpipe.mkfifo(name)
    with (
        source.open("rb") as data,
        subprocess.Popen([built / "examples/shmp_send", name], stdin=data) as sender,
    ):
        with shmpipe.open(name, "r") as reader:
            received = b"".join(iter(lambda: reader.read(70_000) or b"", b""))
        assert sender.wait(SECONDS) == 0
    assert (len(received), digest(received)) == (len(DATA), digest(DATA))


@pytest.mark.parametrize("arguments", [[], ["--poll"]], ids=["blocking", "poll"])
def test_from_python_to_c(built: Path, name: str, arguments: list[str], tmp_path: Path) -> None:
    output = tmp_path / "received"
    shmpipe.mkfifo(name)
    with (
        output.open("wb") as sink,
        subprocess.Popen([built / "examples/shmp_recv", *arguments, name], stdout=sink) as receiver,
    ):
        with shmpipe.open(name, "w") as writer:
            chooser = random.Random(2)
            left = memoryview(DATA)
            while left:
                size = chooser.choice((1, 100, 4096, 5000, 200_000))
                assert writer.write(left[:size]) == len(left[:size])
                left = left[size:]
        assert receiver.wait(SECONDS) == 0
    received = output.read_bytes()
    assert (len(received), digest(received)) == (len(DATA), digest(DATA))


def test_a_sender_whose_reader_goes_away_says_so(built: Path, name: str) -> None:
    shmpipe.mkfifo(name)
    with subprocess.Popen(
        [built / "examples/shmp_send", name],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as sender:
        shmpipe.open(name, "r").close()
        _, complaint = sender.communicate("anything", timeout=SECONDS)
    assert sender.returncode == 1
    assert complaint == f"shmp_send: cannot write to {name}: Broken pipe\n"


def test_a_name_that_is_none_is_explained(built: Path) -> None:
    result = subprocess.run(
        [built / "examples/shmp_recv", "a/b"],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr == "shmp_recv: cannot make a/b: the name has a slash at byte 1\n"


def test_the_program_in_the_reference_compiles_and_runs(built: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs/reference/c-api.md").read_text(encoding="utf-8")
    program = page.split("```c\n")[1].split("```")[0]
    source = tmp_path / "program.c"
    source.write_text(program, encoding="utf-8")
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc")
    assert compiler is not None
    include = f"-I{ROOT / 'cbits/include'}"
    strict = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-D_GNU_SOURCE"]
    library = [str(built / "libshmpipe.a"), "-pthread"]
    target = tmp_path / "program"
    subprocess.run(
        [compiler, *strict, include, str(source), *library, "-o", str(target)],
        timeout=SECONDS,
        check=True,
    )
    result = subprocess.run([target], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (result.returncode, result.stdout) == (0, "from the child\n")
