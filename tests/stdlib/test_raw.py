"""The end itself as the raw file object that FileIO on os.pipe is."""

from __future__ import annotations

import array
import gc
import io
import os
import warnings

import pytest
import shmpipe

from stdlib.stage import Script, Stage, cases, compare, kernel_ends


class Index:
    """An integer that is no int."""

    def __index__(self) -> int:
        return 3


def kinds_of_arguments(stage: Stage) -> None:
    for data in (b"a", bytearray(b"b"), memoryview(b"cd")[:1], array.array("I", [1]), "text", 5):
        stage.call(stage.writer.write, data)
    stage.call(stage.writer.write, memoryview(b"abcd")[::2])
    stage.call(stage.writer.write, memoryview(b"abcdefgh").cast("I"))
    for size in (0, 1, 2, 10.0, "1", 2**63):
        stage.call(stage.reader.read, size)
    stage.call(stage.reader.read, 1, 1)
    for size in (0, 2, 100):
        memory = bytearray(size)
        stage.call(stage.reader.readinto, memory)
        stage.note(bytes(memory))


def lines(stage: Stage) -> None:
    stage.writer.writelines([b"one\n", b"two\n", b"", b"three"])
    stage.writer.close()
    stage.call(stage.reader.readline)
    stage.call(stage.reader.readline, 2)
    stage.note(list(stage.reader))
    stage.call(stage.reader.readlines)
    stage.call(next, stage.reader)


def everything(stage: Stage) -> None:
    stage.writer.write(b"x" * 50000)
    stage.writer.close()
    stage.call(stage.reader.read, 7)
    stage.call(stage.reader.read)
    stage.call(stage.reader.readall)
    stage.call(stage.reader.read, -1)
    stage.call(stage.reader.read, None)


def wrong_direction(stage: Stage) -> None:
    for operation in (stage.writer.read, stage.writer.readall, stage.writer.readline):
        stage.call(operation)
    stage.call(stage.writer.read, 0)
    stage.call(stage.writer.readinto, bytearray(1))
    stage.call(stage.reader.write, b"x")
    stage.call(stage.reader.write, b"")
    stage.call(stage.reader.writelines, [b"x"])


def abilities(stage: Stage) -> None:
    for end in (stage.reader, stage.writer):
        for operation in (end.readable, end.writable, end.seekable, end.isatty, end.flush):
            stage.call(operation)
        stage.call(end.tell)
        stage.call(end.seek, 0)
        stage.call(end.seek, 0, 2)
        stage.note(isinstance(end, io.RawIOBase))


def closed(stage: Stage) -> None:
    for end in (stage.reader, stage.writer):
        with end as same:
            stage.note(same is end)
        stage.note(end.closed)
        operations = (end.fileno, end.readable, end.writable, end.isatty, end.tell, end.flush)
        for operation in (*operations, end.read, end.readall, end.readline, end.__enter__):
            stage.call(operation)
        stage.call(end.seek, 0)
        stage.call(end.write, b"")
        stage.call(end.readinto, bytearray(0))
        stage.call(iter, end)
        stage.call(end.close)


def nothing_there(stage: Stage) -> None:
    for operation in (stage.reader.read, stage.reader.readall, stage.reader.readline):
        stage.call(operation)
    stage.call(stage.reader.read, 1)
    stage.call(stage.reader.readinto, bytearray(1))
    stage.writer.write(b"some")
    stage.call(stage.reader.readall)
    stage.call(stage.writer.write, b"x" * 70000)
    stage.call(stage.writer.write, b"x")
    stage.call(stage.writer.writelines, [b"x"])


def nobody_reads(stage: Stage) -> None:
    stage.reader.close()
    stage.call(stage.writer.write, b"")
    stage.call(stage.writer.write, b"x")
    stage.call(stage.writer.flush)
    stage.call(stage.writer.close)


def truncated(stage: Stage) -> None:
    for end in (stage.writer, stage.reader):
        stage.call(end.truncate)
        stage.call(end.truncate, 0)
        end.close()
        stage.call(end.truncate, 0)


def seekable_when_closed(stage: Stage) -> None:
    stage.writer.close()
    stage.call(stage.writer.seekable)


def index_as_size(stage: Stage) -> None:
    stage.writer.write(b"abcdef")
    stage.call(stage.reader.read, Index())


def into_read_only(stage: Stage) -> None:
    stage.call(stage.reader.readinto, b"read-only")


BOTH_MODES: list[Script] = [
    kinds_of_arguments, lines, everything, wrong_direction, abilities, closed, nobody_reads,
    truncated, seekable_when_closed, index_as_size, into_read_only,
]  # fmt: skip


@pytest.mark.parametrize(
    ("script", "module", "flags"),
    [each for each in cases(BOTH_MODES, [nothing_there], []) if each.values[1] is io],
)
def test_raw(script: Script, module: object, flags: int) -> None:
    compare(script, io, flags)


@pytest.mark.parametrize("kind", ["FileIO", "shmpipe"])
@pytest.mark.parametrize("layers", [0, 1, 2])
def test_a_dropped_end_warns(kind: str, layers: int) -> None:
    reader, writer = kernel_ends(os.O_NONBLOCK) if kind == "FileIO" else shmpipe.pipe()
    dropped: object = writer
    if layers >= 1:
        dropped = io.BufferedWriter(writer)
    if layers == 2:
        dropped = io.TextIOWrapper(dropped, "utf-8")  # type: ignore[type-var]
    with reader, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del writer, dropped
        gc.collect()
        assert [each.category for each in caught] == [ResourceWarning]
        assert reader.read(1) == b"", "it is closed nevertheless"
