"""Fixtures and plugins of all suites: watchdog, leak checks, backends, actors."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conformance.backends import ALL, Backend, Pipes
from support.actors import Actor, Body, ProcessActor, ThreadActor
from support.signals import Probe

pytest_plugins = ["support.watchdog", "support.leaks", "conformance.sigio"]

# A shell that puts the suite in the background has it ignore SIGINT, and its children inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Spawn = Callable[..., Any]


@pytest.fixture(params=ALL, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """One of the four kinds of pipe; a test narrows the choice with indirect parameters."""
    chosen = request.param
    assert isinstance(chosen, Backend)
    return chosen


@pytest.fixture
def pipes(backend: Backend) -> Iterator[Pipes]:
    """Makes pipes of one kind and closes whatever the test left open."""
    with Pipes(backend) as factory:
        yield factory


@pytest.fixture
def processes(pipes: Pipes) -> Iterator[Callable[..., ProcessActor]]:
    """spawn(body, keep=(...)): a forked child that first closes every end it is not to keep."""
    started: list[ProcessActor] = []

    def spawn(body: Body, keep: Any = ()) -> ProcessActor:
        actor = ProcessActor(body, before=lambda: pipes.close_all_but(keep))
        started.append(actor)
        return actor

    yield spawn
    for actor in started:
        actor.dispose()


@pytest.fixture
def threads() -> Callable[..., ThreadActor]:
    """spawn(body): a thread; `keep` is accepted so that it is exchangeable with processes."""

    def spawn(body: Body, keep: Any = ()) -> ThreadActor:
        return ThreadActor(body)

    return spawn


@pytest.fixture(params=["threads", "processes"])
def spawn(request: pytest.FixtureRequest) -> Callable[..., Actor]:
    """Each test with actors runs once with threads and once with processes."""
    chosen: Callable[..., Actor] = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def probe() -> Iterator[Probe]:
    """Reports from a signal handler inside a forked actor."""
    made = Probe()
    yield made
    made.close()
