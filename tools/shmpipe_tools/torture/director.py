"""The command's process: starts the zygotes, adds up their reports, notices when one is silent."""

import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from shmpipe_tools.torture.latency import figures
from shmpipe_tools.torture.states import (
    IN_COMPANY,
    LONG_RUN,
    MANY_EPISODES,
    SCENE_STATES,
    VERY_LONG_RUN,
)
from shmpipe_tools.torture.stressor import stressors

# An episode takes seconds at most, and a zygote gives up waiting by itself: this is for when the
# zygote itself hangs.
SILENCE_SECONDS = 240.0
END_SECONDS = 30.0
# Findings of one run that are kept; there is no need for the thousandth.
MOST_FINDINGS = 20


@dataclass
class Run:
    """What is asked for."""

    instances: dict[str, int]
    ops: int
    seconds: float | None
    seed: str
    scenes: int
    patience: float
    first_episode: int
    episodes: int
    keep_going: bool


@dataclass
class Outcome:
    """What all episodes brought together."""

    run: Run
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    episodes: Counter[str] = field(default_factory=Counter)  # by transport
    kills: int = 0
    actors: int = 0
    cells: int = 0
    rare: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(SCENE_STATES, 0)))
    delays: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by transport, what
    failures: list[dict[str, Any]] = field(default_factory=list)  # episodes with findings
    interrupted: bool = False
    _ops: dict[int, dict[str, int]] = field(default_factory=dict)  # by scene
    _counters: dict[int, dict[str, dict[str, int]]] = field(default_factory=dict)

    def add(self, scene: int, result: dict[str, Any]) -> None:
        """Adds an episode."""
        transport = "os.pipe" if result["transport"] == "os.pipe" else "shmpipe"
        self.episodes[transport] += 1
        self.kills += result["kills"]
        self.actors += result["actors"]
        self.cells += result["cells"]
        if transport == "shmpipe":
            self.rare.update(result["rare"])
        for what, delays in result["delays"].items():
            self.delays.setdefault(transport, {}).setdefault(what, []).extend(delays)
        self._ops[scene] = result["ops"]
        self._counters[scene] = result["counters"]
        if result["findings"] and len(self.failures) < MOST_FINDINGS:
            self.failures.append({"scene": scene, **result})

    @property
    def ops(self) -> dict[str, int]:
        """Of each stressor."""
        total: Counter[str] = Counter()
        for ops in self._ops.values():
            total.update(ops)
        return {name: total[name] for name in self.run.instances}

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Of each stressor."""
        total: dict[str, Counter[str]] = {name: Counter() for name in self.run.instances}
        for counters in self._counters.values():
            for name, each in counters.items():
                total[name].update(each)
        return {
            name: {counter: each[counter] for counter in stressors()[name].counters}
            for name, each in total.items()
        }

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong, and all was done and seen that there was to do and to see."""
        return not (self.failures or self.ops_missing or self.unreached)

    @property
    def ops_missing(self) -> dict[str, int]:
        """Of each stressor: how many of the ops that were asked for were not done.

        A run that ended for another reason than that they were done tells so, lest a green one
        be taken for what it is not.  Not if a violation or Ctrl-C ended it: that is said already.
        """
        if self.interrupted or (self.failures and not self.run.keep_going):
            return {}
        return {name: self.run.ops - done for name, done in self.ops.items() if done < self.run.ops}

    @property
    def unreached(self) -> list[dict[str, Any]]:
        """States that must be reached in as many ops as were done, and were not."""
        counters = self.counters
        return [
            {"stressor": name, "state": state, "ops": self.ops[name]}
            for name in self.run.instances
            for state in self.due(name)
            if not counters[name].get(state, self.rare[state])
        ]

    def due(self, name: str) -> list[str]:
        """The states that this stressor must have reached by now."""
        stressor = stressors()[name]
        is_alone = sum(self.run.instances.values()) == 1
        ops = self.ops[name] // (1 if is_alone else IN_COMPANY)
        states = [
            *(stressor.sometimes if ops >= LONG_RUN else ()),
            *(stressor.alone if ops >= LONG_RUN and is_alone else ()),
            *(stressor.seldom if ops >= VERY_LONG_RUN else ()),
        ]
        enough = self.episodes["shmpipe"] >= MANY_EPISODES
        return [state for state in states if enough or state not in SCENE_STATES]

    def latencies(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Figures of the delays: transport, what, figures."""
        return {
            transport: {what: figures(delays) for what, delays in sorted(kinds.items())}
            for transport, kinds in sorted(self.delays.items())
        }

    def as_json(self) -> dict[str, Any]:
        """The whole report."""
        return {
            "ok": self.ok,
            "seed": self.run.seed,
            "interrupted": self.interrupted,
            "seconds": self.seconds,
            "episodes": dict(self.episodes),
            "ops": self.ops,
            "ops_missing": self.ops_missing,
            "unreached": self.unreached,
            "kills": self.kills,
            "actors": self.actors,
            "cells": self.cells,
            "counters": self.counters,
            "rare": dict(self.rare),
            "latency_seconds": self.latencies(),
            "failures": self.failures,
        }


class Director:
    """The zygotes of a run."""

    def __init__(self, run: Run) -> None:
        self.outcome = Outcome(run)
        self._run = run
        self._zygotes: list[subprocess.Popen[str]] = []

    def direct(self, on_progress: Callable[[Outcome], None]) -> Outcome:
        """Until all is done, the time is over, something is wrong, or Ctrl-C: always an outcome."""
        try:
            self._start()
            self._collect(on_progress)
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        finally:
            self._end()
            self.outcome.seconds = time.monotonic() - self.outcome.started
        return self.outcome

    def _start(self) -> None:
        run = self._run
        for scene in range(run.scenes):
            task = {
                "director": os.getpid(),
                "seed": run.seed,
                "scene": scene,
                "name": f"torture-{os.getpid()}-{scene}",
                "instances": run.instances,
                "ops": -(-run.ops // run.scenes),
                "patience": run.patience,
                "first_episode": run.first_episode,
                "episodes": run.episodes,
            }
            zygote = subprocess.Popen(
                [sys.executable, "-m", "shmpipe_tools.torture.zygote", json.dumps(task)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is the director's
            )
            self._zygotes.append(zygote)

    def _collect(self, on_progress: Callable[[Outcome], None]) -> None:
        for scene, result in self._results():
            if result is not None:
                self.outcome.add(scene, result)
            on_progress(self.outcome)
            elapsed = time.monotonic() - self.outcome.started
            is_late = self._run.seconds is not None and elapsed > self._run.seconds
            if is_late or (self.outcome.failures and not self._run.keep_going):
                return

    def _results(self) -> Iterator[tuple[int, dict[str, Any] | None]]:
        """Episodes as they end; None now and then meanwhile."""
        running = {}
        for scene, zygote in enumerate(self._zygotes):
            assert zygote.stdout is not None
            running[zygote.stdout] = scene
        heard = time.monotonic()
        while running:
            ready, _, _ = select.select(list(running), [], [], 0.2)
            for stream in ready:
                scene = running[stream]
                line = stream.readline()
                heard = time.monotonic()
                if line:
                    yield scene, json.loads(line)
                else:
                    del running[stream]
                    self._expect_success(scene)
            if not ready:
                if time.monotonic() - heard > SILENCE_SECONDS:
                    self._fail(0, f"no zygote has reported for {SILENCE_SECONDS:.0f} s")
                    return
                yield 0, None

    def _expect_success(self, scene: int) -> None:
        code = self._zygotes[scene].wait(END_SECONDS)
        if code:
            self._fail(scene, f"the zygote ended with {code}")

    def _fail(self, scene: int, finding: str) -> None:
        self.outcome.failures.append({"scene": scene, "episode": None, "findings": [finding]})

    def _end(self) -> None:
        """Lets the zygotes end their episodes; what they still report counts."""
        for zygote in self._zygotes:
            assert zygote.stdin is not None
            zygote.stdin.close()
        for scene, zygote in enumerate(self._zygotes):
            assert zygote.stdout is not None
            try:
                rest = _read_all(zygote, END_SECONDS)
            except subprocess.TimeoutExpired:
                zygote.kill()  # its actors die with it
                zygote.wait()
                self._fail(scene, f"the zygote does not end within {END_SECONDS:.0f} s")
                continue
            finally:
                zygote.stdout.close()
            for line in rest.splitlines():
                self.outcome.add(scene, json.loads(line))


def _read_all(zygote: "subprocess.Popen[str]", seconds: float) -> str:
    zygote.stdin = None  # closed: communicate() must not flush it
    return zygote.communicate(timeout=seconds)[0] or ""
