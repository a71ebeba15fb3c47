"""shmpipe torture: every stressor for a moment, and that it reports what is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shmpipe_tools.torture.audit import Audit, Hand
from shmpipe_tools.torture.board import Board, Log, Phase, Word
from shmpipe_tools.torture.faults import FAULTS, VARIABLE
from shmpipe_tools.torture.latency import figures, picture
from shmpipe_tools.torture.plan import draw
from shmpipe_tools.torture.records import Records, decode_id, encode_id
from shmpipe_tools.torture.states import SCENE_STATES
from shmpipe_tools.torture.stressor import stressors

TORTURE = [sys.executable, "-m", "shmpipe_tools", "torture", "--json"]

# The others count only what they looked at, or what they saw to the end.
COUNT_EACH_OP = {"exec", "exit", "fork", "signals", "threads"}

RECORDS = Records(packets=False, cell=64, most=3)


def torture(*arguments: str, fault: str = "", code: int = 0) -> dict[str, Any]:
    """The report of a run; nothing of it is left afterwards."""
    environment = dict(os.environ)
    environment[VARIABLE] = fault
    process = subprocess.Popen(
        [*TORTURE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    out, err = process.communicate(timeout=150)
    assert process.returncode == code, out + err
    assert_nothing_is_left(process.pid)
    report: dict[str, Any] = json.loads(out)
    return report


def assert_nothing_is_left(director: int) -> None:
    """No name in /dev/shm, no process that knows the director."""
    assert not [name for name in os.listdir("/dev/shm") if f"torture-{director}-" in name]
    mark = f'"director": {director},'.encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        assert mark not in command, f"process {pid} is left"


@pytest.mark.parametrize("name", list(stressors()))
def test_each_stressor_for_a_moment(name: str) -> None:
    report = torture(f"--{name}", "1", "--episodes", "2", "--seed", f"moment-{name}")
    assert report["ok"], report["failures"]
    assert report["cells"] > 0
    assert set(report["ops"]) == {name}
    assert report["ops"][name] > 0  # it strikes
    counters = report["counters"][name]
    assert set(counters) == set(stressors()[name].counters)
    if name in COUNT_EACH_OP:
        assert sum(counters.values()) > 0
    rare = report["rare"]
    assert set(rare) == set(SCENE_STATES)
    assert rare["at rest: looked into the segment"] > 0
    assert rare["wrap of the ring"] > 0


def test_stressors_combine() -> None:
    report = torture(
        *("--kill", "1", "--stop", "1", "--fork", "2", "--signals", "1"),
        *("--episodes", "2", "--seed", "together"),
    )
    assert report["ok"], report["failures"]
    assert set(report["ops"]) == {"kill", "stop", "fork", "signals"}
    assert min(report["ops"].values()) > 0
    assert report["counters"]["signals"]["storms that were heard"] > 0
    rare = report["rare"]
    assert rare["dead process reaped"] + rare["at rest: an entry of the dead"] > 0


def test_ops_that_were_not_done_are_no_success() -> None:
    report = torture("--signals", "1", "--ops", "1000000", "--timeout", "1", code=1)
    assert report["failures"] == []
    assert 0 < report["ops_missing"]["signals"] < 1000000


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("lose", "are lost"),
        ("twice", "had been read"),
        ("corrupt", "failed"),
        ("forget", "are lost"),
        ("early-end", "failed"),
        ("early-epipe", "failed"),
        ("late-end", "after the last peer was gone"),
        ("sleep", "sleeps in POLL"),
        ("crash", "ended with -11"),
    ],
)
def test_a_fault_is_a_violation(fault: str, finding: str) -> None:
    # Without a stressor nobody dies in a call: whatever is missing cannot be in a dead hand.
    report = torture("--signals", "1", "--episodes", "3", "--seed", "fault", fault=fault, code=1)
    findings = [each for failure in report["failures"] for each in failure["findings"]]
    assert any(finding in each for each in findings), findings
    assert set(FAULTS) >= {fault}


def test_ctrl_c_ends_with_a_report_and_nothing_else() -> None:
    process = subprocess.Popen(
        [*TORTURE, "--kill", "1", "--timeout", "100"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    process.stderr.readline()  # the seed: it has begun
    while not _has_child(process.pid):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out)["interrupted"]
    assert_nothing_is_left(process.pid)


def _has_child(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text())


def test_an_episode_is_drawn_from_its_seed_alone() -> None:
    assert draw("s", 0, 7) == draw("s", 0, 7)
    assert draw("s", 0, 7) != draw("t", 0, 7)
    plans = [draw("s", 0, number) for number in range(300)]
    assert {plan.transport for plan in plans} == {"anonymous", "named", "os.pipe"}
    assert max(plan.records.bytes_of(1, each) for plan in plans for each in range(99)) > 256 * 1024
    assert {2, 16} <= {plan.readers + plan.writers for plan in plans}


def test_an_id_with_another_byte_is_none() -> None:
    number = encode_id(12, 345, 6, 78)
    assert decode_id(number) == (12, 345, 6, 78)
    for shift in range(0, 64, 8):
        with pytest.raises(ValueError, match="not the id"):
            decode_id(number ^ (1 << shift))


def test_delays_as_figures_and_as_a_picture() -> None:
    row = figures([0.0001] * 98 + [0.005, 0.02])
    assert (row["count"], row["p50"], row["max"], row["limits_met"]) == (100, 0.0001, 0.02, False)
    assert sum(each["count"] for each in row["classes"]) == 100
    lines = list(picture({"shmpipe": row, "os.pipe": figures([0.0002])}))
    assert "98" in lines[1]
    assert len(lines) == 1 + 10  # quarters of powers of ten, from 178 us to 31.6 ms


class Books:
    """A board on which one writer wrote three records, and one reader."""

    def __init__(self) -> None:
        self.board = Board()
        self.board.begin_episode(0, 0)
        self.board.incarnation(1)[Log.BEGUN] = self.board.incarnation(1)[Log.DONE] = 3
        self.ids = [
            encode_id(1, sequence, index, RECORDS.cells_of(1, sequence))
            for sequence in (1, 2, 3)
            for index in range(RECORDS.cells_of(1, sequence))
        ]

    def findings(self, ids: list[int], *hands: Hand) -> list[str]:
        """What the audit says when the reader got these."""
        for place, number in enumerate(ids):
            self.board.log(0)[place] = number
        self.board.set(0, Word.LOGGED, len(ids))
        audit = Audit(RECORDS, 1, 128)
        audit.hands += hands
        audit.close_books(self.board, 1)
        return list(audit.findings(self.board, range(1)))


@pytest.fixture
def books() -> Iterator[Books]:
    """A fresh board."""
    made = Books()
    yield made
    made.board.close()


def test_writers_rest_beside_a_full_log_until_the_last_act(books: Books) -> None:
    """Also before the zygote has said that the play begins."""
    board = books.board
    board.note_full()
    resting = []
    for phase in Phase:
        board.set_phase(phase)
        if board.has_to_rest(writes=True):
            resting.append(phase)
    assert resting == [Phase.SETUP, Phase.RUN, Phase.WRITERS_REST, Phase.FREE]


def test_the_audit_finds_nothing_in_order(books: Books) -> None:
    assert books.findings(books.ids) == []


def test_the_audit_finds_what_is_lost_twice_torn_and_out_of_order(books: Books) -> None:
    ids = books.ids
    assert len(ids) > 3
    assert "1 cells are lost" in books.findings(ids[:-1])[0]
    assert "had been read" in books.findings([*ids, ids[-1]])[0]
    assert any("after" in each for each in books.findings([ids[1], ids[0], *ids[2:]]))
    long = next(each for each in range(1, 99) if RECORDS.cells_of(1, each) == 3)
    gap = [encode_id(1, long, 0, 3), encode_id(1, long, 2, 3)]
    assert any("torn" in each for each in books.findings(gap))
    ghost = encode_id(1, 4, 0, RECORDS.cells_of(1, 4))
    assert "never began" in books.findings([*ids, ghost])[0]


def test_what_is_in_a_dead_hand_is_not_lost(books: Books) -> None:
    last = decode_id(books.ids[-1])[:3]
    first = decode_id(books.ids[0])[:3]
    assert books.findings(books.ids[:-1], Hand([last], 64)) == []
    assert books.findings(books.ids[:-1], Hand(None, 64)) == []
    # But a reader takes from the front.
    assert "in front" in books.findings(books.ids[:-1], Hand([first, last], 128))[0]


def test_what_a_dead_hand_had_copied_may_be_in_the_next_ones(books: Books) -> None:
    """Killed before it consumed what it had copied; and who took it then was killed, too."""
    first, *_, last = (decode_id(number)[:3] for number in books.ids)
    copied = Hand([first, last], 128)
    assert books.findings(books.ids[:-1], copied, Hand(None, 64)) == []
    assert books.findings(books.ids[:-1], copied, Hand([last], 64)) == []
    assert "in front" in books.findings(books.ids[:-1], copied, copied)[0]


def test_no_read_takes_more_than_there_can_be(books: Books) -> None:
    assert len(books.ids) > 3
    assert books.findings(books.ids[:-2], Hand(None, 64 * len(books.ids))) == []
    assert "3 cells are lost" in books.findings(books.ids[:-3], Hand(None, 64 * 9))[0]


def test_what_lay_in_front_may_be_of_a_writer_that_died(books: Books) -> None:
    last = decode_id(books.ids[-1])[:3]
    books.board.incarnation(2)[Log.BEGUN] = 1  # not done: it was killed
    unfinished = (2, 1, 0)
    assert books.findings(books.ids[:-1], Hand([unfinished, last], 128)) == []
