"""BufferedReader over an end, as over FileIO on os.pipe."""

from __future__ import annotations

import io
import threading
from types import ModuleType

import pytest

from stdlib.stage import Script, Stage, cases, compare

LINES = b"one\ntwo\r\n\nfour and more\n" + b"x" * 9000 + b"\nno end"


def reading(stage: Stage, size: int = 8192) -> io.BufferedReader:
    buffered: io.BufferedReader = stage.stack("BufferedReader", stage.reader, size)
    return buffered


def sizes(stage: Stage) -> None:
    stage.writer.write(bytes(range(256)) * 80)
    buffered = reading(stage)
    for size in (1, 0, 10, 5000, 8191, 1):
        stage.call(buffered.read, size)
    stage.writer.close()
    stage.call(buffered.read)
    stage.call(buffered.read)
    stage.call(buffered.read, 1)


def peek(stage: Stage) -> None:
    stage.writer.write(b"abcdef" * 10)
    buffered = reading(stage, 16)
    for size in (0, 1, 100):
        stage.call(buffered.peek, size)
    stage.call(buffered.read, 10)
    stage.call(buffered.peek)
    stage.call(buffered.read, 6)
    stage.call(buffered.peek)


def read1(stage: Stage) -> None:
    stage.writer.write(b"abcdef" * 100)
    buffered = reading(stage, 16)
    for size in (1, 0, 5, 100, -1, 16, 17):
        stage.call(buffered.read1, size)
    stage.writer.close()
    stage.call(buffered.read1)
    stage.call(buffered.read1, 3)


def read1_takes_what_is_there(stage: Stage) -> None:
    buffered = reading(stage)
    for data in (b"one", b"two" * 5000, b"3"):
        stage.writer.write(data)
        stage.call(buffered.read1)


def lines(stage: Stage) -> None:
    stage.writer.write(LINES)
    stage.writer.close()
    buffered = reading(stage)
    stage.call(buffered.readline)
    stage.call(buffered.readline, 2)
    stage.call(buffered.readline, 0)
    stage.call(buffered.readlines, 5)
    stage.note(list(buffered))
    stage.call(buffered.readline)
    stage.call(next, buffered)


def readinto(stage: Stage) -> None:
    stage.writer.write(b"abcdef" * 4000)
    buffered = reading(stage, 100)
    for size in (3, 0, 50, 100, 101, 5000):
        memory = bytearray(size)
        stage.call(buffered.readinto, memory)
        stage.note(bytes(memory))
        stage.call(buffered.readinto1, memory)
        stage.note(bytes(memory))
    stage.call(buffered.readinto, b"read-only")
    stage.writer.close()
    stage.call(buffered.read)
    stage.call(buffered.readinto, bytearray(5))


def nothing_there(stage: Stage) -> None:
    buffered = reading(stage)
    for operation in (buffered.read, buffered.readline, buffered.peek, buffered.read1):
        stage.call(operation)
    stage.call(buffered.read, 5)
    stage.call(buffered.read1, 5)
    stage.call(buffered.readinto, bytearray(5))
    stage.call(buffered.readinto1, bytearray(5))
    stage.call(next, buffered)
    stage.call(buffered.readlines)


def less_there_than_asked_for(stage: Stage) -> None:
    buffered = reading(stage)
    stage.writer.write(b"abc")
    stage.call(buffered.read, 5)
    stage.writer.write(b"abcdef")
    stage.call(buffered.read, 2)
    stage.call(buffered.read)
    stage.call(buffered.read)
    stage.writer.write(b"half a line")
    stage.call(buffered.readline)
    stage.writer.write(b"x" * 20000)
    stage.call(buffered.readinto, bytearray(30000))
    stage.writer.write(b"y" * 20000)
    stage.call(buffered.read, 30000)
    stage.writer.write(b"z")
    stage.writer.close()
    stage.call(buffered.read, 5)
    stage.call(buffered.read, 5)


def detached(stage: Stage) -> None:
    stage.writer.write(b"abc")
    buffered = reading(stage)
    stage.call(buffered.read, 1)
    stage.note(buffered.detach() is stage.reader)
    for operation in (buffered.read, buffered.fileno, buffered.detach, buffered.close):
        stage.call(operation)
    stage.call(lambda: buffered.closed)
    stage.note(stage.reader.closed)
    stage.writer.close()
    stage.call(stage.reader.read)


def closed(stage: Stage) -> None:
    stage.writer.write(b"abc")
    buffered = reading(stage)
    stage.call(buffered.peek)
    with buffered as same:
        stage.note(same is buffered)
    stage.note((buffered.closed, stage.reader.closed))
    stage.call(buffered.close)
    operations = (buffered.read, buffered.readline, buffered.peek, buffered.read1, buffered.tell)
    for operation in (*operations, buffered.fileno, buffered.readable, buffered.isatty):
        stage.call(operation)
    stage.call(buffered.__enter__)
    stage.call(iter, buffered)


def closed_underneath(stage: Stage) -> None:
    stage.writer.write(b"abc" * 10)
    buffered = reading(stage, 5)
    stage.call(buffered.read, 2)
    stage.reader.close()
    stage.note(buffered.closed)
    stage.call(buffered.read, 20)
    stage.call(buffered.close)


def abilities(stage: Stage) -> None:
    buffered = reading(stage)
    for operation in (buffered.readable, buffered.writable, buffered.seekable, buffered.isatty):
        stage.call(operation)
    stage.call(buffered.tell)
    stage.call(buffered.seek, 0)
    stage.call(buffered.flush)
    stage.note(buffered.fileno() == stage.reader.fileno())
    stage.note(buffered.raw is stage.reader)
    stage.call(stage.io.BufferedReader, stage.writer)
    stage.call(stage.io.BufferedRandom, stage.reader)


def patient(stage: Stage) -> None:
    """The reader sleeps in each of its calls."""

    def write() -> None:
        for _ in range(30):
            stage.writer.write(b"abcdefg" * 3001)
        stage.writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    buffered = reading(stage)
    stage.call(buffered.read, 300000)
    stage.call(buffered.read, 7)
    stage.call(buffered.read)
    thread.join()


BOTH_MODES: list[Script] = [
    sizes, peek, lines, readinto, read1, read1_takes_what_is_there, detached, closed,
    closed_underneath, abilities,
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "module", "flags"),
    cases(BOTH_MODES, [nothing_there, less_there_than_asked_for], [patient]),
)
def test_reading(script: Script, module: ModuleType, flags: int) -> None:
    compare(script, module, flags)
