/* lock.h - the short locks of a segment, which survive their owner.
 *
 * A lock word names its owner by holder index and generation (D5).  Sections take
 * microseconds and never sleep (D14).  Whoever waits also watches the owner's life; who
 * proves the owner dead takes the lock and is told so: it must repair before it goes
 * on.  If it dies while repairing, the next one is told the same.
 */
#ifndef SHMP_LOCK_H
#define SHMP_LOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"
#include "live.h"
#include "sys.h"

enum shmp_locked {
    SHMP_LOCKED = 0,
    SHMP_LOCKED_FROM_DEAD = 1, /* repair what it protects first */
    SHMP_LOCK_BUSY = 2,        /* only with SHMP_LOCK_TRY and SHMP_LOCK_DEAD */
    SHMP_LOCK_SIGNAL = 3,      /* only with SHMP_LOCK_SIGNALS: a handler ran */
};

/* How long: for a moment; until it is ours or a handler has run (its owner may be stopped); until
 * it is ours, where to give up would leave things half done; or for a moment, but also from the
 * dead. */
enum shmp_patience { SHMP_LOCK_TRY, SHMP_LOCK_SIGNALS, SHMP_LOCK_WAIT, SHMP_LOCK_DEAD };

enum shmp_locked shmp_lock_slow(struct shmp_live *live, _Atomic uint32_t *word,
                                enum shmp_patience patience);

/* Acquire: pairs with the release in shmp_unlock; what the last owner wrote is seen. */
static inline enum shmp_locked shmp_lock(struct shmp_live *live, _Atomic uint32_t *word,
                                         enum shmp_patience patience)
{
    uint32_t expected = 0;
    if (cas_acquire32(word, &expected, shmp_live_owner(live)))
        return SHMP_LOCKED;
    return shmp_lock_slow(live, word, patience);
}

/* Sequentially consistent, so that a waiter that set its bit before is seen.  Dies after
 * the exchange, before the wake: sleepers watch this life too, and find the lock free. */
static inline void shmp_unlock(_Atomic uint32_t *word)
{
    if (xchg_seq_cst(word, 0) & SHMP_LOCK_WAITERS)
        shmp_sys.futex_wake((const void *)word, 1);
}

/* Gives up a lock taken from the dead without having repaired: to whoever comes next it is a
 * dead one's again (no process has this index). */
static inline void shmp_lock_abandon(_Atomic uint32_t *word)
{
    if (xchg_seq_cst(word, SHMP_LOCK_OWNER_MASK) & SHMP_LOCK_WAITERS)
        shmp_sys.futex_wake((const void *)word, 1);
}

#endif
