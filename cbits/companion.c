/* companion.c - the kernel pipe beside the ring: lifetime, readiness, SIGIO. */
#include "companion.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "lock.h"
#include "ring.h"
#include "sys.h"

/* Not a size the kernel gives a new pipe, so it also says "known" (FO-1). */
#define COMPANION_BYTES 16384
/* At most two of the four slots, wherever in its page the first byte lies: not full, and a
 * power of two, so that the free ones can be taken away. */
#define MOST_EDGES 4096u

#define COMPANION_MOST (2 * COMPANION_BYTES)
#define LEAST_BYTES (COMPANION_BYTES / 2)

static const unsigned char zeros[COMPANION_MOST];

/* An address that faults: the kernel moves nothing, but tells its pollers and its SIGIO
 * owners of the attempt (IO-2, IO-3). */
#define NOWHERE ((void *)1)

static bool can_read(int mode)
{
    return mode != O_WRONLY;
}

static bool can_write(int mode)
{
    return mode != O_RDONLY;
}

/* Whoever died in here may have written down a level that it did not reach. */
static enum shmp_locked lock_with(struct shmp_live *live, struct shmp_companion_line *c,
                                  enum shmp_patience patience)
{
    enum shmp_locked locked = shmp_lock(live, &c->lock, patience);
    if (locked == SHMP_LOCKED_FROM_DEAD)
        store_relaxed(&c->level, SHMP_LEVEL_UNKNOWN);
    return locked;
}

static void lock_companion(struct shmp_live *live, struct shmp_companion_line *c)
{
    lock_with(live, c, SHMP_LOCK_WAIT);
}

void shmp_companion_lock_now(struct shmp_live *live)
{
    lock_companion(live, &live->seg->header->companion);
}

bool shmp_companion_lock(struct shmp_live *live, enum shmp_patience patience)
{
    enum shmp_locked locked = lock_with(live, &live->seg->header->companion, patience);
    return locked == SHMP_LOCKED || locked == SHMP_LOCKED_FROM_DEAD;
}

void shmp_companion_unlock(struct shmp_live *live)
{
    shmp_unlock(&live->seg->header->companion.lock);
}

int shmp_companion_create(int fds[2])
{
    int r = (int)shmp_sys.pipe2(fds, O_CLOEXEC | O_NONBLOCK);
    if (r < 0)
        return r;
    shmp_companion_mark(fds[0]);
    long written = shmp_sys.write_quiet(fds[1], zeros, 1);
    if (written == 1)
        return 0;
    /* Without that byte a first look at a ring with data would not see it. */
    shmp_sys.close(fds[0]);
    shmp_sys.close(fds[1]);
    return written < 0 ? (int)written : -EIO;
}

int shmp_companion_is_fresh(int fd)
{
    int queued = 0;
    long size = shmp_sys.fcntl(fd, F_GETPIPE_SZ, 0);
    if (size < 0)
        return (int)size;
    if (size == COMPANION_BYTES / 2)
        /* Also one whose free slots were taken away; but that has bytes, and a new one none. */
        return shmp_sys.ioctl(fd, FIONREAD, &queued) == 0 && queued > 0 ? 0 : 2;
    return size != COMPANION_BYTES && size != COMPANION_BYTES / 4 && size != COMPANION_BYTES * 2;
}

int shmp_companion_mark(int fd)
{
    long r = shmp_sys.fcntl(fd, F_SETPIPE_SZ, COMPANION_BYTES);
    /* EPERM: this user's pipes hold too many pages, and new ones have two slots (CP-5). */
    return r < 0 ? (int)r : 0;
}

void shmp_companion_measure(struct shmp_header *header, int fd)
{
    long size = shmp_sys.fcntl(fd, F_GETPIPE_SZ, 0);
    store_relaxed(&header->companion.most_edges, size >= COMPANION_BYTES ? MOST_EDGES : 1);
}

/* One more byte; counted first, as the count is an upper bound also if this process dies here.
 * Whether the kernel took it. */
static bool add_byte(struct shmp_companion_line *c, int fd)
{
    uint32_t queued = load_relaxed(&c->queued);
    store_relaxed(&c->queued, queued + 1);
    if (shmp_sys.write_quiet(fd, zeros, 1) == 1)
        return true;
    store_relaxed(&c->queued, queued);
    return false;
}

void shmp_companion_prime(struct shmp_live *live, int fd, int mode)
{
    struct shmp_companion_line *c = &live->seg->header->companion;
    int queued = 1;
    lock_companion(live, c);
    /* Nor with O_ASYNC: to open is no write (IO-5), and each write brings its own. */
    bool looked = (load_seq_cst(&live->seg->header->wait.poll_usage) &
                   (SHMP_WATCH_READERS | SHMP_ASYNC_READERS)) != 0;
    shmp_sys.ioctl(fd, FIONREAD, &queued);
    if (can_write(mode) && !looked && queued == 0)
        add_byte(c, fd);
    shmp_unlock(&c->lock);
}

bool shmp_companion_is_hung_up(int fd)
{
    struct pollfd p = {.fd = fd};
    return shmp_sys.poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

/* One read, however much there is: each is one notification to asynchronous writers. */
static void drain(int fd)
{
    unsigned char bytes[COMPANION_MOST];
    shmp_sys.read(fd, bytes, sizeof bytes);
}

/* This user's pipes hold too many pages: who is not privileged gets no slots back (CP-5).  Then two are
 * left, one for "some" and both for "full". */
static bool is_limited(const struct shmp_companion_line *c)
{
    return load_relaxed(&c->most_edges) != MOST_EDGES;
}

/* Full without a word to readers, from either end: one, two or all four slots are in use, and
 * the others go.  Pollers of write ends are told, and find it full.  A limited one may keep a free slot:
 * they find room that is not there, and their write fills it. */
static void take_free_slots(struct shmp_companion_line *c, int fd)
{
    for (long size = is_limited(c) ? LEAST_BYTES : SHMP_PAGE; size <= COMPANION_BYTES; size *= 2) {
        int queued = 0;
        uint32_t level = size == COMPANION_BYTES ? SHMP_LEVEL_FULL : SHMP_LEVEL_SHRUNK;
        long r = shmp_sys.fcntl(fd, F_SETPIPE_SZ, size);
        if (r == -EBUSY) /* more slots are in use */
            continue;
        if (r < 0) /* not full: the next sync tries again */
            return;
        if (is_limited(c))
            level = shmp_sys.ioctl(fd, FIONREAD, &queued) == 0 && queued > (int)SHMP_PAGE
                        ? SHMP_LEVEL_FULL
                        : SHMP_LEVEL_NOT_FULL;
        store_relaxed(&c->level, level);
        return;
    }
}

/* Every slot used, in one write: whole pages never merge.  Without readers the kernel takes
 * nothing. */
static void fill(struct shmp_companion_line *c, int fd)
{
    store_relaxed(&c->level, SHMP_LEVEL_FULL);
    store_relaxed(&c->queued, MOST_EDGES);
    if (shmp_sys.write_quiet(fd, zeros, COMPANION_MOST) == -EPIPE)
        take_free_slots(c, fd);
}

/* After a death in the lock its size tells what the dead one had come to: slots are taken away until
 * none is free, and come back before a byte is read; and nobody fills one that has grown.  Only of the
 * usual size it may be full or not, or where it never had that (shmp_companion_measure). */
static uint32_t level_of(struct shmp_companion_line *c, int fd)
{
    uint32_t level = load_relaxed(&c->level);
    if (level == SHMP_LEVEL_UNKNOWN) {
        long size = shmp_sys.fcntl(fd, F_GETPIPE_SZ, 0);
        if (size > 0 && size < (is_limited(c) ? LEAST_BYTES : COMPANION_BYTES))
            level = SHMP_LEVEL_SHRUNK;
        else if (size > COMPANION_BYTES)
            level = SHMP_LEVEL_GROWN;
        store_relaxed(&c->level, level);
    }
    return level;
}

/* false: one slot is left, and stays. */
static bool give_slots_back(struct shmp_companion_line *c, int fd)
{
    bool all = shmp_sys.fcntl(fd, F_SETPIPE_SZ, COMPANION_BYTES) >= 0;
    store_relaxed(&c->most_edges, all ? MOST_EDGES : 1);
    return all || shmp_sys.fcntl(fd, F_SETPIPE_SZ, LEAST_BYTES) >= 0;
}

/* A reader is about to empty it, or to leave one byte: all its slots back. */
static void restore_size(struct shmp_companion_line *c, int fd)
{
    uint32_t level = level_of(c, fd);
    if (level == SHMP_LEVEL_SHRUNK && !give_slots_back(c, fd))
        return; /* the next reader tries again; until then there is room when there is nothing else */
    /* GROWN stays: to take slots away is an event for writers, and nothing has happened. */
    if (level != SHMP_LEVEL_GROWN)
        store_relaxed(&c->level, SHMP_LEVEL_NOT_FULL);
}

/* Some, but not full.  true if it took a read. */
static bool leave_one(struct shmp_companion_line *c, int fd)
{
    unsigned char bytes[COMPANION_MOST];
    int queued = 0;
    shmp_sys.ioctl(fd, FIONREAD, &queued);
    restore_size(c, fd); /* first, as in sync_locked: one change for writers */
    if (queued > 1)
        shmp_sys.read(fd, bytes, (size_t)queued - 1 < sizeof bytes ? (size_t)queued - 1
                                                                   : sizeof bytes);
    store_relaxed(&c->queued, 1);
    return queued > 1;
}

bool shmp_companion_never_had_writers(struct shmp_header *h, int fd)
{
    unsigned char byte;
    bool gone = false;
    /* Draining takes the waiting byte, which a reader cannot put back: so the level must be
     * kept from now on, and the flag comes first: dies here, and the next writer brings a byte. */
    uint32_t before = fetch_or_seq_cst(&h->wait.poll_usage, SHMP_POLL_READERS);
    if (shmp_ring_looks_empty(h)) {
        drain(fd);
        store_relaxed(&h->companion.queued, 0);
        gone = shmp_sys.read(fd, &byte, 1) == 0;
    }
    /* Without writers nobody missed it, and the next one brings a byte (prime).  Who announced itself
     * meanwhile begins anew (shmp_companion_look). */
    if (gone && (before & SHMP_POLL_READERS) == 0)
        atomic_fetch_and(&h->wait.poll_usage, ~SHMP_POLL_READERS);
    return gone;
}

static bool is_full(uint32_t level)
{
    return level == SHMP_LEVEL_FULL || level == SHMP_LEVEL_SHRUNK;
}

/* After a death in the lock nobody knows, and who foretells room assumes the worst. */
static bool may_be_full(uint32_t level)
{
    return level != SHMP_LEVEL_NOT_FULL && level != SHMP_LEVEL_GROWN;
}

/* The companion has just been brought to "some", under the lock: whoever sleeps armed is told. */
static void disarm(struct shmp_header *h, uint32_t armed)
{
    if ((load_relaxed(&h->wait.poll_usage) & armed) == 0)
        return;
    /* In this order.  Dies in between: turns tell once more, and nobody drains or fills. */
    store_release(&h->companion.in_step, load_relaxed(&h->companion.in_step) & ~armed);
    atomic_fetch_and(&h->wait.poll_usage, ~armed);
}

bool shmp_companion_is_heavy(struct shmp_header *h)
{
    return load_relaxed(&h->companion.queued) > MOST_EDGES / 2;
}

/* steps: the sides that are in step, and those that this brings so. */
static void sync_locked(struct shmp_header *h, int fd, int mode, enum shmp_sync op, uint32_t steps)
{
    struct shmp_companion_line *c = &h->companion;
    uint32_t usage = load_seq_cst(&h->wait.poll_usage);
    uint32_t tail = SHMP_TAIL_INDEX(load_seq_cst(&h->tail));
    uint32_t head = load_seq_cst(&h->head);
    uint32_t level = level_of(c, fd);
    /* Until every turn that cannot have seen the flag is over (shmp_look, shmp_end_arm), the
     * waiting byte stays: such a turn may publish and die, and no reader could put it back. */
    /* What a dead one has told and noted becomes true in the next hands that take his lock. */
    bool empty = shmp_empty(head, tail) && (steps & SHMP_WATCH_READERS) != 0 &&
                 !shmp_ring_put_is_noted(h);
    bool full = shmp_full(head, tail, shmp_max_usage(h)) && (steps & SHMP_WATCH_WRITERS) != 0 &&
                !shmp_ring_take_is_noted(h);
    bool told = op != SHMP_SYNC_READ || (usage & SHMP_ASYNC_WRITERS) == 0;
    /* A write of an end that can do both never reads: that would signal its writers (IO-7). */
    bool reads = can_read(mode) && op != SHMP_SYNC_WRITE && op != SHMP_SYNC_WRITTEN;
    if (reads && empty) {
        restore_size(c, fd); /* first: then writers hear of one change, not of two */
        drain(fd);
        told = true;
        store_relaxed(&c->queued, 0);
    } else if (reads && !full &&
               ((level != SHMP_LEVEL_NOT_FULL && level != SHMP_LEVEL_GROWN) ||
                shmp_companion_is_heavy(h))) {
        told = leave_one(c, fd) || told;
    }
    if (!told)
        shmp_sys.read(fd, NOWHERE, 1);
    if (reads && !full)
        disarm(h, SHMP_ARMED_WRITERS);
    if (!can_write(mode))
        return;
    level = load_relaxed(&c->level);
    bool fills = full && !is_full(level) && level != SHMP_LEVEL_GROWN &&
                 (op == SHMP_SYNC_WRITE || is_limited(c));
    if (fills)
        fill(c, fd); /* which is this write's edge, too; of a limited one, a further one */
    else if (full && !is_full(level))
        take_free_slots(c, fd);
    if (op == SHMP_SYNC_WRITE && !fills) {
        if (!empty && (full || load_relaxed(&c->queued) < load_relaxed(&c->most_edges)))
            add_byte(c, fd);
        else
            shmp_sys.write_quiet(fd, NOWHERE, 1);
    }
    if (!empty && (op == SHMP_SYNC_WRITE || op == SHMP_SYNC_WRITTEN))
        disarm(h, SHMP_ARMED_READERS);
}

void shmp_companion_sync_locked(struct shmp_live *live, int fd, int mode, enum shmp_sync op)
{
    struct shmp_header *h = live->seg->header;
    sync_locked(h, fd, mode, op, load_relaxed(&h->companion.in_step));
}

bool shmp_companion_foretell_write(struct shmp_header *h, int fd)
{
    struct shmp_companion_line *c = &h->companion;
    uint32_t usage = load_seq_cst(&h->wait.poll_usage);
    int queued = 0;
    bool level = (usage & SHMP_WATCH_READERS) != 0;
    if ((!level && (usage & SHMP_ASYNC_READERS) == 0) || !shmp_ring_looks_empty(h))
        return false;
    bool enough = load_relaxed(&c->queued) >= load_relaxed(&c->most_edges);
    /* Here a reader died before it drained, or only before it noted that; and one more byte may take
     * the slot that is one too many: the second of two, the fifth of one that has grown. */
    if (level && enough)
        enough = shmp_sys.ioctl(fd, FIONREAD, &queued) == 0 && queued > 0;
    if (enough) { /* if no level is kept no reader takes bytes out */
        shmp_sys.write_quiet(fd, NOWHERE, 1);
        return true;
    }
    return add_byte(c, fd);
}

bool shmp_companion_foretell_read(struct shmp_header *h, int fd)
{
    struct shmp_companion_line *c = &h->companion;
    return may_be_full(load_relaxed(&c->level)) && leave_one(c, fd);
}

bool shmp_companion_told_of_data(struct shmp_header *h, int fd)
{
    int queued = 0;
    return (load_relaxed(&h->companion.in_step) & SHMP_WATCH_READERS) != 0 &&
           shmp_sys.ioctl(fd, FIONREAD, &queued) == 0 && queued > 0;
}

bool shmp_companion_told_of_room(struct shmp_header *h, int fd, int mode)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    if ((load_relaxed(&h->companion.in_step) & SHMP_WATCH_WRITERS) == 0)
        return false;
    if (!can_read(mode))
        return shmp_sys.poll(&p, 1, 0) > 0;
    shmp_companion_foretell_read(h, fd); /* cannot ask, but can tell */
    return true;
}

static bool is_full_with(struct shmp_header *h, uint32_t max_usage)
{
    uint32_t tail = SHMP_TAIL_INDEX(load_seq_cst(&h->tail));
    return shmp_full(load_seq_cst(&h->head), tail, max_usage);
}

/* One F_SETPIPE_SZ for one F_SETPIPE_SZ: pollers of write ends hear of it, readers do not. */
static void resize_locked(struct shmp_header *h, int fd, int mode, bool full)
{
    struct shmp_companion_line *c = &h->companion;
    uint32_t level = load_relaxed(&c->level);
    long size = shmp_sys.fcntl(fd, F_GETPIPE_SZ, 0);
    if (full && !is_full(level)) {
        take_free_slots(c, fd);
        return;
    }
    if (!full && may_be_full(level)) {
        size = size < COMPANION_BYTES ? COMPANION_BYTES : COMPANION_BYTES * 2;
        level = size == COMPANION_BYTES ? SHMP_LEVEL_NOT_FULL : SHMP_LEVEL_GROWN;
    } else if (!full && level == SHMP_LEVEL_GROWN && load_relaxed(&c->queued) < MOST_EDGES) {
        size = COMPANION_BYTES; /* a reader has been here, and left slots free */
        level = SHMP_LEVEL_NOT_FULL;
    }
    if (shmp_sys.fcntl(fd, F_SETPIPE_SZ, size) >= 0)
        store_relaxed(&c->level, level);
    else if (!full && may_be_full(load_relaxed(&c->level)) && can_read(mode))
        leave_one(c, fd); /* no more slots for this user: from a write end there is no other way */
}

bool shmp_companion_foretell_resize(struct shmp_header *h, int fd, int mode, uint32_t slots)
{
    if ((load_seq_cst(&h->wait.poll_usage) & SHMP_WATCH_WRITERS) == 0 || is_full_with(h, slots))
        return false;
    resize_locked(h, fd, mode, false);
    return true;
}

void shmp_companion_resized_locked(struct shmp_header *h, int fd, int mode)
{
    if ((load_seq_cst(&h->wait.poll_usage) & SHMP_WATCH_WRITERS) != 0)
        resize_locked(h, fd, mode, is_full_with(h, shmp_max_usage(h)));
}

bool shmp_companion_is_in_step(struct shmp_header *h, uint32_t sides)
{
    /* Acquire: whoever sees a side in step sees a companion that is. */
    return (load_acquire(&h->companion.in_step) & sides) == sides;
}

void shmp_companion_announce(struct shmp_header *h, uint32_t sides)
{
    /* Before the ring locks are taken; partner: a turn loads the flag after it has its lock. */
    fetch_or_seq_cst(&h->wait.poll_usage, sides);
}

int shmp_companion_look(struct shmp_live *live, int fd, int mode, uint32_t sides)
{
    struct shmp_header *h = live->seg->header;
    struct shmp_companion_line *c = &h->companion;
    int queued = 0;
    if (lock_with(live, c, SHMP_LOCK_SIGNALS) == SHMP_LOCK_SIGNAL)
        return -EINTR;
    if ((load_seq_cst(&h->wait.poll_usage) & sides) != sides) {
        shmp_unlock(&c->lock);
        return 1;
    }
    uint32_t steps = load_relaxed(&c->in_step) | sides;
    if ((sides & (SHMP_POLL_READERS | SHMP_POLL_WRITERS)) != 0)
        sync_locked(h, fd, mode, SHMP_SYNC_LEVEL, steps);
    else if (load_relaxed(&c->level) == SHMP_LEVEL_UNKNOWN && (steps & SHMP_WATCH_WRITERS) == 0 &&
             shmp_sys.ioctl(fd, FIONREAD, &queued) == 0 && queued <= (int)MOST_EDGES)
        restore_size(c, fd); /* known not to be full, so that a later look need not read (IO-6) */
    /* Behind the level: the next to look believes it without a lock, and polls at once (PL-1, PL-2).
     * Dies before it: the flag is set, the side is not in step, and the next one looks for himself. */
    store_release(&c->in_step, load_relaxed(&c->in_step) | sides);
    shmp_unlock(&c->lock);
    return 0;
}

int shmp_companion_arm(struct shmp_live *live, int fd, int mode, uint32_t armed, bool may_sleep)
{
    struct shmp_header *h = live->seg->header;
    struct shmp_companion_line *c = &h->companion;
    if (!shmp_companion_lock(live, may_sleep ? SHMP_LOCK_SIGNALS : SHMP_LOCK_DEAD))
        return may_sleep ? -EINTR : -EAGAIN;
    bool quiet = (load_seq_cst(&h->wait.poll_usage) & armed) != 0 &&
                 ((armed & SHMP_ARMED_READERS) != 0 ? shmp_ring_looks_empty(h)
                                                    : shmp_ring_looks_full(h, shmp_max_usage(h)));
    if (quiet) {
        /* First here: the sync may find that it has told, and takes the bit off again (disarm).  And
         * nobody believes it without the lock.  Dies behind the drain: the side is in step, and an
         * empty companion gets its byte with the next write. */
        store_release(&c->in_step, load_relaxed(&c->in_step) | armed);
        sync_locked(h, fd, mode, SHMP_SYNC_LEVEL, load_relaxed(&c->in_step));
    }
    shmp_unlock(&c->lock);
    return !quiet;
}
