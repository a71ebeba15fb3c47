/* notify.h - how many operations there were: the counters behind notifiers.
 *
 * Counted is each operation that has moved data, when it is over, and each time a blocking one has
 * moved some and must go on waiting: as the kernel sends SIGIO (IO-2 to IO-4), but for attempts
 * that move nothing.  Never gated by "was empty" or by whether anybody was woken (IO-18).
 *
 *     writer, in the write lock                relay (relay.c), or notifier.read()
 *
 *     N0 poll_usage: is anybody armed?  no: nothing of all this
 *     N0a introduced |= relays; was it?        K1 sleep += 1 or 2, so that it is odd  (RMW)
 *        no: N4, N5                    (RMW)   K1a introduced &= ~relays, of those whom it
 *     N1 before = head, end of the newest slot     cannot watch; is the lock theirs?     (RMW)
 *     N2 begun = ops + 1                       K2 look at ops: tell the difference    (seq_cst)
 *     P1, P2: publish                          K3 futex_wait(sleep, as K1 left it)
 *     N3 ops = ops + 1        (seq_cst)
 *        unlock
 *     N4 is sleep odd?        (seq_cst)
 *     N5   sleep += 2, FUTEX_WAKE all, sleep += 1 if nobody did K1 meanwhile
 *
 * N3,N4 against K1,K2 is store buffering: all four are sequentially consistent, so not both can
 * miss.  For readers the same with the read lock and `tail`.
 *
 *   I1  ops is changed under the ring lock of the side that operates, and only grows.
 *   I2  ops grows after what it counts can be read (or: written into), never before.
 *   I3  whoever publishes while armed leaves the lock having counted, or dies in it; then begun is
 *       ops + 1, `before` says where the ring stood, and whoever takes the lock counts for it.
 *   I4  a notifier is armed, and takes its first look at ops, in that lock: each operation is
 *       before it, and its data there, or after it, and counted.
 *   I5  sleep is odd while a relay sleeps that has not been woken.
 */
#ifndef SHMP_NOTIFY_H
#define SHMP_NOTIFY_H

#include "pipe.h"

bool shmp_notify_begin_slow(struct shmp_pipe *pipe, int side, bool may_merge);

/* N0 to N2.  The lock of `side`, which operates, is held.  true: shmp_notify_end is due.
 * Relaxed: the bit is set under that lock (I4). */
static inline bool shmp_notify_begin(struct shmp_pipe *pipe, int side, bool may_merge)
{
    uint32_t bit = side == SHMP_SIDE_WRITERS ? SHMP_NOTIFY_READERS : SHMP_NOTIFY_WRITERS;
    return (load_relaxed(&pipe->seg.header->wait.poll_usage) & bit) != 0 &&
           shmp_notify_begin_slow(pipe, side, may_merge);
}

/* Before a write that could merge fills new slots: whether it has merged. */
void shmp_notify_merged(struct shmp_pipe *pipe, bool merged);

/* N3, or takes N2 back if nothing was moved.  In the same lock.  true: counted, so
 * shmp_notify_wake is due once it is unlocked. */
bool shmp_notify_end(struct shmp_pipe *pipe, int side, bool moved);

/* N4, N5. */
void shmp_notify_wake(struct shmp_pipe *pipe, int side);

/* Of an owner of that side's lock that died in it: counts what it has published and not counted.
 * The lock is held, and the ring is up to date. */
void shmp_notify_settle(struct shmp_pipe *pipe, int side);

/* ---- Who is told: `side` is that of the ends with notifiers ----------------------------- */

static inline struct shmp_notify_line *shmp_notify_line(struct shmp_pipe *pipe, int side)
{
    return &pipe->seg.header->notify[side];
}

/* This process has notifiers there from now on, or has none any more. */
void shmp_notify_register(struct shmp_pipe *pipe, int side);
void shmp_notify_unregister(struct shmp_pipe *pipe, int side);

/* Arms, for an end of that side; ops from which to count.  0, or what shmp_side_lock says. */
int shmp_notify_arm(struct shmp_end *end, int side, uint64_t *ops);
/* After the last one of this process is gone: nothing is counted any more if nobody else has one.
 * Later, if the lock is not free just now: see shmp_notify_end. */
void shmp_notify_disarm(struct shmp_end *end, int side);

/* K1.  What to sleep on (K3). */
uint32_t shmp_notify_sleep(struct shmp_notify_line *line);

/* If the lock of the operating side was left by a dead process: takes it over, so that what that
 * process has published is counted.  thorough: also if it has not been reaped yet, which takes
 * system calls to find out.  Waits for nobody who lives.  false: not repaired, or its owner is one
 * whom no relay watches yet; try again. */
bool shmp_notify_rescue(struct shmp_end *end, int side, bool thorough);

#endif
