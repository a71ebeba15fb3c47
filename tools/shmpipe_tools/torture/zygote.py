"""The program that makes the pipes and forks the actors: small, so that a fork is cheap.

It speaks JSON: its task is its argument, each episode's result is a line on standard output.  It
ends after the episode in which its standard input ends.
"""

import ctypes
import faulthandler
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

import shmpipe
from shmpipe_tools.torture.actor import die_with_parent
from shmpipe_tools.torture.board import Board, Phase
from shmpipe_tools.torture.judge import DUMP_SIGNAL
from shmpipe_tools.torture.pipes import Pipe
from shmpipe_tools.torture.plan import draw
from shmpipe_tools.torture.scene import Scene, on_signal
from shmpipe_tools.torture.stressor import number_of, stressors
from shmpipe_tools.torture.tormentor import Tormentor

_PR_SET_CHILD_SUBREAPER = 36


@dataclass
class Task:
    """What the director wants."""

    director: int  # pid
    seed: str
    scene: int
    name: str  # of named pipes, a number is added
    instances: dict[str, int]  # of each stressor
    ops: int  # of each stressor; 0: until told to stop
    patience: float
    first_episode: int = 0
    episodes: int = 0  # 0: any number


class Zygote:
    """The only instance of the program's life."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.board = Board()
        self.errors = os.memfd_create("torture-errors", os.MFD_CLOEXEC)
        self.kills = 0
        self.helpers: set[int] = set()
        self.news: list[socket.socket] = []

    def live(self) -> None:
        """Episode after episode."""
        _prepare_process(self.errors)
        for name, count in self.task.instances.items():
            for _ in range(count):
                self._start_tormentor(name)
        number = self.task.first_episode
        last = number + self.task.episodes if self.task.episodes else -1
        while number != last and not self._is_over():
            self._play(number)
            number += 1
        for pid in self.helpers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _play(self, number: int) -> None:
        started = time.monotonic()
        os.ftruncate(self.errors, 0)
        os.lseek(self.errors, 0, os.SEEK_SET)
        descriptors = len(os.listdir("/proc/self/fd"))
        episode = draw(self.task.seed, self.task.scene, number)
        pipe = Pipe(episode, f"{self.task.name}-{number}")
        self.board.begin_episode(number, pipe.descriptor() + 1)
        scene = Scene(self.board, episode, pipe, self.news, self.errors, self.task.patience)
        scene.helpers = self.helpers
        try:
            before = self.kills

            def is_over() -> bool:
                self.kills = before + scene.struck
                return self.board.full or self._is_over()

            scene.play(is_over)
        finally:
            self.board.set_phase(Phase.SETUP)
            self.kills = before + scene.struck
            pipe.close()
        gc.collect()
        self._check_residue(scene, pipe, descriptors)
        result = scene.result()
        errors = os.pread(self.errors, 1 << 20, 0).decode(errors="replace")
        if result["findings"]:
            result["plan"] = episode.as_json()
            result["errors"] = errors
        result["seconds"] = time.monotonic() - started
        result["ops"] = self._ops()
        result["counters"] = self._counters()
        print(json.dumps(result), flush=True)

    def _check_residue(self, scene: Scene, pipe: Pipe, descriptors: int) -> None:
        """Nothing may be left behind (O11)."""
        now = len(os.listdir("/proc/self/fd"))
        if now != descriptors:
            scene.findings.append(f"{now - descriptors} descriptors are left open")
        if pipe.name and pipe.name in shmpipe.listdir():
            scene.findings.append(f"the name {pipe.name} is left")

    def _ops(self) -> dict[str, int]:
        ops = {}
        for name in self.task.instances:
            stressor = stressors()[name]
            ops[name] = self.board.total(stressor.counter("ops"))
        if "kill" in ops:
            ops["kill"] = self.kills
        return ops

    def _counters(self) -> dict[str, dict[str, int]]:
        return {
            name: {
                counter: self.board.total(stressors()[name].counter(counter))
                for counter in stressors()[name].counters
            }
            for name in self.task.instances
        }

    def _is_over(self) -> bool:
        """Whether the director has closed our input, or every stressor has done its ops."""
        if select.select([sys.stdin], [], [], 0)[0]:
            return True
        if not self.task.ops or not self.task.instances:
            return False
        done = True
        for name, ops in self._ops().items():
            if ops >= self.task.ops:
                self.board.note_enough(number_of(name))
            else:
                done = False
        return done

    def _start_tormentor(self, name: str) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        parent = os.getpid()
        number = len(self.news)
        pid = os.fork()
        if pid == 0:
            try:
                for each in (ours, *self.news):
                    each.close()
                os.close(0)
                os.close(1)
                stressor = stressors()[name]
                seed = f"{self.task.seed}/{self.task.scene}"
                tormentor = Tormentor(
                    self.board, number, stressor, seed, theirs, self.task.patience
                )
                tormentor.live(parent)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                raise
            finally:
                os._exit(1)
        theirs.close()
        self.helpers.add(pid)
        self.news.append(ours)


def _prepare_process(errors: int) -> None:
    libc: Any = ctypes.CDLL(None)
    # Understudies whose actor was killed become ours, so that none is left.
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    for number, interrupts in ((signal.SIGUSR1, False), (signal.SIGUSR2, True)):
        signal.signal(number, on_signal)
        signal.siginterrupt(number, interrupts)
    faulthandler.register(DUMP_SIGNAL, file=errors, all_threads=True)
    # The first pipe brings what a process keeps: its record, modules that are loaded late.
    for end in shmpipe.pipe():
        end.stat()
        end.close()
    gc.collect()
    gc.freeze()
    gc.disable()


def main() -> None:
    """`python -m shmpipe_tools.torture.zygote TASK`."""
    task = Task(**json.loads(sys.argv[1]))
    die_with_parent(task.director)
    Zygote(task).live()


if __name__ == "__main__":
    main()
