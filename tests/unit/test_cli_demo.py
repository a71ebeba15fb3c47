"""The demonstration: its account finds what is wrong, and the whole of it passes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from shmpipe_tools.children import Child, shared_numbers
from shmpipe_tools.demo.account import settle
from shmpipe_tools.demo.corpus import Corpus
from shmpipe_tools.demo.delivery import Delivery, deliver
from shmpipe_tools.demo.journal import Journal
from shmpipe_tools.demo.packets import PACKET_BYTES, PAYLOAD_BYTES, decode, encode
from shmpipe_tools.demo.streams import KernelPipe

from support import proc

FAILED, KILLED = 1 << 8, signal.SIGKILL


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three files: an empty one, a small one, and one of several packets."""
    contents = [b"", b"small", os.urandom(2 * PAYLOAD_BYTES + 1)]
    packets: list[bytes] = []
    paths = []
    for file, content in enumerate(contents):
        path = tmp_path / f"{file}.py"
        path.write_bytes(content)
        paths.append(str(path))
        for offset in range(0, max(1, len(content)), PAYLOAD_BYTES):
            packets.append(encode(len(packets) + 1, file, offset, content))
    return Corpus(paths, sum(map(len, contents)), packets)


def delivery_of(corpus: Corpus, *shares: list[int], statuses: tuple[int, ...] = (0, 0)) -> Delivery:
    """A delivery in which each consumer took the packets of these numbers."""
    journals = []
    for share in shares:
        journal = Journal(len(corpus.packets))
        for slot, number in enumerate(share):
            packet = corpus.packets[number - 1]
            journal.slot(slot)[: len(packet)] = packet
        journal.count(len(share))
        journals.append(journal)
    consumers = [Child(f"consumer {n}", 0, -1, status) for n, status in enumerate(statuses)]
    return Delivery(corpus, Child("producer", 0, -1, 0), consumers, journals, shared_numbers(1))


def test_packets_come_back_as_they_were() -> None:
    content = os.urandom(PAYLOAD_BYTES + 10)
    raw = encode(7, 3, PAYLOAD_BYTES, content)
    assert len(encode(7, 3, 0, content)) == PACKET_BYTES
    slot = memoryview(raw.ljust(PACKET_BYTES, b"\xff"))
    assert decode(slot) == (7, 3, PAYLOAD_BYTES, len(content), content[PAYLOAD_BYTES:])


def test_a_complete_delivery_has_no_problems(corpus: Corpus) -> None:
    account = settle(delivery_of(corpus, [1, 4], [2, 3, 5]))
    assert account.problems == []
    assert (account.sent, account.taken, account.in_hand, account.files) == (5, [2, 3], 0, 3)


def test_a_lost_packet_is_found(corpus: Corpus) -> None:
    account = settle(delivery_of(corpus, [1, 4], [2, 3]))
    assert "1 packets are lost, the first is number 5" in account.problems
    assert account.files == 2


def test_a_packet_that_arrives_twice_is_found(corpus: Corpus) -> None:
    account = settle(delivery_of(corpus, [1, 4], [2, 3, 4, 5]))
    assert account.problems == ["packet 4 arrived twice, again at consumer 1"]


def test_a_changed_byte_is_found(corpus: Corpus) -> None:
    delivery = delivery_of(corpus, [1, 4], [2, 3, 5])
    delivery.journals[0].slot(1)[100] ^= 1
    assert settle(delivery).problems == [f"not as on disk: {corpus.paths[2]}"]


def test_a_process_that_fails_is_found(corpus: Corpus) -> None:
    account = settle(delivery_of(corpus, [1, 4], [2, 3, 5], statuses=(0, FAILED)))
    assert account.problems == ["the consumer 1 process ended unexpectedly: exit code 1"]


def test_the_last_packet_of_the_killed_one_may_be_in_its_hand(corpus: Corpus) -> None:
    delivery = delivery_of(corpus, [1, 4], [2, 3, 5], statuses=(KILLED, 0))
    delivery.journals[0].count(1)
    account = settle(delivery, killed=delivery.consumers[0])
    assert account.problems == []
    assert (account.taken, account.in_hand) == ([1, 3], 1)


def test_what_the_killed_one_never_had_is_lost(corpus: Corpus) -> None:
    delivery = delivery_of(corpus, [1], [2, 3, 5], statuses=(KILLED, 0))
    account = settle(delivery, killed=delivery.consumers[0])
    assert "1 packets are lost, the first is number 4" in account.problems


def test_a_delivery_through_the_kernels_pipe_is_complete(corpus: Corpus) -> None:
    account = settle(deliver(KernelPipe(), corpus))
    assert account.problems == []
    assert sum(account.taken) == len(corpus.packets)


def test_the_account_survives_the_death_of_a_consumer(corpus: Corpus) -> None:
    many = Corpus(corpus.paths, corpus.total_bytes, corpus.packets * 2000)

    def strike(delivery: Delivery) -> None:
        if delivery.taken > 100:
            delivery.consumers[0].kill()

    delivery = deliver(KernelPipe(), many, strike)
    victim, survivor = delivery.journals
    assert delivery.consumers[0].fate == "killed by SIGKILL"
    assert victim.finished_at == 0
    assert survivor.finished_at > 0
    assert len(many.packets) - victim.taken - survivor.taken in (0, 1)


def test_the_whole_demonstration_ends_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shmpipe_tools.demo"],
        capture_output=True,
        text=True,
        timeout=45,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "is dead (killed by SIGKILL)" in done.stdout
    assert done.stdout.count("↑ tail") >= 1


def test_ctrl_c_leaves_nothing_behind() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-m", "shmpipe_tools.demo"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # the terminal sends SIGINT to all of them
    )
    name = f"shmpipe.demo-{demo.pid}"
    proc.wait_until(lambda: name in os.listdir("/dev/shm") or demo.poll() is not None, name)
    os.killpg(demo.pid, signal.SIGINT)
    assert demo.communicate(timeout=20)[1] == b""
    assert demo.returncode == 130
    assert not [entry for entry in os.listdir("/dev/shm") if entry.startswith(name)]
