/* inspect.c - one look at a live segment: read-only, lock-free, never blocks.
 *
 * It maps nothing, takes no lock and registers nowhere, so it works while the owner of a lock is
 * stopped or dead, cannot disturb anybody, and survives a segment that is cut short meanwhile
 * (D12: and it believes nothing it reads).  The ring is copied between two equal readings of
 * tail and head; when it moves too fast for that the snapshot says so (torn).
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic.h"
#include "peek.h"
#include "ring.h"
#include "seg.h"
#include "sys.h"

#define TRIES 32

static void look_at_identity(const struct shmp_peek *peek, struct shmp_snapshot *s)
{
    const struct shmp_header *h = &peek->header;
    s->abi_version = h->version;
    s->named = h->kind == SHMP_KIND_NAMED;
    s->instance = h->instance;
    memcpy(s->name, h->name, SHMP_NAME_MAX);
    s->created_ns = h->created_ns;
    s->creator_pid = h->creator_pid;
    s->creator_uid = h->creator_uid;
    s->segment_bytes = peek->file_bytes;
    s->ring_size = peek->shape.ring_size;
    s->max_usage = peek->shape.max_usage;
    s->capacity = (uint64_t)peek->shape.max_usage * SHMP_SLOT_SIZE;
}

static void look_at_holder(int fd, uint32_t index, const struct shmp_holder *h,
                           struct shmp_snapshot *s)
{
    uint64_t state = load_relaxed(&h->state);
    struct shmp_holder_info info = {
        .index = index,
        .pid = load_relaxed(&h->pid),
        .readers = SHMP_STATE_READERS(state),
        .writers = SHMP_STATE_WRITERS(state),
        .generation = SHMP_STATE_GEN(state),
    };
    if (load_relaxed(&h->live) == 0)
        return;
    info.alive = info.pid == (uint32_t)getpid() || shmp_peek_is_locked(fd, index);
    if (info.alive) {
        s->holders++;
        s->readers += info.readers;
        s->writers += info.writers;
    }
    if (s->holder_count < SHMP_SNAPSHOT_HOLDERS)
        s->holder[s->holder_count++] = info;
}

static int look_at_holders(const struct shmp_peek *peek, struct shmp_snapshot *s)
{
    struct shmp_holder some[SHMP_PEEK_HOLDERS];
    uint32_t limit = load_relaxed(&peek->header.wait.holder_limit);
    limit = limit < SHMP_HOLDERS ? limit : SHMP_HOLDERS;
    for (uint32_t first = 0; first < limit; first += SHMP_PEEK_HOLDERS) {
        uint32_t count = limit - first < SHMP_PEEK_HOLDERS ? limit - first : SHMP_PEEK_HOLDERS;
        int r = shmp_peek_holders(peek->fd, first, count, some);
        if (r < 0)
            return r;
        for (uint32_t i = 0; i < count; i++)
            look_at_holder(peek->fd, first + i, &some[i], s);
    }
    return 0;
}

static void look_at_slot(uint32_t word, uint32_t offset, struct shmp_snapshot *s)
{
    uint32_t from = shmp_word_start(word) + offset;
    uint32_t end = shmp_word_end(word);
    s->pending += end > from ? end - from : 0;
    if (s->slot_count < SHMP_SNAPSHOT_SLOTS)
        s->slots[s->slot_count++] = (struct shmp_slot_info){
            .start = from, .end = end, .flags = word >> SHMP_WORD_FLAGS_SHIFT};
}

static int look_at_slots(const struct shmp_peek *peek, struct shmp_snapshot *s)
{
    _Atomic uint32_t words[SHMP_PEEK_WORDS];
    uint64_t tail = load_relaxed(&peek->header.tail);
    s->head = load_relaxed(&peek->header.head);
    s->tail = SHMP_TAIL_INDEX(tail);
    s->tail_offset = SHMP_TAIL_OFFSET(tail);
    s->occupancy = shmp_occupancy(s->head, s->tail);
    s->pending = 0;
    s->slot_count = 0;
    if (s->occupancy > peek->shape.ring_size)
        return 0;
    for (uint32_t first = 0; first < s->occupancy; first += SHMP_PEEK_WORDS) {
        uint32_t count =
            s->occupancy - first < SHMP_PEEK_WORDS ? s->occupancy - first : SHMP_PEEK_WORDS;
        int r = shmp_peek_words(peek, s->tail + first, count, words);
        if (r < 0)
            return r;
        for (uint32_t i = 0; i < count; i++)
            look_at_slot(load_relaxed(&words[i]), first + i == 0 ? s->tail_offset : 0, s);
    }
    return 0;
}

static void look_at_queues(const struct shmp_header *h, struct shmp_snapshot *s)
{
    uint64_t readable = load_relaxed(&h->wait.readable.word);
    uint64_t writable = load_relaxed(&h->wait.writable.word);
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
    struct shmp_peek peek = {.fd = fd};
    struct shmp_header after;
    int r = 0;
    s->torn = 1;
    for (int tries = 0; tries < TRIES && s->torn; tries++) {
        r = shmp_seg_read(fd, &peek.header, &peek.shape, &peek.file_bytes);
        if (r == 0)
            r = look_at_slots(&peek, s);
        if (r == 0)
            r = shmp_peek_bytes(fd, &after, sizeof after, 0);
        if (r < 0)
            return r;
        /* A resize gives the old area back: what was read from it then is nothing. */
        s->torn = !shmp_peek_stood_still(&peek, &after);
    }
    if (s->occupancy > peek.shape.ring_size && !s->torn) {
        shmp_set_reason("the segment is damaged: more slots in use than there are");
        return -SHMP_ECORRUPT;
    }
    if (s->occupancy > peek.shape.ring_size) /* head and tail of different moments */
        s->occupancy = peek.shape.ring_size;
    look_at_identity(&peek, s);
    look_at_queues(&peek.header, s);
    look_at_counters(&peek.header, s);
    return look_at_holders(&peek, s);
}

int shmp_inspect_fd(int segment_fd, struct shmp_snapshot *snapshot)
{
    memset(snapshot, 0, sizeof *snapshot);
    int r = look(segment_fd, snapshot);
    if (r < 0)
        errno = -r;
    return r < 0 ? -1 : 0;
}
