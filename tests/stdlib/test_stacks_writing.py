"""BufferedWriter over an end, as over FileIO on os.pipe."""

from __future__ import annotations

import array
import io
import os
import threading
from types import ModuleType

import pytest

from stdlib.stage import ABSENT, PYTHON_IO, Script, Stage, cases, compare


def writing(stage: Stage, size: int = 8192) -> io.BufferedWriter:
    buffered: io.BufferedWriter = stage.stack("BufferedWriter", stage.writer, size)
    return buffered


def collected(stage: Stage) -> None:
    buffered = writing(stage, 10)
    for size in (3, 3, 3, 3, 0, 10, 11, 5):
        stage.call(buffered.write, b"x" * size)
        stage.pending()
    stage.call(buffered.flush)
    stage.pending()
    stage.call(buffered.flush)
    stage.pending()


def kinds_of_data(stage: Stage) -> None:
    buffered = writing(stage)
    for data in (b"a", bytearray(b"b"), memoryview(b"cd")[:1], array.array("I", [1]), "text", 5):
        stage.call(buffered.write, data)
    stage.call(buffered.writelines, [b"one\n", b"two\n"])
    stage.call(buffered.flush)
    stage.pending()


def closed(stage: Stage) -> None:
    buffered = writing(stage)
    with buffered:
        stage.call(buffered.write, b"left in the buffer")
    stage.note((buffered.closed, stage.writer.closed))
    stage.pending()
    operations = (buffered.flush, buffered.fileno, buffered.writable, buffered.close)
    for operation in (*operations, buffered.__enter__):
        stage.call(operation)
    stage.call(buffered.write, b"x")
    stage.call(buffered.writelines, [])


def detached(stage: Stage) -> None:
    buffered = writing(stage)
    stage.call(buffered.write, b"flushed by detach")
    stage.note(buffered.detach() is stage.writer)
    stage.pending()
    stage.call(buffered.write, b"x")
    stage.call(buffered.flush)
    stage.call(buffered.detach)
    stage.note(stage.writer.closed)
    stage.call(stage.writer.write, b"still open")
    stage.pending()


def nobody_reads(stage: Stage) -> None:
    stage.reader.close()
    buffered = writing(stage)
    stage.call(buffered.write, b"kept")
    stage.call(buffered.flush)
    stage.call(buffered.flush)
    stage.call(buffered.write, b"x" * 10000)
    stage.call(buffered.close)
    stage.note((buffered.closed, stage.writer.closed))
    stage.call(buffered.close)


def nobody_reads_any_more(stage: Stage) -> None:
    buffered = writing(stage, 100)
    stage.call(buffered.write, b"x" * 90)
    stage.reader.close()
    stage.call(buffered.write, b"x" * 90)
    stage.call(buffered.close)
    stage.note((buffered.closed, stage.writer.closed))


def closed_underneath(stage: Stage) -> None:
    buffered = writing(stage)
    stage.call(buffered.write, b"lost")
    stage.writer.close()
    stage.note(buffered.closed)
    stage.call(buffered.write, b"x")
    stage.call(buffered.flush)
    stage.call(buffered.close)
    stage.pending()


def abilities(stage: Stage) -> None:
    buffered = writing(stage)
    for operation in (buffered.readable, buffered.writable, buffered.seekable, buffered.isatty):
        stage.call(operation)
    stage.call(buffered.tell)
    stage.call(buffered.seek, 0)
    stage.call(buffered.read)
    stage.note(buffered.fileno() == stage.writer.fileno())
    stage.note(buffered.raw is stage.writer)
    stage.call(stage.io.BufferedWriter, stage.reader)


def full(stage: Stage) -> None:
    """BlockingIOError and its characters_written, for buffers below and above PIPE_BUF."""
    for size in (1, 100, 1024, 4096, 5000, 16384, 100000):
        buffered = writing(stage, size)
        for chunk in (9999, 73, 7574, 1, 65536, 200000, size, size + 1):
            stage.call(buffered.write, b"a" * (chunk // 2))
            stage.call(buffered.write, b"b" * chunk)
            stage.call(buffered.write, b"c" * chunk)
        stage.call(buffered.flush)
        stage.pending()
        stage.call(buffered.write, b"room again")
        stage.call(buffered.flush)
        stage.pending()
        stage.call(buffered.flush)
        stage.pending()
        buffered.detach()


def full_when_closed(stage: Stage) -> None:
    while stage.writer.write(b"f" * 4096):
        pass
    buffered = writing(stage)
    stage.call(buffered.write, b"no room for this")
    stage.call(buffered.close)
    stage.note((buffered.closed, stage.writer.closed))


def patient(stage: Stage) -> None:
    """The writer sleeps until the reader makes room."""
    received: list[bytes] = []

    def read() -> None:
        while piece := stage.reader.read(1000):
            received.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    with writing(stage) as buffered:
        for size in (300000, 1, 8191, 8193, 100000):
            stage.call(buffered.write, b"x" * size)
    thread.join()
    stage.note(b"".join(received))


BOTH_MODES: list[Script] = [
    collected, kinds_of_data, closed, detached, nobody_reads, nobody_reads_any_more,
    closed_underneath, abilities,
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "module", "flags"), cases(BOTH_MODES, [full, full_when_closed], [patient])
)
def test_writing(script: Script, module: ModuleType, flags: int) -> None:
    compare(script, module, flags)


def test_the_script_about_a_full_pipe_sees_blocking_errors() -> None:
    outcomes = compare(full, PYTHON_IO, os.O_NONBLOCK)
    written = {each.written for each in outcomes if each.error is BlockingIOError}
    assert ABSENT not in written
    assert len(written) > 5, "of many sizes"
