"""TextIOWrapper and BufferedRWPair over ends, as over FileIO on os.pipe."""

from __future__ import annotations

import io
import threading
from types import ModuleType
from typing import Any

import pytest

from stdlib.stage import Script, Stage, cases, compare

TEXT = "eins\nzwei\r\nmüsli ☃\n\nno end"


def text_reader(stage: Stage, **options: object) -> io.TextIOWrapper:
    buffered = stage.stack("BufferedReader", stage.reader)
    text: io.TextIOWrapper = stage.stack("TextIOWrapper", buffered, "utf-8", **options)
    return text


def text_writer(stage: Stage, **options: object) -> io.TextIOWrapper:
    buffered = stage.stack("BufferedWriter", stage.writer)
    text: io.TextIOWrapper = stage.stack("TextIOWrapper", buffered, "utf-8", **options)
    return text


def text_lines(stage: Stage) -> None:
    stage.writer.write(TEXT.encode())
    stage.writer.close()
    text = text_reader(stage)
    stage.call(text.readline)
    stage.call(text.readline, 2)
    stage.note(list(text))
    stage.note(repr(text.newlines))
    stage.call(text.readline)
    stage.call(text.read)
    stage.call(next, text)


def text_characters(stage: Stage) -> None:
    stage.writer.write(TEXT.encode())
    stage.writer.close()
    text = text_reader(stage, newline="")
    for size in (1, 0, 6, 9, -1, 1):
        stage.call(text.read, size)


def text_line_by_line_as_it_comes(stage: Stage) -> None:
    text = text_reader(stage)
    for line in ("one\n", "two\n", "ü\n"):
        stage.writer.write(line.encode())
        stage.call(text.readline)


def text_not_utf8(stage: Stage) -> None:
    stage.writer.write(b"good\n\xff\xfe bad\n")
    stage.writer.close()
    text = text_reader(stage)
    stage.call(text.readline)
    stage.call(text.read)


def text_written(stage: Stage) -> None:
    text = text_writer(stage, newline="\r\n")
    stage.call(text.write, TEXT)
    stage.pending()
    stage.call(text.flush)
    stage.pending()
    stage.call(text.write, "x" * 20000)
    stage.pending()
    stage.call(text.write, b"bytes")
    stage.call(text.close)
    stage.pending()
    stage.call(text.write, "closed")


def text_line_buffered(stage: Stage) -> None:
    text = text_writer(stage, line_buffering=True)
    stage.call(text.write, "no end")
    stage.pending()
    stage.call(text.write, " of line\nnext")
    stage.pending()
    text.reconfigure(write_through=True)
    stage.call(text.write, "at once")
    stage.pending()
    stage.call(lambda: print("printed", file=text))
    stage.pending()


def text_without_a_reader(stage: Stage) -> None:
    stage.reader.close()
    text = text_writer(stage)
    stage.call(text.write, "kept")
    stage.call(text.flush)
    stage.call(text.close)
    stage.note((text.closed, stage.writer.closed))


def text_detached(stage: Stage) -> None:
    text = text_writer(stage)
    stage.call(text.write, "flushed")
    buffered: Any = text.detach()
    stage.call(text.write, "x")
    stage.pending()
    stage.note(buffered.detach() is stage.writer)


def text_abilities(stage: Stage) -> None:
    for text in (text_reader(stage), text_writer(stage)):
        for operation in (text.readable, text.writable, text.seekable, text.isatty, text.tell):
            stage.call(operation)
        stage.call(text.seek, 0)
        buffered: Any = text.detach()
        buffered.detach()
    stage.call(text_reader(stage).write, "x")
    stage.call(text_writer(stage).read)


def text_nothing_there(stage: Stage) -> None:
    text = text_reader(stage)
    stage.call(text.readline)
    stage.call(text.read, 1)
    stage.writer.write(b"half")
    stage.call(text.readline)


def pair_of(stage: Stage, size: int = 8192) -> io.BufferedRWPair:
    pair: io.BufferedRWPair = stage.stack("BufferedRWPair", stage.reader, stage.writer, size)
    return pair


def pair_there_and_back(stage: Stage) -> None:
    pair = pair_of(stage, 100)
    stage.call(pair.write, b"line one\nline two\n" + b"x" * 50)
    stage.call(pair.flush)
    stage.call(pair.readline)
    stage.call(pair.peek, 3)
    stage.call(pair.read, 5)
    stage.call(pair.read1, 3)
    memory = bytearray(10)
    stage.call(pair.readinto, memory)
    stage.note(bytes(memory))
    stage.call(pair.readinto1, memory)
    stage.call(pair.write, b"y" * 1000)
    stage.call(pair.flush)
    stage.call(pair.read, 1030)


def pair_abilities(stage: Stage) -> None:
    pair = pair_of(stage)
    for operation in (pair.readable, pair.writable, pair.seekable, pair.isatty, pair.detach):
        stage.call(operation)
    stage.call(pair.fileno)
    stage.call(pair.tell)
    stage.call(pair.seek, 0)
    stage.call(stage.io.BufferedRWPair, stage.writer, stage.reader)


def pair_closed(stage: Stage) -> None:
    with pair_of(stage) as pair:
        stage.call(pair.write, b"left")
    stage.note((pair.closed, stage.reader.closed, stage.writer.closed))
    stage.call(pair.read, 1)
    stage.call(pair.write, b"x")
    stage.call(pair.close)


def pair_without_a_reader(stage: Stage) -> None:
    pair = pair_of(stage)
    stage.call(pair.write, b"kept")
    stage.reader.close()
    stage.call(pair.flush)
    stage.call(pair.close)
    stage.note((stage.reader.closed, stage.writer.closed))


def pair_nothing_there(stage: Stage) -> None:
    pair = pair_of(stage)
    for operation in (pair.read, pair.peek, pair.read1, pair.readline):
        stage.call(operation)
    stage.call(pair.read, 3)
    stage.call(pair.write, b"x" * 100000)
    stage.call(pair.flush)


def text_patient(stage: Stage) -> None:
    """Both sides sleep, in turns."""
    received: list[str] = []

    def read() -> None:
        received.extend(text_reader(stage))

    thread = threading.Thread(target=read)
    thread.start()
    with text_writer(stage) as text:
        for number in range(20000):
            text.write(f"line {number}\n")
    thread.join()
    stage.note(received)


BOTH_MODES: list[Script] = [
    text_lines, text_characters, text_line_by_line_as_it_comes, text_not_utf8, text_written,
    text_line_buffered, text_without_a_reader, text_detached, text_abilities,
    pair_there_and_back, pair_abilities, pair_closed, pair_without_a_reader,
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "module", "flags"),
    cases(BOTH_MODES, [text_nothing_there, pair_nothing_there], [text_patient]),
)
def test_text_and_pairs(script: Script, module: ModuleType, flags: int) -> None:
    compare(script, module, flags)
