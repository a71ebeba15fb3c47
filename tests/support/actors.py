"""Actors: threads and forked processes with one face, for operations that are meant to block.

The body of an actor is a function, or a generator function whose every `yield value`
hands value to the test and waits until the test calls go().
"""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import os
import pickle
import select
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from support import proc

Body = Callable[[], Any]

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ActorDiedError(AssertionError):
    """A process actor ended without a result."""


class Actor(ABC):
    """Something that runs a body and can be watched while it blocks."""

    pid: int
    tid: int
    control_fds: frozenset[int] = frozenset()

    def wait_blocked(self, seconds: float = 10.0) -> proc.Sleep:
        """Wait until the body sleeps in a pipe-like system call."""
        sleep = self.settle(seconds)
        if sleep is None:
            kind, value = self._message(seconds)
            raise AssertionError(f"instead of blocking, actor {self.tid} {kind} {value!r}")
        return sleep

    def settle(self, seconds: float = 10.0) -> proc.Sleep | None:
        """Wait until the body sleeps in a pipe-like system call, or has something to say."""
        return proc.wait_until_blocked(
            self.pid,
            self.tid,
            control_fds=self.control_fds,
            finished=self.finished,
            seconds=seconds,
        )

    def context_switches(self) -> int:
        return proc.context_switches(self.pid, self.tid)

    def result(self, seconds: float = 10.0) -> Any:
        """What the body returned; what it raised is raised here."""
        kind, value = self._message(seconds)
        if kind == "raised":
            raise value
        assert kind == "returned", f"the actor yielded {value!r} and waits for go()"
        self.reap()
        return value

    def receive(self, seconds: float = 10.0) -> Any:
        """What the body yielded next."""
        kind, value = self._message(seconds)
        if kind == "raised":
            raise value
        assert kind == "yielded", f"the actor ended with {value!r}"
        return value

    @abstractmethod
    def go(self) -> None:
        """Let a body that yielded run on."""

    @abstractmethod
    def finished(self) -> bool:
        """Whether something (a result, a yield, a death) can be received without waiting."""

    @abstractmethod
    def reap(self) -> None:
        """Wait for the end of the thread or process."""

    @abstractmethod
    def _message(self, seconds: float) -> tuple[str, Any]: ...


class ThreadActor(Actor):
    """Runs the body in a thread of this process."""

    def __init__(self, body: Body) -> None:
        self._messages: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._permits: SimpleQueue[None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(body,), daemon=True)
        self._thread.start()  # returns only once the thread runs and has its native_id
        assert self._thread.native_id is not None
        self.pid, self.tid = os.getpid(), self._thread.native_id

    def _run(self, body: Body) -> None:
        for message in _messages_of(body):
            self._messages.put(message)
            if message[0] == "yielded":
                self._permits.get()

    def go(self) -> None:
        self._permits.put(None)

    def finished(self) -> bool:
        return not self._messages.empty()

    def reap(self) -> None:
        self._thread.join(10.0)
        assert not self._thread.is_alive(), "the thread of an actor does not end"

    def _message(self, seconds: float) -> tuple[str, Any]:
        try:
            return self._messages.get(timeout=seconds)
        except Empty:
            raise AssertionError(f"thread {self.tid} gives no result in {seconds} s") from None


class ProcessActor(Actor):
    """Runs the body in a forked child; results come back through a kernel pipe."""

    def __init__(self, body: Body, before: Body = lambda: None) -> None:
        results, results_in_child = os.pipe()
        permits_in_child, self._permits = os.pipe()
        parent = os.getpid()
        self.pid = self.tid = os.fork()
        if self.pid == 0:
            os.close(results)
            os.close(self._permits)
            _child(parent, before, body, results_in_child, permits_in_child)
        os.close(results_in_child)
        os.close(permits_in_child)
        self._results = results
        self._buffer = b""
        self._status: int | None = None
        # In the child the control descriptors have the numbers that they had here.
        self.control_fds = frozenset((permits_in_child, results_in_child))

    def go(self) -> None:
        os.write(self._permits, b"g")

    def finished(self) -> bool:
        return bool(select.select([self._results], [], [], 0)[0])

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def stop(self) -> None:
        """SIGSTOP, and wait until it has taken effect."""
        self.kill(signal.SIGSTOP)
        proc.wait_until_state(self.pid, "T")

    def resume(self) -> None:
        self.kill(signal.SIGCONT)

    def wait_status(self) -> int:
        """Reap the child: its exit code, or minus the signal that killed it."""
        if self._status is None:
            deadline = time.monotonic() + 10.0
            pidfd = os.pidfd_open(self.pid)
            try:
                ready = select.select([pidfd], [], [], deadline - time.monotonic())[0]
            finally:
                os.close(pidfd)
            assert ready, f"process {self.pid} does not end (state {proc.state(self.pid)})"
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def reap(self) -> None:
        self.wait_status()
        self.dispose()

    def dispose(self) -> None:
        """Kill what still runs and close the control pipes.  Can be called twice."""
        if self._status is None:
            self.kill()
            self.wait_status()
        for descriptor in (self._results, self._permits):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._results = self._permits = -1

    def _message(self, seconds: float) -> tuple[str, Any]:
        deadline = time.monotonic() + seconds
        while len(self._buffer) < 4 or len(self._buffer) < 4 + self._length():
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._results], [], [], left)[0]:
                raise AssertionError(f"process {self.pid} gives no result in {seconds} s")
            piece = os.read(self._results, 65536)
            if not piece:
                raise ActorDiedError(
                    f"process {self.pid} ended without a result: {self.wait_status()}"
                )
            self._buffer += piece
        end = 4 + self._length()
        message, self._buffer = self._buffer[4:end], self._buffer[end:]
        kind, value = pickle.loads(message)
        return str(kind), value

    def _length(self) -> int:
        return int.from_bytes(self._buffer[:4], "little")


def quiesce(actors: Sequence[Actor]) -> list[Actor]:
    """Wait until every actor is blocked or has something to say; those that have.

    One actor may wake another after the other was looked at.  So all are looked at twice:
    if none that sleeps has left the CPU in between, there was a moment at which all slept,
    and then nothing can happen any more without the test.
    """
    while True:
        before = [actor.settle() and actor.context_switches() for actor in actors]
        after = [actor.settle() and actor.context_switches() for actor in actors]
        if before == after:
            return [actor for actor, switches in zip(actors, after, strict=True) if not switches]


def _messages_of(body: Body) -> Iterator[tuple[str, Any]]:
    """Run a body: its yields, then its return value or its exception."""
    try:
        if inspect.isgeneratorfunction(body):
            script = body()
            while True:
                try:
                    value = next(script)
                except StopIteration as stop:
                    yield "returned", stop.value
                    return
                yield "yielded", value
        yield "returned", body()
    except BaseException as error:  # handed to the test, whatever it is
        yield "raised", error


def _child(parent: int, before: Body, body: Body, results: int, permits: int) -> NoReturn:
    try:
        # A run that is aborted must not leave blocked children behind.
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(99)
        before()
        for message in _messages_of(body):
            data = pickle.dumps(message)
            os.write(results, len(data).to_bytes(4, "little") + data)
            if message[0] == "yielded" and not os.read(permits, 1):
                os._exit(98)
    finally:
        os._exit(0)
