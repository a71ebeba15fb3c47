/* test_check.c - shmp_check_fd: silent on every legal state, also one in full motion, and one named
 * finding for each rule that is broken. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "pipe.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];
static struct shmp_check report;
static unsigned char bytes[70000];

static void make(uint32_t slots)
{
    struct shmp_options options = {.capacity = (uint64_t)slots * SHMP_SLOT_SIZE,
                                   .first_index = UINT32_MAX - 2};
    CHECK_EQ(shmp_pipe2_with(ends, O_NONBLOCK | O_CLOEXEC, &options), 0);
}

static void close_ends(void)
{
    for (int i = 0; i < 2; i++)
        if (ends[i])
            CHECK_EQ(shmp_close(ends[i]), 0);
    ends[0] = ends[1] = NULL;
}

static struct shmp_header *header(void)
{
    return ends[0]->pipe->seg.header;
}

static void check(void)
{
    CHECK_EQ(shmp_check_fd(shmp_segment_fd(ends[0]), &report), 0);
}

static void clean(void)
{
    check();
    if (report.errors != 0)
        unit_fail(__FILE__, __LINE__, "%u errors, first: %s", report.errors,
                  report.findings[0].text);
    CHECK_EQ(report.moving, 0);
}

static const struct shmp_finding *finding(const char *rule)
{
    for (uint32_t i = 0; i < report.count; i++)
        if (strcmp(report.findings[i].rule, rule) == 0)
            return &report.findings[i];
    return NULL;
}

static void expect(const char *rule, bool error, const char *words)
{
    check();
    const struct shmp_finding *f = finding(rule);
    if (f == NULL)
        unit_fail(__FILE__, __LINE__, "no finding %s, but %u errors, %u notes", rule,
                  report.errors, report.notes);
    CHECK_EQ(f->error, error);
    if (strstr(f->text, words) == NULL)
        unit_fail(__FILE__, __LINE__, "%s says '%s', and not '%s'", rule, f->text, words);
    CHECK(error ? report.errors > 0 : report.notes > 0);
}

/* ---- Legal states ---------------------------------------------------------------------------- */

TEST(legal_states_are_clean)
{
    make(4);
    clean();
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    clean();
    CHECK_EQ(shmp_read(ends[0], bytes, 4), 4);
    clean();
    CHECK_EQ(shmp_read(ends[0], bytes, 100), 6);
    clean();
    CHECK_EQ(shmp_write(ends[1], bytes, 4 * 4096), 4 * 4096); /* over the wrap of the index */
    clean();
    CHECK_ERRNO(shmp_write(ends[1], bytes, 1), EAGAIN);
    CHECK_EQ(shmp_read(ends[0], bytes, 5000), 5000);
    clean();
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 1 << 16), 1 << 16);
    clean();
    CHECK_EQ(shmp_write(ends[1], bytes, 3), 3);
    CHECK_EQ(shmp_fcntl(ends[1], F_SETFL, O_NONBLOCK | O_DIRECT), 0);
    CHECK_EQ(shmp_write(ends[1], bytes, 5000), 5000);
    clean();
    shmp_fileno(ends[0]);
    shmp_fileno(ends[1]);
    clean();
    while (shmp_read(ends[0], bytes, 1000) > 0)
        clean(); /* packets are cut: less is delivered than was written */
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 4096), 4096);
    clean();
    CHECK_EQ(shmp_write(ends[1], bytes, 4096), 4096);
    clean();
    CHECK_EQ(shmp_close(ends[1]), 0);
    ends[1] = NULL;
    clean();
    CHECK_EQ(report.notes, 0);
    close_ends();
}

TEST(a_large_ring_is_clean)
{
    make(4096);
    for (int i = 0; i < 3000; i++)
        CHECK_EQ(shmp_write(ends[1], bytes, 4096), 4096);
    clean();
    _Atomic uint32_t *words = ends[0]->pipe->seg.read_side.words;
    uint32_t slot = (load_relaxed(&header()->head) - 5) & 4095;
    store_relaxed(&words[slot], SHMP_WORD(0, 5000, SHMP_SLOT_CAN_MERGE));
    expect("slot-end", true, "end 5000 > 4096");
    CHECK_EQ(finding("slot-end")->index, slot);
    close_ends();
}

TEST(random_legal_calls_stay_clean)
{
    make(4);
    for (uint32_t i = 0; i < unit_rounds(4000); i++) {
        switch (unit_below(6)) {
        case 0:
        case 1:
            (void)!shmp_write(ends[1], bytes, unit_below(9000));
            break;
        case 2:
        case 3:
            (void)!shmp_read(ends[0], bytes, unit_below(9000));
            break;
        case 4:
            shmp_fcntl(ends[0], F_SETPIPE_SZ, (long)(4096u << unit_below(5)));
            break;
        default:
            shmp_fcntl(ends[1], F_SETFL, unit_below(4) ? O_NONBLOCK : O_NONBLOCK | O_DIRECT);
        }
        clean();
    }
    close_ends();
}

TEST(a_named_pipe_is_clean)
{
    CHECK_EQ(shmp_mkfifo(unit_name(), 0600), 0);
    ends[0] = shmp_open(unit_name(), O_RDWR | O_NONBLOCK);
    CHECK(ends[0] != NULL);
    clean();
    CHECK_EQ(shmp_write(ends[0], bytes, 9000), 9000);
    clean();
    CHECK_EQ(shmp_unlink(unit_name()), 0);
    clean(); /* and its FIFO is not missed */
    close_ends();
}

/* Everything moves, and nothing is damaged. */
TEST(a_ring_in_full_motion_is_no_false_alarm)
{
    struct shmp_options options = {.capacity = 4 * 4096};
    CHECK_EQ(shmp_pipe2_with(ends, O_CLOEXEC, &options), 0);
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        children[i] = unit_fork();
        if (children[i] != 0)
            continue;
        signal(SIGPIPE, SIG_IGN);
        for (;;) {
            if (i == 0 && shmp_read(ends[0], bytes, 1 + unit_below(9000)) <= 0)
                unit_done();
            if (i == 1 && shmp_write(ends[1], bytes, 1 + unit_below(9000)) <= 0)
                unit_done();
            if (i == 2) /* EBUSY is one of its answers */
                shmp_fcntl(ends[0], F_SETPIPE_SZ, (long)(4096u << unit_below(5)));
            if (i == 2 && unit_below(8) == 0) {
                shmp_end *other[2];
                CHECK_EQ(shmp_pipe2(other, 0), 0);
                CHECK_EQ(shmp_close(other[0]) | shmp_close(other[1]), 0);
            }
        }
    }
    uint32_t still = 0;
    for (uint32_t i = 0; i < unit_rounds(200); i++) {
        check();
        still += report.moving == 0;
        if (report.errors != 0)
            unit_fail(__FILE__, __LINE__, "look %u: %u errors, first: %s", i, report.errors,
                      report.findings[0].text);
    }
    CHECK(still > 0); /* else no slot was judged */
    for (int i = 0; i < 3; i++)
        unit_kill(children[i]);
    close_ends();
}

/* ---- What the dead may leave ------------------------------------------------------------------- */

TEST(a_lock_of_a_dead_one_is_a_note)
{
    make(4);
    int has = unit_gate();
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0);
        unit_pass(has);
        for (;;)
            pause();
    }
    unit_await(has);
    expect("lock-held", false, "is in it");
    CHECK_EQ(report.errors, 0);
    unit_kill(child);
    expect("lock-dead", false, "write lock");
    CHECK(finding("holder-dead") != NULL);
    CHECK_EQ(report.errors, 0);
    CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
    check();
    CHECK(finding("lock-dead") == NULL);
    close(has);
    close_ends();
}

TEST(other_remains_of_the_dead_are_notes)
{
    make(4);
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    struct shmp_ring *ring = &ends[0]->pipe->seg.read_side;
    uint32_t newest = load_relaxed(&header()->head) - 1;
    fetch_or_seq_cst(&ring->words[newest & ring->mask], SHMP_WORD_SEALED); /* T3, no T4 */
    expect("slot-sealed", false, "not consumed");
    store_relaxed(&header()->r.lock, SHMP_LOCK_OWNER_MASK);
    expect("lock-abandoned", false, "read lock");
    CHECK_EQ(report.errors, 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
    ends[1] = NULL;
    store_relaxed(&header()->wait.writable.word, 3 * SHMP_QUEUE_WAITER + 7);
    expect("queue-count", false, "3 registered");
    CHECK_EQ(report.errors, 0);
    close_ends();
}

/* ---- Damage ----------------------------------------------------------------------------------- */

TEST(each_broken_rule_is_named)
{
    make(4);
    CHECK_EQ(shmp_write(ends[1], bytes, 5000), 5000);
    CHECK_EQ(shmp_read(ends[0], bytes, 100), 100);
    struct shmp_header *h = header();
    struct shmp_holder *holders = ends[0]->pipe->seg.holders;
    _Atomic uint64_t *descriptions = ends[0]->pipe->seg.descriptions;
    _Atomic uint32_t *words = ends[0]->pipe->seg.read_side.words;
    uint32_t tail = SHMP_TAIL_INDEX(load_relaxed(&h->tail));
    uint32_t head = load_relaxed(&h->head);
#define BROKEN(place, value, rule, text)                                                  \
    do {                                                                                  \
        unsigned char kept_[sizeof(place)];                                               \
        memcpy(kept_, (void *)&(place), sizeof kept_);                                    \
        (place) = (value);                                                                \
        expect(rule, true, text);                                                         \
        memcpy((void *)&(place), kept_, sizeof kept_);                                    \
        clean();                                                                          \
    } while (0)
    BROKEN(h->header_bytes, 7, "header-bytes", "7 bytes");
    BROKEN(h->kind, 9, "kind", "kind: 9");
    BROKEN(h->default_usage, 3, "default-usage", "3 slots");
    BROKEN(h->name[0], 'x', "name", "anonymous pipe has one");
    BROKEN(h->geometry[0].ring_size, 3, "geometry", "ring size 3");
    BROKEN(h->geometry[0].max_usage, 3, "max-usage", "3 slots");
    BROKEN(h->geometry[0].max_usage, 1, "occupancy", "2 slots in use of 1");
    BROKEN(h->head, head + 99, "occupancy", "101 slots");
    BROKEN(h->tail, SHMP_TAIL(tail, 4096), "tail-offset", "4096 bytes read");
    BROKEN(words[tail & 3], SHMP_WORD(0, 5000, SHMP_SLOT_CAN_MERGE), "slot-end", "end 5000 > 4096");
    BROKEN(words[(tail + 1) & 3], SHMP_WORD(9, 9, SHMP_SLOT_CAN_MERGE), "slot-empty", "start 9");
    BROKEN(words[(tail + 1) & 3], SHMP_WORD(0, 904, 0x40), "slot-flags", "unknown flags 0x40");
    BROKEN(words[(tail + 1) & 3], SHMP_WORD(0, 904, 3), "slot-packet", "merged");
    BROKEN(words[tail & 3], SHMP_WORD(0, 4000, SHMP_SLOT_CAN_MERGE), "word-seen", "ends at 4000");
    BROKEN(words[(tail + 1) & 3], SHMP_WORD(0, 905, SHMP_SLOT_CAN_MERGE), "bytes", "4901 wait");
    BROKEN(h->w.tail_seen, tail + 1, "tail-seen", "ahead of tail");
    BROKEN(h->w.redo, SHMP_REDO(head, 1, 0), "redo", "a put at head");
    BROKEN(h->r.redo, SHMP_REDO(tail, 1, 0), "redo", "a take at tail");
    BROKEN(h->r.head_seen, head + 1, "head-seen", "ahead of head");
    BROKEN(h->r.lock, 0x40000000u, "lock-word", "read lock");
    BROKEN(h->w.lock, SHMP_HOLDERS + 1, "lock-word", "write lock");
    BROKEN(h->companion.lock, SHMP_LOCK_WAITERS, "lock-word", "companion lock");
    BROKEN(h->wait.poll_usage, 64, "poll-usage", "0x40");
    BROKEN(h->companion.in_step, 1, "in-step", "nobody looks");
    BROKEN(h->companion.level, 5, "level", "level 5");
    BROKEN(h->companion.most_edges, 77, "most-edges", "77 edges");
    BROKEN(h->wait.holder_limit, 1025, "holder-limit", "1025");
    BROKEN(h->wait.holder_limit, 0, "holder-limit", "holder 0: taken");
    BROKEN(holders[0].live, 2, "holder-live", "live is 2");
    BROKEN(holders[5].state, 3, "holder-counts", "3 writers");
    BROKEN(holders[0].introduced, 16, "holder-introduced", "0x10");
    BROKEN(holders[0].notifiers, 4, "holder-notifiers", "0x4");
    BROKEN(descriptions[9], 1, "description-free", "flags 0x1");
    BROKEN(descriptions[0], load_relaxed(&descriptions[0]) | 1, "description-flags", "0x1");
    CHECK_EQ(shmp_read(ends[0], bytes, 5000), 4900);
    BROKEN(words[(head - 1) & 3], SHMP_WORD(0, 10, SHMP_SLOT_CAN_MERGE), "empty-open", "merging");
    BROKEN(h->tail, SHMP_TAIL(head, 1), "tail-offset", "not there");
    close_ends();
}

TEST(what_lies_around_a_segment)
{
    struct shmp_header *h;
    CHECK_EQ(shmp_mkfifo(unit_name(), 0600), 0);
    ends[0] = shmp_open(unit_name(), O_RDWR | O_NONBLOCK);
    h = header();
    BROKEN(h->instance, 0, "fifo-identity", "instance");
    BROKEN(h->fifo_ino, 0, "fifo-identity", "inode");
    BROKEN(h->fifo_ino, 1, "fifo", "not the one");
    BROKEN(h->instance, 99, "fifo", "missing");
    BROKEN(h->name[0], '/', "name", "0x2f");
    BROKEN(h->name[0], 0, "name", "without one");
    char kept[sizeof h->name];
    memcpy(kept, h->name, sizeof kept);
    memset(h->name, 'n', sizeof h->name);
    expect("name", true, "not ended");
    memcpy(h->name, kept, sizeof kept);
    clean();
    CHECK_EQ(shmp_unlink(unit_name()), 0);
    close_ends();
    make(1);
    int copy = memfd_create("copy", MFD_CLOEXEC); /* the same bytes, but who sealed them? */
    for (off_t at = 0; at < (off_t)(SHMP_FIXED_BYTES + 8192); at += 4096) {
        CHECK_EQ(pread(shmp_segment_fd(ends[0]), bytes, 4096, at), 4096);
        CHECK_EQ(pwrite(copy, bytes, 4096, at), 4096);
    }
    CHECK_EQ(shmp_check_fd(copy, &report), 0);
    CHECK(finding("seals") != NULL);
    CHECK_EQ(ftruncate(copy, 8192), 0);
    CHECK_EQ(shmp_check_fd(copy, &report), 0);
    CHECK(finding("file-size") != NULL && report.errors == 1);
    CHECK_EQ(ftruncate(copy, 0), 0);
    CHECK_ERRNO(shmp_check_fd(copy, &report), ENOENT);
    CHECK_ERRNO(shmp_check_fd(ends[0]->fd, &report), SHMP_EINCOMPATIBLE);
    CHECK_ERRNO(shmp_check_fd(-1, &report), EBADF);
    close(copy);
    close_ends();
}

TEST(more_damage_than_fits)
{
    make(1);
    _Atomic uint64_t *descriptions = ends[0]->pipe->seg.descriptions;
    for (int i = 100; i < 400; i++)
        store_relaxed(&descriptions[i], 1);
    store_relaxed(&header()->r.lock, SHMP_LOCK_OWNER_MASK);
    check();
    CHECK_EQ(report.errors, 300);
    CHECK_EQ(report.count, SHMP_CHECK_FINDINGS);
    CHECK_EQ(report.findings[0].error, 1);
    for (int i = 100; i < 400; i++)
        store_relaxed(&descriptions[i], 0);
    close_ends();
}
