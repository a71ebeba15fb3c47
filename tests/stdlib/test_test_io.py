"""The tests of CPython's own test.test_io that use os.pipe, run over shmpipe."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import textwrap
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from stdlib.adapter import AdaptedIo, AdaptedOs

CLASSES = ["CIOTest", "PyIOTest", "CMiscIOTest", "PyMiscIOTest", "CSignalsTest", "PySignalsTest"]

# What runs: the names are fixed here, so that a Python that renames a test is noticed.
RUN = {
    "IOTest": ["test_optional_abilities"],
    "MiscIOTest": [
        "test_nonblock_pipe_write_bigbuf",
        "test_nonblock_pipe_write_smallbuf",
        "test_open_pipe_with_append",
    ],
    "SignalsTest": [
        "test_interrupted_read_retry_buffered",
        "test_interrupted_read_retry_text",
        "test_interrupted_write_buffered",
        "test_interrupted_write_retry_buffered",
        "test_interrupted_write_retry_text",
        "test_interrupted_write_text",
        "test_interrupted_write_unbuffered",
        "test_reentrant_write_buffered",
        "test_reentrant_write_text",
    ],
}
README = Path(__file__).with_name("README.md")


def library_tests() -> ModuleType:
    """test.test_io, ready to run; some distributions have it in a package of its own."""
    module: ModuleType = pytest.importorskip(
        "test.test_io", reason="this Python comes without its tests"
    )
    module.load_tests(unittest.TestLoader(), None, None)  # gives its classes their namespaces
    return module


def pipe_tests(case: type) -> set[str]:
    """The test methods of a class that call os.pipe, themselves or through a helper."""
    methods = {name: calls_of(value) for name, value in inspect.getmembers(case, callable)}
    using = {name for name, calls in methods.items() if "os.pipe" in calls}
    while more := {name for name, calls in methods.items() if calls & using} - using:
        using |= more
    # None: the library switches off for one class what another has.
    off = {name for name in dir(case) if getattr(case, name) is None}
    return {name for name in using | off if name.startswith("test_")}


def calls_of(function: Any) -> set[str]:
    """What a method names: "os.pipe", and the methods of self."""
    if not inspect.isfunction(function) or not function.__module__.startswith("test.test_io"):
        return set()
    found = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "self":
                found.add(node.attr)
            elif (node.value.id, node.attr) == ("os", "pipe"):
                found.add("os.pipe")
    return found


def skipped() -> set[str]:
    """Class.test of each row of the table in README.md that gives a reason."""
    return set(re.findall(r"^\| `(\w+\.\w+)` \| \S.+ \|$", README.read_text(), re.MULTILINE))


def to_run(case_name: str) -> set[str]:
    """What is meant to run of one class."""
    names = set(RUN[case_name.removeprefix("C").removeprefix("Py")])
    return {name for name in names if f"{case_name}.{name}" not in skipped()}


def test_every_pipe_test_is_run_or_skipped_for_a_reason() -> None:
    module = library_tests()
    found = {f"{name}.{each}" for name in CLASSES for each in pipe_tests(getattr(module, name))}
    running = {f"{name}.{each}" for name in CLASSES for each in to_run(name)}
    assert running.isdisjoint(skipped())
    assert running | skipped() == found


@pytest.mark.watchdog(120)
@pytest.mark.parametrize(
    ("case_name", "test_name"),
    [(name, each) for name in CLASSES for each in sorted(to_run(name))],
)
def test_library_test(case_name: str, test_name: str) -> None:
    module = library_tests()
    adapted = AdaptedIo(io if case_name.startswith("C") else importlib.import_module("_pyio"))
    replaced = {"io": adapted, "open": adapted.open, "FileIO": adapted.FileIO}
    case = type(case_name, (getattr(module, case_name),), replaced)
    result = unittest.TestResult()
    with mock.patch.object(module, "os", AdaptedOs()):
        case(test_name).run(result)
    problems = [text for _, text in result.failures + result.errors]
    assert not problems, "\n".join(problems)
    assert (result.testsRun, result.skipped) == (1, [])
