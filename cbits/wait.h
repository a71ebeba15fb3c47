/* wait.h - the two wait queues: eventcounts with exclusive wakes (D6, rules WK-1..WK-16).
 *
 * One u64 holds {epoch, registered sleepers}.  The story, reader left, writer right:
 *
 *     R1 registered += 1, e = epoch   (RMW)     W1 store head            (seq_cst)
 *     R2 look at head                 (seq_cst) W2 look at registered    (seq_cst)
 *     R3 still empty: futex_wait(epoch, e)      W3 if any: epoch += 1
 *                                               W4 FUTEX_WAKE 1
 *                                               W5 registered -= 1, if the epoch is still ours
 *
 * R1,R2 against W1,W2 is store buffering: all four are sequentially consistent, so not
 * both can miss.  W2 is a load of a line that changes only when somebody sleeps: a
 * stream that never sleeps pays no read-modify-write for it (decision 0003).
 *
 *   I1  registered >= the threads that sleep or are about to with the present epoch.
 *   I2  whoever finds the epoch changed is registered no longer (and registers anew).
 *   I3  registered falls only by a thread that leaves and finds the epoch it registered with, by one
 *       that has woken somebody and finds the epoch it changed to, or to zero after everybody was woken.
 *
 * So the count errs upwards only: a death or a lost race leaves it too high, which costs
 * one FUTEX_WAKE that finds nobody, and that wake puts it right (shmp_queue_wake_one).
 */
#ifndef SHMP_WAIT_H
#define SHMP_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "atomic.h"
#include "watch.h"

/* R1. Returns the epoch to sleep on. */
uint32_t shmp_queue_register(struct shmp_queue *queue);

/* Leaves without having been chosen (I3). */
void shmp_queue_leave(struct shmp_queue *queue, uint32_t epoch);

/* R3: what the sleeper passes to shmp_watch_sleep, with the epoch. */
_Atomic uint32_t *shmp_queue_word(struct shmp_queue *queue);

/* W2. */
uint32_t shmp_queue_waiters(struct shmp_queue *queue);
static inline bool shmp_queue_has_waiters(struct shmp_queue *queue)
{
    return SHMP_QUEUE_WAITERS(load_seq_cst(&queue->word)) != 0;
}

/* W3 to W5: one exclusive sleeper, the one that has slept longest (the kernel's futex queue is
 * first in, first out and skips who was stopped or killed: WK-4, WK-10).  All stay counted until he is
 * awake, so that the next waker still sees them if we die.  (In between another may wake one more.)
 * false: nobody slept. */
bool shmp_queue_wake_one(struct shmp_queue *queue, _Atomic uint64_t *wakes);

/* The queue in which a side sleeps. */
static inline struct shmp_queue *shmp_side_queue(struct shmp_header *h, int side)
{
    return side == SHMP_SIDE_READERS ? &h->wait.readable : &h->wait.writable;
}
static inline bool shmp_side_sleeps(struct shmp_header *h, int side)
{
    return shmp_queue_has_waiters(shmp_side_queue(h, side));
}
static inline _Atomic uint64_t *shmp_side_wakes(struct shmp_header *h, int side)
{
    return side == SHMP_SIDE_READERS ? &h->stats.read_wakes : &h->stats.write_wakes;
}
static inline void shmp_side_wake_one(struct shmp_header *h, int side)
{
    shmp_queue_wake_one(shmp_side_queue(h, side), shmp_side_wakes(h, side));
}

/* Everybody, and a fresh start for the count: last close, death, introduction (WK-8). */
void shmp_queue_wake_all(struct shmp_queue *queue);

/* Changes the epoch and wakes nobody: who has registered and gathered, but does not sleep yet,
 * starts again.  A newcomer does that before it sleeps, so that nobody who does not watch it
 * gets behind it (watch.h). */
void shmp_queue_step_epoch(struct shmp_queue *queue);

/* Both queues: after any change that every sleeper must see for itself. */
void shmp_broadcast(struct shmp_header *header);

#endif
