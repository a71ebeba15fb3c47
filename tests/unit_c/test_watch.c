/* test_watch.c - how long who cannot watch everybody sleeps. */
#include "sys.h"
#include "unit.h"
#include "watch.h"

static uint64_t until_ns;
static uint64_t slept_at_ns;
static long refusal;

static void note(const struct timespec *until)
{
    slept_at_ns = shmp_now_ns();
    until_ns = (uint64_t)until->tv_sec * 1000000000u + (uint64_t)until->tv_nsec;
}

static long note_the_timer(struct shmp_futex_waitv *words, unsigned count, const struct timespec *until)
{
    (void)words;
    (void)count;
    note(until);
    return -ETIMEDOUT;
}

/* They need the CPUs on which the dead one is still at work. */
TEST(the_more_look_the_more_seldom_each_of_them_does)
{
    static const struct {
        uint32_t crowd;
        uint64_t times;
    } cases[] = {{0, 1}, {1, 1}, {2, 2}, {15, 15}, {16, 16}, {17, 16}, {UINT32_MAX, 16}};
    _Atomic uint32_t word = 0;
    shmp_sys.futex_waitv = note_the_timer;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct shmp_watch watch = {.complete = false};
        struct shmp_pace pace = {.crowd = cases[i].crowd};
        for (unsigned look = 0; look < SHMP_FIRST_LOOKS; look++) {
            uint64_t before = shmp_now_ns();
            CHECK_EQ(shmp_watch_sleep(&watch, &word, 0, 0, &pace), SHMP_LOOK);
            CHECK(until_ns - before >= cases[i].times * SHMP_FIRST_SLICE_NS);
            CHECK(until_ns <= slept_at_ns + cases[i].times * SHMP_FIRST_SLICE_NS);
        }
        for (unsigned look = 0; look < 10; look++)
            shmp_watch_sleep(&watch, &word, 0, 0, &pace);
        CHECK(until_ns <= slept_at_ns + 2 * SHMP_LAST_SLICE_NS);
    }
}

static long refuse(struct shmp_futex_waitv *words, unsigned count, const struct timespec *until)
{
    (void)words;
    (void)count;
    (void)until;
    return refusal;
}

static long note_the_plain_wait(const void *address, uint32_t value, const struct timespec *until)
{
    (void)address;
    (void)value;
    note(until);
    return -ETIMEDOUT;
}

/* Old kernels do not know it, old rules for containers forbid it: then nobody turns in a circle. */
TEST(without_futex_waitv_it_looks_every_few_milliseconds)
{
    static const long refusals[] = {-ENOSYS, -EPERM, -EACCES, -ENOMEM, -EINVAL};
    _Atomic uint32_t word = 0;
    shmp_sys.futex_waitv = refuse;
    shmp_sys.futex_wait = note_the_plain_wait;
    for (unsigned i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct shmp_watch watch = {.complete = true};
        struct shmp_pace pace = {0};
        refusal = refusals[i];
        until_ns = 0;
        uint64_t before = shmp_now_ns();
        CHECK_EQ(shmp_watch_sleep(&watch, &word, 0, 0, &pace), SHMP_LOOK);
        CHECK(until_ns >= before + SHMP_LAST_SLICE_NS);
        CHECK(!watch.complete);
        CHECK(!pace.safety);
    }
}
