"""Breaks the C core in a scratch copy, one rule at a time: a unit test must turn red each time.

python tests/unit_c/mutants.py [word ...]: all of them, or those whose title has one of the words.
python tests/unit_c/mutants.py --list: their titles, and the tests that must notice.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORE = HERE.parent.parent / "cbits"


@dataclass
class Mutant:
    title: str
    file: str
    old: str
    new: str
    tests: str  # which tests to run
    target: str = "run"
    labels: str = ""  # of the tables of docs/explanation: the operations that it breaks


MUTANTS = [
    Mutant(
        "calls in other threads are as good as those of the first",
        "watch.c",
        "(which == SHMP_WORD_CALL && shmp_peer_calls_apart(peer))",
        "false",
        "test_watch",
    ),
    Mutant(
        "who sleeps already does not hear that calls sleep in other threads",
        "live.c",
        "        shmp_broadcast(live->seg->header);",
        "        ;",
        "test_watch",
    ),
    Mutant(
        "every look for signals is fresh",
        "block.c",
        "return shmp_on_tick != NULL && now - looked_ns >= FRESH_NS;",
        "(void)now;\n    return false;",
        "test_block",
    ),
    Mutant(
        "the binding's look is taken for one of now",
        "block.c",
        "        looked_ns = looked;",
        "        looked_ns = shmp_now_ns();",
        "test_block",
    ),
    Mutant(
        "a debt counts what was seen before a side was gained",
        "live.c",
        "    if (is_still(live, gains) && live->debts[side] == 0)",
        "    if (live->debts[side] == 0)",
        "test_gain",
    ),
    Mutant(
        "a wake of before a side was gained pays the debt after it",
        "live.c",
        "    if (is_still(live, gains) &&\n        (!woken",
        "    if (gains % 2 == 0 &&\n        (!woken",
        "test_gain",
    ),
    Mutant(
        "a call is marked by its process without a wake",
        "record.c",
        " there. */\n        shmp_sys.futex_wake((const void *)",
        " there. */\n        (void)((const void *)",
        "test_witness",
    ),
    Mutant(
        "the end waits for the other side's lock",
        "block.c",
        "    if (shmp_side_is_hung_up(end, other))\n        return 0;\n",
        "",
        "test_end",
    ),
    Mutant(
        "an error of its own is taken for another creator's pipe",
        "fifo.c",
        "    if (begun ? r < 0 : !is_over(r))",
        "    if (!is_over(r))",
        "test_fifo",
    ),
    Mutant(
        "who gets no lock removes what another is making",
        "fifo.c",
        "    if (r == 0 && lock.l_type == F_UNLCK)",
        "    if (r == 0)",
        "test_fifo",
    ),
    Mutant(
        "a FIFO stays when its object was unlinked before it",
        "fifo.c",
        "    if (r < 0 || (shmp_sys.fstat(fd, &object) == 0 && object.st_nlink == 0))",
        "    if (r < 0)",
        "test_fifo",
    ),
    Mutant(
        "a pipe is made of an object without a name",
        "fifo.c",
        "    if (object->st_nlink == 0)\n        return -ESTALE;\n",
        "",
        "test_fifo",
    ),
    Mutant(
        "a mkfifo that fails removes what was there before",
        "fifo.c",
        "        r = check_unmade(fd, &object);\n"
        "        if (r == 0)\n            r = shmp_fifo_unlink",
        "        (void)object, r = 0;\n        if (r == 0)\n            r = shmp_fifo_unlink",
        "test_faults",
    ),
    Mutant(
        "the end is taken for one moment without a second look at the tail",
        "block.c",
        "return ready(h, side) || load_seq_cst(&h->tail) != tail ? CAN_GO_ON : IS_ALONE;",
        "return ready(h, side) ? CAN_GO_ON : IS_ALONE;",
        "test_end",
    ),
    Mutant(
        "who gains the other side stays introduced",
        "live.c",
        "    atomic_fetch_and(&live->introduced, ~others);\n",
        "",
        "test_gain",
    ),
    Mutant(
        "who gains the other side stays introduced in the entry",
        "live.c",
        "        atomic_fetch_and(&h->introduced, ~others);\n",
        "        ;\n",
        "test_gain",
    ),
    Mutant(
        "death is proven without a second look at the lock",
        "live.c",
        "byte_lock(live->seg->fd, F_GETLK, F_WRLCK, SHMP_HOLDER_LOCK + index, &found) >= 0 &&",
        "true &&",
        "test_witness",
        labels="death D2a",
    ),
    Mutant(
        "death is proven with a record that may be an old one",
        "live.c",
        "found == F_UNLCK && load_acquire(&h->record_seq) == peer->record_seq;",
        "found == F_UNLCK;",
        "test_witness",
    ),
    Mutant(
        "a record is looked for with a descriptor of one's own",
        "record.c",
        "    long r = shmp_sys.stat(path, &st);\n",
        "    long r = shmp_sys.open(path, O_PATH | O_CLOEXEC);\n"
        "    if (r >= 0) {\n"
        "        long fd = r;\n"
        "        r = shmp_sys.fstat((int)fd, &st);\n"
        "        shmp_sys.close((int)fd);\n"
        "    }\n",
        "test_witness",
    ),
    Mutant(
        "a call is watched by a word that nobody will mark",
        "record.c",
        "        store_seq_cst(own_word(self, place, SHMP_WORD_CALL), FUTEX_OWNER_DIED_BIT);\n"
        "        /* It may",
        "        /* It may",
        "test_witness",
    ),
    Mutant(
        "only a kernel that does not know it refuses futex_waitv",
        "watch.h",
        "return r < 0 && r != -EAGAIN && r != -EINTR && r != -ETIMEDOUT;",
        "return r == -ENOSYS;",
        "test_watch",
    ),
    Mutant(
        "who has slept until the end takes the ring's lock once more",
        "block.c",
        "return side == SHMP_SIDE_WRITERS || !shmp_companion_is_watched(h) ? SHMP_THE_END : 0;",
        "return 0;",
        "test_end",
    ),
    Mutant(
        "who finds the end tells nobody",
        "block.c",
        "    shmp_queue_wake_all(shmp_side_queue(h, side));\n    return side ==",
        "    return side ==",
        "test_end",
    ),
    Mutant(
        "each of a crowd looks as often as one alone",
        "watch.c",
        "pace->slice_ns = SHMP_FIRST_SLICE_NS * crowd(pace);",
        "pace->slice_ns = SHMP_FIRST_SLICE_NS * (crowd(pace) != 0);",
        "test_watch",
    ),
    Mutant(
        "nobody counts the crowd",
        "block.c",
        "        pace.crowd = shmp_queue_waiters(queue);\n",
        "",
        "test_end",
    ),
    Mutant(
        "the others are met before the end is looked for",
        "block.c",
        "    shmp_watch_others(watch, &pipe->live, side);\n",
        "    shmp_watch_others(watch, &pipe->live, side);\n"
        "    if (watch->complete)\n        shmp_watch_own(watch, &pipe->live);\n",
        "test_end",
    ),
    Mutant(
        "who could go on, but was too late, takes that for the end",
        "block.c",
        "    return ready(h, side) ? CAN_GO_ON : MUST_SLEEP;",
        "    for (volatile int i = 0; i < 20000; i++)\n        ;\n"
        "    if (!ready(h, side))\n        return MUST_SLEEP;\n"
        "    for (volatile int i = 0; i < 20000; i++)\n        ;\n"
        "    return ready(h, side) ? CAN_GO_ON : IS_ALONE;",
        "test_end",
    ),
    Mutant(
        "the others are met by who looks again in a moment",
        "block.c",
        "    if (watch->complete)\n        shmp_watch_own",
        "    shmp_watch_own",
        "test_end",
    ),
    Mutant(
        "who may sleep long does not watch the calls of his side",
        "block.c",
        "    if (watch->complete)\n        shmp_watch_own(watch, &pipe->live);\n",
        "",
        "test_company test_live",
    ),
    Mutant(
        "the end of file is told without a look at a watched pipe's ring",
        "block.c",
        "return side == SHMP_SIDE_WRITERS || !shmp_companion_is_watched(h) ? SHMP_THE_END : 0;",
        "return SHMP_THE_END;",
        "test_end",
    ),
    Mutant(
        "a merge publishes with a store, and overwrites the reader's seal",
        "ring.c",
        "    if (!cas_seq_cst32(slot, &word, word + n))\n        return false;\n",
        "    store_seq_cst(slot, word + n);\n",
        "test_ring",
        labels="publish-and-merge P2, T3",
    ),
    Mutant(
        "the reader does not seal the slot that it leaves",
        "ring.c",
        "!cas_seq_cst32(word_of(ring, p->tail), &expected, p->word | SHMP_WORD_SEALED)",
        "load_relaxed(word_of(ring, p->tail)) != expected",
        "test_ring",
        labels="T3",
    ),
    Mutant(
        "the reader passes a slot that has grown since its look",
        "ring.c",
        "/* look at it again, with all checks */\n            return false;\n",
        "\n",
        "test_ring",
        labels="T2",
    ),
    Mutant(
        "a new slot's head is published before its word",
        "ring.c",
        "    copy_in(page_of(ring, head), from, bytes);\n    uint32_t flags",
        "    store_seq_cst(&h->head, put->head);\n"
        "    copy_in(page_of(ring, head), from, bytes);\n    uint32_t flags",
        "seal_against_merge",
        labels="publish-and-merge P1",
    ),
    Mutant(
        "a merge may go one byte beyond the slot",
        "ring.c",
        "        end + n > SHMP_SLOT_SIZE)",
        "        end + n > SHMP_SLOT_SIZE + 1)",
        "test_ring",
    ),
    Mutant(
        "an end beyond the slot is believed",
        "ring.c",
        "        if (shmp_word_end(p->word) > SHMP_SLOT_SIZE || p->offset > SHMP_SLOT_SIZE)\n",
        "        if (false)\n",
        "test_ring",
    ),
    Mutant(
        "fullness by comparing indices, not their difference",
        "ring.h",
        "    return shmp_occupancy(head, tail) >= max_usage;",
        "    return head >= tail + max_usage;",
        "test_ring",
    ),
    Mutant(
        "available() trusts a remembered word",
        "ring.c",
        "    if (p.word != 0 && shmp_word_end(p.word) >= shmp_word_start(p.word) + p.offset + n)",
        "    if (p.word != 0)",
        "test_ring",
    ),
    Mutant(
        "unseal looks at the slot of tail only",
        "ring.c",
        "    _Atomic uint32_t *slot = word_of(ring, head - 1);",
        "    _Atomic uint32_t *slot = word_of(ring, SHMP_TAIL_INDEX(load_relaxed(&h->tail)));",
        "test_ring",
    ),
    Mutant(
        "a packet's rest stays for the next read",
        "ring.c",
        "        if (taken->packet_end || part == avail)",
        "        if (part == avail)",
        "test_ring",
    ),
    Mutant(
        "head is loaded without acquire",
        "ring.c",
        "        p->head = load_acquire(&h->head);",
        "        p->head = load_relaxed(&h->head);",
        "seal_against_merge",
        "tsan",
        labels="T1",
    ),
    Mutant(
        "the geometry is read once",
        "seg.c",
        "        if (load_relaxed(&h->wait.geometry_gen) != gen)\n            continue;\n",
        "",
        "test_seg",
        labels="E2",
    ),
    Mutant(
        "the ring may be larger than its file",
        "seg.c",
        "        if (shape->area_offset + shmp_area_bytes(shape->ring_size) > file_bytes)",
        "        if (false)",
        "test_seg test_fifo",
    ),
    Mutant(
        "format does not clear what a dead creator left",
        "seg.c",
        "        memset(base, 0, SHMP_FIXED_BYTES);",
        "        memset(base, 0, 8);",
        "test_seg",
    ),
    Mutant(
        "a free record lock alone proves death",
        "live.c",
        "    dead = dead && !shmp_record_is_open(load_relaxed(&h->pid), &peer->id);",
        "    dead = true;",
        "test_live",
        labels="D2",
    ),
    Mutant(
        "a marked life word alone proves death",
        "live.c",
        "        *found = lock.l_type;",
        "        (void)lock.l_type;",
        "test_live",
        labels="D2",
    ),
    Mutant(
        "all pipes of a process have the same words",
        "record.c",
        "            place = last_taken;",
        "            place = 1;",
        "sleepers_of_another_pipe",
        labels="D1",
    ),
    Mutant(
        "relays sleep on the words of sleepers",
        "relay.c",
        "shmp_peer_word(peer, SHMP_WORD_RELAY)",
        "shmp_peer_word(peer, SHMP_WORD_LIFE)",
        "test_company",
    ),
    Mutant(
        "who waits for a lock sleeps on the words of sleepers",
        "watch.c",
        "add_holder(watch, live, index, SHMP_WORD_LOCK)",
        "add_holder(watch, live, index, SHMP_WORD_LIFE)",
        "test_company",
    ),
    Mutant(
        "nobody looks beside common words",
        "watch.c",
        ": watch->common ? SHMP_COMMON_SLICE_NS",
        ": false ? SHMP_COMMON_SLICE_NS",
        "test_company",
    ),
    Mutant(
        "who sleeps at a place that was given back stays there",
        "record.c",
        "        wake_words(self, place);\n",
        "",
        "test_company",
    ),
    Mutant(
        "a word of a record is written over the kernel's mark",
        "record.c",
        "        unsigned at = (RECORD_WORDS + BACK_WORD - i) % RECORD_WORDS;",
        "        unsigned at = i;",
        "test_live",
    ),
    Mutant(
        "a record goes under the kernel's walk",
        "record.c",
        "    retired = is_done(record) ? NULL : record;",
        "    retired = NULL;",
        "test_live",
    ),
    Mutant(
        "a new attachment renews the record for itself alone",
        "attach.c",
        "load_relaxed(&pipe->next->live.record_seq) != load_relaxed(&pipe->live.record_seq)",
        "false",
        "test_live",
    ),
    Mutant(
        "a fork child's sleep goes on with references that it has not",
        "live.c",
        "live->peers[i] && shmp_peer_lists != 0",
        "false",
        "test_live",
        labels="attach-and-fork F1",
    ),
    Mutant(
        "a relay sleeps on at the place of a pipe that was closed",
        "record.c",
        "        shmp_sys.futex_wake((const void *)own_word(self, place, SHMP_WORD_RELAY), "
        "INT_MAX);\n",
        "",
        "the_relay_watches",
    ),
    Mutant(
        "a fork child's call goes on unwatched",
        "live.c",
        "            shmp_record_enter_call(call->place, &first_apart);\n        }\n}",
        "            (void)first_apart;\n        }\n}",
        "test_live",
    ),
    Mutant(
        "a fork child's sleep is restarted unregistered",
        "attach.c",
        "        sleep_anew(p);\n",
        "",
        "test_live",
    ),
    Mutant(
        "a fork child's sleep goes on with its parent's words",
        "attach.c",
        "            shmp_queue_step_epoch(call->queue);\n",
        "",
        "test_live",
    ),
    Mutant(
        "a record stays writable for others",
        "record.c",
        "F_SEAL_FUTURE_WRITE |\n",
        "0 |\n",
        "test_live",
    ),
    Mutant(
        "a lock is taken from a suspect without proof",
        "lock.c",
        "        if (suspect && owner_is_dead(live, seen)) {",
        "        if (suspect) {",
        "test_lock",
        labels="D2",
    ),
    Mutant(
        "who takes a lock from the dead is not told",
        "lock.c",
        "return SHMP_LOCKED_FROM_DEAD;",
        "return SHMP_LOCKED;",
        "test_lock",
        labels="D4",
    ),
    Mutant(
        "unlocking wakes nobody",
        "lock.h",
        "        shmp_sys.futex_wake((const void *)word, 1);",
        "        (void)0;",
        "test_lock",
        labels="U",
    ),
    Mutant(
        "a sleeper leaves an epoch that is over",
        "wait.c",
        "    while (SHMP_QUEUE_EPOCH(seen) == epoch && SHMP_QUEUE_WAITERS(seen) != 0)",
        "    (void)epoch;\n    while (SHMP_QUEUE_WAITERS(seen) != 0)",
        "test_wait",
        labels="R6",
    ),
    Mutant(
        "a count that is too high is never put right",
        "wait.c",
        "    cas_seq_cst64(&queue->word, &word, with(0, SHMP_QUEUE_EPOCH(word)));",
        "    (void)word;",
        "test_wait",
        labels="W4",
    ),
    Mutant(
        "the count is put right whoever came meanwhile",
        "wait.c",
        "    cas_seq_cst64(&queue->word, &word, with(0, SHMP_QUEUE_EPOCH(word)));",
        "    store_seq_cst(&queue->word, with(0, SHMP_QUEUE_EPOCH(word)));",
        "test_wait",
        labels="A",
    ),
    Mutant(
        "a wake does not change the epoch",
        "wait.c",
        "        next = with(SHMP_QUEUE_WAITERS(seen), SHMP_QUEUE_EPOCH(seen) + 1);",
        "        next = with(SHMP_QUEUE_WAITERS(seen), SHMP_QUEUE_EPOCH(seen));",
        "test_wait",
        labels="W3",
    ),
    Mutant(
        "a registration is taken off before the wake",
        "wait.c",
        "    fetch_add_relaxed(wakes, 1);\n    if (shmp_sys",
        "    shmp_queue_leave(queue, SHMP_QUEUE_EPOCH(word));\n    fetch_add_relaxed(wakes, 1);\n"
        "    if (shmp_sys",
        "test_wait",
        labels="W5",
    ),
    Mutant(
        "nobody takes off the registration of who was woken",
        "wait.c",
        "    shmp_queue_leave(queue, SHMP_QUEUE_EPOCH(word));\n    return true;",
        "    return true;",
        "test_wait",
        labels="W5",
    ),
    Mutant(
        "a woken writer does not hand on",
        "transfer.c",
        "    if (op->slept)\n        shmp_hand_on(end, side);",
        "    if (false)\n        shmp_hand_on(end, side);",
        "growth_frees_writers",
    ),
    Mutant(
        "the later steps of a long write are not foretold",
        "turn.c",
        "    if (!turn->held) {\n",
        "    if (!turn->held)\n        return false;\n    if (!turn->held) {\n",
        "test_turn",
        labels="F",
    ),
    Mutant(
        "slots are taken away that the kernel does not give back",
        "companion.c",
        "    return load_relaxed(&c->most_edges) != MOST_EDGES;\n",
        "    return load_relaxed(&c->most_edges) == 0;\n",
        "test_levels",
    ),
    Mutant(
        "an empty ring's companion has room for one more byte",
        "companion.c",
        "    if (level && enough)\n        enough = shmp_sys.ioctl(",
        "    if (level && enough)\n        enough = is_limited(c) && shmp_sys.ioctl(",
        "before_he_drains",
    ),
    Mutant(
        "what is counted is there",
        "companion.c",
        "    if (level && enough)\n",
        "    if (level && queued != 0)\n",
        "test_levels",
    ),
    Mutant(
        "slots that the kernel refuses are taken for given back",
        "companion.c",
        "    if (level == SHMP_LEVEL_SHRUNK && !give_slots_back(c, fd))\n        return;",
        "    if (level == SHMP_LEVEL_SHRUNK && !give_slots_back(c, fd))\n        level = 0;",
        "the_limit_comes_between",
    ),
    Mutant(
        "a look does not notice that its flag was taken back",
        "companion.c",
        "    if ((load_seq_cst(&h->wait.poll_usage) & sides) != sides) {\n",
        "    if ((load_seq_cst(&h->wait.poll_usage) & sides) == UINT32_MAX) {\n",
        "test_turn",
    ),
    Mutant(
        "a turn that began before the first look waits for the looker",
        "turn.c",
        "        if (turn->watched)\n            shmp_companion_lock_now",
        "        if (true)\n            shmp_companion_lock_now",
        "waits_for_nobody",
    ),
    Mutant(
        "a resize waits for the companion in the ring's locks",
        "capacity.c",
        "        if (!*watched || shmp_companion_lock(live, SHMP_LOCK_TRY))\n",
        "        if (!*watched || shmp_companion_lock(live, SHMP_LOCK_SIGNALS))\n",
        "a_resize_waits_for_a_stopped_poller",
    ),
    Mutant(
        "a write that has begun waits for its turn as any other",
        "transfer.c",
        "    return any_handler_ends(op) ? shmp_wait_for_turn",
        "    return op->done == SIZE_MAX ? shmp_wait_for_turn",
        "beside_a_stopped_writer",
    ),
    Mutant(
        "a poll does not hold what it looks at",
        "attach.c",
        "    held_here()[held_used++] = (struct held){.end = end, .count = 1};\n"
        "    fetch_add_relaxed(&end->refs, 1);\n    return true;",
        "    return true;",
        "close_waits_for_the_look_inside",
    ),
    Mutant(
        "a fork child knows eight holds",
        "attach.c",
        "    for (unsigned i = 0; i < held_used; i++)\n        times +=",
        "    for (unsigned i = 0; i < held_used && i < 8; i++)\n        times +=",
        "a_fork_child_keeps",
        labels="attach-and-fork F3",
    ),
    Mutant(
        "a notifier is in the table when it is armed",
        "relay.c",
        "    by_fd[fd] = n;\n    notifier_count++;\n    enlist(end);\n    *out = n;\n",
        "    by_fd[fd] = NULL;\n    notifier_count++;\n    enlist(end);\n    *out = n;\n",
        "being_made",
    ),
    Mutant(
        "what a dead writer told pollers is not made",
        "turn.c",
        "shmp_ring_redo_put(ring, watched && shmp_companion_told_of_data(h, end->fd));",
        "shmp_ring_redo_put(ring, false);",
        "test_levels",
        labels="companion-sync V",
    ),
    Mutant(
        "what a dead reader told pollers is not made",
        "turn.c",
        "watched && shmp_companion_told_of_room(h, end->fd, end->mode));",
        "false);",
        "test_levels",
        labels="companion-sync V",
    ),
    Mutant(
        "a put is noted when it has been told",
        "transfer.c",
        "        shmp_ring_note_put(ring, &put);\n        if (tells)\n"
        "            shmp_turn_foretell(end, SHMP_SIDE_WRITERS, turn);\n",
        "        if (tells)\n            shmp_turn_foretell(end, SHMP_SIDE_WRITERS, turn);\n"
        "        shmp_ring_note_put(ring, &put);\n",
        "test_levels",
        labels="companion-sync V",
    ),
    Mutant(
        "a put is noted outside the companion's lock",
        "transfer.c",
        "        bool tells = hold(end, SHMP_SIDE_WRITERS, turn);\n"
        "        shmp_ring_note_put(ring, &put);\n",
        "        shmp_ring_note_put(ring, &put);\n"
        "        bool tells = hold(end, SHMP_SIDE_WRITERS, turn);\n",
        "test_turn",
        labels="companion-sync V",
    ),
    Mutant(
        "a take is noted outside the companion's lock",
        "transfer.c",
        "            bool tells = hold(end, SHMP_SIDE_READERS, turn);\n"
        "            shmp_ring_note_take(ring, &taken);\n",
        "            shmp_ring_note_take(ring, &taken);\n"
        "            bool tells = hold(end, SHMP_SIDE_READERS, turn);\n",
        "test_turn",
        labels="companion-sync V",
    ),
    Mutant(
        "what a dead writer noted is made although nobody was told of it",
        "turn.c",
        "shmp_ring_redo_put(ring, watched && shmp_companion_told_of_data(h, end->fd));",
        "shmp_ring_redo_put(ring, true);",
        "test_levels disturbs_nobody",
        labels="companion-sync V",
    ),
    Mutant(
        "a reader that finds nothing does not ask for a dead writer's note",
        "transfer.c",
        "        if (op->done == 0 && is_nothing(r) && turn.noted) {\n",
        "        if (false) {\n",
        "what_the_dead_have_told",
    ),
    Mutant(
        "nor does a read in two halves",
        "transfer.c",
        "is_nothing(r) && turn->noted\n",
        "false\n",
        "what_the_dead_have_told",
    ),
    Mutant(
        "a writer that finds no room does not ask for a dead reader's note",
        "transfer.c",
        "is_full && turn.noted ?",
        "false ?",
        "test_levels",
    ),
    Mutant(
        "a reader that finds nothing takes back what a dead writer told",
        "companion.c",
        "                 !shmp_ring_put_is_noted(h);",
        "                 true;",
        "test_levels",
        labels="companion-sync V",
    ),
    Mutant(
        "nobody asks what a dead one made of the companion's size",
        "companion.c",
        "    if (level == SHMP_LEVEL_UNKNOWN) {\n",
        "    if (false) {\n",
        "test_levels",
    ),
    Mutant(
        "a first look does not wait for writes that began before it",
        "turn.c",
        "        r = shmp_pass_through(end, SHMP_SIDE_WRITERS, true);\n        if (r == 0)\n",
        "        r = 0;\n        if (r == 0)\n",
        "test_turn",
        labels="L2",
    ),
    Mutant(
        "a first look does not wait for reads that began before it",
        "turn.c",
        "        if (r == 0)\n            r = shmp_pass_through(end, SHMP_SIDE_READERS, true);\n",
        "",
        "test_turn",
        labels="L2",
    ),
    Mutant(
        "the waiting byte goes before the look is over",
        "companion.c",
        "    bool empty = shmp_empty(head, tail) && (steps & SHMP_WATCH_READERS) != 0 &&",
        "    bool empty = shmp_empty(head, tail) && (usage & SHMP_WATCH_READERS) != 0 &&",
        "test_turn",
        labels="L3",
    ),
    Mutant(
        "a look brings its side in step before it sets the level",
        "companion.c",
        "    uint32_t steps = load_relaxed(&c->in_step) | sides;\n",
        "    store_release(&c->in_step, load_relaxed(&c->in_step) | sides);\n"
        "    uint32_t steps = load_relaxed(&c->in_step);\n",
        "a_look_",
        labels="L4, L0",
    ),
    Mutant(
        "a look does not bring its side in step",
        "companion.c",
        "    store_release(&c->in_step, load_relaxed(&c->in_step) | sides);\n",
        "",
        "test_turn",
        labels="L4",
    ),
    Mutant(
        "who opens a new life tells its pollers of the last one",
        "turn.c",
        "shmp_companion_is_watched(h) && !(end->opening && shmp_is_new_life(end) == 1);",
        "shmp_companion_is_watched(h);",
        "when_it_was_full_leaves_nothing",
    ),
    Mutant(
        "a resize wakes nobody",
        "capacity.c",
        "        shmp_side_wake_one(h, SHMP_SIDE_WRITERS);",
        "        (void)0;",
        "growth_frees_writers",
        labels="resize G6",
    ),
    Mutant(
        "shrinking ignores the slots in use",
        "capacity.c",
        "    if (used > slots)\n        return -EBUSY;",
        "    if (false)\n        return -EBUSY;",
        "test_pipe",
        labels="resize G2",
    ),
    Mutant(
        "the companion's own writes raise SIGPIPE",
        "sys.c",
        "    long r = result(pwritev2(fd, &iov, 1, -1, RWF_NOSIGNAL));",
        "    long r = result(pwritev2(fd, &iov, 1, -1, 0));",
        "test_companion",
    ),
    Mutant(
        "an import loses the record locks",
        "attach.c",
        "            shmp_sys.close(fd);\n            relock(pipe);\n",
        "            shmp_sys.close(fd);\n",
        "test_live",
    ),
    Mutant(
        "unlink takes whatever has the name",
        "fifo.c",
        "    if (r == 0 && (named.st_ino != ours.st_ino || named.st_dev != ours.st_dev))",
        "    if (false)",
        "test_fifo",
    ),
    Mutant(
        "an end is never freed",
        "attach.c",
        "    pthread_mutex_unlock(&registry_mutex);\n    free(end);\n",
        "    pthread_mutex_unlock(&registry_mutex);\n",
        "an_open_pipe_survives_its_name",
        "asan",
    ),
    Mutant(
        "a failed open leaves the companion open",
        "fifo.c",
        "    if (own < 0) {\n        shmp_sys.close(companion);",
        "    if (own < 0) {",
        "faults_in_open",
    ),
    Mutant(
        "nobody counts for a dead one",
        "notify.c",
        "if (load_acquire(&line->begun) == ops + 1) {",
        "if (false) {",
        "at_any_instruction",
        labels="N2",
    ),
    Mutant(
        "an operation is counted before its publish",
        "notify.c",
        "    store_release(&line->begun, ops + 1);\n",
        "    store_release(&line->begun, ops + 1);\n    store_seq_cst(&line->ops, ops + 1);\n",
        "test_notify",
        labels="N3",
    ),
    Mutant(
        "what nobody published is counted for a dead one",
        "notify.c",
        "if (has_published(pipe, side, load_acquire(&line->before)))",
        "if (true)",
        "at_any_instruction",
    ),
    Mutant(
        "a merge leaves no trace for the count of a dead one",
        "notify.c",
        "rest != newest_end(pipe, head)",
        "false",
        "at_any_instruction",
        labels="N1",
    ),
    Mutant(
        "a slot that was filled and never published is counted for a dead one",
        "transfer.c",
        "if (counting && may_merge && op->left > 0)",
        "if (false)",
        "test_notify",
        labels="N1b",
    ),
    Mutant(
        "the relay does not take over from the dead",
        "relay.c",
        "if (!shmp_notify_rescue(s->taps->notifier->end, s->side, relay->death))",
        "",
        "at_any_instruction",
    ),
    Mutant(
        "the relay watches nobody's life",
        "relay.c",
        "        watch_holders(relay, s);\n",
        "        (void)watch_holders;\n",
        "at_any_instruction",
        labels="K3",
    ),
    Mutant(
        "a relay relies on a newcomer that nobody watches",
        "notify.c",
        "           shmp_holder_is_introduced(&pipe->live, owner - 1, SHMP_RELAYS(side));",
        "           true;",
        "rely_on_a_newcomer",
    ),
    Mutant(
        "one that a relay cannot watch does not hear of it",
        "relay.c",
        "            shmp_holder_dismiss(live, i, SHMP_RELAYS(source->side));\n",
        "            ;\n",
        "nobody_can_watch",
        labels="K1a",
    ),
    Mutant(
        "one that was dismissed does not say that it counts",
        "notify.c",
        "    if (!shmp_live_introduce(&pipe->live, SHMP_RELAYS(shmp_other_side(side))))\n",
        "    if (!shmp_live_introduce(&pipe->live, SHMP_RELAYS(shmp_other_side(side))) &&\n"
        "        load_relaxed(&shmp_notify_line(pipe, shmp_other_side(side))->begun) == 0)\n",
        "nobody_can_watch",
        labels="N0a",
    ),
    Mutant(
        "a storm at one pipe hides a death at another",
        "relay.c",
        "relay->pauses++ < STORM_PAUSES",
        "relay->pauses < STORM_PAUSES",
        "hide_a_death",
    ),
    Mutant(
        "a relay that is over has vanished",
        "relay.c",
        "        await_forgotten(relay);\n",
        "",
        "vanishes_late",
    ),
    Mutant(
        "who waits for a relay to vanish only yields",
        "relay.c",
        "shmp_now_ns() < give_up; look++",
        "shmp_now_ns() < give_up && look < FORGOTTEN_YIELDS; look++",
        "vanishes_late",
    ),
    Mutant(
        "the relay passes on one death of two",
        "relay.c",
        "shmp_pass_on(relay->words + first_life, relay->watched_count)",
        "shmp_pass_on(relay->words + r, 1)",
        "the_relay_passes",
    ),
    Mutant(
        "a notifier is armed outside the ring lock",
        "notify.c",
        "    int r = shmp_side_lock(end, shmp_other_side(side), true);\n    if (r < 0)\n"
        "        return r;\n    fetch_or",
        "    int r = 0;\n    if (r < 0)\n        return r;\n    fetch_or",
        "arming_in_the_middle",
        labels="N0",
    ),
    Mutant(
        "a waker does not change the word before it wakes",
        "notify.c",
        "cas_seq_cst32(word, &seen, seen + 2)",
        "cas_seq_cst32(word, &seen, seen)",
        "test_notify",
        labels="N5",
    ),
    Mutant(
        "pollers and notifiers are taken for the same",
        "companion.h",
        "(load_seq_cst(&header->wait.poll_usage) & SHMP_POLL_ANY) != 0",
        "load_seq_cst(&header->wait.poll_usage) != 0",
        "test_notify",
    ),
    Mutant(
        "a killed listener stays armed",
        "notify.c",
        "wanted = !shmp_holder_reap(&pipe->live, i) || wanted;",
        "wanted = true;",
        "test_notify",
    ),
    Mutant(
        "arming does not wait for a turn that cannot have seen it",
        "arm.c",
        "shmp_pass_through(end, reads ? SHMP_SIDE_WRITERS : SHMP_SIDE_READERS, may_sleep)",
        "0",
        "test_arm",
        labels="companion-sync A2",
    ),
    Mutant(
        "a write that has begun waits for a lock with its signals blocked",
        "block.c",
        "shmp_end_arm(end, side, false)",
        "shmp_end_arm(end, side, true)",
        "beside_a_stopped",
    ),
    Mutant(
        "a relay waits for a stopped owner of the companion's lock",
        "turn.c",
        "if (watched && !shmp_companion_lock(&pipe->live, patience))",
        "if (watched && !shmp_companion_lock(&pipe->live, SHMP_LOCK_WAIT))",
        "hold_up",
    ),
    Mutant(
        "whose handler raises keeps the wake",
        "block.c",
        "                if (woken == SHMP_WOKEN) /* as above",
        "                if (false) /* as above",
        "passes_the_wake",
    ),
    Mutant(
        "who is armed is told for ever",
        "companion.c",
        "    if ((load_relaxed(&h->wait.poll_usage) & armed) == 0)\n        return;",
        "    return;",
        "test_arm",
    ),
    Mutant(
        "arming does not bring the companion in step",
        "companion.c",
        "        store_release(&c->in_step, load_relaxed(&c->in_step) | armed);\n",
        "",
        "test_arm",
        labels="companion-sync A3",
    ),
    Mutant(
        "arming brings the companion in step behind its sync",
        "companion.c",
        "        store_release(&c->in_step, load_relaxed(&c->in_step) | armed);\n"
        "        sync_locked(h, fd, mode, SHMP_SYNC_LEVEL, load_relaxed(&c->in_step));\n",
        "        sync_locked(h, fd, mode, SHMP_SYNC_LEVEL, load_relaxed(&c->in_step) | armed);\n"
        "        store_release(&c->in_step, load_relaxed(&c->in_step) | armed);\n",
        "test_arm",
        labels="companion-sync A3",
    ),
    Mutant(
        "arming does not look at the ring",
        "companion.c",
        "                 ((armed & SHMP_ARMED_READERS) != 0 ? shmp_ring_looks_empty(h)",
        "                 ((armed & SHMP_ARMED_READERS) != 0 ? true",
        "test_arm",
        labels="companion-sync A3",
    ),
    Mutant(
        "the writer trusts a tail that it loaded without acquire",
        "ring.c",
        "        tail = SHMP_TAIL_INDEX(load_acquire(&h->tail));\n        *corrupt",
        "        tail = SHMP_TAIL_INDEX(load_relaxed(&h->tail));\n        *corrupt",
        "seal_against_merge",
        "tsan",
        labels="P0",
    ),
    Mutant(
        "a slot's word is loaded without acquire",
        "ring.c",
        "        p->word = load_acquire(word_of(ring, p->tail));",
        "        p->word = load_relaxed(word_of(ring, p->tail));",
        "seal_against_merge",
        "tsan",
        labels="T2",
    ),
    Mutant(
        "a merge looks at a slot that is not the newest",
        "ring.c",
        "    uint32_t newest = load_relaxed(&ring->header->head) - 1;",
        "    uint32_t newest = load_relaxed(&ring->header->head) - 2;",
        "test_ring",
        labels="M",
    ),
    Mutant(
        "a token joins whatever its entry is used for by now",
        "description.c",
        "    if ((uint32_t)(entry >> 32) != gen || "
        "((uint32_t)entry & SHMP_DESCRIPTION_USED) == 0) {",
        "    (void)gen;\n    if (false) {",
        "test_description",
        labels="B1",
    ),
    Mutant(
        "the last to close leaves the description in use",
        "description.c",
        "            store_release(&pipe->seg.descriptions[index], seen >> 32 << 32);",
        "            (void)0;",
        "test_description",
        labels="B2",
    ),
    Mutant(
        "a description that is used again keeps its generation",
        "description.c",
        "    uint64_t fresh = ((seen >> 32) + 1) << 32",
        "    uint64_t fresh = (seen >> 32) << 32",
        "test_description",
        labels="B3",
    ),
    Mutant(
        "close() frees the end under the call inside",
        "attach.c",
        "        return -EBADF;\n"
        "    if (atomic_fetch_sub_explicit(&end->refs, 1, memory_order_acq_rel) == 1)",
        "        return -EBADF;\n    if (true)",
        "close_waits",
        labels="Q2",
    ),
    Mutant(
        "close() asks whether it is open, and then says that it is not",
        "attach.c",
        "    if (!atomic_exchange_explicit(&end->open, false, memory_order_acq_rel))\n"
        "        return -EBADF;\n",
        "    if (!load_relaxed(&end->open))\n        return -EBADF;\n"
        "    shmp_sys.ppoll(NULL, 0, &(struct timespec){.tv_nsec = 50000000}, NULL);\n"
        "    store_relaxed(&end->open, false);\n",
        "of_many_that_close",
        labels="attach-and-fork Q1",
    ),
    Mutant(
        "a claim does not raise the limit",
        "live.c",
        "        raise_limit(live->seg->header, i + 1);",
        "        (void)raise_limit;",
        "test_live",
        labels="C1",
    ),
    Mutant(
        "who sleeps on a call word of the old record is not told of a fresh one",
        "record.c",
        "SHMP_WORD_CALL), INT_MAX);\n    }\n    unmap_when_done(record);",
        "SHMP_WORD_CALL) + 1, INT_MAX);\n    }\n    unmap_when_done(record);",
        "test_live",
    ),
    Mutant(
        "a fresh record is not announced",
        "live.c",
        "    store_release(&h->record_seq, load_relaxed(&h->record_seq) + 1);",
        "    store_release(&h->record_seq, load_relaxed(&h->record_seq));",
        "test_live",
        labels="C2",
    ),
    Mutant(
        "a peer's record is mapped once and for ever",
        "live.c",
        "peer->gen != gen || peer->record_seq != seq",
        "peer->gen != gen",
        "test_live",
        labels="D3",
    ),
    Mutant(
        "the reaper does not free the entry",
        "live.c",
        "            store_release(&h->live, 0);\n            fetch_add",
        "            fetch_add",
        "test_live",
        labels="D5",
    ),
    Mutant(
        "a claim that fails keeps its lock",
        "live.c",
        "        if (r < 0)\n            drop_index(live, i);\n    }\n",
        "    }\n",
        "test_faults",
    ),
    Mutant(
        "an attach that fails keeps its place in the record",
        "live.c",
        "    if (r < 0) {\n        shmp_record_give_place(live->place);",
        "    if (r < 0) {",
        "test_faults",
    ),
    Mutant(
        "what mkfifo could not finish is removed at the first try or never",
        "fifo.c",
        "tries < 10 && !is_over(r)",
        "tries < 1 && !is_over(r)",
        "test_faults",
    ),
    Mutant(
        "what could not be made full is taken for full",
        "companion.c",
        "        if (r == -EBUSY) /* more slots are in use */\n            continue;\n"
        "        if (r < 0) /* not full: the next sync tries again */\n            return;\n",
        "        if (r < 0)\n            continue;\n",
        "test_faults",
    ),
    Mutant(
        "a name with a slash leads to a FIFO",
        "seg.c",
        "if (strchr(copy->name, '/'))",
        "if (false)",
        "test_seg",
    ),
    Mutant(
        "a noted put is made beside impossible indices",
        "ring.c",
        "make_it && used <= ring->max_usage && slots",
        "make_it && slots",
        "test_ring",
    ),
    Mutant(
        "a noted put is made without room",
        "ring.c",
        "used <= ring->max_usage && slots <= ring->max_usage - used",
        "used <= ring->max_usage",
        "test_ring",
    ),
    Mutant(
        "a noted take is made beside impossible indices",
        "ring.c",
        "slots <= used && used <= ring->ring_size &&",
        "slots <= used &&",
        "test_ring",
    ),
    Mutant(
        "more is taken, as noted, than there is",
        "ring.c",
        "slots <= used && used <= ring->ring_size &&",
        "used <= ring->ring_size &&",
        "test_ring",
    ),
    Mutant(
        "bytes are taken, as noted, of a slot that is not there",
        "ring.c",
        "(slots < used || SHMP_REDO_OFFSET(redo) == 0)",
        "true",
        "test_ring",
    ),
    Mutant(
        "a resize does not lock the writers out",
        "capacity.c",
        "    int r = shmp_side_lock(end, SHMP_SIDE_WRITERS, true);\n    if (r < 0)\n"
        "        return r;\n    r = shmp",
        "    int r = 0;\n    if (r < 0)\n        return r;\n    r = shmp",
        "test_pipe",
        labels="G1",
    ),
    Mutant(
        "a resize writes the geometry that counts",
        "capacity.c",
        "    struct shmp_geometry *g = &h->geometry[gen & 1];",
        "    struct shmp_geometry *g = &h->geometry[(gen + 1) & 1];",
        "test_pipe",
        labels="G3",
    ),
    Mutant(
        "a resize does not turn the generation",
        "capacity.c",
        "    store_seq_cst(&h->wait.geometry_gen, gen);",
        "    (void)0;",
        "test_pipe",
        labels="G4",
    ),
    Mutant(
        "a side does not look for a new geometry",
        "turn.c",
        "    if (ring->gen != load_acquire(&h->wait.geometry_gen))",
        "    if (false)",
        "test_pipe",
        labels="E2",
    ),
]


def build_and_run(mutant: Mutant, scratch: Path) -> str:
    """The first red test; nothing if all were green."""
    core = scratch / "cbits"
    path = core / mutant.file
    text = path.read_text()
    if text.count(mutant.old) < 1:
        return f"NOT MADE: {mutant.file} has changed"
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        command = [
            "make",
            "-s",
            "-j2",
            "-C",
            str(scratch / "tests/unit_c"),
            mutant.target,
            f"TESTS={mutant.tests}",
        ]
        if mutant.target == "run":  # a mutant that hangs need not do it for long
            command.append("UNIT_FLAGS=-DUNIT_SECONDS=8 -Wno-error")
        result = subprocess.run([*command, "WARNINGS=-w"], capture_output=True, text=True)
    finally:
        path.write_text(text)
        os.utime(path)
    for line in result.stdout.splitlines():
        if line.startswith(("FAIL", "HANG")):
            return line
    if result.returncode != 0:
        raise SystemExit(f"mutants: {mutant.title}: does not build\n{result.stderr}")
    return ""


def main() -> int:
    words = sys.argv[1:]
    survivors = 0
    if words == ["--list"]:
        print("\n".join(f"{mutant.title}: {mutant.tests}" for mutant in MUTANTS))
        return 0
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        ignore = shutil.ignore_patterns("build")
        shutil.copytree(CORE, scratch / "cbits", ignore=ignore)
        shutil.copytree(HERE, scratch / "tests/unit_c", ignore=ignore)
        for mutant in MUTANTS:
            if words and not any(word in mutant.title for word in words):
                continue
            killer = build_and_run(mutant, scratch)
            survivors += not killer or killer.startswith("NOT MADE")
            print(f"{mutant.title}\n    {killer or 'SURVIVED'}", flush=True)
    print(f"{survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
