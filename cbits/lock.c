/* lock.c - waiting for a short lock, and taking it from the dead. */
#include "lock.h"

#include "watch.h"

#define SPINS 64 /* a section of one small message is over by then */

static bool owner_is_dead(struct shmp_live *live, uint32_t value)
{
    uint32_t owner = value & SHMP_LOCK_OWNER_MASK;
    if (owner == 0 || owner > SHMP_HOLDERS)
        return true; /* no process writes such a word: damage, and nobody will unlock it */
    return shmp_holder_is_dead(live, owner - 1,
                               (value >> SHMP_LOCK_GEN_SHIFT) & SHMP_LOCK_GEN_MASK);
}

static enum shmp_woken sleep_for(struct shmp_live *live, const _Atomic uint32_t *word, uint32_t value,
                      struct shmp_pace *pace)
{
    struct shmp_watch watch;
    uint32_t owner = (value & SHMP_LOCK_OWNER_MASK) - 1;
    if (owner >= SHMP_HOLDERS)
        return SHMP_LOOK;
    shmp_watch_holder(&watch, live, owner);
    enum shmp_woken woken = shmp_watch_sleep(&watch, word, value,
                                             shmp_now_ns() + 10 * SHMP_LAST_SLICE_NS, pace);
    shmp_watch_release(&watch);
    return woken;
}

/* Then the owner does not run while we do: most likely its system call that told us woke us, and we
 * took the CPU from it inside the lock.  To spin would keep it from unlocking, and to sleep would
 * cost both a system call (decision 0041).  A hint, from the last operation of each side. */
static bool all_on_one_cpu(struct shmp_header *h)
{
    uint32_t here = shmp_cpu();
    return load_relaxed(&h->w.cpu) == here && load_relaxed(&h->r.cpu) == here;
}

enum shmp_locked shmp_lock_slow(struct shmp_live *live, _Atomic uint32_t *word,
                                enum shmp_patience patience)
{
    uint32_t mine = shmp_live_owner(live);
    struct shmp_pace pace = {0};
    int spins = SPINS;
    if (all_on_one_cpu(live->seg->header)) {
        shmp_sys.yield();
        spins = 1;
    }
    for (int i = 0; i < spins; i++) {
        uint32_t seen = load_relaxed(word);
        if (seen == 0 && cas_acquire32(word, &seen, mine))
            return SHMP_LOCKED;
        cpu_relax();
    }
    if (patience == SHMP_LOCK_TRY)
        return SHMP_LOCK_BUSY;
    bool suspect = patience == SHMP_LOCK_DEAD;
    for (;;) {
        uint32_t seen = load_relaxed(word);
        if (seen == 0) {
            /* With the bit: others may sleep, and the one that unlocks must wake them. */
            if (cas_acquire32(word, &seen, mine | SHMP_LOCK_WAITERS))
                return SHMP_LOCKED;
            continue;
        }
        if (suspect && owner_is_dead(live, seen)) {
            if (cas_acquire32(word, &seen, mine | SHMP_LOCK_WAITERS)) {
                fetch_add_relaxed(&live->seg->header->stats.recoveries, 1);
                return SHMP_LOCKED_FROM_DEAD;
            }
            continue;
        }
        if (patience == SHMP_LOCK_DEAD)
            return SHMP_LOCK_BUSY;
        uint32_t marked = seen | SHMP_LOCK_WAITERS;
        if (seen != marked && !cas_seq_cst32(word, &seen, marked))
            continue;
        enum shmp_woken woken = sleep_for(live, word, marked, &pace);
        if (woken == SHMP_SIGNAL && patience == SHMP_LOCK_SIGNALS)
            return SHMP_LOCK_SIGNAL;
        /* Nothing happened to the word, so its owner deserves a look. */
        suspect = woken == SHMP_LOOK || woken == SHMP_LATE;
    }
}
