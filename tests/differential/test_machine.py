"""The same comparison as a state machine of hypothesis, which chooses by what it has seen."""

from __future__ import annotations

import os
from typing import ClassVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from differential.generate import CAPACITIES, FIRST_INDICES
from differential.ledger import CHILDREN
from differential.operations import BOTH, READERS, SIZES, WAYS, WRITERS, Op
from differential.session import Session
from differential.setup import LOOKS, Setup
from support.scale import rounds

SLOT = st.sampled_from((*READERS, *WRITERS, BOTH))
SIZE = st.sampled_from(SIZES)
NONBLOCK = st.sampled_from((os.O_NONBLOCK, os.O_NONBLOCK, 0))
FLAGS = st.builds(int.__or__, NONBLOCK, st.sampled_from((0, os.O_DIRECT, os.O_APPEND, os.O_ASYNC)))
MODES = {**dict.fromkeys(READERS, "r"), **dict.fromkeys(WRITERS, "w"), BOTH: "r+"}

ON_AN_END: st.SearchStrategy[Op] = st.one_of(
    st.tuples(st.sampled_from(("read", "readinto", "write")), SLOT, SIZE),
    st.tuples(st.sampled_from(("readv", "writev")), SLOT, SIZE, st.integers(0, WAYS - 1)),
    st.tuples(st.just("setsize"), SLOT, st.sampled_from(CAPACITIES)),
    st.tuples(st.just("flags"), SLOT, FLAGS),
    st.tuples(st.sampled_from(("fionbio", "fioasync")), SLOT, st.integers(0, 1)),
    st.tuples(st.just("close"), SLOT),
)


class Both(RuleBasedStateMachine):
    """A kernel's pipe and a shmpipe, anonymous or named."""

    named: ClassVar[bool]
    session: Session

    @initialize(
        flags=NONBLOCK,
        first_index=st.sampled_from(FIRST_INDICES),
        looks=st.sampled_from(LOOKS),
        opened=st.permutations((*READERS, *WRITERS, BOTH)),
    )
    def start(self, flags: int, first_index: int, looks: str, opened: list[int]) -> None:
        setup = Setup(named=self.named, flags=flags, first_index=first_index, looks=looks)
        self.session = Session(setup, thorough=True)
        self.session.__enter__()
        for slot in opened[:3]:
            self.session.do(("open", slot, MODES[slot], os.O_NONBLOCK))

    @rule(op=ON_AN_END)
    def on_an_end(self, op: Op) -> None:
        self.session.do(op)

    @rule(slot=SLOT, flags=NONBLOCK)
    def open(self, slot: int, flags: int) -> None:
        self.session.do(("open", slot, MODES[slot], flags))

    @rule(name=st.sampled_from(("pipe", "mkfifo", "unlink", "poll", "events", "look")))
    def without_arguments(self, name: str) -> None:
        self.session.do((name,))

    @rule(name=st.sampled_from(("fork", "exit", "kill")), child=st.sampled_from(CHILDREN))
    def holder(self, name: str, child: int) -> None:
        self.session.do((name, child))

    @rule(child=st.sampled_from(CHILDREN), op=ON_AN_END)
    def in_a_holder(self, child: int, op: Op) -> None:
        self.session.do(("child", child, op))

    def teardown(self) -> None:
        try:
            self.session.finish()
        finally:
            self.session.__exit__(None, None, None)


class Anonymous(Both):
    """os.pipe and shmpipe.pipe."""

    named = False


class Named(Both):
    """os.mkfifo and shmpipe.mkfifo."""

    named = True


SETTINGS = settings(
    max_examples=rounds(40),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestAnonymous = Anonymous.TestCase
TestAnonymous.settings = SETTINGS
TestNamed = Named.TestCase
TestNamed.settings = SETTINGS
