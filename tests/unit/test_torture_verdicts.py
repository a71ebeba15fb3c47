"""shmpipe torture: what makes a run fail beside a fault of the pipe, and who is late."""

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic_ns
from typing import Any

import pytest
import shmpipe
from rich.console import Console
from shmpipe_tools.torture import judge, lateness, procfs, rest
from shmpipe_tools.torture.board import Board, Call, Phase, Word
from shmpipe_tools.torture.director import Outcome, Run
from shmpipe_tools.torture.hold import HELD, IN_A_LOCK, WENT_ON, WITH_A_WAKE, Hold
from shmpipe_tools.torture.judge import HangError
from shmpipe_tools.torture.lateness import Patience, Survivors
from shmpipe_tools.torture.pipes import Pipe
from shmpipe_tools.torture.plan import Episode, draw
from shmpipe_tools.torture.report import report
from shmpipe_tools.torture.rest import Rest
from shmpipe_tools.torture.scene import Scene
from shmpipe_tools.torture.states import (
    IN_COMPANY,
    LONG_RUN,
    MANY_EPISODES,
    SCENE_STATES,
    VERY_LONG_RUN,
)
from shmpipe_tools.torture.stressor import stressors
from shmpipe_tools.torture.tormentor import Victim

SECOND = 10**9


def outcome(
    ops: int,
    *,
    asked: int = 0,
    episodes: int = MANY_EPISODES,
    without: str = "",
    name: str = "kill",
    instances: int = 1,
) -> Outcome:
    """Of a run of one stressor that reached every state but one."""
    made = Outcome(Run({name: instances}, asked, None, "s", 1, 1.0, 0, 0, keep_going=False))
    for _ in range(episodes):
        made.add(0, result(name, ops, without))
    return made


def result(name: str, ops: int, without: str) -> dict[str, Any]:
    """What a zygote says of an episode."""
    counters = {state: int(state != without) for state in stressors()[name].counters}
    return {
        "transport": "named",
        "kills": 0,
        "actors": 0,
        "cells": 0,
        "rare": {state: int(state != without) for state in SCENE_STATES},
        "delays": {},
        "ops": {name: ops},
        "counters": {name: counters},
        "findings": [],
    }


def text(made: Outcome) -> str:
    """The report that people see."""
    screen = Console(width=200)
    with screen.capture() as captured:
        for part in report(made):
            screen.print(part)
    return captured.get()


def test_a_run_that_reached_every_state_is_a_success() -> None:
    made = outcome(VERY_LONG_RUN)
    assert made.ok
    assert "NEVER" not in text(made)


@pytest.mark.parametrize(
    ("state", "due_from"),
    [
        ("in write lock", LONG_RUN),
        ("lock taken from the dead", LONG_RUN),
        ("hand-on owed", VERY_LONG_RUN),
        ("eof, company", VERY_LONG_RUN),
        ("resizing", None),
        ("readiness left by the dead", None),
    ],
)
def test_a_state_that_was_never_reached(state: str, due_from: int | None) -> None:
    for ops in (LONG_RUN - 1, LONG_RUN, VERY_LONG_RUN - 1, VERY_LONG_RUN):
        made = outcome(ops, without=state)
        is_due = due_from is not None and ops >= due_from
        assert made.ok == (not is_due)
        assert [each["state"] for each in made.as_json()["unreached"]] == [state] * is_due
        assert ("NEVER REACHED" in text(made)) == is_due
        assert "never" in text(made)


def test_states_of_scenes_are_due_in_many_of_them() -> None:
    assert outcome(LONG_RUN, without="massacre", episodes=MANY_EPISODES - 1).ok
    assert not outcome(LONG_RUN, without="massacre").ok


def test_several_stressors_disturb_each_other() -> None:
    for without, ops in (("in write lock", LONG_RUN), ("hand-on owed", VERY_LONG_RUN)):
        assert outcome(ops * IN_COMPANY - 1, without=without, instances=2).ok
        assert not outcome(ops * IN_COMPANY, without=without, instances=2).ok
    assert not outcome(LONG_RUN, without=HELD, name="stop").ok
    assert outcome(VERY_LONG_RUN * IN_COMPANY, without=HELD, name="stop", instances=2).ok


def test_what_was_asked_for_and_not_done() -> None:
    made = outcome(7, asked=10)
    assert (made.ok, made.ops_missing) == (False, {"kill": 3})
    assert "NOT DONE: 3 of 10 ops of kill" in text(made)
    assert outcome(10, asked=10).ok
    made.interrupted = True  # Ctrl-C says why
    assert made.ok


# -- Who is late


@pytest.fixture
def board() -> Iterator[Board]:
    """A fresh one; its slot 0 is this process."""
    made = Board()
    made.begin_episode(0, 0)
    made.set(0, Word.PID, os.getpid())
    yield made
    made.close()


@pytest.fixture
def late(board: Board, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The findings about one that saw the end so late and was ready without a processor so long."""

    def findings(*, seconds: float, waited: float) -> list[str]:
        clock = 0
        monkeypatch.setattr(lateness, "waited_for_cpu", lambda _pid: clock)
        board.set(0, Word.ENDED_AT, 0)
        survivors = Survivors(board, [0], "the end")
        survivors.look(is_due=False)
        assert survivors.waiting == {0}
        board.set(0, Word.ENDED_AT, monotonic_ns() + int(seconds * SECOND))
        clock = int(waited * SECOND)
        survivors.look(is_due=True)
        clock += 9 * SECOND  # what comes after the end excuses nobody
        survivors.look(is_due=True)
        assert survivors.waiting == set()
        return list(survivors.findings())

    return findings


def test_a_second_is_the_limit(late: Callable[..., list[str]]) -> None:
    assert late(seconds=0.9, waited=0) == []
    assert "the end 1.1" in late(seconds=1.15, waited=0)[0]


def test_what_the_machine_took_is_not_the_pipes(late: Callable[..., list[str]]) -> None:
    assert late(seconds=1.5, waited=0.7) == []
    assert late(seconds=1.9, waited=0.7) != []


class Machine:
    """A clock that we move, for everybody who measures lateness; and the state of a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.state = "S"
        monkeypatch.setattr(lateness, "monotonic", lambda: self.now)
        monkeypatch.setattr(lateness, "state_of", lambda _pid: self.state)

    def looks(self, patience: Patience, times: int, seconds: float) -> bool:
        """So many looks at such a distance; whether it was over at the last one."""
        for _ in range(times):
            self.now += seconds
            over = patience.is_over()
        return over


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


def test_a_sleeper_has_just_the_time_that_it_was_given(machine: Machine) -> None:
    patience = Patience(5, lambda: [1])
    assert not machine.looks(patience, 499, 0.01)
    assert machine.looks(patience, 2, 0.01)


def test_a_machine_that_stood_still_is_no_hang(machine: Machine) -> None:
    """Seen once, beside a sweep: nobody ran for 5 s, and then the zygote was the first to."""
    patience = Patience(5, lambda: [1])
    assert not machine.looks(patience, 10, 0.01)
    assert not machine.looks(patience, 1, 60)
    assert machine.looks(patience, 500, 0.01)


def test_who_is_ready_only_waits_for_a_processor_but_not_for_ever(machine: Machine) -> None:
    patience = Patience(5, lambda: [1])
    machine.state = "R"
    assert not machine.looks(patience, 1000, 0.01)
    machine.state = "S"
    assert machine.looks(patience, 1, 0.01)
    machine.state = "R"
    assert machine.looks(patience, 1000, 0.01)


def test_the_judge_counts_as_it_looks(
    board: Board, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = Pipe(plain_episode(), "")
    pipe.writer.write(b"data")
    board.set_phase(Phase.RUN)
    board.set(0, Word.CALL, Call.READ)
    monkeypatch.setattr(judge, "state_of", lambda _pid: "S")
    monkeypatch.setattr(judge, "_switches", lambda _pid: "0")
    watchdog = judge.Judge(board, pipe, 0.5)

    def look() -> None:
        machine.now += 30  # however long nobody looked
        monkeypatch.setattr(watchdog, "_next", 0.0)
        watchdog.look(lambda: [0])

    for _ in range(3):
        look()
    with pytest.raises(HangError, match="sleeps in READ beside 4 bytes"):
        look()
    pipe.close()


# -- Who is held


@pytest.fixture
def sleepers() -> Iterator[tuple[int, int]]:
    """A process that is stopped, and one that sleeps."""
    pids = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
    os.kill(pids[0], signal.SIGSTOP)
    while [procfs.state_of(pid) for pid in pids] != ["T", "S"]:
        os.sched_yield()
    yield pids[0], pids[1]
    for pid in pids:
        end(pid)


def held(
    board: Board, sleepers: tuple[int, int], owner: int = 0, step: Callable[[], None] = lambda: None
) -> Hold:
    """A reader that was stopped beside a reader and a writer; owner: the pid that has a lock."""
    board.set_phase(Phase.RUN)
    for slot, pid, writes in ((0, sleepers[0], 0), (1, sleepers[1], 0), (2, sleepers[1], 1)):
        board.set(slot, Word.PID, pid)
        board.set(slot, Word.WRITES, writes)
    ends = shmpipe.pipe()
    ring = ends[0].stat()
    for each in ends:
        each.close()
    if owner:
        holder = replace(ring.processes[0], index=6, pid=owner)
        ring = replace(ring, companion_lock_owner=7, processes=(holder,))
    descriptor = os.pidfd_open(sleepers[0])
    hold = Hold(board, Victim(0, sleepers[0], 1, descriptor), 0.2, 0.1, lambda: ring)
    while not hold.is_over():
        step()
    os.close(descriptor)
    return hold


def test_others_that_do_not_go_on_are_found(board: Board, sleepers: tuple[int, int]) -> None:
    hold = held(board, sleepers)
    assert "the locks are with nobody" in hold.finding
    assert hold.outcomes == [HELD]
    # Somebody has a lock, and it is not the stopped one.
    assert f"the locks are with [{sleepers[1]}]" in held(board, sleepers, sleepers[1]).finding


def test_others_that_go_on(board: Board, sleepers: tuple[int, int]) -> None:
    def step() -> None:
        for slot in sides:
            board.set(slot, Word.PROGRESS, board.get(slot, Word.PROGRESS) + 1)

    sides = [1, 2]
    hold = held(board, sleepers, step=step)
    assert (hold.finding, hold.outcomes) == ("", [HELD, WENT_ON])
    sides = [2]  # and the other side sleeps
    assert "not gone on" in held(board, sleepers, step=step).finding


def test_the_stopped_one_has_a_lock_or_a_wake(board: Board, sleepers: tuple[int, int]) -> None:
    hold = held(board, sleepers, sleepers[0])
    assert (hold.finding, hold.outcomes) == ("", [HELD, IN_A_LOCK])
    board.set(0, Word.CALL, Call.READ)
    board.set(2, Word.CALL, Call.WRITE)  # who writes would see that nobody reads
    assert "not gone on" in held(board, sleepers).finding
    board.set(2, Word.CALL, Call.POLL)
    hold = held(board, sleepers)
    assert (hold.finding, hold.outcomes) == ("", [HELD, WITH_A_WAKE])


def test_nothing_is_demanded_of_who_is_alone(board: Board, sleepers: tuple[int, int]) -> None:
    hold = held(board, sleepers, step=lambda: board.set(1, Word.PID, 0))
    assert (hold.finding, hold.outcomes) == ("", [])


# -- At rest


class StillScene(Scene):
    """One whose time does not pass: what does not hold at once never will."""

    def wait(self, condition: Callable[[], bool], what: str, limit: float) -> None:
        if not condition():
            raise HangError(what)


def plain_episode() -> Episode:
    """Of an anonymous pipe."""
    plans = (draw("rest", 0, number) for number in range(100))
    return next(plan for plan in plans if plan.transport == "anonymous" and not plan.packets)


@pytest.fixture
def scene(board: Board) -> Iterator[StillScene]:
    """With nobody but this process, which is its zygote."""
    pipe = Pipe(plain_episode(), "")
    pipe.reader.nonblocking = pipe.writer.nonblocking = True
    yield StillScene(board, pipe.episode, pipe, [], -1, 1.0)
    pipe.close()


def child(scene: Scene) -> int:
    """One that reads, and is there when this returns."""
    pid = os.fork()
    if pid == 0:
        scene.pipe.writer.close()
        scene.pipe.reader.nonblocking = False
        scene.pipe.reader.read(1)
        os._exit(0)
    while scene.pipe.snapshot().read_waiters == 0:  # type: ignore[union-attr]
        os.sched_yield()
    return pid


def end(pid: int) -> None:
    """It dies where it sleeps."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_nothing_is_found_where_all_is_well(scene: StillScene) -> None:
    Rest(scene).clear()
    assert scene.findings == []
    assert scene.rare["curtain: all of the dead cleared away"] == 1


def test_a_stranger_and_a_missing_actor_are_found(scene: StillScene) -> None:
    pid = child(scene)
    try:
        Rest(scene).look()
        assert "the living are" in scene.findings.pop()
        scene.cast[pid] = 0
        scene.board.set(0, Word.CALL, Call.READ)
        Rest(scene).look()
        assert scene.findings == []
    finally:
        end(pid)
    Rest(scene).look()
    assert "2 processes are there" in scene.findings[-1]


def test_a_sleeper_that_nobody_would_wake_is_found(scene: StillScene) -> None:
    scene.cast[os.getpid()] = 0
    for call in (Call.READ, Call.POLL):
        scene.board.set(0, Word.CALL, call)
        with pytest.raises(HangError, match="who sleeps is registered"):
            Rest(scene).look()


def test_what_the_dead_leave_is_cleared_away(
    scene: StillScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(child(scene))
    monkeypatch.setattr(Rest, "_sleep_in", lambda *_: None)
    with pytest.raises(HangError, match="no entry of the dead is left"):
        Rest(scene).clear()
    assert scene.rare["at rest: an entry of the dead"] == 1
    monkeypatch.undo()
    Rest(scene).clear()
    assert scene.findings == []


def test_a_signal_that_is_heard_late_is_found(
    scene: StillScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(child(scene))
    monkeypatch.setattr(rest, "_HEARD_SECONDS", 0.001)  # shorter than the nap
    Rest(scene).clear()
    assert "a signal was heard after 0.0 s" in scene.findings


def test_damage_is_found(scene: StillScene) -> None:
    # A flag of a description that is free.
    os.pwrite(scene.pipe.descriptor(), (1).to_bytes(8, "little"), 4096 + 9 * 8)
    Rest(scene).look()
    assert [each.split()[:2] for each in scene.findings] == [["check:", "description-free"]]
