"""Breaks what a death relies on, in a scratch copy: the sweep must report violations each time.

python tests/crash/sweep/mutants.py [word ...]: all of them, or those whose title has one of the
words.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[2] / "cbits"


@dataclass
class Mutant:
    title: str
    file: str
    old: str
    new: str
    only: str  # contexts with this in their description


MUTANTS = [
    Mutant(
        "head is published before the words and bytes",
        "ring.c",
        "    copy_in(page_of(ring, head), from, bytes);\n    uint32_t flags",
        "    store_seq_cst(&h->head, head + slots);\n"
        "    copy_in(page_of(ring, head), from, bytes);\n    uint32_t flags",
        "write 4096, some",
    ),
    Mutant(
        "a merge is published in two halves",
        "ring.c",
        "    if (!cas_seq_cst32(slot, &word, word + n))\n        return false;\n",
        "    store_seq_cst(slot, word + n / 2);\n    word += n / 2;\n    n -= n / 2;\n"
        "    if (!cas_seq_cst32(slot, &word, word + n))\n        return false;\n",
        "write 100, some",
    ),
    Mutant(
        "nothing is foretold",
        "companion.c",
        "bool shmp_companion_foretell_write(struct shmp_header *h, int fd)\n{\n",
        "bool shmp_companion_foretell_write(struct shmp_header *h, int fd)\n{\n"
        "    if (h)\n        return false;\n",
        "write 100, empty, reader polls",
    ),
    Mutant(
        "no lock is taken from the dead",
        "lock.c",
        "if (suspect && owner_is_dead(live, seen)) {",
        "if (suspect && false && owner_is_dead(live, seen)) {",
        "write 100, some",
    ),
    Mutant(
        "the kernel is not asked to wake at a death",
        "record.c",
        "load_relaxed(own_word(record, 0, 0)) | FUTEX_WAITERS_BIT;",
        "load_relaxed(own_word(record, 0, 0));",
        "write 100, empty, reader asleep",
    ),
    Mutant(
        "who takes the companion from the dead believes its level",
        "companion.c",
        "        store_relaxed(&c->level, SHMP_LEVEL_UNKNOWN);",
        "        (void)0;",
        "polls",
    ),
    Mutant(
        "a resize is no call: sleeping writers do not hear of its death",
        "capacity.c",
        "    if (shmp_live_enter_call(&end->pipe->live, &call))\n        shmp_renew();\n"
        "    long r = set_capacity(end, shmp_slots_for(wanted));\n"
        "    shmp_live_leave_call(&call);\n    return r;\n",
        "    (void)call;\n    return set_capacity(end, shmp_slots_for(wanted));\n",
        "grow to 8 slots, full",
    ),
    Mutant(
        "a level that nobody knows is not full",
        "companion.c",
        "    if (level == SHMP_LEVEL_UNKNOWN) {\n",
        "    if (level == SHMP_LEVEL_UNKNOWN)\n        level = SHMP_LEVEL_NOT_FULL;\n"
        "    if (false) {\n",
        "full, reader idle, writer polls",
    ),
    Mutant(
        "nobody counts for the dead",
        "notify.c",
        "    if (load_acquire(&line->begun) == ops + 1) {",
        "    if (false) {",
        "write 100, empty, reader listens, writer idle",
    ),
    Mutant(
        "whoever died in an operation is counted, published or not",
        "notify.c",
        "        if (has_published(pipe, side, load_acquire(&line->before)))",
        "        if (true)",
        "write 100, empty, reader listens, writer idle",
    ),
    Mutant(
        "an operation is noted after its publish, not before",
        "notify.c",
        "    store_release(&line->begun, ops + 1);\n    return true;",
        "    return true;",
        "read 4096, two, reader idle, writer listens",
    ),
    Mutant(
        "a relay trusts that the dead have woken it",
        "relay.c",
        "        if (!shmp_notify_rescue(s->taps->notifier->end, s->side, relay->death))",
        "        if (false)",
        "write 4196, some, reader listens, writer idle",
    ),
    Mutant(
        "for who is armed nothing is foretold",
        "companion.c",
        "bool shmp_companion_foretell_write(struct shmp_header *h, int fd)\n{\n",
        "bool shmp_companion_foretell_write(struct shmp_header *h, int fd)\n{\n"
        "    if ((load_seq_cst(&h->wait.poll_usage) & SHMP_POLL_READERS) == 0)\n"
        "        return false;\n",
        "write 100, empty, reader armed, writer idle",
    ),
    Mutant(
        "what a read leaves of a packet goes in a second step",
        "ring.c",
        "    uint64_t tail = SHMP_TAIL(taken->tail, taken->offset);\n",
        "    uint64_t tail = SHMP_TAIL(taken->tail, taken->offset);\n"
        "    if (taken->packet_end)\n"
        "        store_seq_cst(&h->tail, SHMP_TAIL(taken->old_tail, taken->bytes));\n",
        "read 40 in packets, some",
    ),
    Mutant(
        "a side without a holder in the table has hung up",
        "presence.c",
        "    if (shmp_companion_is_hung_up(end->fd))\n",
        "    if (true)\n",
        "execve writer, empty, reader asleep, writer absent",
    ),
    Mutant(
        "nobody is told that a process has a fresh record",
        "record.c",
        "SHMP_WORD_CALL), INT_MAX);\n",  # by the call itself, and by the renewal
        "SHMP_WORD_CALL) + 1, INT_MAX);\n",
        "grow to 8 slots after its thread's end",
    ),
    Mutant(
        "a fork child's entry does not say which ends it has",
        "attach.c",
        "        publish_counts(p);\n        announce(p);\n",
        "        announce(p);\n",
        "fork child of writer, empty, reader asleep, writer absent",
    ),
    Mutant(
        "a fork child has no entry of its own",
        "live.c",
        "    return shmp_live_claim(live);\n}\n\nvoid shmp_live_relock",
        "    return 0;\n}\n\nvoid shmp_live_relock",
        "fork child of reader, full, reader absent, writer asleep",
    ),
    Mutant(
        "who opens a name that nobody has begins no new life",
        "fifo.c",
        "    r = shmp_incarnate(end);\n",
        "    r = 0;\n",
        "open both, some, reader absent, writer absent",
    ),
    Mutant(
        "a name in the making can be opened before its FIFO is there",
        "fifo.c",
        "    r = make_fifo(path.text, mode, &fifo);\n",
        "    shmp_seg_publish(fd, 0, 0);\n    r = make_fifo(path.text, mode, &fifo);\n",
        "mkfifo",
    ),
    Mutant(
        "unlink takes the FIFO first and the name after it",
        "fifo.c",
        "    r = (int)shmp_sys.shm_unlink(object);\n",
        "    if (r == 0 && whole == (long)sizeof h && h.instance != 0)\n"
        "        shmp_sys.unlink(fifo_path(h.instance, name).text);\n"
        "    r = (int)shmp_sys.shm_unlink(object);\n",
        "unlink, some",
    ),
    Mutant(
        "who takes a lock from one that had it from the dead is not told",
        "lock.c",
        "                fetch_add_relaxed(&live->seg->header->stats.recoveries, 1);\n"
        "                return SHMP_LOCKED_FROM_DEAD;\n",
        "                uint64_t before =\n"
        "                    fetch_add_relaxed(&live->seg->header->stats.recoveries, 1);\n"
        "                return before % 2 ? SHMP_LOCKED : SHMP_LOCKED_FROM_DEAD;\n",
        "write 100 died; write 100, empty, reader polls",
    ),
    Mutant(
        "what `check` alone sees: a freed entry keeps its counts",
        "live.c",
        "            store_relaxed(&h->state, (uint64_t)gen << 32);\n"
        "            store_release(&h->live, 0);",
        "            store_release(&h->live, 0);",
        "write 100, empty, reader asleep, writer absent",
    ),
]


def break_core(core: Path, mutant: Mutant) -> bool:
    path = core / mutant.file
    text = path.read_text()
    if mutant.old not in text:
        return False
    path.write_text(text.replace(mutant.old, mutant.new))
    return True


def sweep(scratch: Path, mutant: Mutant) -> str:
    """The first violation; nothing if there was none."""
    command = ["make", "-s", "-C", str(scratch / "tests/crash/sweep"), "run", "WARNINGS=-w"]
    environment = {**os.environ, "MAKEFLAGS": ""}
    result = subprocess.run(
        [*command, f'ARGS=--most 1 --pollers --points 1 --only "{mutant.only}"'],
        capture_output=True,
        text=True,
        env=environment,
    )
    if "sweep: " not in result.stdout:
        raise SystemExit(f"mutants: {mutant.title}: does not build\n{result.stderr}")
    for line in result.stdout.splitlines():
        if line.startswith("      ") and not line.startswith("       "):
            return line.strip()
    return ""


def main() -> int:
    words = sys.argv[1:]
    survivors = 0
    for mutant in MUTANTS:
        if words and not any(word in mutant.title for word in words):
            continue
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            ignore = shutil.ignore_patterns("build")
            shutil.copytree(CORE, scratch / "cbits", ignore=ignore)
            shutil.copytree(HERE, scratch / "tests/crash/sweep", ignore=ignore)
            shutil.copytree(HERE.parents[2] / "shmpipe", scratch / "shmpipe", ignore=ignore)
            made = break_core(scratch / "cbits", mutant)
            found = sweep(scratch, mutant) if made else ""
        survivors += not found
        verdict = found or ("SURVIVES" if made else f"NOT MADE: {mutant.file} has changed")
        print(f"{mutant.title}: {verdict}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
