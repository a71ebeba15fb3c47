/* watch.c - sleeping on a word of the segment and on the lives of its holders at once. */
#include "watch.h"

#include <limits.h>

#include "atomic.h"

uint64_t shmp_backstop_ns = UINT64_C(60000000000);

static void add_word(struct shmp_watch *watch, unsigned i, const void *address, uint32_t value)
{
    watch->words[i] = (struct shmp_futex_waitv){
        .value = value, .address = (uintptr_t)address, .flags = SHMP_FUTEX_32};
}

static void begin(struct shmp_watch *watch)
{
    watch->count = 0;
    watch->complete = true;
    watch->common = false;
    watch->tracked = 0;
    watch->own_count = 0;
    shmp_peer_lists++;
}

/* false: cannot be watched; the caller must look again by itself.
 *
 * A call word that reads 0 is watched as well: if that process begins to sleep before we do,
 * it stands in front of us, and the word no longer has the value that we sleep on. */
static bool add_holder(struct shmp_watch *watch, struct shmp_live *live, uint32_t index,
                       enum shmp_record_word which)
{
    if (watch->count == SHMP_WATCH_MAX)
        return false;
    struct shmp_peer *peer = shmp_peer_get(live, index);
    if (peer == NULL)
        return false;
    const _Atomic uint32_t *word = shmp_peer_word(peer, which);
    uint32_t value = word ? load_seq_cst(word) : 0;
    bool idle = word && which == SHMP_WORD_CALL && value == 0;
    if (!idle && shmp_life_is_marked(value)) {
        shmp_peer_put(peer);
        return false;
    }
    unsigned i = ++watch->count;
    add_word(watch, i, word, value);
    watch->peers[i] = peer;
    watch->common = watch->common || shmp_peer_is_common(peer) ||
                    (which == SHMP_WORD_CALL && shmp_peer_calls_apart(peer));
    return true;
}

/* Of our side alone.  One with no description at all is between closing and telling: it may
 * be the last of the other side. */
static bool is_of_our_side(uint64_t state, int side)
{
    return side == SHMP_SIDE_READERS
               ? SHMP_STATE_WRITERS(state) == 0 && SHMP_STATE_READERS(state) != 0
               : SHMP_STATE_READERS(state) == 0 && SHMP_STATE_WRITERS(state) != 0;
}

void shmp_watch_others(struct shmp_watch *watch, struct shmp_live *live, int side)
{
    struct shmp_header *h = live->seg->header;
    uint32_t limit = load_seq_cst(&h->wait.holder_limit);
    begin(watch);
    for (uint32_t i = 0; i < limit && i < SHMP_HOLDERS; i++) {
        if ((int)i == shmp_live_index(live) || load_seq_cst(&live->seg->holders[i].live) == 0)
            continue;
        uint64_t state = load_seq_cst(&live->seg->holders[i].state);
        if (is_of_our_side(state, side))
            watch->own[watch->own_count++] = (uint16_t)i;
        else if (add_holder(watch, live, i, SHMP_WORD_LIFE))
            watch->tracked += SHMP_STATE_READERS(state) + SHMP_STATE_WRITERS(state) != 0;
        else if (!shmp_holder_reap(live, i))
            watch->complete = false;
    }
}

void shmp_watch_own(struct shmp_watch *watch, struct shmp_live *live)
{
    for (unsigned i = 0; i < watch->own_count; i++)
        if (!add_holder(watch, live, watch->own[i], SHMP_WORD_CALL) &&
            !shmp_holder_reap(live, watch->own[i]))
            watch->complete = false;
}

void shmp_watch_holder(struct shmp_watch *watch, struct shmp_live *live, uint32_t index)
{
    begin(watch);
    watch->complete =
        (int)index != shmp_live_index(live) && add_holder(watch, live, index, SHMP_WORD_LOCK);
}

void shmp_watch_release(struct shmp_watch *watch)
{
    for (unsigned i = 1; i <= watch->count; i++)
        shmp_peer_put(watch->peers[i]);
    watch->count = 0;
    shmp_peer_lists--;
}

static uint32_t crowd(const struct shmp_pace *pace)
{
    return pace->crowd < 1 ? 1 : pace->crowd < SHMP_LARGEST_CROWD ? pace->crowd : SHMP_LARGEST_CROWD;
}

static uint64_t next_slice(const struct shmp_watch *watch, struct shmp_pace *pace)
{
    if (watch->complete) {
        pace->looks = 0;
        return pace->soon      ? SHMP_OVERDUE_NS
               : pace->tick    ? SHMP_TICK_NS
               : watch->common ? SHMP_COMMON_SLICE_NS
                               : shmp_backstop_ns;
    }
    if (pace->looks++ < SHMP_FIRST_LOOKS)
        pace->slice_ns = SHMP_FIRST_SLICE_NS * crowd(pace);
    else if (pace->slice_ns < SHMP_LAST_SLICE_NS)
        pace->slice_ns *= 2;
    return pace->slice_ns;
}

void shmp_pass_on(const struct shmp_futex_waitv *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const _Atomic uint32_t *word = (const _Atomic uint32_t *)(uintptr_t)words[i].address;
        if (load_acquire(word) != (uint32_t)words[i].value)
            shmp_sys.futex_wake((const void *)word, INT_MAX);
    }
}

enum shmp_woken shmp_watch_sleep(struct shmp_watch *watch, const _Atomic uint32_t *word,
                                 uint32_t value, uint64_t deadline_ns, struct shmp_pace *pace)
{
    uint64_t now = shmp_now_ns();
    uint64_t end = now + next_slice(watch, pace);
    bool late = deadline_ns != 0 && deadline_ns <= end;
    struct timespec until = shmp_timespec(late ? deadline_ns : end);
    pace->safety = false;
    add_word(watch, 0, word, value);
    long r = shmp_sys.futex_waitv(watch->words, watch->count + 1, &until);
    if (shmp_waitv_is_refused(r)) { /* look every few ms */
        until = shmp_timespec(late ? deadline_ns : now + SHMP_LAST_SLICE_NS);
        r = shmp_sys.futex_wait(word, value, &until);
        watch->complete = false;
    }
    if (r == 0)
        return SHMP_WOKEN;
    if (r > 0) {
        shmp_pass_on(watch->words + 1, watch->count);
        return SHMP_LOOK;
    }
    switch (r) {
    case -EAGAIN:
        return load_acquire(word) != value ? SHMP_CHANGED : SHMP_LOOK;
    case -EINTR:
        return SHMP_SIGNAL;
    case -ETIMEDOUT:
        pace->safety = watch->complete && !watch->common && !pace->soon && !pace->tick && !late;
        return late ? SHMP_LATE : SHMP_LOOK;
    default: /* never sleep on what we do not understand */
        return SHMP_LOOK;
    }
}
