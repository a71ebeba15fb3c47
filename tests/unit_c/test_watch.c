/* test_watch.c - how long who cannot watch everybody sleeps. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#include "pipe.h"
#include "sys.h"
#include "unit.h"
#include "wait.h"
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

/* ---- Calls in threads that the words do not name ----------------------------------------------------- */

static shmp_end *ends[2];
static struct shmp_sys_table kernel;
static _Atomic uint64_t *longest; /* the latest sleep of the one that waits beside them */

static long note_and_wait(struct shmp_futex_waitv *words, unsigned count, const struct timespec *until)
{
    note(until);
    store_seq_cst(longest, until_ns - slept_at_ns);
    return kernel.futex_waitv(words, count, until);
}

static void *read_one(void *unused)
{
    unsigned char byte;
    CHECK_EQ(shmp_read(ends[0], &byte, 1), 1);
    return unused;
}

/* Reads at a gate's word, in a thread of its own or in the first one. */
static pid_t reads_at(int gate, bool in_thread)
{
    pid_t child = unit_fork();
    if (child == 0) {
        pthread_t thread;
        CHECK_EQ(shmp_close(ends[1]), 0);
        unit_await(gate);
        if (in_thread)
            CHECK_EQ(pthread_create(&thread, NULL, read_one, NULL), 0);
        else
            read_one(NULL);
        for (;;)
            pause();
    }
    return child;
}

static pid_t waits_beside(void)
{
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(shmp_close(ends[1]), 0);
        shmp_sys.futex_waitv = note_and_wait;
        read_one(NULL);
        unit_done();
    }
    return child;
}

static uint32_t asleep(void)
{
    return shmp_queue_waiters(&ends[0]->pipe->seg.header->wait.readable);
}

/* A thread that dies with a wake when its process's words have been marked tells nobody. */
static void wait_beside(bool in_thread, bool it_sleeps_first)
{
    int gate = unit_gate();
    kernel = shmp_sys;
    longest = unit_shared(sizeof *longest);
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC), 0);
    pid_t other = reads_at(gate, in_thread);
    if (it_sleeps_first) {
        unit_pass(gate);
        UNTIL(asleep() == 1);
    }
    pid_t sleeper = waits_beside();
    UNTIL(load_seq_cst(longest) != 0 && asleep() == (it_sleeps_first ? 2 : 1));
    if (!it_sleeps_first) {
        CHECK(load_seq_cst(longest) > SHMP_COMMON_SLICE_NS);
        unit_pass(gate);
        UNTIL(asleep() >= 2);
    }
    if (in_thread)
        UNTIL(load_seq_cst(longest) <= SHMP_COMMON_SLICE_NS);
    else
        CHECK(load_seq_cst(longest) > SHMP_COMMON_SLICE_NS);
    unit_kill(other);
    CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
    unit_join(sleeper);
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
    munmap((void *)longest, sizeof *longest);
    close(gate);
}

TEST(who_waits_beside_calls_in_other_threads_looks_twice_a_second)
{
    wait_beside(true, true);
    wait_beside(true, false);
}

TEST(who_waits_beside_calls_of_the_first_thread_does_not)
{
    wait_beside(false, true);
    wait_beside(false, false);
}
