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

static bool look_for_holder(struct shmp_pipe *pipe, int side, struct shmp_seen *seen)
{
    struct shmp_live *live = &pipe->live;
    uint32_t limit = load_acquire(&pipe->seg.header->wait.holder_limit);
    for (uint32_t i = 0; i < limit && i < SHMP_HOLDERS; i++) {
        uint64_t state = load_acquire(&pipe->seg.holders[i].state);
        if ((int)i == live->index || held_by(state, side) == 0 ||
            load_acquire(&pipe->seg.holders[i].live) == 0)
            continue;
        struct shmp_peer *peer = shmp_peer_get(live, i);
        if (peer == NULL)
            continue;
        const _Atomic uint32_t *word = shmp_peer_word(peer);
        uint32_t value = word ? load_acquire(word) : 0;
        if (!shmp_life_is_marked(value) && SHMP_STATE_GEN(state) == peer->gen) {
            *seen = (struct shmp_seen){
                .peer = peer, .word = word, .value = value, .index = i, .state = state};
            return true;
        }
        shmp_peer_put(live, peer);
    }
    return false;
}

bool shmp_side_is_hung_up(struct shmp_end *end, int side)
{
    if (load_acquire(&end->pipe->held[side]) != 0)
        return false;
    if (shmp_companion_is_hung_up(end->fd))
        return true;
    return side == SHMP_SIDE_WRITERS && end->deaf &&
           shmp_companion_never_had_writers(&end->pipe->live, end->fd);
}

bool shmp_side_is_present(struct shmp_end *end, int side)
{
    struct shmp_pipe *pipe = end->pipe;
    struct shmp_seen *seen = &pipe->seen[side];
    if (load_relaxed(&pipe->held[side]) != 0 || still_as_seen(pipe, seen))
        return true;
    if (seen->peer)
        shmp_peer_put(&pipe->live, seen->peer);
    *seen = (struct shmp_seen){0};
    return look_for_holder(pipe, side, seen) || !shmp_side_is_hung_up(end, side);
}

void shmp_seen_forget(struct shmp_pipe *pipe)
{
    for (int side = 0; side < 2; side++) {
        if (pipe->seen[side].peer)
            shmp_peer_put(&pipe->live, pipe->seen[side].peer);
        pipe->seen[side] = (struct shmp_seen){0};
    }
}

static bool last_of(struct shmp_pipe *pipe, int side)
{
    struct shmp_seen other = {0};
    if (load_acquire(&pipe->held[side]) != 0)
        return false;
    if (!look_for_holder(pipe, side, &other))
        return true;
    shmp_peer_put(&pipe->live, other.peer);
    return false;
}

void shmp_side_closed(struct shmp_pipe *pipe, int mode)
{
    struct shmp_header *h = pipe->seg.header;
    if (!shmp_queue_has_waiters(&h->wait.readable) && !shmp_queue_has_waiters(&h->wait.writable))
        return;
    if ((mode != O_WRONLY && last_of(pipe, SHMP_SIDE_READERS)) ||
        (mode != O_RDONLY && last_of(pipe, SHMP_SIDE_WRITERS)))
        shmp_broadcast(h);
}
