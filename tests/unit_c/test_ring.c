/* test_ring.c - the slot ring without a segment: the kernel's slot rules, wrap, races, rubbish. */
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include "model.h"
#include "stage.h"
#include "unit.h"

static const uint32_t starts[] = {0, UINT32_MAX - 2, 0x7ffffffdu, 0x80000000u};
static const size_t sizes[] = {1,    2,    99,   2048,  2049,  4095, 4096,
                               4097, 8191, 8192, 65535, 65536, 65537};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static unsigned char out_bytes[70000];
static unsigned char in_bytes[70000];
static unsigned char model_bytes[70000];

static void fresh_bytes(unsigned char *bytes, size_t n)
{
    static uint32_t next;
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(next++ * 2654435761u >> 24);
}

TEST(predicates_at_the_wrap)
{
    for (size_t s = 0; s < COUNT(starts); s++)
        for (uint32_t ahead = 0; ahead < 8; ahead++) {
            uint32_t tail = starts[s] + ahead;
            for (uint32_t used = 0; used <= 16; used++) {
                uint32_t head = tail + used;
                CHECK_EQ(shmp_occupancy(head, tail), used);
                CHECK_EQ(shmp_empty(head, tail), used == 0);
                CHECK_EQ(shmp_full(head, tail, 16), used == 16);
                CHECK_EQ(shmp_full(head, tail, 4), used >= 4);
                CHECK_EQ(shmp_space_for_user(head, tail, 16), 16 - used);
                CHECK_EQ(shmp_space_for_user(head, tail, 4), used >= 4 ? 0 : 4 - used);
                CHECK_EQ(shmp_was_empty(head, tail), used == 0);
            }
            CHECK(shmp_was_empty(tail, tail + 1)); /* the reader was faster than our look */
        }
}

TEST(looks_err_towards_trying)
{
    struct stage s;
    stage_make(&s, 4, UINT32_MAX - 1);
    uint32_t head = load_relaxed(&s.header->head);
    CHECK(shmp_ring_looks_empty(s.header));
    CHECK(!shmp_ring_looks_full(s.header, 4));
    store_relaxed(&s.header->head, head + 4);
    CHECK(!shmp_ring_looks_empty(s.header));
    CHECK(shmp_ring_looks_full(s.header, 4));
    CHECK(!shmp_ring_looks_full(s.header, 8));
    /* A tail ahead of the head that was loaded before it: "try", never "sleep" (WK-13). */
    store_relaxed(&s.header->tail, SHMP_TAIL(head + 6, 0));
    CHECK(!shmp_ring_looks_full(s.header, 4));
    CHECK(!shmp_ring_looks_empty(s.header));
    stage_free(&s);
}

/* What shmp_ring_available says must be what a read then gets, also when the words that the
 * reader remembers are old: it remembers them from before the last write. */
static void compare_read(struct stage *s, struct model *m, size_t n)
{
    ssize_t promised = shmp_ring_available(&s->reader, n);
    CHECK_EQ(shmp_ring_available(&s->reader, n), promised); /* a look changes nothing */
    size_t expected = model_read(m, model_bytes, n);
    long got = stage_read(s, in_bytes, n);
    CHECK_EQ(got, expected);
    CHECK_EQ(promised, expected);
    CHECK(memcmp(in_bytes, model_bytes, expected) == 0);
}

static void compare_state(struct stage *s, struct model *m)
{
    uint32_t head = load_relaxed(&s->header->head);
    uint32_t tail = SHMP_TAIL_INDEX(load_relaxed(&s->header->tail));
    CHECK_EQ(shmp_occupancy(head, tail), m->used);
    CHECK_EQ(shmp_ring_pending(&s->reader), model_pending(m));
    CHECK_EQ(shmp_ring_looks_empty(s->header), m->used == 0);
    CHECK_EQ(shmp_ring_looks_full(s->header, s->writer.max_usage), m->used == m->max);
    /* I5: an empty ring refuses merges by the word before head alone. */
    if (m->used == 0) {
        uint32_t word = load_relaxed(&s->writer.words[(head - 1) & s->writer.mask]);
        CHECK((word & SHMP_WORD_SEALED) || !(word & SHMP_WORD_CAN_MERGE) ||
              shmp_word_end(word) == SHMP_SLOT_SIZE);
    }
}

static size_t some_size(void)
{
    switch (unit_below(4)) {
    case 0:
        return sizes[unit_below(COUNT(sizes))];
    case 1:
        return 1 + unit_below(32);
    case 2:
        return 1 + unit_below(5000);
    default:
        return 1 + unit_below(20000);
    }
}

static void random_operations(uint32_t slots, uint32_t max_usage, uint32_t start, uint32_t rounds)
{
    static struct model m;
    struct stage s;
    m.used = 0;
    m.max = max_usage;
    stage_make(&s, slots, start);
    s.writer.max_usage = s.reader.max_usage = max_usage;
    for (uint32_t i = 0; i < rounds; i++) {
        size_t n = some_size();
        if (unit_below(2)) {
            bool packet = unit_below(5) == 0;
            fresh_bytes(out_bytes, n);
            size_t expected = model_write(&m, out_bytes, n, packet);
            CHECK_EQ(stage_write(&s, out_bytes, n, packet), expected);
        } else {
            compare_read(&s, &m, n);
        }
        compare_state(&s, &m);
    }
    stage_free(&s);
}

TEST(random_operations_equal_the_slot_model)
{
    for (size_t at = 0; at < COUNT(starts); at++)
        for (uint32_t slots = 1; slots <= 32; slots *= 2) {
            random_operations(slots, slots, starts[at], unit_rounds(800));
            if (slots > 2) /* slots that writes may not take (CP-13) */
                random_operations(slots, slots - 1, starts[at], unit_rounds(400));
        }
}

TEST(each_size_into_each_room)
{
    static struct model m;
    for (size_t at = 0; at < 3; at++)
        for (size_t first = 0; first < COUNT(sizes); first++)
            for (size_t second = 0; second < COUNT(sizes); second++)
                for (size_t third = 0; third < COUNT(sizes); third += 3) {
                    struct stage s;
                    size_t n[3] = {sizes[first], sizes[second], sizes[third]};
                    m.used = 0;
                    m.max = 16;
                    stage_make(&s, 16, starts[at]);
                    for (int i = 0; i < 2; i++) {
                        fresh_bytes(out_bytes, n[i]);
                        CHECK_EQ(stage_write(&s, out_bytes, n[i], false),
                                 model_write(&m, out_bytes, n[i], false));
                        compare_state(&s, &m);
                    }
                    compare_read(&s, &m, n[2]);
                    fresh_bytes(out_bytes, n[0]);
                    CHECK_EQ(stage_write(&s, out_bytes, n[0], false),
                             model_write(&m, out_bytes, n[0], false));
                    compare_read(&s, &m, sizeof in_bytes);
                    compare_state(&s, &m);
                    stage_free(&s);
                }
}

TEST(the_kernels_own_examples)
{
    struct stage s;
    memset(out_bytes, 7, sizeof out_bytes);
    stage_make(&s, 1, UINT32_MAX); /* WR-2, WR-7, WR-9 */
    CHECK_EQ(stage_write(&s, out_bytes, 10, false), 10);
    CHECK_EQ(stage_write(&s, out_bytes, 4087, false), 0);
    CHECK_EQ(stage_write(&s, out_bytes, 4086, false), 4086);
    CHECK_EQ(stage_read(&s, in_bytes, 4095), 4095);
    CHECK_EQ(stage_write(&s, out_bytes, 1, false), 0);
    CHECK_EQ(stage_read(&s, in_bytes, 1), 1);
    CHECK_EQ(stage_write(&s, out_bytes, 10, false), 10); /* WR-8 */
    CHECK_EQ(stage_write(&s, out_bytes, 4097, false), 1);
    CHECK_EQ(stage_read(&s, in_bytes, 100), 11);
    CHECK_EQ(stage_write(&s, out_bytes, 1, false), 1);
    CHECK_EQ(stage_write(&s, out_bytes, 5000, false), 904);
    stage_free(&s);

    stage_make(&s, 16, 0); /* WR-10, PK-5 */
    for (int i = 0; i < 65536; i++)
        CHECK_EQ(stage_write(&s, out_bytes, 1, false), 1);
    CHECK_EQ(stage_write(&s, out_bytes, 1, false), 0);
    CHECK_EQ(stage_read(&s, in_bytes, sizeof in_bytes), 65536);
    for (int i = 0; i < 16; i++)
        CHECK_EQ(stage_write(&s, out_bytes, 2049, false), 2049);
    CHECK_EQ(stage_write(&s, out_bytes, 2048, false), 0);
    CHECK_EQ(stage_read(&s, in_bytes, sizeof in_bytes), 16 * 2049);
    for (int i = 0; i < 16; i++)
        CHECK_EQ(stage_write(&s, out_bytes, 1, true), 1);
    CHECK_EQ(stage_write(&s, out_bytes, 1, true), 0);
    CHECK_EQ(stage_read(&s, in_bytes, 1), 1);
    stage_free(&s);

    stage_make(&s, 16, 0); /* PK-3, PK-6: a stream slot and the packet behind it, then the stream */
    CHECK_EQ(stage_write(&s, (const unsigned char *)"AA", 2, false), 2);
    /* A packet may merge into a stream slot (the kernel looks at the slot only), so the packet
     * must not fit there. */
    CHECK_EQ(stage_write(&s, out_bytes, 4096, true), 4096);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"CC", 2, false), 2);
    CHECK_EQ(stage_read(&s, in_bytes, sizeof in_bytes), 4098);
    CHECK_EQ(stage_read(&s, in_bytes, sizeof in_bytes), 2);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"packet", 6, true), 6);
    CHECK_EQ(stage_read(&s, in_bytes, 2), 2);
    CHECK_EQ(stage_read(&s, in_bytes, 100), 0); /* the rest is gone */
    stage_free(&s);
}

/* ---- Two threads over one mapping ---------------------------------------------------- */

struct race {
    struct stage stage;
    uint64_t total;
    uint32_t writer_most;
    uint32_t reader_most;
    uint64_t seed;
};

static uint32_t step(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

static unsigned char byte_at(uint64_t position)
{
    return (unsigned char)(position * UINT64_C(0x9e3779b97f4a7c15) >> 56);
}

static void *race_writer(void *argument)
{
    struct race *race = argument;
    unsigned char bytes[16384];
    uint64_t state = race->seed;
    uint64_t done = 0;
    while (done < race->total) {
        size_t n = 1 + step(&state) % race->writer_most;
        if (n > race->total - done)
            n = (size_t)(race->total - done);
        for (size_t i = 0; i < n; i++)
            bytes[i] = byte_at(done + i);
        long r = stage_write(&race->stage, bytes, n, false);
        CHECK(r >= 0);
        done += (uint64_t)r;
        if (r == 0)
            unit_yield();
    }
    return NULL;
}

static void *race_reader(void *argument)
{
    struct race *race = argument;
    unsigned char bytes[16384];
    uint64_t state = race->seed + 1;
    uint64_t done = 0;
    while (done < race->total) {
        size_t n = 1 + step(&state) % race->reader_most;
        ssize_t promised = shmp_ring_available(&race->stage.reader, n);
        CHECK(promised >= 0);
        /* A read of what was promised gets it, whatever the writer does meanwhile. */
        long r = stage_read(&race->stage, bytes, promised > 0 ? (size_t)promised : n);
        CHECK(r >= 0 && (promised == 0 || r == promised));
        for (long i = 0; i < r; i++)
            if (bytes[i] != byte_at(done + (uint64_t)i))
                unit_fail(__FILE__, __LINE__, "byte %llu is wrong",
                          (unsigned long long)done + (unsigned long long)i);
        done += (uint64_t)r;
    }
    return NULL;
}

static void run_race(uint32_t slots, uint32_t writer_most, uint32_t reader_most, uint64_t total)
{
    struct race race = {.total = total, .writer_most = writer_most, .reader_most = reader_most};
    pthread_t writer;
    pthread_t reader;
    race.seed = unit_random();
    stage_make(&race.stage, slots, UINT32_MAX - 2);
    CHECK_EQ(pthread_create(&writer, NULL, race_writer, &race), 0);
    CHECK_EQ(pthread_create(&reader, NULL, race_reader, &race), 0);
    pthread_join(writer, NULL);
    pthread_join(reader, NULL);
    CHECK(shmp_ring_looks_empty(race.stage.header));
    stage_free(&race.stage);
}

TEST(seal_against_merge)
{
    /* Small writes and reads, so that the reader is always at the slot the writer extends. */
    run_race(2, 16, 16, 40000 * (uint64_t)unit_rounds(40));
    run_race(16, 8, 64, 40000 * (uint64_t)unit_rounds(40));
    run_race(4, 300, 4096, 400000 * (uint64_t)unit_rounds(20));
    run_race(16, 9000, 16384, 2000000 * (uint64_t)unit_rounds(20));
}

/* The reader's steps by hand, so that the writer's come exactly in between. */
TEST(merge_between_the_readers_look_and_its_seal)
{
    struct stage s;
    stage_make(&s, 2, UINT32_MAX);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"abc", 3, false), 3);
    CHECK_EQ(stage_read(&s, in_bytes, 2), 2); /* remembers head and the word with end 3 */
    CHECK_EQ(stage_write(&s, (const unsigned char *)"def", 3, false), 3); /* merges: end 6 */
    CHECK_EQ(load_relaxed(&s.header->r.word_seen) & SHMP_WORD_END_MASK, 3);
    CHECK_EQ(shmp_ring_available(&s.reader, 1), 1);
    CHECK_EQ(shmp_ring_available(&s.reader, 100), 4);
    CHECK_EQ(stage_read(&s, in_bytes, 100), 4); /* the seal of end 3 fails, and it looks again */
    CHECK(memcmp(in_bytes, "cdef", 4) == 0);
    CHECK(shmp_ring_looks_empty(s.header));
    CHECK_EQ(stage_write(&s, (const unsigned char *)"g", 1, false), 1); /* sealed: a new slot */
    CHECK_EQ(load_relaxed(&s.header->head), UINT32_MAX + 2u);
    CHECK_EQ(stage_read(&s, in_bytes, 100), 1);
    stage_free(&s);
}

/* The reader takes everything and seals exactly while the writer copies, that is between the
 * writer's look at the word and its compare-and-swap: the writer's buffer is not mapped yet, and
 * the handler of its fault is the reader. */
static struct stage *interrupted;
static unsigned char *absent;

static void read_all_and_map(int signal)
{
    (void)signal;
    CHECK_EQ(stage_read(interrupted, in_bytes, 100), 3);
    CHECK_EQ(mprotect(absent, SHMP_PAGE, PROT_READ | PROT_WRITE), 0);
}

TEST(a_seal_between_the_writers_look_and_its_merge)
{
    struct stage s;
    struct sigaction action = {.sa_handler = read_all_and_map};
    CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
    absent = mmap(NULL, SHMP_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(absent != MAP_FAILED);
    stage_make(&s, 2, UINT32_MAX);
    interrupted = &s;
    CHECK_EQ(stage_write(&s, (const unsigned char *)"abc", 3, false), 3);
    CHECK_EQ(stage_write(&s, absent, 5, false), 5); /* not merged: the slot was left */
    CHECK(memcmp(in_bytes, "abc", 3) == 0);
    CHECK_EQ(load_relaxed(&s.header->head), UINT32_MAX + 2u);
    CHECK_EQ(stage_read(&s, in_bytes, 100), 5); /* and so these are not lost */
    stage_free(&s);
    munmap(absent, SHMP_PAGE);
}

TEST(a_slot_that_grew_and_was_left_behind_loses_nothing)
{
    struct stage s;
    stage_make(&s, 4, 5);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"0123456789", 10, false), 10);
    CHECK_EQ(stage_read(&s, in_bytes, 4), 4);
    /* Merged to 20, and a new slot behind it, all after the reader's last look (D2). */
    CHECK_EQ(stage_write(&s, (const unsigned char *)"abcdefghij", 10, false), 10);
    CHECK_EQ(stage_write(&s, out_bytes, 4096, false), 4096);
    CHECK_EQ(stage_read(&s, in_bytes, 16), 16);
    CHECK(memcmp(in_bytes, "456789abcdefghij", 16) == 0);
    CHECK_EQ(stage_read(&s, in_bytes, 5000), 4096);
    stage_free(&s);
}

/* ---- Deaths ------------------------------------------------------------------------------ */

/* T3 without T4: the newest slot is sealed, tail was never stored. */
static void die_after_seal(struct stage *s)
{
    uint32_t newest = load_relaxed(&s->header->head) - 1;
    _Atomic uint32_t *word = &s->reader.words[newest & s->reader.mask];
    store_relaxed(word, load_relaxed(word) | SHMP_WORD_SEALED);
    shmp_ring_forget(s->header, true);
}

TEST(a_reader_that_died_between_seal_and_tail)
{
    struct stage s;
    stage_make(&s, 1, UINT32_MAX);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"abc", 3, false), 3);
    die_after_seal(&s);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"d", 1, false), 0); /* the kernel would merge */
    shmp_ring_unseal(&s.reader);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"d", 1, false), 1);
    CHECK_EQ(stage_read(&s, in_bytes, 100), 4);
    CHECK(memcmp(in_bytes, "abcd", 4) == 0);
    /* Consumed and sealed: this seal must stay (I5). */
    shmp_ring_unseal(&s.reader);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"e", 1, false), 1);
    CHECK_EQ(stage_read(&s, in_bytes, 100), 1);
    CHECK(in_bytes[0] == 'e');
    stage_free(&s);
}

TEST(a_reader_that_died_after_the_seal_of_a_later_slot)
{
    struct stage s;
    stage_make(&s, 2, UINT32_MAX - 1);
    memset(out_bytes, 'x', 4096);
    CHECK_EQ(stage_write(&s, out_bytes, 4096, false), 4096);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"abc", 3, false), 3);
    /* It read both slots, sealed the second, and died before it stored tail. */
    die_after_seal(&s);
    shmp_ring_unseal(&s.reader);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"d", 1, false), 1);
    CHECK_EQ(stage_read(&s, in_bytes, 5000), 4100);
    stage_free(&s);
}

TEST(a_writer_that_died_before_publishing_left_nothing)
{
    struct stage s;
    stage_make(&s, 2, 9);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"abc", 3, false), 3);
    /* Bytes behind end, and a half-written free slot. */
    memset(s.writer.data + (size_t)(9 & s.writer.mask) * SHMP_SLOT_SIZE + 3, 'Z', 100);
    store_relaxed(&s.writer.words[10 & s.writer.mask], SHMP_WORD(0, 77, SHMP_SLOT_CAN_MERGE));
    store_relaxed(&s.header->w.tail_seen, 12345); /* and a half-written memory of tail */
    shmp_ring_forget(s.header, false);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"def", 3, false), 3);
    CHECK_EQ(stage_write(&s, out_bytes, 4096, false), 4096);
    CHECK_EQ(stage_write(&s, out_bytes, 4096, false), 0);
    CHECK_EQ(stage_read(&s, in_bytes, 6), 6);
    CHECK(memcmp(in_bytes, "abcdef", 6) == 0);
    stage_free(&s);
}

/* A fill of all slots of an empty ring overwrites the word of the slot before head. */
static void die_before_the_commit(uint32_t slots)
{
    struct stage s;
    stage_make(&s, slots, 9);
    size_t size = (size_t)slots * SHMP_SLOT_SIZE - 96;
    CHECK_EQ(stage_write(&s, out_bytes, size, false), size);
    CHECK_EQ(stage_read(&s, in_bytes, size), size);
    struct iovec iov = {.iov_base = out_bytes, .iov_len = size};
    struct shmp_cursor from = {.iov = &iov, .left = 1};
    struct shmp_put put;
    CHECK_EQ(shmp_ring_fill(&s.writer, &from, size, false, &put), 0);
    CHECK_EQ(put.bytes, size);
    shmp_ring_forget(s.header, false);
    shmp_ring_reseal(&s.writer);
    shmp_ring_reseal(&s.writer); /* twice is once */
    CHECK_EQ(stage_write(&s, (const unsigned char *)"abc", 3, false), 3);
    CHECK_EQ(stage_read(&s, in_bytes, 9), 3);
    CHECK(memcmp(in_bytes, "abc", 3) == 0);
    stage_free(&s);
}

TEST(a_writer_that_died_before_its_commit_lets_nobody_merge_into_what_was_read)
{
    die_before_the_commit(1);
    die_before_the_commit(2);
    die_before_the_commit(16);
}

TEST(what_lies_in_the_ring_is_not_resealed)
{
    struct stage s;
    stage_make(&s, 2, 9);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"abc", 3, false), 3);
    shmp_ring_reseal(&s.writer);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"def", 3, false), 3);
    CHECK_EQ(load_relaxed(&s.header->head), 10);
    stage_free(&s);
}

TEST(forgetting_forces_a_fresh_look)
{
    struct stage s;
    stage_make(&s, 4, 0x7fffffffu);
    CHECK_EQ(stage_write(&s, out_bytes, 8192, false), 8192);
    store_relaxed(&s.header->r.head_seen, 0x7fffffffu + 1); /* older than the truth */
    store_relaxed(&s.header->r.word_seen, SHMP_WORD(5, 6, 0));
    shmp_ring_forget(s.header, true);
    CHECK_EQ(shmp_ring_available(&s.reader, 9000), 8192);
    CHECK_EQ(stage_read(&s, in_bytes, 9000), 8192);
    stage_free(&s);
}

TEST(clear_forgets_everything)
{
    struct stage s;
    stage_make(&s, 4, UINT32_MAX - 1);
    CHECK_EQ(stage_write(&s, out_bytes, 9000, false), 9000);
    CHECK_EQ(stage_read(&s, in_bytes, 10), 10);
    shmp_ring_clear(&s.writer);
    CHECK_EQ(shmp_ring_pending(&s.reader), 0);
    CHECK_EQ(shmp_ring_available(&s.reader, 10), 0);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"n", 1, false), 1); /* merges with nothing old */
    CHECK_EQ(stage_read(&s, in_bytes, 100), 1);
    CHECK(in_bytes[0] == 'n');
    stage_free(&s);
}

/* ---- Rubbish ------------------------------------------------------------------------------ */

TEST(more_slots_in_use_than_there_are_is_damage)
{
    struct stage s;
    struct shmp_taken taken;
    struct iovec iov = {.iov_base = in_bytes, .iov_len = 10};
    struct shmp_cursor to = {.iov = &iov, .left = 1};
    stage_make(&s, 4, 100);
    store_relaxed(&s.header->head, 105);
    CHECK_EQ(shmp_ring_available(&s.reader, 10), -SHMP_ECORRUPT);
    CHECK_EQ(shmp_ring_pending(&s.reader), -SHMP_ECORRUPT);
    CHECK_EQ(shmp_ring_copy(&s.reader, &to, 10, &taken), -SHMP_ECORRUPT);
    CHECK_EQ(taken.bytes, 0);
    CHECK_EQ(stage_write(&s, out_bytes, 4096, false), -SHMP_ECORRUPT);
    store_relaxed(&s.header->head, 99); /* behind tail */
    CHECK_EQ(shmp_ring_available(&s.reader, 10), -SHMP_ECORRUPT);
    CHECK_EQ(stage_write(&s, out_bytes, 4096, false), -SHMP_ECORRUPT);
    stage_free(&s);
}

/* In a ring of four slots, `used` of them in use, what the dead are said to have been about to do.  So
 * many slots are taken for it in the end; a note that cannot be one is dropped. */
static uint32_t redo(uint32_t used, uint32_t slots, uint32_t offset, bool put)
{
    struct stage s;
    stage_make(&s, 4, UINT32_MAX - 1);
    uint32_t tail = UINT32_MAX - 1;
    store_relaxed(&s.header->head, tail + used);
    if (put) {
        store_relaxed(&s.header->w.redo, SHMP_REDO(tail + used, slots, offset));
        shmp_ring_redo_put(&s.writer, true);
    } else {
        store_relaxed(&s.header->r.redo, SHMP_REDO(tail, slots, offset));
        shmp_ring_redo_take(&s.reader, true);
    }
    uint32_t moved = put ? load_relaxed(&s.header->head) - (tail + used)
                         : SHMP_TAIL_INDEX(load_relaxed(&s.header->tail)) - tail;
    CHECK_EQ(SHMP_TAIL_OFFSET(load_relaxed(&s.header->tail)), moved != 0 && !put ? offset : 0);
    CHECK_EQ(load_relaxed(&s.header->w.redo) | load_relaxed(&s.header->r.redo), 0);
    stage_free(&s);
    return moved;
}

TEST(a_put_is_made_up_for_if_there_is_room)
{
    CHECK_EQ(redo(0, 4, 0, true), 4);
    CHECK_EQ(redo(2, 2, 0, true), 2);
    CHECK_EQ(redo(4, 1, 0, true), 0); /* full */
    CHECK_EQ(redo(2, 3, 0, true), 0); /* too many */
    CHECK_EQ(redo(0, 65535, 0, true), 0);
    CHECK_EQ(redo(5, 1, 0, true), 0); /* head and tail are damaged themselves */
    CHECK_EQ(redo(0x80000000u, 1, 0, true), 0);
}

TEST(a_take_is_made_up_for_if_there_is_so_much)
{
    CHECK_EQ(redo(4, 4, 0, false), 4);
    CHECK_EQ(redo(4, 3, 77, false), 3);
    CHECK_EQ(redo(0, 1, 0, false), 0); /* empty */
    CHECK_EQ(redo(2, 3, 0, false), 0); /* too many */
    CHECK_EQ(redo(2, 2, 1, false), 0); /* bytes of a slot that is not there */
    CHECK_EQ(redo(5, 1, 0, false), 0); /* head and tail are damaged themselves */
    CHECK_EQ(redo(0x80000000u, 1, 0, false), 0);
}

TEST(a_word_that_ends_beyond_its_slot_is_damage)
{
    struct stage s;
    stage_make(&s, 4, 100);
    CHECK_EQ(stage_write(&s, out_bytes, 100, false), 100);
    store_relaxed(&s.reader.words[100 & 3], SHMP_WORD(0, 4097, SHMP_SLOT_CAN_MERGE));
    CHECK_EQ(shmp_ring_available(&s.reader, 10), -SHMP_ECORRUPT);
    CHECK_EQ(shmp_ring_pending(&s.reader), -SHMP_ECORRUPT);
    CHECK_EQ(stage_read(&s, in_bytes, 10), -SHMP_ECORRUPT);
    stage_free(&s);
}

TEST(a_tail_offset_beyond_its_slot_is_damage)
{
    struct stage s;
    stage_make(&s, 4, 100);
    CHECK_EQ(stage_write(&s, out_bytes, 100, false), 100);
    store_relaxed(&s.header->tail, SHMP_TAIL(100, 4097));
    CHECK_EQ(shmp_ring_available(&s.reader, 10), -SHMP_ECORRUPT);
    CHECK_EQ(stage_read(&s, in_bytes, 10), -SHMP_ECORRUPT);
    stage_free(&s);
}

TEST(a_slot_without_bytes_is_damage)
{
    struct stage s;
    stage_make(&s, 4, 100);
    CHECK_EQ(stage_write(&s, (const unsigned char *)"a", 1, false), 1);
    store_relaxed(&s.reader.words[100 & 3], SHMP_WORD(0, 0, 0));
    CHECK_EQ(stage_read(&s, in_bytes, 10), -SHMP_ECORRUPT);
    store_relaxed(&s.reader.words[100 & 3], SHMP_WORD(0, 1, 0));
    store_relaxed(&s.reader.words[101 & 3], SHMP_WORD(7, 7, SHMP_SLOT_CAN_MERGE));
    store_relaxed(&s.header->head, 102);
    CHECK_EQ(shmp_ring_pending(&s.reader), 1);
    CHECK_EQ(stage_read(&s, in_bytes, 1), 1);
    CHECK_EQ(stage_read(&s, in_bytes, 1), -SHMP_ECORRUPT);
    stage_free(&s);
}

/* What the reader remembers lies in shared memory as well. */
TEST(an_impossible_remembered_word_is_not_believed)
{
    struct stage s;
    stage_make(&s, 1, 100);
    fresh_bytes(out_bytes, 4096);
    CHECK_EQ(stage_write(&s, out_bytes, 4096, false), 4096);
    store_relaxed(&s.header->r.head_seen, 101);
    store_relaxed(&s.header->r.word_seen, SHMP_WORD(4095, 8191, SHMP_SLOT_CAN_MERGE));
    CHECK_EQ(shmp_ring_available(&s.reader, 5000), 4096);
    CHECK_EQ(stage_read(&s, in_bytes, 5000), 4096);
    CHECK(memcmp(in_bytes, out_bytes, 4096) == 0);
    stage_free(&s);
}

static uint32_t nasty_word(void)
{
    static const uint32_t ends[] = {0, 1, 4095, 4096, 4097, 8191};
    static const uint32_t froms[] = {0, 1, 4094, 4095};
    if (unit_below(3) == 0)
        return (uint32_t)unit_random();
    return SHMP_WORD(froms[unit_below(4)], ends[unit_below(6)], unit_below(64));
}

static uint32_t nasty_index(uint32_t truth)
{
    return unit_below(3) == 0 ? (uint32_t)unit_random() : truth + unit_below(40) - 20;
}

TEST(rubbish_never_leads_outside)
{
    uint32_t rounds = unit_rounds(60000);
    for (uint32_t slots = 1; slots <= 16; slots *= 4) {
        struct stage s;
        stage_make(&s, slots, UINT32_MAX - 3);
        for (uint32_t i = 0; i < rounds; i++) {
            struct shmp_header *h = s.header;
            uint32_t head = load_relaxed(&h->head);
            switch (unit_below(8)) {
            case 0:
                store_relaxed(&h->head, nasty_index(head));
                break;
            case 1:
                store_relaxed(&h->tail, SHMP_TAIL(nasty_index(head), unit_below(2)
                                                                         ? unit_below(9000)
                                                                         : unit_random()));
                break;
            case 2:
                store_relaxed(&h->r.head_seen, nasty_index(head));
                break;
            case 3:
                store_relaxed(&h->r.word_seen, nasty_word());
                break;
            case 4:
                store_relaxed(&h->w.tail_seen, nasty_index(head));
                break;
            default:
                store_relaxed(&s.writer.words[unit_below(slots)], nasty_word());
            }
            size_t n = some_size();
            long r;
            switch (unit_below(5)) {
            case 0:
                r = stage_write(&s, out_bytes, n, unit_below(2));
                break;
            case 1:
                r = shmp_ring_available(&s.reader, n);
                break;
            case 2:
                r = shmp_ring_pending(&s.reader);
                n = (size_t)slots * SHMP_SLOT_SIZE;
                break;
            case 3:
                shmp_ring_unseal(&s.reader);
                shmp_ring_forget(h, unit_below(2));
                r = 0;
                break;
            default:
                r = stage_read(&s, in_bytes, n);
            }
            CHECK(r == -SHMP_ECORRUPT || (r >= 0 && (size_t)r <= n));
        }
        stage_free(&s);
    }
}

TEST(vectors_are_one_sequence)
{
    struct stage s;
    struct iovec out[5] = {{(void *)(uintptr_t) "ab", 2}, {NULL, 0}, {out_bytes, 5000}, {NULL, 0},
                           {(void *)(uintptr_t) "yz", 2}};
    struct iovec in[4] = {{in_bytes, 1}, {NULL, 0}, {in_bytes + 1, 4999}, {in_bytes + 5000, 20}};
    struct shmp_cursor from = {.iov = out, .left = 5};
    struct shmp_cursor to = {.iov = in, .left = 4};
    struct shmp_put put;
    struct shmp_taken taken;
    fresh_bytes(out_bytes, 5000);
    stage_make(&s, 4, UINT32_MAX);
    CHECK_EQ(shmp_ring_fill(&s.writer, &from, 5004, false, &put), 0);
    CHECK(shmp_ring_looks_empty(s.header));
    shmp_ring_commit(&s.writer, &put);
    CHECK_EQ(put.bytes, 5004);
    CHECK_EQ(put.old_head, UINT32_MAX);
    CHECK_EQ(shmp_ring_copy(&s.reader, &to, 5020, &taken), 0);
    CHECK_EQ(shmp_ring_pending(&s.reader), 5004);
    shmp_ring_consume(&s.reader, &taken);
    CHECK_EQ(taken.bytes, 5004);
    CHECK_EQ(taken.old_tail, UINT32_MAX);
    CHECK_EQ(taken.tail, UINT32_MAX + 2u);
    CHECK(memcmp(in_bytes, "ab", 2) == 0 && memcmp(in_bytes + 2, out_bytes, 5000) == 0 &&
          memcmp(in_bytes + 5002, "yz", 2) == 0);
    stage_free(&s);
}
