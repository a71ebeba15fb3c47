"""Runs one script over a FileIO on os.pipe and over shmpipe's ends, and compares what it saw."""

from __future__ import annotations

import errno
import importlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import shmpipe

ABSENT = "absent"

PYTHON_IO = importlib.import_module("_pyio")  # which has no type information


@dataclass(frozen=True)
class Outcome:
    """What one call gave: a value, or an exception."""

    value: object = None
    error: type[BaseException] | None = None
    number: int | None = None
    written: object = ABSENT

    def matches(self, kernel: Outcome) -> bool:
        """Whether a program that was made for the kernel's outcome can live with this one."""
        if self.error is None or kernel.error is None:
            return self == kernel
        return (
            issubclass(self.error, kernel.error)
            and kernel.number in (None, self.number)
            and self.written == kernel.written
        )


class Stage:
    """One pipe with an end on each side, a choice of io or _pyio, and a record of all outcomes."""

    def __init__(self, module: ModuleType, reader: io.RawIOBase, writer: io.RawIOBase) -> None:
        self.io: Any = module
        self.reader: Any = reader
        self.writer: Any = writer
        self.outcomes: list[Outcome] = []
        self._kept: list[object] = []

    def stack(self, kind: str, *arguments: object, **options: object) -> Any:
        """Makes a file object over others; it lives on until the ends are closed."""
        made = getattr(self.io, kind)(*arguments, **options)
        self._kept.append(made)
        return made

    def call(self, function: Callable[..., object], *arguments: object) -> Any:
        """Calls something that may raise, and records it."""
        try:
            value = function(*arguments)
        except Exception as error:
            number = error.errno if isinstance(error, OSError) else None
            written = getattr(error, "characters_written", ABSENT)
            self.outcomes.append(Outcome(None, type(error), number, written))
            return None
        self.outcomes.append(Outcome(value))
        return value

    def note(self, value: object) -> None:
        self.outcomes.append(Outcome(value))

    def pending(self) -> bytes:
        """Takes everything out of the pipe, without waiting, and records it."""
        data = b""
        while self._ready() and (piece := self.reader.read(1 << 20)):
            data += piece
        self.note(data)
        return data

    def _ready(self) -> bool:
        return bool(shmpipe.wait([self.reader], 0))


Script = Callable[[Stage], None]


def cases(
    both_modes: Sequence[Script],
    nonblocking: Sequence[Script],
    blocking: Sequence[Script],
) -> list[Any]:
    """The parameters script, module, flags of a test."""
    chosen = [(script, flags) for script in both_modes for flags in (0, os.O_NONBLOCK)]
    chosen += [(script, os.O_NONBLOCK) for script in nonblocking]
    chosen += [(script, 0) for script in blocking]
    found = []
    for script, flags in chosen:
        for module in (io, PYTHON_IO):
            name = f"{script.__name__}-{'nonblocking' if flags else 'blocking'}-{module.__name__}"
            found.append(pytest.param(script, module, flags, id=name))
    return found


def kernel_ends(flags: int) -> tuple[io.RawIOBase, io.RawIOBase]:
    reader, writer = os.pipe2(flags | os.O_CLOEXEC)
    return io.FileIO(reader, "r"), io.FileIO(writer, "w")


def compare(script: Script, module: ModuleType, flags: int = 0) -> list[Outcome]:
    """Runs a script over both kinds of ends; what it recorded must agree."""
    kernel = _run(script, module, kernel_ends(flags))
    ours = _run(script, module, shmpipe.pipe(flags))
    assert kernel, "a script that records nothing tests nothing"
    for index, (expected, got) in enumerate(zip(kernel, ours, strict=True)):
        assert got.matches(expected), f"step {index}: {shown(got)} instead of {shown(expected)}"
    return ours


def _run(
    script: Script, module: ModuleType, ends: tuple[io.RawIOBase, io.RawIOBase]
) -> list[Outcome]:
    stage = Stage(module, *ends)
    try:
        script(stage)
    finally:
        for end in ends:
            end.close()
    return stage.outcomes


def shown(outcome: Outcome) -> str:
    """An outcome for people: long data cut."""
    if outcome.error is None:
        text = repr(outcome.value)
        return text if len(text) < 100 else f"{text[:90]}... ({len(text)} characters)"
    name = errno.errorcode.get(outcome.number or 0, "")
    return f"{outcome.error.__name__} {name} characters_written={outcome.written}"
