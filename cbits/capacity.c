/* capacity.c - F_GETPIPE_SZ, F_SETPIPE_SZ and FIONREAD (rules CP-1..CP-9).
 *
 * A resize holds both ring locks.  Down to any size, and up to ring_size, it only changes
 * max_usage.  Beyond that it builds a larger area in a free part of the file, copies the
 * slots in use, and turns geometry_gen: one store, before which nobody sees anything and
 * after which everybody sees all of it.  Each side notices the new generation the next time
 * it has its lock; as the resize had both, no copy into the old area is in progress then.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>

#include "companion.h"
#include "lock.h"
#include "pipe.h"
#include "record.h"
#include "sys.h"
#include "wait.h"

#ifndef FALLOC_FL_KEEP_SIZE
#define FALLOC_FL_KEEP_SIZE 1
#define FALLOC_FL_PUNCH_HOLE 2
#endif

/* Order: write lock, read lock.  Nobody else holds two. */
static int lock_both(struct shmp_end *end)
{
    int r = shmp_side_lock(end, SHMP_SIDE_WRITERS, true);
    if (r < 0)
        return r;
    r = shmp_side_lock(end, SHMP_SIDE_READERS, true);
    if (r < 0)
        shmp_side_unlock(end, SHMP_SIDE_WRITERS);
    return r;
}

static void unlock_both(struct shmp_end *end)
{
    shmp_side_unlock(end, SHMP_SIDE_READERS);
    shmp_side_unlock(end, SHMP_SIDE_WRITERS);
}

/* The same, and the companion's lock if somebody looks.  Its owner may be stopped: who waits for it lets
 * others into the ring. */
static int lock_all(struct shmp_end *end, bool *watched)
{
    struct shmp_live *live = &end->pipe->live;
    for (;;) {
        int r = lock_both(end);
        *watched = r == 0 && shmp_companion_is_watched(live->seg->header);
        if (!*watched || shmp_companion_lock(live, SHMP_LOCK_TRY))
            return r;
        unlock_both(end);
        if (!shmp_companion_lock(live, SHMP_LOCK_SIGNALS))
            return -EINTR;
        shmp_companion_unlock(live);
    }
}

static void publish_geometry(struct shmp_header *h, const struct shmp_shape *shape)
{
    uint32_t gen = load_relaxed(&h->wait.geometry_gen) + 1;
    struct shmp_geometry *g = &h->geometry[gen & 1];
    store_relaxed(&g->area_offset, shape->area_offset);
    store_relaxed(&g->ring_size, shape->ring_size);
    store_relaxed(&g->max_usage, shape->max_usage);
    /* Release; partners: the acquire loads of geometry_gen.  Sequentially consistent for the
     * sleepers' look at max_usage after they registered. */
    store_seq_cst(&h->wait.geometry_gen, gen);
}

static void copy_slots(const struct shmp_ring *from, unsigned char *base, uint32_t ring_size)
{
    _Atomic uint32_t *words = (_Atomic uint32_t *)(void *)base;
    unsigned char *data = base + shmp_words_bytes(ring_size);
    uint32_t mask = ring_size - 1;
    uint32_t head = load_relaxed(&from->header->head);
    uint32_t tail = SHMP_TAIL_INDEX(load_relaxed(&from->header->tail));
    /* The slot before head too: when the ring is empty its seal refuses merges (I5). */
    uint32_t used = shmp_occupancy(head, tail);
    uint32_t first = used == 0 ? head - 1 : tail;
    /* Counted, too: the indices may have been scribbled on since they were checked. */
    for (uint32_t i = first, n = 0; i != head && n < from->ring_size; i++, n++) {
        uint32_t word = load_relaxed(&from->words[i & from->mask]);
        uint32_t end = shmp_word_end(word);
        store_relaxed(&words[i & mask], word);
        memcpy(data + (size_t)(i & mask) * SHMP_SLOT_SIZE,
               from->data + (size_t)(i & from->mask) * SHMP_SLOT_SIZE,
               end < SHMP_SLOT_SIZE ? end : SHMP_SLOT_SIZE);
    }
}

/* Moves the ring to an area of new_size slots.  Both locks are held. */
static int move_ring(struct shmp_pipe *pipe, struct shmp_shape *shape, uint32_t new_size)
{
    struct shmp_seg *seg = &pipe->seg;
    uint64_t old_offset = shape->area_offset;
    uint64_t old_bytes = shmp_area_bytes(shape->ring_size);
    uint64_t new_bytes = shmp_area_bytes(new_size);
    uint64_t offset = SHMP_FIXED_BYTES + new_bytes <= old_offset ? SHMP_FIXED_BYTES
                                                                 : old_offset + old_bytes;
    unsigned char *base;
    long r = shmp_seg_reserve(seg->fd, seg->kind, offset, new_bytes);
    if (r == 0)
        r = shmp_area_map(seg->fd, offset, new_size, &base);
    if (r < 0)
        return (int)r;
    copy_slots(&seg->write_side, base, new_size);
    shmp_sys.munmap(base, shmp_area_span(new_size));
    shape->area_offset = offset;
    shape->ring_size = new_size;
    publish_geometry(seg->header, shape);
    /* Nobody will look there again.  Dies before: the pages stay until the pipe goes. */
    shmp_sys.fallocate(seg->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)old_offset,
                       (off_t)old_bytes);
    return 0;
}

static int set_slots(struct shmp_pipe *pipe, uint32_t slots)
{
    struct shmp_header *h = pipe->seg.header;
    struct shmp_shape shape;
    struct stat st;
    long r = shmp_sys.fstat(pipe->seg.fd, &st);
    if (r == 0)
        r = shmp_shape_read(h, (uint64_t)st.st_size, &shape);
    if (r < 0)
        return (int)r;
    uint32_t used = shmp_occupancy(load_relaxed(&h->head), SHMP_TAIL_INDEX(load_relaxed(&h->tail)));
    if (used > shape.ring_size) {
        shmp_set_reason("the segment is damaged: more slots in use than there are");
        return -SHMP_ECORRUPT;
    }
    if (used > slots)
        return -EBUSY; /* counted in slots, however few bytes they hold (CP-6) */
    shape.max_usage = slots;
    if (slots > shape.ring_size)
        return move_ring(pipe, &shape, slots);
    publish_geometry(h, &shape);
    return 0;
}

long shmp_capacity_get(struct shmp_end *end)
{
    struct shmp_shape shape;
    /* Whether the file is long enough for it is the business of who maps it. */
    int r = shmp_shape_read(end->pipe->seg.header, UINT64_MAX, &shape);
    return r < 0 ? r : (long)shape.max_usage * (long)SHMP_SLOT_SIZE;
}

static long set_capacity(struct shmp_end *end, uint32_t slots)
{
    struct shmp_pipe *pipe = end->pipe;
    struct shmp_header *h = pipe->seg.header;
    bool watched;
    int r = lock_all(end, &watched);
    if (r < 0)
        return r;
    if (slots == 0)
        r = -EPERM; /* only growth can be above the limit (CP-4) */
    bool ahead = r == 0 && shmp_wake_ahead(pipe, SHMP_SIDE_WRITERS);
    bool told = false;
    /* Room is foretold, like that of a read: dies before it is there, and pollers look in vain. */
    if (watched && r == 0)
        told = shmp_companion_foretell_resize(h, end->fd, end->mode, slots);
    if (r == 0)
        r = set_slots(pipe, slots);
    if (watched && told == (r < 0))
        shmp_companion_resized_locked(h, end->fd, end->mode);
    if (watched)
        shmp_companion_unlock(&pipe->live);
    unlock_both(end);
    if (r < 0)
        return r;
    /* Any resize wakes a writer and the pollers, whatever it changed (CP-8). */
    if (!ahead)
        shmp_side_wake_one(h, SHMP_SIDE_WRITERS);
    /* Who began to look meanwhile waits for the locks that we had, and sees the new size (L2 of
     * companion-sync.md). */
    return (long)slots * (long)SHMP_SLOT_SIZE;
}

long shmp_capacity_set(struct shmp_end *end, long argument)
{
    uint32_t wanted = (uint32_t)argument; /* the kernel's argument is 32 bits (CP-3) */
    if (wanted > 1u << 31)
        return -EINVAL;
    /* A writer that resizes owes sleeping writers a wake, and of their own side they watch the
     * calls alone (watch.h). */
    struct shmp_call call;
    if (shmp_live_enter_call(&end->pipe->live, &call))
        shmp_renew();
    long r = set_capacity(end, shmp_slots_for(wanted));
    shmp_live_leave_call(&call);
    return r;
}

int shmp_pending(struct shmp_end *end, int *bytes)
{
    struct shmp_header *h = end->pipe->seg.header;
    ssize_t pending = 0;
    int r = 1;
    /* Once more beside what was finished, and no more: slots without bytes are damage. */
    for (int looks = 0; r == 1 && looks < 2; looks++) {
        r = shmp_side_lock(end, SHMP_SIDE_READERS, true);
        if (r < 0)
            return r;
        pending = shmp_ring_pending(&end->pipe->seg.read_side);
        bool noted = shmp_companion_is_watched(h) && shmp_ring_put_is_noted(h);
        shmp_side_unlock(end, SHMP_SIDE_READERS);
        if (pending == 0 && noted)
            r = shmp_finish_for_the_dead(end, SHMP_SIDE_WRITERS, true);
    }
    if (r < 0)
        return r;
    if (pending < 0)
        return (int)pending;
    *bytes = pending > INT_MAX ? INT_MAX : (int)pending;
    return 0;
}

int shmp_is_new_life(struct shmp_end *end)
{
    int fresh = shmp_companion_is_fresh(end->fd);
    return fresh == 2 ? !shmp_is_held_by_others(end->pipe) : fresh; /* then the holders have to say */
}

int shmp_incarnate(struct shmp_end *end)
{
    struct shmp_pipe *pipe = end->pipe;
    struct shmp_header *h = pipe->seg.header;
    struct shmp_shape shape;
    struct stat st;
    end->opening = true;
    int r = lock_both(end);
    end->opening = false;
    if (r < 0)
        return r;
    int fresh = shmp_is_new_life(end);
    if (fresh == 1) {
        r = (int)shmp_sys.fstat(pipe->seg.fd, &st);
        if (r == 0)
            r = shmp_shape_read(h, (uint64_t)st.st_size, &shape);
        if (r == 0) {
            shape.max_usage = pipe->seg.default_usage < shape.ring_size
                                  ? pipe->seg.default_usage
                                  : shape.ring_size;
            shmp_ring_clear(&pipe->seg.write_side);
            store_relaxed(&h->wait.poll_usage, 0);
            store_relaxed(&h->companion.in_step, 0);
            store_relaxed(&h->companion.level, SHMP_LEVEL_UNKNOWN);
            store_relaxed(&h->companion.queued, 0);
            publish_geometry(h, &shape);
            /* Last: a process that dies before this leaves the kernel's pipe fresh, or gone,
             * and the next opener does all of it again. */
            shmp_companion_mark(end->fd);
            shmp_companion_measure(h, end->fd);
        }
    } else if (fresh < 0) {
        r = fresh;
    }
    unlock_both(end);
    return r;
}
