/* companion.h - the kernel pipe beside the ring: lifetime, readiness, SIGIO.
 *
 * It carries no data.  The kernel counts its holders across fork, exec, descriptor
 * passing and death, so its POLLHUP and POLLERR decide end-of-file and EPIPE.
 *
 * Its fill level stands for the ring's, but only for a side that somebody looks at
 * (poll_usage, rule PL-9):
 *
 *     ring    companion       who brings it there, with the end it holds
 *     empty   no byte         a reader: reads everything
 *     some    1..4096 bytes   a writer adds one byte for each write (PL-6, IO-2);
 *                             a reader that leaves "full" reads all bytes but one
 *     full    every slot used a writer: writes more than fits; a resize takes the free
 *                             slots away, or adds some to make room
 *
 * Each transition is made by the side that made the ring's, so it can be made with the
 * descriptor at hand.  For the first look to be so too, a companion that nobody looks at
 * holds one byte: a reader's first look at an empty ring drains it, one at a ring with
 * data leaves it.  Whoever syncs computes the level from the ring under the companion
 * lock, after its own change: the last one to come sees the last state.
 */
#ifndef SHMP_COMPANION_H
#define SHMP_COMPANION_H

#include <stdbool.h>

#include "atomic.h"
#include "live.h"
#include "lock.h"

int shmp_companion_create(int fds[2]);

/* After opening a FIFO: 1 if the kernel has made a new pipe for it, so that everything in
 * the ring is from an earlier life (FO-1); 0 if not; 2 if its size does not tell, because this
 * user's pipes hold too many pages to give it another (CP-5); or -errno. */
int shmp_companion_is_fresh(int fd);
/* Marks it as known, so that the next opener finds it not fresh. */
int shmp_companion_mark(int fd);
/* Notes how many slots it has got. */
void shmp_companion_measure(struct shmp_header *header, int fd);
/* A write end opened on a FIFO: puts the byte in that a later first look needs. */
void shmp_companion_prime(struct shmp_live *live, int fd, int mode);

/* Nobody holds the other side (of a read end: writers, of a write end: readers). */
bool shmp_companion_is_hung_up(int fd);
/* The same for a FIFO read end opened O_NONBLOCK before any writer: its POLLHUP stays
 * silent until one has come and gone (FO-16), so this asks read() instead.  With the writers' lock and
 * the companion's. */
bool shmp_companion_never_had_writers(struct shmp_header *header, int fd);

static inline bool shmp_companion_is_watched(struct shmp_header *header)
{
    return (load_seq_cst(&header->wait.poll_usage) & SHMP_POLL_ANY) != 0;
}

/* A read end has O_ASYNC. */
static inline bool shmp_companion_has_async_readers(struct shmp_header *header)
{
    return (load_seq_cst(&header->wait.poll_usage) & SHMP_ASYNC_READERS) != 0;
}

/* A reader shall take bytes out. */
bool shmp_companion_is_heavy(struct shmp_header *header);

/* Why it is synced: each read and each write is told to whoever looks, also when it changed
 * nothing; a mere look is not, nor what has been told already. */
enum shmp_sync { SHMP_SYNC_LEVEL, SHMP_SYNC_READ, SHMP_SYNC_WRITE, SHMP_SYNC_WRITTEN };

/* What makes a poller get up is told before the ring changes: data to an empty one, room in a
 * full one.  Dies before the ring follows: a poller looks in vain, and puts it right.  In the
 * other order it would sleep beside data for as long as nobody else comes.
 *
 * An operation takes the companion's lock before the first change that its ring lock lets it
 * make, foretells, makes the change, and gives the lock back: so a poller that acts on what it
 * was told finds the ring so.  It copies outside; and it syncs when it is over.
 *
 * lock: false if it is busy, or a signal handler ran.  lock_now: whatever comes. */
bool shmp_companion_lock(struct shmp_live *live, enum shmp_patience patience);
void shmp_companion_lock_now(struct shmp_live *live);
void shmp_companion_unlock(struct shmp_live *live);
/* true: this was the kernel's read or write of the operation (then sync with
 * SHMP_SYNC_WRITTEN, or SHMP_SYNC_LEVEL after a read). */
bool shmp_companion_foretell_write(struct shmp_header *header, int fd);
/* Of a step that frees a slot. */
bool shmp_companion_foretell_read(struct shmp_header *header, int fd);
/* In the lock: somebody looks for data (room), and has been told that it is there. */
bool shmp_companion_told_of_data(struct shmp_header *header, int fd);
bool shmp_companion_told_of_room(struct shmp_header *header, int fd, int mode);

/* Brings the companion to the ring's level, with exactly one kernel read or write for a read
 * or write of the ring, what was foretold included.  locked: the caller has the lock. */
void shmp_companion_sync_locked(struct shmp_live *live, int fd, int mode, enum shmp_sync op);
/* F_SETPIPE_SZ, which pollers of the write end hear of whatever it changed (CP-8).  foretell:
 * before the ring has so many slots, with both ring locks and the companion's held; true: they
 * have heard, of room.  Else, and if the resize then fails, resized. */
bool shmp_companion_foretell_resize(struct shmp_header *header, int fd, int mode, uint32_t slots);
void shmp_companion_resized_locked(struct shmp_header *header, int fd, int mode);

/* Somebody looks from now on, SHMP_POLL_READERS | SHMP_POLL_WRITERS; or, SHMP_ASYNC_READERS, wants to
 * be told of each wait of a writer, SHMP_ASYNC_WRITERS, of each read.  Three steps of shmp_look (turn.c), which passes through both ring
 * locks between announcing and looking. */
bool shmp_companion_is_in_step(struct shmp_header *header, uint32_t sides);
void shmp_companion_announce(struct shmp_header *header, uint32_t sides);
/* 0; 1: the flags that were announced are gone, begin anew; or -EINTR: a handler ran while the lock was
 * another process's, which may be stopped. */
int shmp_companion_look(struct shmp_live *live, int fd, int mode, uint32_t sides);

/* The last of three steps of shmp_end_arm (arm.c), after announcing SHMP_ARMED_*.  0: nothing has been
 * told since, there is nothing to read (no room to write), and the companion says so.  1: not so.
 * -EINTR; -EAGAIN, if !may_sleep: the lock is taken. */
int shmp_companion_arm(struct shmp_live *live, int fd, int mode, uint32_t armed, bool may_sleep);

#endif
