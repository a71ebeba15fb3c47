/* ring.h - the slot ring: predicates, and the two sides' steps.  Pure: no system call.
 *
 * head and tail are free-running u32 indices, masked only to address a slot; index i
 * lives in slot i & mask and in no other page (D1).  Only the functions below compare
 * them, always as modular differences (never tail < head: seed 001).
 *
 *   I1  head is stored by writers only, under the write lock; tail by readers only,
 *       under the read lock.
 *   I2  the bytes and the word of slot i are complete before head > i is visible (MP:
 *       P1 store head, partner T1 load head).
 *   I3  after tail > i is visible no reader touches slot i (MP: T4 store tail, partner
 *       P0 load tail).
 *   I4  a merge and a reader's last step on the newest slot exclude each other: both are
 *       compare-and-swaps of its word (P2, T3).  tail passes a slot that could still
 *       grow only after T3.
 *   I5  while the ring is empty, the slot before head refuses merges: it is sealed, full,
 *       a packet or fresh.  So a writer knows "not empty" without a look at tail.
 *
 * Each step publishes with one store or one compare-and-swap (D3): what a process leaves
 * behind that dies anywhere in here is a legal ring.  There are two exceptions.  T3 without
 * T4: sealed, not consumed.  Nothing is lost by it; shmp_ring_unseal undoes it.  And a fill of
 * all slots of an empty ring without its commit: the last of them is the one before head, whose
 * seal (I5) is overwritten.  A merge there would be lost; shmp_ring_reseal comes before it.
 *
 * What pollers are told in advance must come true.  So a put is noted when its bytes are in their
 * slots, and a take when its bytes are out, and whoever takes the lock from the dead does what was
 * noted (shmp_ring_redo_put, shmp_ring_redo_take).
 */
#ifndef SHMP_RING_H
#define SHMP_RING_H

#include <stdbool.h>
#include <string.h>
#include <sys/uio.h>

#include "abi.h"
#include "atomic.h"
#include "seg.h"

/* A step copies at most this much before it publishes, so that the other side works at
 * the same time (D13). */
#define SHMP_STEP_SLOTS 16u

static inline uint32_t shmp_occupancy(uint32_t head, uint32_t tail)
{
    return head - tail;
}

static inline bool shmp_empty(uint32_t head, uint32_t tail)
{
    return head == tail;
}

static inline bool shmp_full(uint32_t head, uint32_t tail, uint32_t max_usage)
{
    return shmp_occupancy(head, tail) >= max_usage;
}

/* Slots that user writes may still take.  A tail that looks ahead of head (a stale head,
 * or rubbish) reads as empty: the error says "try", never "sleep" (D4). */
static inline uint32_t shmp_space_for_user(uint32_t head, uint32_t tail, uint32_t max_usage)
{
    uint32_t used = shmp_occupancy(head, tail);
    return used >= max_usage ? 0 : max_usage - used;
}

static inline uint32_t shmp_word_end(uint32_t word)
{
    return word & SHMP_WORD_END_MASK;
}

static inline uint32_t shmp_word_start(uint32_t word)
{
    return (word >> SHMP_WORD_START_SHIFT) & SHMP_WORD_START_MASK;
}

/* The caller's buffers, and how far we are in them. */
struct shmp_cursor {
    const struct iovec *iov;
    int left; /* iovecs from iov on */
    size_t offset;
};

/* ---- Write side: the write lock is held --------------------------------------- */

/* Appends the next n (< a slot) bytes to the newest slot if the kernel would (WR-2). */
bool shmp_ring_merge(struct shmp_ring *ring, struct shmp_cursor *from, uint32_t n);

struct shmp_put {
    size_t bytes;
    uint32_t old_head; /* the first new slot */
    uint32_t head;
};

/* Puts up to n bytes into new slots, which nobody sees before commit.  put->bytes 0: full, and
 * nothing to commit.  0 or -SHMP_ECORRUPT. */
int shmp_ring_fill(struct shmp_ring *ring, struct shmp_cursor *from, size_t n, bool packet,
                   struct shmp_put *put);
/* From now on it is committed, by us or after our death. */
void shmp_ring_note_put(struct shmp_ring *ring, const struct shmp_put *put);
void shmp_ring_commit(struct shmp_ring *ring, const struct shmp_put *put);

/* After a publish: could a reader have seen the ring empty just before it?  A tail at or
 * beyond the old head says so; one behind it says that data lay there all the time. */
static inline bool shmp_was_empty(uint32_t old_head, uint32_t tail)
{
    return (int32_t)(tail - old_head) >= 0;
}

/* ---- Read side: the read lock is held ------------------------------------------ */

struct shmp_taken {
    size_t bytes;
    uint32_t old_tail; /* slots old_tail .. tail - 1 are done with */
    uint32_t tail;
    uint32_t offset; /* in slot tail */
    bool packet_end; /* a packet was consumed: this read is over (PK-3) */
};

/* Sees what there is, if what was seen before does not hold n bytes: up to r.head_seen then, and
 * what comes later belongs to later reads. */
void shmp_ring_look(struct shmp_ring *ring, size_t n);

/* What a read of n bytes would get now.  0: empty.  -SHMP_ECORRUPT. */
ssize_t shmp_ring_available(struct shmp_ring *ring, size_t n);

/* Copies up to n bytes out, which stay in the ring until consume.  taken->bytes 0: empty, and
 * nothing to consume.  0 or -SHMP_ECORRUPT. */
int shmp_ring_copy(struct shmp_ring *ring, struct shmp_cursor *to, size_t n,
                   struct shmp_taken *taken);
/* Of a take that frees a slot: from now on it is consumed, by us or after our death. */
void shmp_ring_note_take(struct shmp_ring *ring, const struct shmp_taken *taken);
void shmp_ring_consume(struct shmp_ring *ring, const struct shmp_taken *taken);

/* ---- Anybody ------------------------------------------------------------------- */

/* Bytes in the ring (CP-9).  Exact with the read lock held and writers quiet. */
ssize_t shmp_ring_pending(struct shmp_ring *ring);

/* Lock-free.  Tail first, then head: a stale tail makes empty look non-empty (D4). */
bool shmp_ring_looks_empty(struct shmp_header *header);
/* Head first, then tail: a stale head makes full look free (D4, WK-13). */
bool shmp_ring_looks_full(struct shmp_header *header, uint32_t max_usage);

/* After taking the lock of a side from the dead: what that side knew of the other may be
 * half written. */
void shmp_ring_forget(struct shmp_header *header, bool read_side);
/* Is a put (a take) noted, and not made yet?  By who has that side's lock, or died in it. */
bool shmp_ring_put_is_noted(struct shmp_header *header);
bool shmp_ring_take_is_noted(struct shmp_header *header);
/* It is noted, the side's lock is held, and the one that noted it is dead: makes it, or drops the note. */
void shmp_ring_redo_put(struct shmp_ring *ring, bool make_it);
void shmp_ring_redo_take(struct shmp_ring *ring, bool make_it);
/* Undoes T3 without T4.  The read lock is held. */
void shmp_ring_unseal(struct shmp_ring *ring);
/* Restores I5 after a fill without its commit.  The write lock is held. */
void shmp_ring_reseal(struct shmp_ring *ring);

/* A fresh incarnation (FO-1): empty, wherever the indices were.  Both locks are held. */
void shmp_ring_clear(struct shmp_ring *ring);

#endif
