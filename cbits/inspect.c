/* inspect.c - one look at a live segment: read-only, lock-free, never blocks.
 *
 * It maps the segment without write permission, takes no lock and registers nowhere, so it
 * works while the owner of a lock is stopped or dead and cannot disturb anybody (D12: and it
 * believes nothing it reads).  The ring is copied between two equal readings of tail and
 * head; when it moves too fast for that the snapshot says so (torn).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "atomic.h"
#include "ring.h"
#include "seg.h"
#include "sys.h"

#define TRIES 32

static bool lock_is_held(int fd, uint32_t index)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SHMP_HOLDER_LOCK + index, .l_len = 1};
    return shmp_sys.lock(fd, F_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}

static void look_at_identity(const struct shmp_header *h, const struct stat *st,
                             struct shmp_snapshot *s)
{
    s->abi_version = h->version;
    s->named = h->kind == SHMP_KIND_NAMED;
    s->instance = h->instance;
    memcpy(s->name, h->name, SHMP_NAME_MAX);
    s->created_ns = h->created_ns;
    s->creator_pid = h->creator_pid;
    s->creator_uid = h->creator_uid;
    s->segment_bytes = (uint64_t)st->st_size;
}

static void look_at_holders(int fd, const struct shmp_header *h, const unsigned char *base,
                            struct shmp_snapshot *s)
{
    const struct shmp_holder *table = (const void *)(base + SHMP_HOLDERS_OFFSET);
    uint32_t limit = load_acquire(&h->wait.holder_limit);
    for (uint32_t i = 0; i < limit && i < SHMP_HOLDERS; i++) {
        if (load_acquire(&table[i].live) == 0)
            continue;
        uint64_t state = load_acquire(&table[i].state);
        struct shmp_holder_info info = {
            .index = i,
            .pid = load_relaxed(&table[i].pid),
            .readers = SHMP_STATE_READERS(state),
            .writers = SHMP_STATE_WRITERS(state),
            .generation = SHMP_STATE_GEN(state),
        };
        /* A process never sees its own record locks. */
        info.alive = info.pid == (uint32_t)getpid() || lock_is_held(fd, i);
        if (info.alive) {
            s->holders++;
            s->readers += info.readers;
            s->writers += info.writers;
        }
        if (s->holder_count < SHMP_SNAPSHOT_HOLDERS)
            s->holder[s->holder_count++] = info;
    }
}

static void look_at_slots(const struct shmp_header *h, const unsigned char *area,
                          const struct shmp_shape *shape, struct shmp_snapshot *s)
{
    const _Atomic uint32_t *words = (const void *)area;
    s->torn = 1;
    for (int tries = 0; tries < TRIES && s->torn; tries++) {
        uint64_t tail = load_acquire(&h->tail);
        uint32_t head = load_acquire(&h->head);
        s->head = head;
        s->tail = SHMP_TAIL_INDEX(tail);
        s->tail_offset = SHMP_TAIL_OFFSET(tail);
        s->occupancy = shmp_occupancy(s->head, s->tail);
        s->pending = 0;
        s->slot_count = 0;
        if (s->occupancy > shape->ring_size)
            continue; /* head and tail of different moments, or damage: torn either way */
        for (uint32_t i = 0; i < s->occupancy; i++) {
            uint32_t word = load_acquire(&words[(s->tail + i) & (shape->ring_size - 1)]);
            uint32_t from = shmp_word_start(word) + (i == 0 ? s->tail_offset : 0);
            uint32_t end = shmp_word_end(word);
            s->pending += end > from ? end - from : 0;
            if (s->slot_count < SHMP_SNAPSHOT_SLOTS)
                s->slots[s->slot_count++] =
                    (struct shmp_slot_info){.start = from,
                                            .end = end,
                                            .flags = word >> SHMP_WORD_FLAGS_SHIFT};
        }
        /* A resize gives the old area back: what was read from it then is nothing. */
        s->torn = load_acquire(&h->tail) != tail || load_acquire(&h->head) != head ||
                  load_acquire(&h->wait.geometry_gen) != shape->gen;
    }
}

static void look_at_queues(const struct shmp_header *h, struct shmp_snapshot *s)
{
    uint64_t readable = load_acquire(&h->wait.readable.word);
    uint64_t writable = load_acquire(&h->wait.writable.word);
    s->read_waiters = SHMP_QUEUE_WAITERS(readable);
    s->write_waiters = SHMP_QUEUE_WAITERS(writable);
    s->read_epoch = SHMP_QUEUE_EPOCH(readable);
    s->write_epoch = SHMP_QUEUE_EPOCH(writable);
    s->poll_usage = load_relaxed(&h->wait.poll_usage);
    s->write_lock_owner = load_relaxed(&h->w.lock) & SHMP_LOCK_OWNER_MASK;
    s->read_lock_owner = load_relaxed(&h->r.lock) & SHMP_LOCK_OWNER_MASK;
    s->companion_lock_owner = load_relaxed(&h->companion.lock) & SHMP_LOCK_OWNER_MASK;
}

static void look_at_counters(const struct shmp_header *h, struct shmp_snapshot *s)
{
    s->bytes_written = load_relaxed(&h->w.bytes);
    s->writes = load_relaxed(&h->w.calls);
    s->bytes_read = load_relaxed(&h->r.bytes);
    s->reads = load_relaxed(&h->r.calls);
    s->write_sleeps = load_relaxed(&h->w.sleeps);
    s->read_sleeps = load_relaxed(&h->r.sleeps);
    s->write_again = load_relaxed(&h->w.again);
    s->read_again = load_relaxed(&h->r.again);
    s->read_wakes = load_relaxed(&h->stats.read_wakes);
    s->write_wakes = load_relaxed(&h->stats.write_wakes);
    s->broadcasts = load_relaxed(&h->stats.broadcasts);
    s->recoveries = load_relaxed(&h->stats.recoveries);
    s->reaped = load_relaxed(&h->stats.reaped);
    s->slice_found_work = load_relaxed(&h->stats.slice_found_work);
}

static int look(int fd, struct shmp_snapshot *s)
{
    struct shmp_header judged;
    struct shmp_shape shape;
    struct stat st;
    void *base;
    void *area;
    long r = shmp_seg_judge(fd, &judged);
    if (r == 0)
        r = shmp_sys.fstat(fd, &st);
    if (r == 0)
        r = shmp_sys.mmap(&base, NULL, SHMP_FIXED_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (r < 0)
        return (int)r;
    struct shmp_header *h = base;
    r = shmp_shape_read(h, (uint64_t)st.st_size, &shape);
    if (r == 0)
        r = shmp_sys.mmap(&area, NULL, shmp_words_bytes(shape.ring_size), PROT_READ, MAP_SHARED,
                          fd, (off_t)shape.area_offset);
    if (r == 0) {
        look_at_identity(&judged, &st, s);
        s->ring_size = shape.ring_size;
        s->max_usage = shape.max_usage;
        s->capacity = (uint64_t)shape.max_usage * SHMP_SLOT_SIZE;
        look_at_slots(h, area, &shape, s);
        look_at_holders(fd, h, base, s);
        look_at_queues(h, s);
        look_at_counters(h, s);
        shmp_sys.munmap(area, shmp_words_bytes(shape.ring_size));
    }
    shmp_sys.munmap(base, SHMP_FIXED_BYTES);
    return (int)r;
}

int shmp_inspect_fd(int segment_fd, struct shmp_snapshot *snapshot)
{
    memset(snapshot, 0, sizeof *snapshot);
    int r = look(segment_fd, snapshot);
    if (r < 0)
        errno = -r;
    return r < 0 ? -1 : 0;
}
