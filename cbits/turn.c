/* turn.c - a side's lock with repair, turns, and the first look at an end.
 *
 * A turn is a stay in a side's ring lock, and in the companion's lock if somebody looks: what is
 * foretold under that lock has happened when it is free again (companion.h).  Lock order: write
 * lock, read lock, companion lock.
 */
#include <errno.h>
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define ONE_THREAD (__libc_single_threaded != 0)
#else
#define ONE_THREAD false
#endif

#include "companion.h"
#include "lock.h"
#include "notify.h"
#include "pipe.h"
#include "wait.h"

/* The lock word is everybody's, and a peer that scribbles on it can let two threads of this
 * process in.  What a side knows privately (its view of the geometry, whom it saw) is made for
 * one: so that is guarded by a word of our own, where there is a second thread. */
static bool enter(struct shmp_pipe *pipe, int side)
{
    return ONE_THREAD ||
           !atomic_exchange_explicit(&pipe->inside[side], true, memory_order_acquire);
}

static void leave(struct shmp_pipe *pipe, int side)
{
    store_release(&pipe->inside[side], false);
}

/* The lock of this side was a dead process's.  What that one had noted is made if pollers have been
 * told of it, for one of them may be about to act on it.  If nobody has, it is dropped: somebody may
 * have seen meanwhile that it is not there, and not everybody could tell pollers now (I3 of
 * companion-sync).  And it may have died between its publish and its wakes, or before it told the
 * companion.  Dies in here: the lock is a dead one's again, and the next one repairs.
 *
 * In the ring lock, so no longer than its caller would wait for that one: the companion's may be a
 * stopped process's.  0; SHMP_WOULD_SLEEP or -EINTR: not repaired. */
static int repair(struct shmp_end *end, int side, enum shmp_patience patience)
{
    struct shmp_pipe *pipe = end->pipe;
    struct shmp_header *h = pipe->seg.header;
    struct shmp_ring *ring = shmp_side_ring(pipe, side);
    /* In a new life nobody was told of anything yet, and what is to be forgotten (shmp_incarnate) must
     * not be told: it would change the size that says that this life is new. */
    bool watched = shmp_companion_is_watched(h) && !(end->opening && shmp_is_new_life(end) == 1);
    if (watched && !shmp_companion_lock(&pipe->live, patience)) {
        shmp_broadcast(h); /* who has time to wait for it */
        return patience == SHMP_LOCK_SIGNALS ? -EINTR : SHMP_WOULD_SLEEP;
    }
    if (side == SHMP_SIDE_READERS) {
        if (shmp_ring_take_is_noted(h))
            shmp_ring_redo_take(ring,
                                watched && shmp_companion_told_of_room(h, end->fd, end->mode));
        shmp_ring_unseal(ring);
    } else {
        if (shmp_ring_put_is_noted(h))
            shmp_ring_redo_put(ring, watched && shmp_companion_told_of_data(h, end->fd));
        shmp_ring_reseal(ring);
    }
    shmp_ring_forget(h, side == SHMP_SIDE_READERS);
    shmp_notify_settle(pipe, side);
    shmp_broadcast(h);
    if (watched) {
        shmp_companion_sync_locked(&pipe->live, end->fd, end->mode, SHMP_SYNC_WRITE);
        shmp_companion_unlock(&pipe->live);
    }
    return 0;
}

static int lock_side(struct shmp_end *end, int side, enum shmp_patience patience)
{
    struct shmp_pipe *pipe = end->pipe;
    struct shmp_header *h = pipe->seg.header;
    struct shmp_ring *ring = shmp_side_ring(pipe, side);
    _Atomic uint32_t *word = side == SHMP_SIDE_READERS ? &h->r.lock : &h->w.lock;
    int r = shmp_end_claim(end);
    if (r < 0)
        return r;
    enum shmp_locked locked = shmp_lock(&pipe->live, word, patience);
    if (locked == SHMP_LOCK_BUSY)
        return SHMP_WOULD_SLEEP;
    if (locked == SHMP_LOCK_SIGNAL)
        return -EINTR;
    if (!enter(pipe, side)) {
        shmp_set_reason("the segment is damaged: a lock that was taken was free");
        shmp_unlock(word);
        return -SHMP_ECORRUPT;
    }
    if (ring->gen != load_acquire(&h->wait.geometry_gen))
        r = shmp_ring_refresh(&pipe->seg, ring);
    if (r == 0 && locked == SHMP_LOCKED_FROM_DEAD)
        r = repair(end, side, patience);
    if (r < 0)
        leave(pipe, side);
    if (r < 0 && locked == SHMP_LOCKED_FROM_DEAD)
        shmp_lock_abandon(word); /* not repaired: it stays a dead one's */
    else if (r < 0)
        shmp_unlock(word);
    return r;
}

int shmp_side_lock(struct shmp_end *end, int side, bool may_sleep)
{
    return lock_side(end, side, may_sleep ? SHMP_LOCK_SIGNALS : SHMP_LOCK_TRY);
}

void shmp_side_unlock(struct shmp_end *end, int side)
{
    struct shmp_header *h = end->pipe->seg.header;
    leave(end->pipe, side);
    shmp_unlock(side == SHMP_SIDE_READERS ? &h->r.lock : &h->w.lock);
}

/* Somebody looks: has this side anything to tell?  Signals tell of writes and leave no level to
 * keep.  While nobody wants more, a reader only takes away now and then what the writes leave in
 * the companion. */
static bool has_to_tell(struct shmp_header *h, int side)
{
    uint32_t usage = load_seq_cst(&h->wait.poll_usage) & SHMP_POLL_ANY;
    return side == SHMP_SIDE_WRITERS || (usage & ~SHMP_ASYNC_READERS) != 0 ||
           shmp_companion_is_heavy(h);
}

/* Who finds nothing and does not wait for data may have been told of a write that is being made. */
static bool waits_for_teller(struct shmp_end *end, int side)
{
    return side == SHMP_SIDE_READERS && (shmp_flags(end) & O_NONBLOCK) != 0 &&
           shmp_ring_looks_empty(end->pipe->seg.header);
}

/* For a lock that is busy: false, after ten milliseconds, if its owner is stopped. */
static bool wait_a_little(uint64_t start)
{
    struct timespec slice = shmp_timespec(SHMP_FIRST_SLICE_NS);
    if (shmp_now_ns() - start >= SHMP_OVERDUE_NS)
        return false;
    shmp_sys.ppoll(NULL, 0, &slice, NULL);
    return true;
}

static bool lock_companion_soon(struct shmp_live *live)
{
    uint64_t start = shmp_now_ns();
    while (!shmp_companion_lock(live, SHMP_LOCK_DEAD))
        if (!wait_a_little(start))
            return false;
    return true;
}

/* Of puts by writers, of takes by readers. */
static bool is_noted(struct shmp_header *h, int side)
{
    return side == SHMP_SIDE_READERS ? shmp_ring_take_is_noted(h) : shmp_ring_put_is_noted(h);
}

/* ---- Turns ---------------------------------------------------------------------- */

static int begin(struct shmp_end *end, int side, enum shmp_patience patience, struct shmp_turn *turn)
{
    struct shmp_pipe *pipe = end->pipe;
    *turn = (struct shmp_turn){0};
    for (;;) {
        int r = lock_side(end, side, patience);
        if (r < 0 || !shmp_companion_is_watched(pipe->seg.header))
            return r;
        if (!has_to_tell(pipe->seg.header, side) && !waits_for_teller(end, side))
            return 0;
        turn->watched = turn->held = shmp_companion_lock(&pipe->live, SHMP_LOCK_TRY);
        if (turn->held)
            return 0;
        /* Its owner may be stopped: who only wants to begin lets others into the ring. */
        shmp_side_unlock(end, side);
        if (patience == SHMP_LOCK_TRY)
            return SHMP_WOULD_SLEEP;
        if (!shmp_companion_lock(&pipe->live, patience))
            return patience == SHMP_LOCK_SIGNALS ? -EINTR : SHMP_WOULD_SLEEP;
        shmp_companion_unlock(&pipe->live);
    }
}

int shmp_turn_begin(struct shmp_end *end, int side, bool may_sleep, struct shmp_turn *turn)
{
    return begin(end, side, may_sleep ? SHMP_LOCK_SIGNALS : SHMP_LOCK_TRY, turn);
}

int shmp_turn_try(struct shmp_end *end, int side, struct shmp_turn *turn)
{
    return begin(end, side, SHMP_LOCK_DEAD, turn);
}

void shmp_turn_pause(struct shmp_end *end, struct shmp_turn *turn)
{
    if (turn->held)
        shmp_companion_unlock(&end->pipe->live);
    turn->held = false;
}

bool shmp_turn_hold(struct shmp_end *end, int side, struct shmp_turn *turn)
{
    struct shmp_header *h = end->pipe->seg.header;
    if (!turn->held) {
        if (!shmp_companion_is_watched(h) || !has_to_tell(h, side))
            return false;
        /* In the middle of an operation there is no way back, so this waits inside the ring
         * lock; whoever wants that lock would wait for the companion's, too.  But a looker that
         * came in this turn waits for its end, and sees what it did (L2). */
        if (turn->watched)
            shmp_companion_lock_now(&end->pipe->live);
        else if (!shmp_companion_lock(&end->pipe->live, SHMP_LOCK_TRY))
            return false;
        turn->held = true;
    }
    return true;
}

void shmp_turn_foretell(struct shmp_end *end, int side, struct shmp_turn *turn)
{
    struct shmp_header *h = end->pipe->seg.header;
    bool told = side == SHMP_SIDE_WRITERS ? shmp_companion_foretell_write(h, end->fd)
                                          : shmp_companion_foretell_read(h, end->fd);
    turn->told = turn->told || told;
}

void shmp_turn_end(struct shmp_end *end, int side, struct shmp_turn *turn, bool wake, bool tell)
{
    struct shmp_live *live = &end->pipe->live;
    struct shmp_header *h = end->pipe->seg.header;
    bool writing = side == SHMP_SIDE_WRITERS;
    enum shmp_sync op = writing ? (turn->told ? SHMP_SYNC_WRITTEN : SHMP_SYNC_WRITE)
                                : (turn->told ? SHMP_SYNC_LEVEL : SHMP_SYNC_READ);
    bool later = tell && !turn->held;
    if (tell && turn->held)
        shmp_companion_sync_locked(live, end->fd, end->mode, op);
    turn->noted = turn->held && is_noted(h, shmp_other_side(side));
    shmp_turn_pause(end, turn);
    shmp_side_unlock(end, side);
    if (wake)
        shmp_side_wake_one(h, shmp_other_side(side));
    if (turn->counted)
        shmp_notify_wake(end->pipe, side);
    /* Who looks since then has seen the change (L2); but it may be an operation that nobody else tells
     * them of. */
    if (later && shmp_companion_is_watched(h) && has_to_tell(h, side) && lock_companion_soon(live)) {
        shmp_companion_sync_locked(live, end->fd, end->mode, op);
        shmp_companion_unlock(live);
    }
}

void shmp_tell_cut_write(struct shmp_end *end)
{
    struct shmp_live *live = &end->pipe->live;
    if (!shmp_companion_is_watched(live->seg->header))
        return;
    if (!lock_companion_soon(live))
        return;
    shmp_companion_sync_locked(live, end->fd, end->mode, SHMP_SYNC_WRITE);
    shmp_companion_unlock(live);
}

bool shmp_never_had_writers(struct shmp_end *end)
{
    struct shmp_live *live = &end->pipe->live;
    uint64_t start = shmp_now_ns();
    bool gone = false;
    int r;
    /* In the writers' lock nobody is in a turn that began before the flag.  Its reader has the other
     * one, so this only tries. */
    while ((r = lock_side(end, SHMP_SIDE_WRITERS, SHMP_LOCK_DEAD)) == SHMP_WOULD_SLEEP)
        if (!wait_a_little(start))
            return false;
    if (r < 0)
        return false;
    if (lock_companion_soon(live)) {
        gone = shmp_companion_never_had_writers(live->seg->header, end->fd);
        shmp_companion_unlock(live);
    }
    shmp_side_unlock(end, SHMP_SIDE_WRITERS);
    return gone;
}

/* ---- The first look --------------------------------------------------------------- */

int shmp_pass_through(struct shmp_end *end, int side, bool may_sleep)
{
    int r = lock_side(end, side, may_sleep ? SHMP_LOCK_SIGNALS : SHMP_LOCK_DEAD);
    if (r == 0)
        shmp_side_unlock(end, side);
    return r;
}

int shmp_finish_for_the_dead(struct shmp_end *end, int side, bool may_sleep)
{
    struct shmp_header *h = end->pipe->seg.header;
    int r = is_noted(h, side) ? shmp_pass_through(end, side, may_sleep) : 0;
    if (r < 0)
        return r;
    return side == SHMP_SIDE_READERS ? !shmp_ring_looks_full(h, shmp_max_usage(h))
                                     : !shmp_ring_looks_empty(h);
}

#define LOOKS 100

int shmp_look(struct shmp_end *end, bool async)
{
    struct shmp_header *h = end->pipe->seg.header;
    uint32_t readers = async ? SHMP_ASYNC_READERS : SHMP_POLL_READERS;
    uint32_t writers = SHMP_POLL_WRITERS | (async ? SHMP_ASYNC_WRITERS : 0);
    uint32_t sides = (shmp_can_read(end) ? readers : 0) | (shmp_can_write(end) ? writers : 0);
    if (shmp_companion_is_in_step(h, sides))
        return 0;
    int r = 1;
    /* Somebody may take back what was announced, with good reason (incarnate, a reader that finds no
     * writers), but not for ever. */
    for (int tries = 0; r == 1 && tries < LOOKS; tries++) {
        shmp_companion_announce(h, sides);
        /* A turn that began before it could see us foretells nothing.  Once each lock has been ours
         * such turns are over, or their owners dead and the ring repaired; and whatever they left,
         * the level is computed after it.  Dies here: the sides are not in step, and the next to
         * look does all of it again. */
        r = shmp_pass_through(end, SHMP_SIDE_WRITERS, true);
        if (r == 0)
            r = shmp_pass_through(end, SHMP_SIDE_READERS, true);
        if (r == 0)
            r = shmp_companion_look(&end->pipe->live, end->fd, end->mode, sides);
    }
    return r < 0 ? r : 0;
}
