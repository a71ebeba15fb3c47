/* pipe.h - a process's attachment to a pipe, and the ends it holds.  Internal. */
#ifndef SHMP_PIPE_H
#define SHMP_PIPE_H

#include <fcntl.h>
#include <stdbool.h>
#include <sys/uio.h>

#include "atomic.h"
#include "live.h"
#include "ring.h"
#include "seg.h"

/* The last living holder of a side that the other side has seen: two loads say that it
 * still is one.  Used under the lock of the side that looks. */
struct shmp_seen {
    struct shmp_peer *peer; /* a reference, or NULL */
    const _Atomic uint32_t *word;
    uint32_t value;
    uint32_t index;
    uint64_t state;
};

/* One per process and segment, however many ends: closing a second descriptor of the
 * segment file would drop the record locks of the first (m14). */
struct shmp_pipe {
    struct shmp_pipe *next;
    struct shmp_seg seg;
    struct shmp_live live;
    struct shmp_end *ends; /* guarded, like refs, by the registry's mutex (attach.c) */
    unsigned refs;
    _Atomic uint32_t held[2]; /* this process's descriptions, by SHMP_SIDE_* */
    struct shmp_seen seen[2];
    _Atomic bool inside[2]; /* a thread of this process is in that side's lock (turn.c) */
    uint16_t description_refs[SHMP_DESCRIPTIONS];
    unsigned notifiers[2]; /* of this process, by the side of their ends; guarded in relay.c */
};

/* One end: what a descriptor and its open file description are for the kernel's pipe. */
struct shmp_end {
    struct shmp_end *next;
    struct shmp_pipe *pipe;
    _Atomic uint32_t *flags; /* in the description table, or private_flags */
    _Atomic uint32_t private_flags;
    _Atomic uint32_t refs; /* one while open, and one for each call in progress */
    _Atomic bool open;
    int fd; /* of the companion */
    int mode;
    uint32_t description;
    uint32_t description_gen;
    bool shared; /* its flags are in the description table */
    bool forked; /* a child may not have joined them yet */
    bool deaf;   /* a FIFO read end whose POLLHUP may be silent (FO-16) */
    bool opening; /* a FIFO's, before it is known to be of this life (shmp_incarnate) */
    _Atomic bool brief; /* the last sleep took a few microseconds: a dialogue on one CPU */
    _Atomic uint8_t short_waits; /* in a row: the other side keeps coming */
    _Atomic uint8_t vain;        /* spins in a row that ended in a sleep */
};

static inline bool shmp_can_read(const struct shmp_end *end)
{
    return end->mode != O_WRONLY;
}

static inline bool shmp_can_write(const struct shmp_end *end)
{
    return end->mode != O_RDONLY;
}

static inline uint32_t shmp_flags(const struct shmp_end *end)
{
    return load_relaxed(end->flags);
}

/* ---- attach.c: the registry, fork ---------------------------------------------- */

/* Makes an end on a judged segment.  Takes both descriptors, also when it fails. */
int shmp_end_new(struct shmp_end **out, int segment_fd, const struct shmp_header *judged,
                 int companion_fd, int mode, uint32_t flags, const struct shmp_token *token);
void shmp_end_hold(struct shmp_end *end);
/* The same, of many at a time, to be released in reverse.  false: no memory. */
bool shmp_end_hold_anew(struct shmp_end *end);
void shmp_end_release(struct shmp_end *end);
/* Closes the end: calls in progress finish first (RD-9). */
int shmp_end_close(struct shmp_end *end);
/* An entry in the holder table, which a fork child may lack. 0 or -ENFILE. */
int shmp_end_claim_slow(struct shmp_end *end);
static inline int shmp_end_claim(struct shmp_end *end)
{
    return shmp_live_index(&end->pipe->live) >= 0 ? 0 : shmp_end_claim_slow(end);
}
/* What only one thread of a process may do at a time, and fork must not cut in half. */
void shmp_registry_lock(void);
void shmp_registry_unlock(void);
/* A fresh record, if a thread's exit has marked the present one, for all our pipes at once: the
 * old one is closed, and an entry that still names it would look dead. */
void shmp_renew(void);
/* Closes a descriptor of a segment without losing the record locks on it. */
int shmp_segment_close(int fd);

/* ---- description.c: file status flags ------------------------------------------ */

void shmp_description_new(struct shmp_end *end, uint32_t flags);
/* Joins the description of a token; false: it is gone, make a new one. */
bool shmp_description_join(struct shmp_end *end, uint32_t index, uint32_t gen);
void shmp_description_drop(struct shmp_end *end);
void shmp_description_relock(struct shmp_pipe *pipe);
/* In a fork child: shares it, or keeps a copy if the parent was faster to close it. */
void shmp_description_inherit(struct shmp_end *end);

/* ---- presence.c: is the other side still there? --------------------------------- */

/* With the lock of the looking side held. */
bool shmp_side_is_present(struct shmp_end *end, int side);
/* Without a lock, when nobody tracked is left: the companion's word. */
bool shmp_side_is_hung_up(struct shmp_end *end, int side);
/* Any process but this, or any end of this but one. */
bool shmp_is_held_by_others(struct shmp_pipe *pipe);
/* Sees to it that all sleepers of that side watch this process, by waking them (watch.h). */
void shmp_introduce_slow(struct shmp_pipe *pipe, int side);
static inline void shmp_introduce(struct shmp_pipe *pipe, int side)
{
    if ((load_relaxed(&pipe->live.introduced) & SHMP_INTRODUCED(side)) == 0)
        shmp_introduce_slow(pipe, side);
}
/* Before each change that may owe a sleeper of that side a wake, under the lock of the changing
 * side.  While some of the sleepers do not watch this process, its wakes come first, so that its
 * death can owe nobody one: who is woken and finds nothing waits for the lock before it sleeps
 * again.  true: it has woken one, and owes none for this change. */
bool shmp_wake_ahead_slow(struct shmp_pipe *pipe, int side);
static inline bool shmp_wake_ahead(struct shmp_pipe *pipe, int side)
{
    return (load_relaxed(&pipe->live.introduced) & SHMP_INTRODUCED(side)) == 0 &&
           shmp_wake_ahead_slow(pipe, side);
}
/* Before an end is closed: whom it may be the last to tell must watch us. */
void shmp_side_closing(struct shmp_pipe *pipe, int mode);
/* After an end was closed: wakes everybody if it was the last of its side (WK-8). */
void shmp_side_closed(struct shmp_pipe *pipe, int mode);
void shmp_seen_forget(struct shmp_pipe *pipe);

/* ---- turn.c: a side's lock, turns, the first look ----------------------------------- */

/* The call would have to sleep or to wait for a lock, and was told not to. */
#define SHMP_WOULD_SLEEP (-1000)

/* A side's lock, with repair and a fresh view of the geometry.  0; SHMP_WOULD_SLEEP; or
 * -errno, not locked. */
int shmp_side_lock(struct shmp_end *end, int side, bool may_sleep);
void shmp_side_unlock(struct shmp_end *end, int side);
static inline struct shmp_ring *shmp_side_ring(struct shmp_pipe *pipe, int side)
{
    return side == SHMP_SIDE_READERS ? &pipe->seg.read_side : &pipe->seg.write_side;
}

/* begin: 0; SHMP_WOULD_SLEEP; -EINTR; or -errno, without a turn. */
struct shmp_turn {
    bool held; /* the companion's lock, too */
    bool watched; /* it was held when the turn began */
    bool told; /* whoever looks has been told already */
    bool counted; /* for notifiers, whose relays have to be woken (notify.h) */
    bool noted; /* by the other side, when the companion's lock was given back: by one who has died, or
                 * who copies without that lock */
};
int shmp_turn_begin(struct shmp_end *end, int side, bool may_sleep, struct shmp_turn *turn);
/* The same, for a moment, but also after the dead. */
int shmp_turn_try(struct shmp_end *end, int side, struct shmp_turn *turn);
/* Lets the companion go, until the next hold. */
void shmp_turn_pause(struct shmp_end *end, struct shmp_turn *turn);
/* Before each step that may make a poller get up.  hold: has the companion's lock if somebody looks;
 * false: nobody is to be told.  foretell: then, with the step noted. */
bool shmp_turn_hold(struct shmp_end *end, int side, struct shmp_turn *turn);
void shmp_turn_foretell(struct shmp_end *end, int side, struct shmp_turn *turn);
/* wake: one of the other side.  tell: this operation is over or has changed something, so
 * whoever looks is told. */
void shmp_turn_end(struct shmp_end *end, int side, struct shmp_turn *turn, bool wake, bool tell);

/* Whether a FIFO's read end that may be deaf (FO-16) has nobody to wait for.  false also if that cannot be
 * known for ten milliseconds: the owner of a lock is stopped. */
bool shmp_never_had_writers(struct shmp_end *end);

/* A write that a signal has ended outside a turn: whoever looks is told of it as of every other
 * (PL-6, IO-2).  But nobody keeps a call for long that a signal has ended: if the companion's lock is not
 * free within SHMP_OVERDUE_NS its owner is stopped, and they are not told. */
void shmp_tell_cut_write(struct shmp_end *end);

/* Until every turn of that side that has begun is over, or its owner dead and the ring repaired.  0,
 * -EINTR or -errno; SHMP_WOULD_SLEEP, if !may_sleep: somebody who lives is in one. */
int shmp_pass_through(struct shmp_end *end, int side, bool may_sleep);
/* The caller has found nothing to read (no room) in a turn beside a note of `side`, the other one: pollers
 * may have been told otherwise by somebody who died before he made it so.  Perhaps another one has made
 * it since, and cannot tell them again.  1: look again.  0: no.  As shmp_pass_through, also if another
 * one is at it. */
int shmp_finish_for_the_dead(struct shmp_end *end, int side, bool may_sleep);

/* Somebody looks at this end from now on; or, O_ASYNC, wants to be told of each operation.
 * 0, -EINTR or -errno. */
int shmp_look(struct shmp_end *end, bool async);

/* ---- transfer.c: read and write -------------------------------------------------- */

struct shmp_transfer {
    struct shmp_cursor cursor;
    size_t left;
    size_t done;
    bool merged; /* the one chance to merge is gone (WR-3) */
    bool announced; /* that it waits: once for each wait (IO-4) */
    bool slept;  /* owes a hand-on (WK-3) */
    struct shmp_call call; /* others watch it until it has paid */
    uint64_t looked; /* when the caller, who has spun, looked for signals: sleep at once.  0: he has not */
    bool signalled; /* a handler has run: not to sleep any more */
    enum { SHMP_RESTARTS_UNKNOWN, SHMP_RESTARTS, SHMP_RESTARTS_NOT } restarts; /* has a handler that does */
};

/* Each runs to its end, or to SHMP_WOULD_SLEEP (only if !may_sleep), after which it goes on
 * where it was when called again.  Bytes, or -errno. */
ssize_t shmp_write_run(struct shmp_end *end, struct shmp_transfer *op, bool may_sleep);
ssize_t shmp_read_run(struct shmp_end *end, struct shmp_transfer *op, bool may_sleep);

/* A read in two halves, for callers that allocate in between.  begin: the bytes a read of n
 * would get, in a turn, if that is > 0 (then finish, or shmp_turn_end); else what shmp_read_run
 * returns.  finish: n, or -SHMP_ECORRUPT. */
ssize_t shmp_read_begin(struct shmp_end *end, size_t n, struct shmp_turn *turn);
ssize_t shmp_read_finish(struct shmp_end *end, void *buffer, size_t n, struct shmp_turn *turn);

/* Who has slept and leaves something behind wakes the next of its side (WK-3). */
void shmp_hand_on(struct shmp_end *end, int side);

/* ---- block.c: spinning and sleeping ------------------------------------------------ */

/* Spins for about one wake latency if the other side runs on another CPU (D7).
 * true: worth another try. */
bool shmp_spin(struct shmp_end *end, int side);
bool shmp_can_spin(struct shmp_end *end, int side);
#define SHMP_THE_END 1 /* end of file, or EPIPE: the other side is gone, and nothing is left to read */

/* Sleeps until the side can go on, or would see the end.  0, SHMP_THE_END, -EINTR.  any_handler: also one with
 * SA_RESTART ends it.  looked: when the binding looked for signals; 0: it has not. */
int shmp_wait_side(struct shmp_end *end, int side, bool any_handler, uint64_t looked);
/* A turn that any handler ends the wait for, once the owner of a lock seems to be stopped: 0, -EINTR,
 * -errno.  signalled: one has run. */
int shmp_wait_for_turn(struct shmp_end *end, int side, struct shmp_turn *turn, bool *signalled);

/* For language bindings: called before a sleep, and after a part of it, by who holds nothing.  Below 0
 * ends the wait with -EINTR.  A signal that came after the binding's last look is noticed here
 * (H50). */
extern int (*shmp_on_tick)(void);
/* By that function, when it looks: to get to the interpreter takes longer than a look is fresh. */
void shmp_looked_now(void);

/* ---- arm.c: readiness for who tries first and then sleeps --------------------------- */

/* 0: poll() of the descriptor sleeps until the side can go on, or would see the end.  1: it can
 * go on now, perhaps.  -EINTR, -EBADF; SHMP_WOULD_SLEEP, if !may_sleep: a lock is taken. */
int shmp_end_arm(struct shmp_end *end, int side, bool may_sleep);

/* ---- capacity.c: size and contents -------------------------------------------------- */

long shmp_capacity_get(struct shmp_end *end);
long shmp_capacity_set(struct shmp_end *end, long argument);
int shmp_pending(struct shmp_end *end, int *bytes);
/* First end of a new life of a FIFO: forgets what the last one left (FO-1). */
int shmp_incarnate(struct shmp_end *end);
/* 1: everything in the ring is from an earlier life than this end's companion.  0 or -errno. */
int shmp_is_new_life(struct shmp_end *end);

#endif
