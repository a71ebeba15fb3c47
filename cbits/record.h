/* record.h - the process record: sealed pages whose robust futexes say that we live. */
#ifndef SHMP_RECORD_H
#define SHMP_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"

struct shmp_record_id {
    uint32_t fd; /* in this process */
    uint32_t seq;
    uint64_t dev;
    uint64_t ino;
};

/* This process's record, made at first use, and made anew when a thread's exit has
 * marked it.  0 or -errno: without a record peers fall back to looking every few
 * milliseconds. */
int shmp_record_self(struct shmp_record_id *id);

/* Whether the present record is still unmarked: one load. */
bool shmp_record_is_fresh(uint32_t seq);

/* Words for one more pipe, in the present record; without one, or when all are taken,
 * SHMP_COMMON_PLACE.  They tell of our death if the record is fresh after this. */
uint32_t shmp_record_take_place(void);
void shmp_record_give_place(uint32_t place);

/* Around a call that sleeps, from before it registers until it has handed on: the place's call
 * word is locked.  They nest, over all threads.  true: the thread that made the record has ended,
 * and nobody would mark its words; the caller renews it (shmp_live_renew) before it sleeps.
 * first_apart: the first call of the place in another thread than that one.  The caller sees to it that
 * those who sleep already look again. */
bool shmp_record_enter_call(uint32_t place, bool *first_apart);
void shmp_record_leave_call(uint32_t place);

/* Maps a peer's record read-only: through /proc/PID/fd, so nothing needs a name and
 * nothing is left behind.  NULL if it cannot be reached or is not what the holder
 * entry says. */
const struct shmp_record *shmp_record_map(uint32_t pid, const struct shmp_record_id *id,
                                          uint32_t *word_offset);
static inline const _Atomic uint32_t *shmp_record_word(const struct shmp_record *record,
                                                       uint32_t word_offset, uint32_t place,
                                                       enum shmp_record_word word)
{
    return (const _Atomic uint32_t *)(const void *)(record->mutexes[place][word] + word_offset);
}
/* Whether that process still has its record open: a descriptor goes with the last thread, so it
 * then runs, whatever its words say. */
bool shmp_record_is_open(uint32_t pid, const struct shmp_record_id *id);
void shmp_record_unmap(const struct shmp_record *record);

/* fork(): the child starts without a record. */
void shmp_record_fork_prepare(void);
void shmp_record_fork_parent(void);
void shmp_record_fork_child(void);

#endif
