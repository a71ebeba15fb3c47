/* presence.c - is the other side still there?  EOF and EPIPE hang on this.
 *
 * Three answers, cheapest first: this process holds it itself; a holder seen alive before
 * still shows the same state word and an unmarked life word (two loads); the companion's
 * POLLHUP or POLLERR, which is the kernel's count and the truth (D: the companion decides).
 */
#include "companion.h"
#include "pipe.h"
#include "wait.h"

static uint32_t held_by(uint64_t state, int side)
{
    return side == SHMP_SIDE_READERS ? SHMP_STATE_READERS(state) : SHMP_STATE_WRITERS(state);
}

static bool still_as_seen(struct shmp_pipe *pipe, const struct shmp_seen *seen)
{
    return seen->peer && load_relaxed(&pipe->seg.holders[seen->index].state) == seen->state &&
           load_relaxed(seen->word) == seen->value;
}

/* seen: keep the reference there, to look cheaply from now on. */
static bool holder_is_alive(struct shmp_pipe *pipe, int side, uint32_t i, struct shmp_seen *seen)
{
    struct shmp_live *live = &pipe->live;
    uint64_t state = load_acquire(&pipe->seg.holders[i].state);
    if ((int)i == shmp_live_index(live) || held_by(state, side) == 0 ||
        load_acquire(&pipe->seg.holders[i].live) == 0)
        return false;
    struct shmp_peer *peer = shmp_peer_get(live, i);
    if (peer == NULL)
        return false;
    const _Atomic uint32_t *word = shmp_peer_word(peer, SHMP_WORD_LIFE);
    uint32_t value = word ? load_acquire(word) : 0;
    bool alive = !shmp_life_is_marked(value) && SHMP_STATE_GEN(state) == peer->gen;
    if (alive && seen)
        *seen = (struct shmp_seen){
            .peer = peer, .word = word, .value = value, .index = i, .state = state};
    else
        shmp_peer_put(peer);
    return alive;
}

static bool look_for_holder(struct shmp_pipe *pipe, int side, struct shmp_seen *seen)
{
    uint32_t limit = load_acquire(&pipe->seg.header->wait.holder_limit);
    for (uint32_t i = 0; i < limit && i < SHMP_HOLDERS; i++)
        if (holder_is_alive(pipe, side, i, seen))
            return true;
    return false;
}

bool shmp_side_is_hung_up(struct shmp_end *end, int side)
{
    if (load_acquire(&end->pipe->held[side]) != 0)
        return false;
    if (shmp_companion_is_hung_up(end->fd))
        return true;
    return side == SHMP_SIDE_WRITERS && end->deaf && shmp_never_had_writers(end);
}

bool shmp_side_is_present(struct shmp_end *end, int side)
{
    struct shmp_pipe *pipe = end->pipe;
    struct shmp_seen *seen = &pipe->seen[side];
    if (load_relaxed(&pipe->held[side]) != 0 || still_as_seen(pipe, seen))
        return true;
    if (seen->peer)
        shmp_peer_put(seen->peer);
    *seen = (struct shmp_seen){0};
    return look_for_holder(pipe, side, seen) || !shmp_side_is_hung_up(end, side);
}

void shmp_seen_forget(struct shmp_pipe *pipe)
{
    for (int side = 0; side < 2; side++) {
        if (pipe->seen[side].peer)
            shmp_peer_put(pipe->seen[side].peer);
        pipe->seen[side] = (struct shmp_seen){0};
    }
}

void shmp_introduce_slow(struct shmp_pipe *pipe, int side)
{
    /* Our entry was visible before this: who registers from now on watches us, and nobody
     * else sleeps when this returns. */
    uint32_t gains = load_seq_cst(&pipe->live.gains);
    shmp_queue_wake_all(shmp_side_queue(pipe->seg.header, side));
    shmp_live_set_introduced(&pipe->live, side, gains);
}

bool shmp_wake_ahead_slow(struct shmp_pipe *pipe, int side)
{
    struct shmp_header *h = pipe->seg.header;
    struct shmp_queue *queue = shmp_side_queue(h, side);
    uint32_t gains = load_seq_cst(&pipe->live.gains);
    shmp_live_owe(&pipe->live, side, gains, shmp_queue_waiters(queue));
    /* Our entry was visible before this: who registers from now on watches us, and who has
     * registered but does not sleep yet gathers again.  So if nobody sleeps all will.  And the
     * queue is first in, first out: when as many have got up as slept when we began, those who do
     * not watch us are gone. */
    bool woken = shmp_queue_wake_one(queue, shmp_side_wakes(h, side));
    shmp_live_pay(&pipe->live, side, gains, woken);
    return woken;
}

bool shmp_is_held_by_others(struct shmp_pipe *pipe)
{
    if (pipe->refs > 1)
        return true;
    struct shmp_holder *holders = pipe->seg.holders;
    uint32_t limit = load_acquire(&pipe->seg.header->wait.holder_limit);
    for (uint32_t i = 0; i < limit && i < SHMP_HOLDERS; i++)
        if ((int)i != shmp_live_index(&pipe->live) && load_acquire(&holders[i].live) != 0 &&
            !shmp_holder_is_dead(&pipe->live, i, SHMP_STATE_GEN(load_acquire(&holders[i].state))))
            return true;
    return false;
}

/* Another process holds that side, and everybody who sleeps for the side's sake watches it. */
static bool is_held_elsewhere(struct shmp_pipe *pipe, int side)
{
    uint32_t limit = load_acquire(&pipe->seg.header->wait.holder_limit);
    for (uint32_t i = 0; i < limit && i < SHMP_HOLDERS; i++)
        /* The count first: who gains that side takes the bit away before it shows that. */
        if (holder_is_alive(pipe, side, i, NULL) &&
            shmp_holder_is_introduced(&pipe->live, i, shmp_other_side(side)))
            return true;
    return false;
}

void shmp_side_closing(struct shmp_pipe *pipe, int mode)
{
    /* If such a holder closes at the same moment, it finds us not introduced, or gone, and
     * tells the sleepers itself. */
    for (int side = 0; side < 2; side++)
        if (mode != (side == SHMP_SIDE_READERS ? O_WRONLY : O_RDONLY) &&
            (load_relaxed(&pipe->live.introduced) & SHMP_INTRODUCED(shmp_other_side(side))) == 0 &&
            !is_held_elsewhere(pipe, side))
            shmp_introduce(pipe, shmp_other_side(side));
}

/* Whether the sleepers must look for themselves, now that an end of this side is closed. */
static bool must_look(struct shmp_pipe *pipe, int side)
{
    if (is_held_elsewhere(pipe, side))
        return false;
    if (load_acquire(&pipe->held[side]) == 0)
        return true;
    shmp_introduce(pipe, shmp_other_side(side));
    return false;
}

void shmp_side_closed(struct shmp_pipe *pipe, int mode)
{
    struct shmp_header *h = pipe->seg.header;
    if (!shmp_side_sleeps(h, SHMP_SIDE_READERS) && !shmp_side_sleeps(h, SHMP_SIDE_WRITERS))
        return;
    if ((mode != O_WRONLY && must_look(pipe, SHMP_SIDE_READERS)) ||
        (mode != O_RDONLY && must_look(pipe, SHMP_SIDE_WRITERS)))
        shmp_broadcast(h);
}
