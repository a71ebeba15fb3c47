"""What a name keeps and loses: rules FO-1, FO-2, FO-11, FO-14, LF-10."""

from __future__ import annotations

import errno

from conformance.backends import DEFAULT_CAPACITY, Pipes
from conformance.ends import PIPE_BUF
from conformance.marks import NONBLOCK, named_only
from support.errors import fails_with

pytestmark = named_only


def test_FO_01_the_last_close_forgets_the_data(pipes: Pipes) -> None:
    name = pipes.create()
    both = pipes.open(name, "r+")
    both.write(b"lost")
    both.close()
    reader = pipes.open(name, "r", NONBLOCK)
    assert reader.pending() == 0
    assert reader.read(9) == b""


def test_FO_01_the_last_close_forgets_the_capacity(pipes: Pipes) -> None:
    name = pipes.create()
    reader, writer = pipes.open(name, "r", NONBLOCK), pipes.open(name, "w")
    writer.resize(PIPE_BUF)
    writer.write(b"x")
    writer.close()
    assert reader.capacity() == PIPE_BUF
    reader.close()
    again = pipes.open(name, "r+", NONBLOCK)
    assert again.capacity() == DEFAULT_CAPACITY
    assert again.fill(PIPE_BUF) == 16


def test_FO_01_again_and_again(pipes: Pipes) -> None:
    name = pipes.create()
    for index in range(20):
        reader, writer = pipes.open(name, "r", NONBLOCK), pipes.open(name, "w")
        writer.write(bytes([index]) * 5000)
        assert reader.read(100) == bytes([index]) * 100
        writer.close()
        reader.close()


def test_FO_02_a_writer_keeps_the_data_for_a_later_reader(pipes: Pipes) -> None:
    name = pipes.create()
    reader, writer = pipes.open(name, "r", NONBLOCK), pipes.open(name, "w")
    writer.write(b"kept")
    reader.close()
    with fails_with(errno.EPIPE):
        writer.write(b"more")
    second = pipes.open(name, "r", NONBLOCK)
    assert second.read(99) == b"kept"
    assert writer.write(b"more") == 4, "there is a reader again"
    assert second.read(99) == b"more"


def test_FO_02_a_reader_keeps_the_data_of_a_writer_that_left(pipes: Pipes) -> None:
    name = pipes.create()
    reader, writer = pipes.open(name, "r", NONBLOCK), pipes.open(name, "w")
    writer.write(b"kept")
    writer.close()
    assert reader.read(2) == b"ke"
    second = pipes.open(name, "r", NONBLOCK)
    reader.close()
    assert second.read(99) == b"pt"
    assert second.read(99) == b""


def test_FO_02_a_new_writer_appends_to_what_is_left(pipes: Pipes) -> None:
    name = pipes.create()
    reader, writer = pipes.open(name, "r", NONBLOCK), pipes.open(name, "w")
    writer.write(b"one")
    writer.close()
    second = pipes.open(name, "w")
    second.write(b"two")
    second.close()
    assert reader.read(99) == b"onetwo"


def test_FO_several_readers_and_writers_share_one_stream(pipes: Pipes) -> None:
    name = pipes.create()
    readers = [pipes.open(name, "r", NONBLOCK) for _ in range(3)]
    writers = [pipes.open(name, "w") for _ in range(3)]
    for index, writer in enumerate(writers):
        writer.write(bytes([65 + index]) * 2)
    assert [reader.read(2) for reader in readers] == [b"AA", b"BB", b"CC"]
    for writer in writers[:2]:
        writer.close()
    with fails_with(errno.EAGAIN):
        readers[0].read(1)
    writers[2].close()
    assert [reader.read(1) for reader in readers] == [b""] * 3


def test_FO_the_flags_belong_to_the_description(pipes: Pipes) -> None:
    name = pipes.create()
    first, second = pipes.open(name, "r", NONBLOCK), pipes.open(name, "r", NONBLOCK)
    first.set_flag(NONBLOCK, False)
    assert (first.flags() & NONBLOCK, second.flags() & NONBLOCK) == (0, NONBLOCK)


def test_FO_11_a_missing_name_is_enoent(pipes: Pipes) -> None:
    name = pipes.create()
    pipes.unlink(name)
    for mode in ("r", "w", "r+"):
        with fails_with(errno.ENOENT):
            pipes.open(name, mode, NONBLOCK)
    with fails_with(errno.ENOENT):
        pipes.unlink(name)


def test_FO_14_an_existing_name_is_eexist(pipes: Pipes) -> None:
    name = pipes.create()
    both = pipes.open(name, "r+", NONBLOCK)
    both.write(b"abc")
    with fails_with(errno.EEXIST):
        pipes.create_again(name)
    assert both.read(9) == b"abc", "the failed call changed nothing"


def test_FO_14_unlink_keeps_the_open_pipe_working(pipes: Pipes) -> None:
    name = pipes.create()
    reader, writer = pipes.open(name, "r", NONBLOCK), pipes.open(name, "w")
    writer.write(b"one")
    pipes.unlink(name)
    writer.write(b"two")
    assert reader.read(99) == b"onetwo"
    writer.close()
    assert reader.read(99) == b""


def test_FO_14_a_new_pipe_of_the_same_name_is_another_one(pipes: Pipes) -> None:
    name = pipes.create()
    old = pipes.open(name, "r+", NONBLOCK)
    old.write(b"old")
    pipes.unlink(name)
    pipes.create_again(name)
    new = pipes.open(name, "r+", NONBLOCK)
    assert new.pending() == 0
    new.write(b"new")
    assert (old.read(9), new.read(9)) == (b"old", b"new")
    old.close()
    with fails_with(errno.EAGAIN):
        new.read(1)
