/* check.c - every invariant of a segment: read-only, lock-free, never waits for anybody.
 *
 * One look copies the segment (peek.h) and judges the copy.  Three things keep it from crying
 * wolf on a pipe in use:
 *
 *   - the ring and what each side knows of the other are judged only in a copy during which
 *     they stood still and nobody had the lock of that side;
 *   - an error counts only if several looks, a millisecond apart, find the same rule broken at
 *     the same place: what is on its way passes;
 *   - what a dead process may leave is a note: a lock that names it, a seal without a new tail
 *     (T3 without T4), registrations, its entry.
 *
 * The rules are those of the pages in docs/explanation; each finding carries the name of its.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic.h"
#include "fifo.h"
#include "peek.h"
#include "ring.h"
#include "sys.h"

#define LOOKS 4       /* all of them must find an error */
#define TRIES 24      /* for a copy of a ring that stood still */
#define PATIENT 8     /* of these come at once, the others a millisecond apart */
#define FLAGS_OF_SLOTS (SHMP_SLOT_CAN_MERGE | SHMP_SLOT_PACKET | SHMP_SLOT_WHOLE | \
                        SHMP_SLOT_LOSS | SHMP_SLOT_SEALED)
#define FLAGS_OF_ENDS ((uint32_t)(O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK) | 0100000u)
#define STICKY_BITS                                                                       \
    (SHMP_POLL_READERS | SHMP_POLL_WRITERS | SHMP_ASYNC_READERS | SHMP_ASYNC_WRITERS)
#define USAGE_BITS (SHMP_POLL_ANY | SHMP_NOTIFY_READERS | SHMP_NOTIFY_WRITERS)

/* One look. */
struct look {
    struct shmp_peek peek;
    struct shmp_header after;
    bool has_shape;
    bool still;
    bool quiet[2]; /* nobody had the lock of that side, before and after */
    uint64_t pending;
    uint32_t readers; /* descriptions of living holders */
    uint32_t writers;
    struct shmp_check found;
};

__attribute__((format(printf, 5, 6)))
static void find(struct look *l, bool error, const char *rule, uint32_t index,
                 const char *format, ...)
{
    struct shmp_check *c = &l->found;
    uint32_t *sum = error ? &c->errors : &c->notes;
    ++*sum;
    if (c->count == SHMP_CHECK_FINDINGS)
        return;
    struct shmp_finding *f = &c->findings[c->count++];
    va_list arguments;
    va_start(arguments, format);
    f->error = error;
    f->index = index;
    snprintf(f->rule, sizeof f->rule, "%s", rule);
    vsnprintf(f->text, sizeof f->text, format, arguments);
    va_end(arguments);
}

#define WRONG(...) find(l, true, __VA_ARGS__)
#define NOTE(...) find(l, false, __VA_ARGS__)

static bool is_power_of_two(uint32_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* ---- Identity and geometry --------------------------------------------------------- */

static void check_name(struct look *l)
{
    const struct shmp_header *h = &l->peek.header;
    size_t length = strnlen(h->name, sizeof h->name);
    if (length > SHMP_NAME_MAX)
        WRONG("name", 0, "name: not ended after %u bytes", SHMP_NAME_MAX);
    if (h->kind == SHMP_KIND_NAMED && length == 0)
        WRONG("name", 1, "name: a named pipe without one");
    if (h->kind == SHMP_KIND_ANONYMOUS && length != 0)
        WRONG("name", 2, "name: an anonymous pipe has one");
    for (size_t i = 0; i < length && i < SHMP_NAME_MAX; i++) {
        unsigned char c = (unsigned char)h->name[i];
        if (c == '/' || c < 0x20 || c == 0x7f) {
            WRONG("name", 3, "name: byte %zu is 0x%02x", i, c);
            break;
        }
    }
}

static void check_identity(struct look *l)
{
    const struct shmp_header *h = &l->peek.header;
    if (h->header_bytes != sizeof *h)
        WRONG("header-bytes", 0, "header: says it has %u bytes, not %zu", h->header_bytes,
              sizeof *h);
    if (h->kind != SHMP_KIND_ANONYMOUS && h->kind != SHMP_KIND_NAMED)
        WRONG("kind", 0, "kind: %u is neither anonymous (1) nor named (2)", h->kind);
    if (!is_power_of_two(h->default_usage) || h->default_usage > SHMP_MAX_SLOTS)
        WRONG("default-usage", 0, "default capacity: %u slots, not a power of two up to %u",
              h->default_usage, SHMP_MAX_SLOTS);
    if (h->kind == SHMP_KIND_NAMED && (h->instance == 0 || h->fifo_ino == 0))
        WRONG("fifo-identity", 0, "instance, fifo: a named pipe without %s",
              h->instance == 0 ? "an instance" : "its FIFO's inode");
    check_name(l);
}

static void check_geometry(struct look *l)
{
    struct shmp_header *h = &l->peek.header;
    l->has_shape = shmp_shape_read(h, l->peek.file_bytes, &l->peek.shape) == 0;
    if (!l->has_shape) {
        const struct shmp_geometry *g = &h->geometry[load_relaxed(&h->wait.geometry_gen) & 1];
        WRONG("geometry", load_relaxed(&h->wait.geometry_gen) & 1,
              "geometry: ring size %u, max usage %u, at %llu in a file of %llu bytes",
              load_relaxed(&g->ring_size), load_relaxed(&g->max_usage),
              (unsigned long long)load_relaxed(&g->area_offset),
              (unsigned long long)l->peek.file_bytes);
    } else if (!is_power_of_two(l->peek.shape.max_usage)) {
        WRONG("max-usage", 0, "max usage: %u slots, not a power of two", l->peek.shape.max_usage);
    }
}

/* What lies around the segment: seals of a memfd, the FIFO beside a named object. */
static int check_surroundings(struct look *l)
{
    const struct shmp_header *h = &l->peek.header;
    struct stat st;
    int r = 0;
    if (h->kind == SHMP_KIND_ANONYMOUS) {
        long seals = shmp_sys.fcntl(l->peek.fd, F_GET_SEALS, 0);
        if (seals < 0 && seals != -EINVAL) /* EINVAL: a file that takes none */
            return (int)seals;
        if (seals < 0 || (seals & F_SEAL_SHRINK) == 0)
            WRONG("seals", 0, "seals: not sealed against truncation");
    } else if (h->kind == SHMP_KIND_NAMED) {
        r = (int)shmp_sys.fstat(l->peek.fd, &st);
        if (r == 0 && st.st_nlink > 0) /* else it has lost its name, and its FIFO with it */
            r = shmp_fifo_is_beside(h);
        if (r == -ENOENT)
            WRONG("fifo", 0, "fifo: missing, the pipe cannot be opened");
        else if (r == -SHMP_ECORRUPT)
            WRONG("fifo", 1, "fifo: not the one it was made with");
    }
    return r == -ENOENT || r == -SHMP_ECORRUPT ? 0 : r;
}

/* ---- The ring ------------------------------------------------------------------------ */

static void check_slot(struct look *l, uint32_t index, uint32_t word, bool oldest, bool newest)
{
    uint32_t slot = index & (l->peek.shape.ring_size - 1);
    uint32_t start = shmp_word_start(word);
    uint32_t end = shmp_word_end(word);
    uint32_t flags = word >> SHMP_WORD_FLAGS_SHIFT;
    uint32_t offset = oldest ? SHMP_TAIL_OFFSET(load_relaxed(&l->peek.header.tail)) : 0;
    if (end > SHMP_SLOT_SIZE)
        WRONG("slot-end", slot, "slot word %u: end %u > %u", slot, end, SHMP_SLOT_SIZE);
    else if (start >= end)
        WRONG("slot-empty", slot, "slot word %u: start %u, end %u: in use without bytes", slot,
              start, end);
    else if (offset >= end - start)
        WRONG("tail-offset", slot, "tail: %u bytes read of slot %u, which has %u", offset, slot,
              end - start);
    else
        l->pending += end - start - offset;
    if ((flags & ~FLAGS_OF_SLOTS) != 0)
        WRONG("slot-flags", slot, "slot word %u: unknown flags 0x%x", slot,
              flags & ~FLAGS_OF_SLOTS);
    if ((flags & SHMP_SLOT_PACKET) != 0 && (flags & SHMP_SLOT_CAN_MERGE) != 0)
        WRONG("slot-packet", slot, "slot word %u: a packet that may be merged into", slot);
    if ((flags & SHMP_SLOT_SEALED) != 0)
        NOTE("slot-sealed", slot, newest ? "slot %u: sealed and not consumed: the next reader "
                                           "that repairs takes the seal off"
                                         : "slot %u: sealed and not consumed", slot);
}

static int check_slots(struct look *l)
{
    const struct shmp_header *h = &l->peek.header;
    _Atomic uint32_t words[SHMP_PEEK_WORDS];
    uint32_t head = load_relaxed(&h->head);
    uint64_t tail_word = load_relaxed(&h->tail);
    uint32_t tail = SHMP_TAIL_INDEX(tail_word);
    uint32_t used = shmp_occupancy(head, tail);
    l->pending = 0;
    if (used > l->peek.shape.max_usage) {
        WRONG("occupancy", 0, "head %u, tail %u: %u slots in use of %u", head, tail, used,
              l->peek.shape.max_usage);
        return 0;
    }
    if (used == 0) {
        int r = shmp_peek_words(&l->peek, head - 1, 1, words);
        if (r < 0)
            return r;
        uint32_t word = load_relaxed(&words[0]);
        if ((word & SHMP_WORD_CAN_MERGE) != 0 && (word & SHMP_WORD_SEALED) == 0 &&
            shmp_word_end(word) < SHMP_SLOT_SIZE) /* I5 of ring.h */
            WRONG("empty-open", 0, "slot before head %u: open to merging while the ring is empty",
                  head);
        if (SHMP_TAIL_OFFSET(tail_word) != 0)
            WRONG("tail-offset", UINT32_MAX, "tail: %u bytes read of a slot that is not there",
                  SHMP_TAIL_OFFSET(tail_word));
        return 0;
    }
    for (uint32_t first = 0; first < used; first += SHMP_PEEK_WORDS) {
        uint32_t count = used - first < SHMP_PEEK_WORDS ? used - first : SHMP_PEEK_WORDS;
        int r = shmp_peek_words(&l->peek, tail + first, count, words);
        if (r < 0)
            return r;
        for (uint32_t i = 0; i < count; i++)
            check_slot(l, tail + first + i, load_relaxed(&words[i]), first + i == 0,
                       first + i + 1 == used);
        if (first == 0) {
            uint32_t seen = load_relaxed(&h->r.word_seen);
            if (l->quiet[SHMP_SIDE_READERS] && seen != 0 &&
                shmp_word_end(seen) > shmp_word_end(load_relaxed(&words[0])))
                WRONG("word-seen", 0, "word seen: end %u, but the tail slot ends at %u",
                      shmp_word_end(seen), shmp_word_end(load_relaxed(&words[0])));
        }
    }
    return 0;
}

/* What each side knows of the other never runs ahead: else bytes would be overwritten, or read
 * that were never written. */
static void check_knowledge(struct look *l)
{
    const struct shmp_header *h = &l->peek.header;
    uint32_t tail = SHMP_TAIL_INDEX(load_relaxed(&h->tail));
    uint32_t head = load_relaxed(&h->head);
    if (l->quiet[SHMP_SIDE_WRITERS] && (int32_t)(tail - load_relaxed(&h->w.tail_seen)) < 0)
        WRONG("tail-seen", 0, "tail seen: %u is ahead of tail %u", load_relaxed(&h->w.tail_seen),
              tail);
    if (l->quiet[SHMP_SIDE_READERS] && (int32_t)(head - load_relaxed(&h->r.head_seen)) < 0)
        WRONG("head-seen", 0, "head seen: %u is ahead of head %u", load_relaxed(&h->r.head_seen),
              head);
    /* Whoever takes the lock from the dead makes or drops what was noted. */
    if (l->quiet[SHMP_SIDE_WRITERS] && shmp_ring_put_is_noted(&l->peek.header))
        WRONG("redo", SHMP_SIDE_WRITERS, "redo: a put at head %u is noted, and nobody has the lock",
              head);
    if (l->quiet[SHMP_SIDE_READERS] && shmp_ring_take_is_noted(&l->peek.header))
        WRONG("redo", SHMP_SIDE_READERS, "redo: a take at tail %u is noted, and nobody has the lock",
              tail);
    /* A death between a step and its count leaves more than was counted, and a recovery; a new
     * life of a FIFO, and a packet cut short, less. */
    uint64_t counted = load_relaxed(&h->w.bytes) - load_relaxed(&h->r.bytes);
    if (l->found.errors == 0 && l->quiet[SHMP_SIDE_WRITERS] && l->quiet[SHMP_SIDE_READERS] &&
        load_relaxed(&h->stats.recoveries) == 0 && l->pending > counted)
        WRONG("bytes", 0, "bytes: %llu written, %llu read, but %llu wait",
              (unsigned long long)load_relaxed(&h->w.bytes),
              (unsigned long long)load_relaxed(&h->r.bytes), (unsigned long long)l->pending);
}

/* ---- Locks, queues, companion --------------------------------------------------------- */

static int check_lock(struct look *l, uint32_t which, uint32_t word)
{
    static const char *const names[] = {"read", "write", "companion"};
    struct shmp_holder owner;
    uint32_t index = (word & SHMP_LOCK_OWNER_MASK) - 1;
    if (word == 0)
        return 0;
    if ((word & ~SHMP_LOCK_WAITERS) == SHMP_LOCK_OWNER_MASK) {
        NOTE("lock-abandoned", which, "%s lock: given up without repair; the next one repairs",
             names[which]);
        return 0;
    }
    if (index >= SHMP_HOLDERS || (word & 0x40000000u) != 0) {
        WRONG("lock-word", which, "%s lock: 0x%08x names no holder", names[which], word);
        return 0;
    }
    int r = shmp_peek_holders(l->peek.fd, index, 1, &owner);
    if (r < 0)
        return r;
    uint32_t pid = load_relaxed(&owner.pid);
    bool same = ((SHMP_STATE_GEN(load_relaxed(&owner.state)) ^ (word >> SHMP_LOCK_GEN_SHIFT)) &
                 SHMP_LOCK_GEN_MASK) == 0;
    if (load_relaxed(&owner.live) == 0 || !same)
        NOTE("lock-dead", which, "%s lock: its owner is gone; the next one takes it over",
             names[which]);
    else if (pid != (uint32_t)getpid() && !shmp_peek_is_locked(l->peek.fd, index))
        NOTE("lock-dead", which, "%s lock: its owner, process %u, is dead; the next one takes it over",
             names[which], pid);
    else
        NOTE("lock-held", which, "%s lock: process %u is in it", names[which], pid);
    return 0;
}

static void check_queue(struct look *l, int side, uint64_t word, uint32_t ends)
{
    if (SHMP_QUEUE_WAITERS(word) != 0 && ends == 0)
        NOTE("queue-count", (uint32_t)side, "%s: %u registered, and no such end is open: the next "
             "wake puts it right", side == SHMP_SIDE_READERS ? "readers" : "writers",
             SHMP_QUEUE_WAITERS(word));
}

static void check_companion(struct look *l)
{
    const struct shmp_header *h = &l->peek.header;
    uint32_t usage = load_relaxed(&h->wait.poll_usage);
    uint32_t in_step = load_relaxed(&h->companion.in_step);
    uint32_t level = load_relaxed(&h->companion.level);
    uint32_t edges = load_relaxed(&h->companion.most_edges);
    if ((usage & ~USAGE_BITS) != 0)
        WRONG("poll-usage", 0, "poll usage: unknown bits 0x%x", usage & ~USAGE_BITS);
    /* The armed bits come and go between the two loads. */
    if ((in_step & ~usage & STICKY_BITS) != 0)
        WRONG("in-step", 0, "in step: 0x%x, of sides at which nobody looks (0x%x)", in_step, usage);
    if (level > SHMP_LEVEL_GROWN)
        WRONG("level", 0, "companion: unknown level %u", level);
    if (edges != 0 && edges != 1 && edges != SHMP_PAGE)
        WRONG("most-edges", 0, "companion: %u edges at most, neither 1 nor %u", edges, SHMP_PAGE);
    if (load_relaxed(&h->stats.slice_found_work) != 0)
        NOTE("lost-wake", 0, "%llu wakes came late, by the safety net",
             (unsigned long long)load_relaxed(&h->stats.slice_found_work));
}

/* ---- Tables ---------------------------------------------------------------------------- */

static void check_holder(struct look *l, uint32_t i, const struct shmp_holder *h)
{
    uint64_t state = load_relaxed(&h->state);
    uint32_t live = load_relaxed(&h->live);
    uint32_t limit = load_relaxed(&l->after.wait.holder_limit);
    if (live > 1)
        WRONG("holder-live", i, "holder %u: live is %u", i, live);
    if (live == 0 && (uint32_t)state != 0)
        WRONG("holder-counts", i, "holder %u: free, but has %u readers and %u writers", i,
              SHMP_STATE_READERS(state), SHMP_STATE_WRITERS(state));
    if (live != 0 && i >= limit)
        WRONG("holder-limit", i, "holder %u: taken, but the limit is %u", i, limit);
    if ((load_relaxed(&h->introduced) & ~15u) != 0)
        WRONG("holder-introduced", i, "holder %u: introduced to unknown queues (0x%x)", i,
              load_relaxed(&h->introduced));
    if ((load_relaxed(&h->notifiers) & ~(SHMP_NOTIFY_READERS | SHMP_NOTIFY_WRITERS)) != 0)
        WRONG("holder-notifiers", i, "holder %u: notifiers on unknown sides (0x%x)", i,
              load_relaxed(&h->notifiers));
    if (live != 1)
        return;
    if (load_relaxed(&h->pid) != (uint32_t)getpid() && !shmp_peek_is_locked(l->peek.fd, i)) {
        NOTE("holder-dead", i, "holder %u: process %u is dead and not yet reaped", i,
             load_relaxed(&h->pid));
        return;
    }
    l->readers += SHMP_STATE_READERS(state);
    l->writers += SHMP_STATE_WRITERS(state);
}

static int check_holders(struct look *l)
{
    struct shmp_holder some[SHMP_PEEK_HOLDERS];
    int r = shmp_peek_bytes(l->peek.fd, &l->after, sizeof l->after, 0);
    uint32_t limit = load_relaxed(&l->after.wait.holder_limit);
    if (r == 0 && limit > SHMP_HOLDERS)
        WRONG("holder-limit", UINT32_MAX, "holder limit: %u, of a table of %u", limit,
              SHMP_HOLDERS);
    for (uint32_t first = 0; first < SHMP_HOLDERS && r == 0; first += SHMP_PEEK_HOLDERS) {
        r = shmp_peek_holders(l->peek.fd, first, SHMP_PEEK_HOLDERS, some);
        if (r == 0 && first == 0) /* an entry is filled after the limit was raised */
            r = shmp_peek_bytes(l->peek.fd, &l->after, sizeof l->after, 0);
        for (uint32_t i = 0; i < SHMP_PEEK_HOLDERS && r == 0; i++)
            check_holder(l, first + i, &some[i]);
    }
    return r;
}

static int check_descriptions(struct look *l)
{
    _Atomic uint64_t table[SHMP_DESCRIPTIONS];
    int r = shmp_peek_bytes(l->peek.fd, table, sizeof table, SHMP_DESCRIPTIONS_OFFSET);
    for (uint32_t i = 0; i < SHMP_DESCRIPTIONS && r == 0; i++) {
        uint32_t flags = (uint32_t)load_relaxed(&table[i]);
        if ((flags & SHMP_DESCRIPTION_USED) == 0 && flags != 0)
            WRONG("description-free", i, "description %u: free, but has flags 0x%x", i, flags);
        else if ((flags & ~(FLAGS_OF_ENDS | SHMP_DESCRIPTION_USED)) != 0)
            WRONG("description-flags", i, "description %u: unknown flags 0x%x", i,
                  flags & ~(FLAGS_OF_ENDS | SHMP_DESCRIPTION_USED));
    }
    return r;
}

/* ---- Looks ------------------------------------------------------------------------------ */

/* A copy of the header; after: another one, when all that depends on it has been copied. */
static int copy_header(struct look *l)
{
    struct shmp_header *h = &l->peek.header;
    struct stat st;
    int r = (int)shmp_sys.fstat(l->peek.fd, &st);
    if (r < 0)
        return r;
    l->peek.file_bytes = (uint64_t)st.st_size;
    r = shmp_seg_judge(l->peek.fd, h);
    if (r < 0 && r != -SHMP_ECORRUPT) /* which is for us to tell in words */
        return r;
    return shmp_peek_bytes(l->peek.fd, h, sizeof *h, 0); /* as it is: the judge trims */
}

static bool is_quiet(const struct shmp_header *then, const struct shmp_header *now, int side)
{
    if (side == SHMP_SIDE_READERS)
        return load_relaxed(&then->r.lock) == 0 && load_relaxed(&now->r.lock) == 0 &&
               load_relaxed(&then->r.bytes) == load_relaxed(&now->r.bytes) &&
               load_relaxed(&then->r.head_seen) == load_relaxed(&now->r.head_seen) &&
               load_relaxed(&then->r.word_seen) == load_relaxed(&now->r.word_seen);
    return load_relaxed(&then->w.lock) == 0 && load_relaxed(&now->w.lock) == 0 &&
           load_relaxed(&then->w.bytes) == load_relaxed(&now->w.bytes) &&
           load_relaxed(&then->w.tail_seen) == load_relaxed(&now->w.tail_seen);
}

static void wait_a_moment(void)
{
    shmp_sys.poll(NULL, 0, 1);
}

static int check_ring(struct look *l)
{
    for (int tries = 0; tries < TRIES; tries++) {
        struct shmp_check before = l->found;
        if (tries >= PATIENT)
            wait_a_moment();
        int r = tries == 0 ? 0 : copy_header(l);
        if (r == 0)
            r = shmp_shape_read(&l->peek.header, l->peek.file_bytes, &l->peek.shape);
        /* Twice: a side is quiet, or not, before its words are judged, and stays so. */
        if (r == 0)
            r = shmp_peek_bytes(l->peek.fd, &l->after, sizeof l->after, 0);
        for (int side = 0; side < 2; side++)
            l->quiet[side] = is_quiet(&l->peek.header, &l->after, side);
        if (r == 0)
            r = check_slots(l);
        if (r == 0)
            check_knowledge(l);
        if (r == 0)
            r = shmp_peek_bytes(l->peek.fd, &l->after, sizeof l->after, 0);
        if (r < 0 && r != -SHMP_ECORRUPT)
            return r;
        l->still = r == 0 && shmp_peek_stood_still(&l->peek, &l->after);
        for (int side = 0; side < 2; side++)
            l->still = l->still &&
                       (!l->quiet[side] || is_quiet(&l->peek.header, &l->after, side));
        if (l->still)
            return 0;
        l->found = before;
    }
    l->found.moving = 1;
    return 0;
}

static int look(struct look *l, int fd)
{
    *l = (struct look){.peek.fd = fd};
    int r = copy_header(l);
    if (r < 0)
        return r;
    check_identity(l);
    check_geometry(l);
    r = check_surroundings(l);
    if (r == 0 && l->has_shape)
        r = check_ring(l);
    if (r == 0)
        r = check_holders(l);
    if (r == 0)
        r = check_descriptions(l);
    if (r < 0)
        return r;
    const struct shmp_header *h = &l->peek.header;
    check_queue(l, SHMP_SIDE_READERS, load_relaxed(&h->wait.readable.word), l->readers);
    check_queue(l, SHMP_SIDE_WRITERS, load_relaxed(&h->wait.writable.word), l->writers);
    check_companion(l);
    r = check_lock(l, 0, load_relaxed(&h->r.lock));
    if (r == 0)
        r = check_lock(l, 1, load_relaxed(&h->w.lock));
    if (r == 0)
        r = check_lock(l, 2, load_relaxed(&h->companion.lock));
    return r;
}

static bool has(const struct shmp_check *c, const struct shmp_finding *wanted)
{
    for (uint32_t i = 0; i < c->count; i++)
        if (c->findings[i].error && c->findings[i].index == wanted->index &&
            strcmp(c->findings[i].rule, wanted->rule) == 0)
            return true;
    return false;
}

/* Errors that another look has not found were none. */
static void keep_what_stays(struct shmp_check *c, const struct shmp_check *again)
{
    uint32_t kept = 0;
    bool all = again->errors > SHMP_CHECK_FINDINGS || c->errors > SHMP_CHECK_FINDINGS;
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->findings[i].error && !all && !has(again, &c->findings[i]))
            c->errors--;
        else
            c->findings[kept++] = c->findings[i];
    }
    c->count = kept;
}

static void put_errors_first(struct shmp_check *to, const struct shmp_check *from)
{
    *to = (struct shmp_check){
        .errors = from->errors, .notes = from->notes, .moving = from->moving};
    for (uint32_t error = 2; error-- > 0;)
        for (uint32_t i = 0; i < from->count; i++)
            if (from->findings[i].error == error)
                to->findings[to->count++] = from->findings[i];
}

static int check(int fd, struct shmp_check *result)
{
    struct look first;
    int r = look(&first, fd);
    for (int looks = 1; r == 0 && looks < LOOKS && first.found.errors > 0; looks++) {
        struct look again;
        wait_a_moment();
        r = look(&again, fd);
        if (r == 0)
            keep_what_stays(&first.found, &again.found);
    }
    if (r == -SHMP_ECORRUPT) { /* it ends before its tables do */
        first = (struct look){0};
        struct look *l = &first;
        WRONG("file-size", 0, "file: ends inside the header or a table");
        r = 0;
    }
    put_errors_first(result, &first.found);
    return r;
}

int shmp_check_fd(int segment_fd, struct shmp_check *result)
{
    int r = check(segment_fd, result);
    if (r < 0)
        errno = -r;
    return r < 0 ? -1 : 0;
}
