/* live.h - who holds the pipe, and who of them is alive.
 *
 * Three questions, each with its own witness:
 *   may this index be mine?      a POSIX record lock on the segment file
 *   tell me when that one dies   a life word: a robust futex in its process record
 *   is that one dead for sure?   all: the life word is marked, the lock is free, and the
 *                                record is no longer open in that process
 * A marked life word alone means "look again": the thread that locked it may have
 * ended, or others of that process may still be running their last instructions.
 * A free lock alone may be the work of a close() in a living process (m14).
 */
#ifndef SHMP_LIVE_H
#define SHMP_LIVE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "record.h"
#include "seg.h"

/* What this process knows of one peer's record; a reference keeps the page mapped. */
struct shmp_peer {
    _Atomic unsigned refs; /* one of them is the table's: others are taken under shmp_live.mutex */
    uint32_t gen;
    uint32_t record_seq;
    const struct shmp_record *record; /* NULL: cannot be reached from here */
    struct shmp_record_id id;
    uint32_t word_offset;
    uint32_t place; /* its words for this pipe */
};

/* A call of this thread that sleeps, or owes a hand-on: of the same thread, signal handlers' calls
 * are inside others.  A fork child goes on with them. */
struct shmp_call {
    struct shmp_call *outer;
    struct shmp_live *live; /* NULL: not entered */
    uint32_t place;         /* where it is counted */
    struct shmp_queue *queue; /* where it has registered, or is about to */
};

/* This process among the holders of one segment. */
struct shmp_live {
    struct shmp_seg *seg;
    pthread_mutex_t mutex;
    _Atomic int index; /* -1: the table was full, or we are a child that has not claimed yet */
    uint32_t gen;
    _Atomic uint32_t record_seq;
    uint32_t place; /* our words for this pipe in our record */
    _Atomic uint32_t introduced; /* our bits of the entry */
    _Atomic uint32_t gains; /* of a side that we had not; odd while the count does not show it yet */
    uint32_t debts[2]; /* sleepers by side that may not watch us; 0: not counted.  Guarded by mutex */
    struct shmp_peer **peers; /* by holder index, allocated at first use */
};

enum { SHMP_SIDE_READERS = 0, SHMP_SIDE_WRITERS = 1 };
static inline int shmp_other_side(int side)
{
    return side == SHMP_SIDE_READERS ? SHMP_SIDE_WRITERS : SHMP_SIDE_READERS;
}

int shmp_live_open(struct shmp_live *live, struct shmp_seg *seg);
void shmp_live_close(struct shmp_live *live);
/* After fork(), in the child: forgets the parent's entry and its other threads' references to
 * peers, and claims an entry.  0 or -errno. */
int shmp_live_fork_child(struct shmp_live *live);
/* Gets an entry if there is none yet: -ENFILE while 1024 processes hold the pipe. */
int shmp_live_claim(struct shmp_live *live);
/* Takes the record locks again after a close() of another descriptor of the file. */
void shmp_live_relock(struct shmp_live *live);
/* Publishes how many descriptions of each kind this process holds. */
void shmp_live_set_counts(struct shmp_live *live, uint32_t readers, uint32_t writers);
/* Every sleeper of that side's queue watches us from now on, as what we were when the caller looked at
 * `gains`, before it looked at the queue.  It is not so if we have become more since. */
void shmp_live_set_introduced(struct shmp_live *live, int side, uint32_t gains);
/* Wakes by who is not introduced (shmp_wake_ahead): owe, before each, so many sleep there that may not
 * watch us; pay, when it has woken one of them, or nobody: with the last one we are introduced.  Both for
 * nothing if we have become more since the caller looked at `gains`: a wake of before is none of the new debt. */
void shmp_live_owe(struct shmp_live *live, int side, uint32_t gains, uint32_t asleep);
void shmp_live_pay(struct shmp_live *live, int side, uint32_t gains, bool woken);
/* Around the first end of a side: sleepers of the other one, SHMP_INTRODUCED(...), watch no more than our
 * calls so far. */
void shmp_live_begin_gain(struct shmp_live *live, uint32_t others);
void shmp_live_end_gain(struct shmp_live *live);
/* With SHMP_RELAYS: whether all relays know us; from now on they do, and this once they are to be
 * told.  And of another, which shall tell before it counts again: either it sees this, or what it
 * has done before is seen behind it, its lock taken. */
bool shmp_live_introduce(struct shmp_live *live, int side);
void shmp_holder_dismiss(struct shmp_live *live, uint32_t index, int side);
bool shmp_holder_is_introduced(struct shmp_live *live, uint32_t index, int side);
/* Publishes a fresh record if the present one was marked by a thread's exit. */
void shmp_live_renew(struct shmp_live *live);
/* From before a call registers as a sleeper until it has handed on: others hear of our death.
 * true: only after shmp_renew(). */
bool shmp_live_enter_call(struct shmp_live *live, struct shmp_call *call);
void shmp_live_leave_call(struct shmp_call *call);
/* The innermost of this thread's calls. */
struct shmp_call *shmp_live_calls(void);

/* This process's entry; -1: none.  Acquire: who sees it sees it filled, its generation, too. */
static inline int shmp_live_index(const struct shmp_live *live)
{
    return load_acquire(&live->index);
}

/* This process's owner value for lock words; 0 while it has no entry. */
static inline uint32_t shmp_live_owner(const struct shmp_live *live)
{
    int index = shmp_live_index(live);
    return index < 0 ? 0
                     : ((uint32_t)index + 1) |
                           ((live->gen & SHMP_LOCK_GEN_MASK) << SHMP_LOCK_GEN_SHIFT);
}

/* Peers.  get returns a reference (never NULL on success) or NULL when out of memory.  A reference
 * may outlive the attachment it was taken through. */
struct shmp_peer *shmp_peer_get(struct shmp_live *live, uint32_t index);
void shmp_peer_put(struct shmp_peer *peer);

/* Lists of references that this thread sleeps with (watch.h): a fork child goes on with those. */
extern _Thread_local unsigned shmp_peer_lists;

/* The word of a peer that such a waiter should watch; NULL if unreachable.  A call word reads 0
 * while no call of its sleeps. */
static inline const _Atomic uint32_t *shmp_peer_word(const struct shmp_peer *peer,
                                                     enum shmp_record_word word)
{
    return peer->record ? shmp_record_word(peer->record, peer->word_offset, peer->place, word)
                        : NULL;
}
/* Others sleep on its words of whom we may not hear: look from time to time. */
static inline bool shmp_peer_is_common(const struct shmp_peer *peer)
{
    return peer->place == SHMP_COMMON_PLACE;
}
/* Its calls sleep in threads that its words do not name: one that is killed may take a wake with it. */
static inline bool shmp_peer_calls_apart(const struct shmp_peer *peer)
{
    return peer->record &&
           ((load_seq_cst(&peer->record->apart[peer->place / 64]) >> (peer->place % 64)) & 1) != 0;
}
/* Not what the word reads while the process lives. */
static inline bool shmp_life_is_marked(uint32_t value)
{
    return value == 0 || (value & 0x40000000u) != 0; /* FUTEX_OWNER_DIED */
}

/* Proof of death of the holder at index, generation gen (compared in its low 18 bits). */
bool shmp_holder_is_dead(struct shmp_live *live, uint32_t index, uint32_t gen);
/* Frees the entry of a dead holder.  true if this call did it. */
bool shmp_holder_reap(struct shmp_live *live, uint32_t index);

#endif
