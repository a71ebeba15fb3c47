/* notify.c - how many operations there were: the counters behind notifiers. */
#include "notify.h"

#include <limits.h>

#include "sys.h"
#include "wait.h"

/* Armed bits of the dead are taken away after so many operations at the latest. */
#define PRUNE_EVERY 4096u

/* ---- Who operates ------------------------------------------------------------------------ */

/* Where the ring stands, as far as a publish of that side changes it.  Of readers that is tail (T4);
 * of writers head, and below it what else to look at: the end of the slot before head, while that
 * may merge (P2).  Only so long, because to fill new slots may write that word, too: in an empty
 * ring its slot is free. */
#define HEAD_ONLY UINT32_C(0xffffffff) /* nothing else */
#define MERGED UINT32_C(0xfffffffe)    /* nothing at all: some of it is published */

static uint32_t newest_end(struct shmp_pipe *pipe, uint32_t head)
{
    const struct shmp_ring *ring = &pipe->seg.write_side;
    return shmp_word_end(load_relaxed(&ring->words[(head - 1) & ring->mask]));
}

static uint64_t write_position(uint32_t head, uint32_t rest)
{
    return ((uint64_t)head << 32) | rest;
}

static bool has_published(struct shmp_pipe *pipe, int side, uint64_t before)
{
    struct shmp_header *h = pipe->seg.header;
    if (side == SHMP_SIDE_READERS)
        return load_relaxed(&h->tail) != before;
    uint32_t head = load_relaxed(&h->head);
    uint32_t rest = (uint32_t)before;
    return (uint32_t)(before >> 32) != head || rest == MERGED ||
           (rest != HEAD_ONLY && rest != newest_end(pipe, head));
}

/* Relays watch the lives of those who may count and die before they wake (relay.c).  A newcomer, or
 * one that a relay has dismissed because it cannot watch it, has them gather again, and find it in
 * its lock.  Dies in between: nothing was moved, and nothing counts. */
static void introduce(struct shmp_pipe *pipe, int side)
{
    if (!shmp_live_introduce(&pipe->live, SHMP_RELAYS(shmp_other_side(side))))
        shmp_notify_wake(pipe, side);
}

bool shmp_notify_begin_slow(struct shmp_pipe *pipe, int side, bool may_merge)
{
    struct shmp_notify_line *line = shmp_notify_line(pipe, shmp_other_side(side));
    struct shmp_header *h = pipe->seg.header;
    uint32_t head = load_relaxed(&h->head);
    uint64_t before = side == SHMP_SIDE_READERS
                          ? load_relaxed(&h->tail)
                          : write_position(head, may_merge ? newest_end(pipe, head) : HEAD_ONLY);
    introduce(pipe, side);
    uint64_t ops = load_relaxed(&line->ops);
    /* N1 before N2 before the publish.  Release: also for whoever reads them after our death, which
     * sees each store only with those before it.  Dies here: nothing was moved, nothing counts. */
    store_release(&line->before, before);
    store_release(&line->begun, ops + 1);
    return true;
}

void shmp_notify_merged(struct shmp_pipe *pipe, bool merged)
{
    /* Dies before: the end of the slot says whether it has merged.  Dies after: this does. */
    store_release(&shmp_notify_line(pipe, SHMP_SIDE_READERS)->before,
                  write_position(load_relaxed(&pipe->seg.header->head), merged ? MERGED : HEAD_ONLY));
}

/* Whoever was killed with a notifier leaves the pipe armed: this looks who is left.  In the lock of
 * the operating side, in which bits are set (I4). */
static void prune(struct shmp_pipe *pipe, int side)
{
    struct shmp_header *h = pipe->seg.header;
    uint32_t bit = SHMP_NOTIFY(shmp_other_side(side));
    uint32_t limit = load_seq_cst(&h->wait.holder_limit);
    bool wanted = false;
    for (uint32_t i = 0; i < limit && i < SHMP_HOLDERS; i++) {
        const struct shmp_holder *holder = &pipe->seg.holders[i];
        if (load_acquire(&holder->live) == 0 || (load_acquire(&holder->notifiers) & bit) == 0)
            continue;
        wanted = !shmp_holder_reap(&pipe->live, i) || wanted;
    }
    if (!wanted)
        atomic_fetch_and(&h->wait.poll_usage, ~bit);
}

bool shmp_notify_end(struct shmp_pipe *pipe, int side, bool moved)
{
    struct shmp_notify_line *line = shmp_notify_line(pipe, shmp_other_side(side));
    uint64_t ops = load_relaxed(&line->ops);
    if (!moved) {
        store_release(&line->begun, ops);
        return false;
    }
    /* N3.  Dies before: it is counted by who takes the lock (settle).  Dies after: begun is ops,
     * and the relays, which watch our life, look. */
    store_seq_cst(&line->ops, ops + 1);
    if ((ops + 1) % PRUNE_EVERY == 0)
        prune(pipe, side);
    return true;
}

void shmp_notify_wake(struct shmp_pipe *pipe, int side)
{
    _Atomic uint32_t *word = &shmp_notify_line(pipe, shmp_other_side(side))->sleep;
    uint32_t seen = load_seq_cst(word); /* N4 */
    while ((seen & 1) != 0) {
        if (!cas_seq_cst32(word, &seen, seen + 2))
            continue;
        /* Changed, and still odd: who has not got to K3 does not sleep there, and if we die before
         * the wake, the next one wakes. */
        seen += 2;
        shmp_sys.futex_wake((const void *)word, INT_MAX);
        /* Whoever did K1 since then has seen our count, and stays registered. */
        cas_seq_cst32(word, &seen, seen + 1);
        return;
    }
}

void shmp_notify_settle(struct shmp_pipe *pipe, int side)
{
    struct shmp_notify_line *line = shmp_notify_line(pipe, shmp_other_side(side));
    uint64_t ops = load_relaxed(&line->ops);
    if (load_acquire(&line->begun) == ops + 1) {
        /* One store either way, after which there is nothing left to settle: dies before, and the
         * next one does it. */
        if (has_published(pipe, side, load_acquire(&line->before)))
            store_seq_cst(&line->ops, ops + 1);
        else
            store_release(&line->begun, ops);
    }
    /* It may have died between N3 and N5 as well. */
    shmp_notify_wake(pipe, side);
}

/* ---- Who is told ------------------------------------------------------------------------- */

static _Atomic uint32_t *own_bits(struct shmp_pipe *pipe)
{
    return &pipe->seg.holders[shmp_live_index(&pipe->live)].notifiers;
}

void shmp_notify_register(struct shmp_pipe *pipe, int side)
{
    fetch_or_seq_cst(own_bits(pipe), SHMP_NOTIFY(side));
}

void shmp_notify_unregister(struct shmp_pipe *pipe, int side)
{
    if (shmp_live_index(&pipe->live) >= 0)
        atomic_fetch_and(own_bits(pipe), ~SHMP_NOTIFY(side));
}

int shmp_notify_arm(struct shmp_end *end, int side, uint64_t *ops)
{
    struct shmp_pipe *pipe = end->pipe;
    int r = shmp_side_lock(end, shmp_other_side(side), true);
    if (r < 0)
        return r;
    fetch_or_seq_cst(&pipe->seg.header->wait.poll_usage, SHMP_NOTIFY(side));
    *ops = load_relaxed(&shmp_notify_line(pipe, side)->ops);
    shmp_side_unlock(end, shmp_other_side(side));
    return 0;
}

void shmp_notify_disarm(struct shmp_end *end, int side)
{
    if (shmp_side_lock(end, shmp_other_side(side), false) != 0)
        return;
    prune(end->pipe, shmp_other_side(side));
    shmp_side_unlock(end, shmp_other_side(side));
}

uint32_t shmp_notify_sleep(struct shmp_notify_line *line)
{
    uint32_t seen = load_seq_cst(&line->sleep);
    uint32_t next;
    do /* changed each time, so that a waker that is between its two changes spares us */
        next = seen + ((seen & 1) != 0 ? 2 : 1);
    while (!cas_seq_cst32(&line->sleep, &seen, next));
    return next;
}

/* Whoever this lock word names is dead for all that the table says. */
static bool is_suspect(struct shmp_pipe *pipe, uint32_t value)
{
    uint32_t owner = value & SHMP_LOCK_OWNER_MASK;
    uint32_t gen = (value >> SHMP_LOCK_GEN_SHIFT) & SHMP_LOCK_GEN_MASK;
    if (owner > SHMP_HOLDERS) /* damage, or a repair that failed */
        return true;
    const struct shmp_holder *holder = &pipe->seg.holders[owner - 1];
    uint32_t now = SHMP_STATE_GEN(load_acquire(&holder->state));
    return load_acquire(&holder->live) == 0 || ((now ^ gen) & SHMP_LOCK_GEN_MASK) != 0;
}

bool shmp_notify_rescue(struct shmp_end *end, int side, bool thorough)
{
    struct shmp_pipe *pipe = end->pipe;
    struct shmp_header *h = pipe->seg.header;
    _Atomic uint32_t *word = side == SHMP_SIDE_READERS ? &h->w.lock : &h->r.lock;
    uint32_t value = load_seq_cst(word);
    if ((value & SHMP_LOCK_OWNER_MASK) == 0)
        return true;
    if (thorough || is_suspect(pipe, value))
        shmp_pass_through(end, shmp_other_side(side), false);
    uint32_t owner = load_seq_cst(word) & SHMP_LOCK_OWNER_MASK;
    if (owner == 0 || (int)owner - 1 == shmp_live_index(&pipe->live))
        return true;
    /* Abandoned; or a newcomer's, which may have taken it from the dead after the relay gathered
     * lives, and could die before it settles: nobody watches it before it has introduced itself.  Or
     * one's that was dismissed just now. */
    return owner <= SHMP_HOLDERS &&
           shmp_holder_is_introduced(&pipe->live, owner - 1, SHMP_RELAYS(side));
}
