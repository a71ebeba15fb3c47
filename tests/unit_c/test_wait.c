/* test_wait.c - the wait queues: invariants I1 to I3 of wait.h, exclusive wakes, the wrap. */
#include "wait.h"

#include <pthread.h>
#include <sys/syscall.h>

#include "atomic.h"
#include "sys.h"
#include "unit.h"

static struct shmp_queue queue;
static _Atomic uint64_t woken_count;
static _Atomic int wake_calls;
static long (*real_wake)(const void *, int);

static long counting_wake(const void *address, int count)
{
    atomic_fetch_add(&wake_calls, 1);
    return real_wake(address, count);
}

static uint32_t epoch(void)
{
    return SHMP_QUEUE_EPOCH(load_relaxed(&queue.word));
}

static uint32_t waiters(void)
{
    return SHMP_QUEUE_WAITERS(load_relaxed(&queue.word));
}

static void start_at(uint32_t first)
{
    store_relaxed(&queue.word, first);
    if (real_wake == NULL)
        real_wake = shmp_sys.futex_wake;
    shmp_sys.futex_wake = counting_wake;
    wake_calls = 0;
    woken_count = 0;
}

static const uint32_t firsts[] = {0, 1, 0x7fffffffu, 0x80000000u, UINT32_MAX - 1, UINT32_MAX};

TEST(the_futex_word_is_the_epoch)
{
    start_at(0x12345678u);
    CHECK_EQ(load_relaxed(shmp_queue_word(&queue)), 0x12345678u);
    shmp_queue_register(&queue);
    CHECK_EQ(load_relaxed(shmp_queue_word(&queue)), 0x12345678u);
    CHECK_EQ(waiters(), 1);
}

TEST(who_comes_and_goes_leaves_no_trace)
{
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
        start_at(firsts[i]);
        CHECK(!shmp_queue_has_waiters(&queue));
        uint32_t e = shmp_queue_register(&queue);
        CHECK_EQ(e, firsts[i]);
        CHECK(shmp_queue_has_waiters(&queue));
        uint32_t f = shmp_queue_register(&queue);
        CHECK_EQ(waiters(), 2);
        shmp_queue_leave(&queue, e);
        CHECK_EQ(waiters(), 1);
        shmp_queue_leave(&queue, f);
        CHECK_EQ(waiters(), 0);
        CHECK_EQ(epoch(), firsts[i]);
        shmp_queue_leave(&queue, f); /* never below nothing */
        CHECK_EQ(waiters(), 0);
    }
}

TEST(a_wake_of_nobody_costs_nothing)
{
    start_at(5);
    shmp_queue_wake_one(&queue, &woken_count);
    shmp_queue_wake_all(&queue);
    CHECK_EQ(wake_calls, 0);
    CHECK_EQ(woken_count, 0);
    CHECK_EQ(load_relaxed(&queue.word), 5);
}

/* I2, I3: whoever was counted in an epoch that is over takes nothing away from the next. */
TEST(leaving_an_old_epoch_takes_nobody_out)
{
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
        start_at(firsts[i]);
        uint32_t old = shmp_queue_register(&queue);
        shmp_queue_wake_one(&queue, &woken_count);
        CHECK(epoch() != old);
        CHECK_EQ(waiters(), 0);
        uint32_t now = shmp_queue_register(&queue);
        CHECK(now != old);
        shmp_queue_leave(&queue, old);
        CHECK_EQ(waiters(), 1);
        shmp_queue_leave(&queue, now);
        CHECK_EQ(waiters(), 0);
    }
}

TEST(what_the_dead_left_in_the_count_is_put_right)
{
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
        start_at(firsts[i]);
        for (int dead = 0; dead < 5; dead++)
            shmp_queue_register(&queue);
        shmp_queue_wake_one(&queue, &woken_count);
        CHECK_EQ(wake_calls, 1);
        CHECK_EQ(waiters(), 0); /* one wake that found nobody, and never again */
        CHECK_EQ(epoch(), firsts[i] + 1);
        shmp_queue_wake_one(&queue, &woken_count);
        CHECK_EQ(wake_calls, 1);
    }
}

static void register_late(void)
{
    shmp_queue_register(&queue);
}

static void (*between)(void);

/* Somebody registers between the waker's change of the epoch and its FUTEX_WAKE's answer. */
static long wake_and_then(const void *address, int count)
{
    long r = counting_wake(address, count);
    if (between)
        between();
    return r;
}

TEST(putting_right_spares_who_came_meanwhile)
{
    start_at(UINT32_MAX);
    shmp_sys.futex_wake = wake_and_then;
    between = register_late;
    shmp_queue_register(&queue);
    shmp_queue_register(&queue);
    shmp_queue_wake_one(&queue, &woken_count);
    between = NULL;
    CHECK(waiters() >= 1); /* I1: the late one is counted, in the epoch it registered with */
    CHECK_EQ(epoch(), 0);
}

static uint32_t waiters_at_the_wake;

static long look_and_wake(const void *address, int count)
{
    waiters_at_the_wake = waiters();
    return counting_wake(address, count);
}

/* I1: a waker that dies right before it wakes leaves him asleep for as long as its death takes to be
 * noticed.  Somebody else who sleeps behind him must not be the one that the next wake takes off. */
TEST(who_is_not_awake_yet_is_counted)
{
    start_at(UINT32_MAX);
    shmp_sys.futex_wake = look_and_wake;
    shmp_queue_register(&queue);
    shmp_queue_register(&queue);
    shmp_queue_wake_one(&queue, &woken_count);
    CHECK_EQ(waiters_at_the_wake, 2);
    shmp_queue_register(&queue);
    shmp_queue_wake_all(&queue);
    CHECK_EQ(waiters_at_the_wake, 1);
}

/* ---- Sleepers ------------------------------------------------------------------------- */

#define SLEEPERS 6
static _Atomic int up;
static _Atomic int order[SLEEPERS];
static _Atomic pid_t tasks[SLEEPERS];

static void *sleep_once(void *argument)
{
    int number = *(int *)argument;
    atomic_store(&tasks[number], (pid_t)syscall(SYS_gettid));
    uint32_t e = shmp_queue_register(&queue);
    long r = shmp_sys.futex_wait(shmp_queue_word(&queue), e, NULL);
    CHECK_EQ(r, 0);
    order[atomic_load(&up)] = number; /* first: who sees `up` looks there */
    atomic_fetch_add(&up, 1);
    return NULL;
}

static void start_sleepers(pthread_t threads[SLEEPERS], int numbers[SLEEPERS])
{
    for (int i = 0; i < SLEEPERS; i++) {
        numbers[i] = i;
        CHECK_EQ(pthread_create(&threads[i], NULL, sleep_once, &numbers[i]), 0);
        UNTIL(atomic_load(&tasks[i]) != 0);
        unit_await_futex(tasks[i]);
    }
}

TEST(each_wake_wakes_one_and_the_oldest)
{
    pthread_t threads[SLEEPERS];
    int numbers[SLEEPERS];
    start_at(UINT32_MAX - 2);
    start_sleepers(threads, numbers);
    CHECK_EQ(waiters(), SLEEPERS);
    for (int i = 0; i < SLEEPERS; i++) {
        shmp_queue_wake_one(&queue, &woken_count);
        UNTIL(atomic_load(&up) > i);
        CHECK_EQ(up, i + 1);
        CHECK_EQ(order[i], i);
        CHECK_EQ(waiters(), SLEEPERS - i - 1);
        for (int j = i + 1; j < SLEEPERS; j++)
            unit_await_futex(tasks[j]);
    }
    CHECK_EQ(wake_calls, SLEEPERS);
    CHECK_EQ(woken_count, SLEEPERS);
    for (int i = 0; i < SLEEPERS; i++)
        pthread_join(threads[i], NULL);
}

TEST(wake_all_wakes_all)
{
    pthread_t threads[SLEEPERS];
    int numbers[SLEEPERS];
    start_at(UINT32_MAX);
    start_sleepers(threads, numbers);
    shmp_queue_wake_all(&queue);
    for (int i = 0; i < SLEEPERS; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(up, SLEEPERS);
    CHECK_EQ(waiters(), 0);
    CHECK_EQ(epoch(), 0);
    CHECK_EQ(wake_calls, 1);
}

/* ---- No wake is lost -------------------------------------------------------------------- */

/* Tokens instead of bytes.  A taker sleeps without any time limit, so that a lost wake is a
 * hang, and the watchdog's. */
static _Atomic int64_t tokens;
static _Atomic bool over;

static void *taker(void *argument)
{
    uint64_t *taken = argument;
    for (;;) {
        int64_t have = load_seq_cst(&tokens);
        bool slept = false;
        while (have <= 0) {
            if (atomic_load(&over))
                return NULL;
            uint32_t e = shmp_queue_register(&queue); /* R1 */
            have = load_seq_cst(&tokens);             /* R2 */
            if (have > 0 || atomic_load(&over)) {
                shmp_queue_leave(&queue, e);
                break;
            }
            if (shmp_sys.futex_wait(shmp_queue_word(&queue), e, NULL) != 0)
                shmp_queue_leave(&queue, e);
            slept = true;
            have = load_seq_cst(&tokens);
        }
        while (have > 0 && !atomic_compare_exchange_strong(&tokens, &have, have - 1))
            ;
        if (have > 0)
            ++*taken;
        if (slept && load_seq_cst(&tokens) > 0) /* hand on (WK-3) */
            shmp_queue_wake_one(&queue, &woken_count);
    }
}

static void *giver(void *argument)
{
    uint32_t rounds = *(uint32_t *)argument;
    for (uint32_t i = 0; i < rounds; i++) {
        fetch_add_seq_cst(&tokens, 1);          /* W1 */
        if (shmp_queue_has_waiters(&queue))     /* W2 */
            shmp_queue_wake_one(&queue, &woken_count);
        if (i % 16 == 0) /* let the takers run dry: it is their sleep that is tested */
            while (load_seq_cst(&tokens) > 0)
                sched_yield();
    }
    return NULL;
}

TEST(no_wake_is_lost)
{
    pthread_t takers[3];
    pthread_t givers[2];
    uint64_t taken[3] = {0};
    uint32_t rounds = unit_rounds(30000);
    start_at(UINT32_MAX - 100);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(pthread_create(&takers[i], NULL, taker, &taken[i]), 0);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(pthread_create(&givers[i], NULL, giver, &rounds), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(givers[i], NULL);
    UNTIL(load_seq_cst(&tokens) == 0);
    atomic_store(&over, true);
    shmp_queue_wake_all(&queue);
    for (int i = 0; i < 3; i++)
        pthread_join(takers[i], NULL);
    CHECK_EQ(taken[0] + taken[1] + taken[2], 2 * (uint64_t)rounds);
}

TEST(broadcast_reaches_both_queues)
{
    static struct shmp_header header;
    start_at(0);
    shmp_queue_register(&header.wait.readable);
    shmp_queue_register(&header.wait.writable);
    shmp_broadcast(&header);
    CHECK_EQ(load_relaxed(&header.wait.readable.word), 1);
    CHECK_EQ(load_relaxed(&header.wait.writable.word), 1);
    CHECK_EQ(load_relaxed(&header.stats.broadcasts), 1);
}
