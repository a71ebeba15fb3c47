/* transfer.c - read and write, as the kernel does them (rules WR, RD, PK).
 *
 * Lock, move what can be moved, unlock, wake whom the kernel would wake, and only then
 * sleep (D14).  Nothing read before a sleep is used after it: not the geometry, not the
 * indices, not the presence of the other side (R1-11, R1-13).
 */
#include <errno.h>

#include "companion.h"
#include "lock.h"
#include "notify.h"
#include "pipe.h"
#include "record.h"
#include "sys.h"
#include "wait.h"

/* While more than this is left a turn copies without the companion's lock, and the other side
 * works at the same time (D13). */
#define LONG_BYTES ((size_t)1 << 18)

/* The ring is pure and only says that it cannot be so. */
static int damaged(int r)
{
    if (r == -SHMP_ECORRUPT)
        shmp_set_reason("the segment is damaged: an index or a slot is out of range");
    return r;
}

/* A step is noted in the companion's lock: a sync that sees the note of one who lives, and is not in it,
 * would leave pollers told of what may not come for long. */
static inline bool hold(struct shmp_end *end, int side, struct shmp_turn *turn)
{
    return turn->held || (shmp_companion_is_watched(end->pipe->seg.header) &&
                          shmp_turn_hold(end, side, turn));
}

/* ---- write --------------------------------------------------------------------- */

/* W2 of wait.h, after P1: does this publish owe a reader a wake? (WK-2) */
static bool owes_reader(struct shmp_header *h, uint32_t old_head)
{
    return shmp_side_sleeps(h, SHMP_SIDE_READERS) &&
           shmp_was_empty(old_head, SHMP_TAIL_INDEX(load_seq_cst(&h->tail)));
}

/* Under the lock of the side whose notes these are, with sleepers of the other side that could go
 * on: shall one be woken?  Also if none is owed a wake, but nobody of their side has moved for a
 * while: then whoever was woken, or was to wake them, is stopped (WK-10). */
static bool shall_wake(_Atomic uint64_t *at, _Atomic uint64_t *since, uint64_t position, bool owed)
{
    uint64_t now = shmp_now_ns();
    bool moved = load_relaxed(since) == 0 || load_relaxed(at) != position;
    if (!owed && !moved && now - load_relaxed(since) < SHMP_OVERDUE_NS)
        return false;
    store_relaxed(at, position);
    store_relaxed(since, now);
    return owed || !moved;
}

/* Puts what fits.  The write lock is held.  0 or -SHMP_ECORRUPT. */
static int put_all(struct shmp_end *end, struct shmp_transfer *op, struct shmp_turn *turn,
                   bool *wake)
{
    struct shmp_header *h = end->pipe->seg.header;
    struct shmp_ring *ring = &end->pipe->seg.write_side;
    bool packet = (shmp_flags(end) & O_DIRECT) != 0;
    size_t before = op->left;
    int r = 0;
    uint32_t tail_bytes = (uint32_t)(op->left % SHMP_SLOT_SIZE);
    bool may_merge = !op->merged && tail_bytes != 0;
    bool counting = shmp_notify_begin(end->pipe, SHMP_SIDE_WRITERS, may_merge);
    /* What merges finds data there (I5 of ring.h): nothing to foretell. */
    if (may_merge && shmp_ring_merge(ring, &op->cursor, tail_bytes))
        op->left -= tail_bytes;
    if (counting && may_merge && op->left > 0)
        shmp_notify_merged(end->pipe, op->left != before);
    op->merged = true;
    while (op->left > 0) {
        struct shmp_put put;
        r = shmp_ring_fill(ring, &op->cursor, op->left, packet, &put);
        if (r < 0 || put.bytes == 0)
            break;
        bool tells = hold(end, SHMP_SIDE_WRITERS, turn);
        shmp_ring_note_put(ring, &put);
        if (tells)
            shmp_turn_foretell(end, SHMP_SIDE_WRITERS, turn);
        bool ahead = shmp_wake_ahead(end->pipe, SHMP_SIDE_READERS);
        shmp_ring_commit(ring, &put);
        op->left -= put.bytes;
        if (!ahead && !*wake && owes_reader(h, put.old_head))
            *wake = true;
        if (*wake && op->left > 0) {
            /* More to come: let the reader start on what is there (D13). */
            shmp_side_wake_one(h, SHMP_SIDE_READERS);
            *wake = false;
        }
        if (op->left > LONG_BYTES)
            shmp_turn_pause(end, turn);
    }
    if (shmp_side_sleeps(h, SHMP_SIDE_READERS) && !shmp_ring_looks_empty(h) &&
        shall_wake(&h->w.idle_tail, &h->w.idle_ns, load_relaxed(&h->tail), *wake))
        *wake = *wake || !shmp_wake_ahead(end->pipe, SHMP_SIDE_READERS);
    op->done += before - op->left;
    count_locked(&h->w.bytes, before - op->left);
    if (counting)
        turn->counted = shmp_notify_end(end->pipe, SHMP_SIDE_WRITERS, op->left != before);
    store_relaxed(&h->w.cpu, shmp_cpu());
    return r;
}

static ssize_t broken_pipe(const struct shmp_transfer *op)
{
    shmp_sys.raise_sigpipe(); /* once per call, also after partial progress (WR-14) */
    return op->done > 0 ? (ssize_t)op->done : -EPIPE;
}

void shmp_hand_on(struct shmp_end *end, int side)
{
    struct shmp_header *h = end->pipe->seg.header;
    bool more = side == SHMP_SIDE_READERS ? !shmp_ring_looks_empty(h)
                                          : !shmp_ring_looks_full(h, shmp_max_usage(h));
    /* Those behind us watch our call.  Who came before us may not: and if one of them still
     * sleeps it is not us who was chosen, and a wake is on its way to him that we must not spoil
     * (which wake_ahead does not: he stays counted). */
    if (more && shmp_side_sleeps(h, side) && !shmp_wake_ahead(end->pipe, side))
        shmp_side_wake_one(h, side);
}

/* Before a sleep: whoever queues up behind us watches this call until it has handed on. */
static void enter_call(struct shmp_end *end, struct shmp_transfer *op)
{
    if (op->call.live == NULL && shmp_live_enter_call(&end->pipe->live, &op->call))
        shmp_renew();
}

static ssize_t leave_call(struct shmp_end *end, struct shmp_transfer *op, int side, ssize_t r)
{
    if (r == SHMP_WOULD_SLEEP)
        return r;
    /* Also when it failed: it may have been the chosen one. */
    if (op->slept)
        shmp_hand_on(end, side);
    if (op->call.live)
        shmp_live_leave_call(&op->call);
    return r;
}

static ssize_t cut_short(struct shmp_end *end, const struct shmp_transfer *op, int r)
{
    shmp_tell_cut_write(end);
    return op->done > 0 ? (ssize_t)op->done : r;
}

/* At the end of a turn after which this write waits: shall whoever looks be told?  The kernel tells
 * pollers only if the ring was empty before (PL-10), which has been foretold, but SIGIO owners each
 * time (IO-4).  It has no call that tells these without those: so while a read end has O_ASYNC, both
 * are told (decision 0040). */
static bool announce_wait(struct shmp_header *h, struct shmp_transfer *op, struct shmp_turn *turn,
                          bool progress)
{
    bool signal = (progress || !op->announced) && shmp_companion_has_async_readers(h);
    op->announced = true;
    turn->told = turn->told || !signal;
    return progress || signal;
}

/* Also a handler with SA_RESTART ends a write that has moved something (WR-12), though it restarts a
 * futex wait.  Asked once for each run, since that takes a system call for each signal: of a handler
 * that is installed while the write waits it does not hear. */
static bool any_handler_ends(struct shmp_transfer *op)
{
    if (op->done > 0 && op->restarts == SHMP_RESTARTS_UNKNOWN)
        op->restarts = shmp_sys.restarting_handlers() > 0 ? SHMP_RESTARTS : SHMP_RESTARTS_NOT;
    return op->done > 0 && op->restarts == SHMP_RESTARTS;
}

/* In the kernel a signal that comes while a write waits for its turn ends it where it would next
 * sleep.  Here the owner of the turn may be stopped. */
static int begin_write(struct shmp_end *end, struct shmp_transfer *op, bool may_sleep,
                       struct shmp_turn *turn)
{
    bool tries = !may_sleep || op->done > 0;
    int r = shmp_turn_begin(end, SHMP_SIDE_WRITERS, !tries, turn);
    if (r != SHMP_WOULD_SLEEP || !may_sleep)
        return r;
    return any_handler_ends(op) ? shmp_wait_for_turn(end, SHMP_SIDE_WRITERS, turn, &op->signalled)
                                : shmp_turn_begin(end, SHMP_SIDE_WRITERS, true, turn);
}

static ssize_t write_steps(struct shmp_end *end, struct shmp_transfer *op, bool may_sleep)
{
    struct shmp_header *h = end->pipe->seg.header;
    if (!shmp_can_write(end))
        return -EBADF;
    if (op->left == 0)
        return (ssize_t)op->done;
    for (;;) {
        struct shmp_turn turn;
        int r = begin_write(end, op, may_sleep, &turn);
        if (r < 0)
            return r == SHMP_WOULD_SLEEP || op->done == 0 ? r : cut_short(end, op, r);
        if (!shmp_side_is_present(end, SHMP_SIDE_READERS)) {
            shmp_turn_end(end, SHMP_SIDE_WRITERS, &turn, false, false);
            return broken_pipe(op);
        }
        bool wake = false;
        size_t before = op->left;
        r = put_all(end, op, &turn, &wake);
        /* In the lock nobody resizes.  Whoever sleeps looks at the shared word, so one that differs
         * from our checked copy would have us look for ever, or sleep for ever. */
        if (r == 0 && op->left > 0 && shmp_max_usage(h) != end->pipe->seg.write_side.max_usage)
            r = -SHMP_ECORRUPT;
        damaged(r);
        bool again = r == 0 && op->left > 0 && (shmp_flags(end) & O_NONBLOCK) != 0;
        if (op->left == 0)
            count_locked(&h->w.calls, 1);
        else if (again)
            count_locked(&h->w.again, 1);
        bool over = op->left == 0 || again || r < 0;
        bool is_full = !over || (again && op->done == 0);
        /* Also after EAGAIN: the kernel tells its pollers of every write that is over (PL-6,
         * IO-2). */
        bool tell = op->left < before || again;
        if (!over)
            tell = announce_wait(h, op, &turn, op->left < before);
        shmp_turn_end(end, SHMP_SIDE_WRITERS, &turn, wake, tell);
        int finished =
            is_full && turn.noted ? shmp_finish_for_the_dead(end, SHMP_SIDE_READERS, may_sleep) : 0;
        if (finished == 1)
            continue;
        if (finished < 0)
            return finished == SHMP_WOULD_SLEEP || op->done == 0 ? finished
                                                                 : cut_short(end, op, finished);
        if (over) {
            if (op->done > 0)
                return (ssize_t)op->done;
            return r < 0 ? r : -EAGAIN;
        }
        if (!may_sleep)
            return SHMP_WOULD_SLEEP;
        if (op->signalled)
            return cut_short(end, op, -EINTR);
        if (op->looked != 0 || !shmp_spin(end, SHMP_SIDE_WRITERS)) {
            enter_call(end, op);
            r = shmp_wait_side(end, SHMP_SIDE_WRITERS, any_handler_ends(op), op->looked);
            op->looked = 0;
            op->announced = false;
            if (r < 0)
                return cut_short(end, op, r);
            op->slept = true;
            if (r == SHMP_THE_END)
                return broken_pipe(op);
        }
        op->announced = false;
    }
}

ssize_t shmp_write_run(struct shmp_end *end, struct shmp_transfer *op, bool may_sleep)
{
    op->restarts = SHMP_RESTARTS_UNKNOWN;
    return leave_call(end, op, SHMP_SIDE_WRITERS, write_steps(end, op, may_sleep));
}

/* ---- read ---------------------------------------------------------------------- */

/* After T4: does freeing these slots owe a writer a wake? (WK-5, WK-6) */
static bool owes_writer(struct shmp_header *h, const struct shmp_ring *ring,
                        const struct shmp_taken *taken)
{
    return taken->tail != taken->old_tail && shmp_side_sleeps(h, SHMP_SIDE_WRITERS) &&
           shmp_full(load_seq_cst(&h->head), taken->old_tail, ring->max_usage);
}

/* Takes what is there, up to n.  The read lock is held.  0 or -SHMP_ECORRUPT. */
static int take_all(struct shmp_end *end, struct shmp_transfer *op, struct shmp_turn *turn,
                    bool *wake)
{
    struct shmp_header *h = end->pipe->seg.header;
    struct shmp_ring *ring = &end->pipe->seg.read_side;
    size_t before = op->left;
    int r = 0;
    bool counting = shmp_notify_begin(end->pipe, SHMP_SIDE_READERS, false);
    shmp_ring_look(ring, op->left);
    while (op->left > 0) {
        struct shmp_taken taken;
        r = shmp_ring_copy(ring, &op->cursor, op->left, &taken);
        if (r < 0 || taken.bytes == 0)
            break;
        if (taken.tail != taken.old_tail) {
            bool tells = hold(end, SHMP_SIDE_READERS, turn);
            shmp_ring_note_take(ring, &taken);
            if (tells)
                shmp_turn_foretell(end, SHMP_SIDE_READERS, turn);
        }
        bool ahead = taken.tail != taken.old_tail && shmp_wake_ahead(end->pipe, SHMP_SIDE_WRITERS);
        shmp_ring_consume(ring, &taken);
        op->left -= taken.bytes;
        if (!ahead && !*wake && owes_writer(h, ring, &taken))
            *wake = true;
        /* All that was there when the first of it was taken.  What comes into the room that this
         * read makes is for the next (RD-2). */
        if (taken.packet_end || taken.tail == load_relaxed(&h->r.head_seen))
            break;
        if (*wake && op->left > 0) {
            shmp_side_wake_one(h, SHMP_SIDE_WRITERS);
            *wake = false;
        }
        if (op->left > LONG_BYTES)
            shmp_turn_pause(end, turn);
    }
    if (shmp_side_sleeps(h, SHMP_SIDE_WRITERS) && !shmp_ring_looks_full(h, ring->max_usage) &&
        shall_wake(&h->r.idle_head, &h->r.idle_ns, load_relaxed(&h->head), *wake))
        *wake = *wake || !shmp_wake_ahead(end->pipe, SHMP_SIDE_WRITERS);
    op->done += before - op->left;
    count_locked(&h->r.bytes, before - op->left);
    if (counting)
        turn->counted = shmp_notify_end(end->pipe, SHMP_SIDE_READERS, op->left != before);
    store_relaxed(&h->r.cpu, shmp_cpu());
    return r;
}

/* In the turn, with nothing in the ring: 0 at end of file, else what to return.
 * SHMP_WOULD_SLEEP: a blocking end must wait.  1: data came in after all, begin again. */
static ssize_t nothing_there(struct shmp_end *end, struct shmp_turn *turn)
{
    struct shmp_header *h = end->pipe->seg.header;
    if (end->deaf) /* to ask for writers may need the companion's lock (FO-16) */
        shmp_turn_pause(end, turn);
    if (!shmp_side_is_present(end, SHMP_SIDE_WRITERS))
        /* The last writer may have published after our look and before it closed. */
        return shmp_ring_looks_empty(h) ? 0 : 1;
    if ((shmp_flags(end) & O_NONBLOCK) != 0) {
        count_locked(&h->r.again, 1);
        return -EAGAIN;
    }
    return SHMP_WOULD_SLEEP;
}

static bool is_nothing(ssize_t r)
{
    return r == 0 || r == -EAGAIN || r == SHMP_WOULD_SLEEP;
}

static ssize_t read_steps(struct shmp_end *end, struct shmp_transfer *op, bool may_sleep)
{
    struct shmp_header *h = end->pipe->seg.header;
    if (!shmp_can_read(end))
        return -EBADF;
    if (op->left == 0)
        return 0;
    for (;;) {
        struct shmp_turn turn;
        ssize_t r = shmp_turn_begin(end, SHMP_SIDE_READERS, may_sleep, &turn);
        if (r < 0)
            return r;
        bool wake = false;
        r = damaged(take_all(end, op, &turn, &wake));
        if (r == 0 && op->done == 0)
            r = nothing_there(end, &turn);
        if (op->done > 0)
            count_locked(&h->r.calls, 1);
        bool over = op->done > 0 || (r != SHMP_WOULD_SLEEP && r != 1);
        shmp_turn_end(end, SHMP_SIDE_READERS, &turn, wake, over);
        if (op->done == 0 && is_nothing(r) && turn.noted) {
            int finished = shmp_finish_for_the_dead(end, SHMP_SIDE_WRITERS, may_sleep);
            if (finished == 1)
                continue;
            if (finished < 0)
                return finished;
        }
        if (over)
            return op->done > 0 ? (ssize_t)op->done : r;
        if (r == 1)
            continue;
        if (!may_sleep)
            return SHMP_WOULD_SLEEP;
        if (op->looked != 0 || !shmp_spin(end, SHMP_SIDE_READERS)) {
            enter_call(end, op);
            r = shmp_wait_side(end, SHMP_SIDE_READERS, false, op->looked);
            op->looked = 0;
            if (r < 0)
                return r;
            op->slept = true;
            if (r == SHMP_THE_END)
                return 0;
        }
    }
}

ssize_t shmp_read_run(struct shmp_end *end, struct shmp_transfer *op, bool may_sleep)
{
    return leave_call(end, op, SHMP_SIDE_READERS, read_steps(end, op, may_sleep));
}

ssize_t shmp_read_begin(struct shmp_end *end, size_t n, struct shmp_turn *turn)
{
    if (!shmp_can_read(end))
        return -EBADF;
    if (n == 0)
        return 0;
    for (;;) {
        ssize_t r = shmp_turn_begin(end, SHMP_SIDE_READERS, false, turn);
        if (r < 0)
            return r;
        r = shmp_ring_available(&end->pipe->seg.read_side, n);
        if (r < 0)
            damaged((int)r);
        if (r > 0)
            return r;
        if (r == 0)
            r = nothing_there(end, turn);
        shmp_turn_end(end, SHMP_SIDE_READERS, turn, false, r != SHMP_WOULD_SLEEP && r != 1);
        int finished = is_nothing(r) && turn->noted
                           ? shmp_finish_for_the_dead(end, SHMP_SIDE_WRITERS, false)
                           : 0;
        if (finished == 0 && r != 1)
            return r;
        if (finished < 0)
            return finished;
    }
}

ssize_t shmp_read_finish(struct shmp_end *end, void *buffer, size_t n, struct shmp_turn *turn)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = n};
    struct shmp_transfer op = {.cursor = {.iov = &iov, .left = 1}, .left = n};
    bool wake = false;
    int r = damaged(take_all(end, &op, turn, &wake));
    count_locked(&end->pipe->seg.header->r.calls, 1);
    shmp_turn_end(end, SHMP_SIDE_READERS, turn, wake, true);
    if (op.done == n)
        return (ssize_t)n;
    /* shmp_read_begin has counted these bytes in this turn: only damage takes them away. */
    return r < 0 ? r : damaged(-SHMP_ECORRUPT);
}
