/* test_lock.c - short locks: exclusion, waking, and taking over from the dead but never the slow. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "lock.h"
#include "pipe.h"
#include "unit.h"

static shmp_end *ends[2];

static struct shmp_live *live(void)
{
    return &ends[0]->pipe->live;
}

static struct shmp_header *header(void)
{
    return ends[0]->pipe->seg.header;
}

/* A lock word that nothing else uses while a test has it. */
static _Atomic uint32_t *word(void)
{
    return &header()->w.lock;
}

static void make_pipe(void)
{
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC), 0);
}

static void close_pipe(void)
{
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}

struct counter {
    volatile uint64_t value; /* changed under the lock only, and by no atomic operation */
    uint32_t rounds;
};

static void count_up(struct counter *c)
{
    for (uint32_t i = 0; i < c->rounds; i++) {
        CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED);
        c->value = c->value + 1;
        shmp_unlock(word());
    }
}

static void *count_in_thread(void *argument)
{
    count_up(argument);
    return NULL;
}

TEST(exclusion_between_threads)
{
    pthread_t threads[4];
    struct counter c = {.rounds = unit_rounds(200000)};
    make_pipe();
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, count_in_thread, &c), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_EQ(c.value, 4 * (uint64_t)c.rounds);
    CHECK_EQ(load_relaxed(word()), 0);
    CHECK_EQ(load_relaxed(&header()->stats.recoveries), 0);
    close_pipe();
}

TEST(exclusion_between_processes)
{
    struct counter *c = unit_shared(sizeof *c);
    pid_t children[4];
    c->rounds = unit_rounds(200000);
    make_pipe();
    for (int i = 0; i < 4; i++) {
        children[i] = unit_fork();
        if (children[i] == 0) {
            count_up(c);
            unit_done();
        }
    }
    for (int i = 0; i < 4; i++)
        unit_join(children[i]);
    CHECK_EQ(c->value, 4 * (uint64_t)c->rounds);
    CHECK_EQ(load_relaxed(word()), 0);
    CHECK_EQ(load_relaxed(&header()->stats.recoveries), 0);
    munmap(c, sizeof *c);
    close_pipe();
}

/* A child that has the lock and does nothing more. */
static pid_t spawn_owner(int gate)
{
    int has = unit_gate();
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED);
        unit_pass(has);
        unit_await(gate);
        shmp_unlock(word());
        for (;;)
            pause();
    }
    unit_await(has);
    close(has);
    return child;
}

TEST(a_dead_owner_is_reported_once)
{
    int gate = unit_gate();
    make_pipe();
    pid_t owner = spawn_owner(gate);
    CHECK_EQ(shmp_lock(live(), word(), false), SHMP_LOCK_BUSY);
    unit_kill(owner);
    CHECK_EQ(shmp_lock(live(), word(), false), SHMP_LOCK_BUSY); /* who may not wait does not prove */
    CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED_FROM_DEAD);
    CHECK_EQ(load_relaxed(&header()->stats.recoveries), 1);
    shmp_unlock(word());
    CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED);
    shmp_unlock(word());
    CHECK_EQ(load_relaxed(&header()->stats.recoveries), 1);
    close(gate);
    close_pipe();
}

TEST(one_of_many_waiters_inherits)
{
    _Atomic int *from_dead = unit_shared(sizeof *from_dead);
    int gate = unit_gate();
    pid_t waiters[4];
    make_pipe();
    pid_t owner = spawn_owner(gate);
    for (int i = 0; i < 4; i++) {
        waiters[i] = unit_fork();
        if (waiters[i] == 0) {
            enum shmp_locked how = shmp_lock(live(), word(), true);
            CHECK(how == SHMP_LOCKED || how == SHMP_LOCKED_FROM_DEAD);
            atomic_fetch_add(from_dead, how == SHMP_LOCKED_FROM_DEAD);
            shmp_unlock(word());
            unit_done();
        }
    }
    for (int i = 0; i < 4; i++)
        unit_await_futex(waiters[i]);
    CHECK(load_relaxed(word()) & SHMP_LOCK_WAITERS);
    unit_kill(owner);
    for (int i = 0; i < 4; i++)
        unit_join(waiters[i]);
    CHECK_EQ(*from_dead, 1);
    CHECK_EQ(load_relaxed(word()), 0);
    munmap((void *)from_dead, sizeof *from_dead);
    close(gate);
    close_pipe();
}

/* Dies while it repairs: the next one is told the same. */
TEST(a_dead_repairer_is_reported_again)
{
    int gate = unit_gate();
    int has = unit_gate();
    make_pipe();
    pid_t owner = spawn_owner(gate);
    unit_kill(owner);
    pid_t repairer = unit_fork();
    if (repairer == 0) {
        CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED_FROM_DEAD);
        unit_pass(has);
        for (;;)
            pause();
    }
    unit_await(has);
    unit_kill(repairer);
    CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED_FROM_DEAD);
    shmp_unlock(word());
    close(gate);
    close(has);
    close_pipe();
}

/* ---- Never from the living --------------------------------------------------------------- */

static _Atomic int looks;
static _Atomic int wakes;
static long (*real_lock)(int, int, struct flock *);
static long (*real_wake)(const void *, int);

static long counting_lock(int fd, int command, struct flock *lock)
{
    if (command == F_GETLK)
        atomic_fetch_add(&looks, 1);
    return real_lock(fd, command, lock);
}

static long counting_wake(const void *address, int count)
{
    atomic_fetch_add(&wakes, 1);
    return real_wake(address, count);
}

static _Atomic int result = -1;
static _Atomic pid_t waiter_task;

static void *wait_for_lock(void *argument)
{
    (void)argument;
    atomic_store(&waiter_task, (pid_t)syscall(SYS_gettid));
    atomic_store(&result, (int)shmp_lock(live(), word(), true));
    return NULL;
}

TEST(a_stopped_owner_keeps_its_lock)
{
    int gate = unit_gate();
    pthread_t thread;
    make_pipe();
    pid_t owner = spawn_owner(gate);
    kill(owner, SIGSTOP);
    unit_await_state(owner, 'T');
    real_lock = shmp_sys.lock;
    shmp_sys.lock = counting_lock;
    CHECK_EQ(pthread_create(&thread, NULL, wait_for_lock, NULL), 0);
    /* Five times it has judged the owner. */
    UNTIL(atomic_load(&looks) >= 5 || atomic_load(&result) != -1);
    CHECK_EQ(atomic_load(&result), -1);
    CHECK_EQ(load_relaxed(&header()->stats.recoveries), 0);
    kill(owner, SIGCONT);
    unit_pass(gate);
    pthread_join(thread, NULL);
    CHECK_EQ(result, SHMP_LOCKED);
    shmp_unlock(word());
    shmp_sys.lock = real_lock;
    unit_kill(owner);
    close(gate);
    close_pipe();
}

static _Atomic unsigned yields;

/* What the owner does when it gets the CPU back. */
static long yield_to_owner(void)
{
    atomic_fetch_add(&yields, 1);
    store_relaxed(word(), 0);
    return 0;
}

/* Where both sides run on our CPU, the owner cannot unlock while we spin. */
TEST(an_owner_on_this_cpu_is_let_run)
{
    cpu_set_t here;
    make_pipe();
    long (*real_yield)(void) = shmp_sys.yield;
    shmp_sys.yield = yield_to_owner;
    CPU_ZERO(&here);
    CPU_SET(shmp_cpu(), &here);
    CHECK_EQ(sched_setaffinity(0, sizeof here, &here), 0);
    for (int other = 0; other < 2; other++) {
        store_relaxed(&header()->w.cpu, shmp_cpu());
        store_relaxed(&header()->r.cpu, shmp_cpu() + (uint32_t)other);
        store_relaxed(word(), shmp_live_owner(live()));
        CHECK_EQ(shmp_lock(live(), word(), SHMP_LOCK_TRY), other ? SHMP_LOCK_BUSY : SHMP_LOCKED);
        CHECK_EQ(yields, 1);
    }
    CHECK_EQ(load_relaxed(word()), shmp_live_owner(live()));
    shmp_unlock(word());
    shmp_sys.yield = real_yield;
    close_pipe();
}

TEST(unlocking_wakes_a_sleeper_and_nobody_else)
{
    pthread_t thread;
    make_pipe();
    real_wake = shmp_sys.futex_wake;
    shmp_sys.futex_wake = counting_wake;
    CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED);
    CHECK_EQ(load_relaxed(word()), shmp_live_owner(live()));
    shmp_unlock(word());
    CHECK_EQ(wakes, 0); /* nobody waited: no system call */
    CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED);
    CHECK_EQ(pthread_create(&thread, NULL, wait_for_lock, NULL), 0);
    UNTIL(load_relaxed(word()) & SHMP_LOCK_WAITERS);
    unit_await_futex(waiter_task);
    CHECK_EQ(load_relaxed(word()), shmp_live_owner(live()) | SHMP_LOCK_WAITERS);
    shmp_unlock(word());
    pthread_join(thread, NULL);
    CHECK_EQ(result, SHMP_LOCKED);
    CHECK_EQ(wakes, 1);
    /* It took the lock with the bit, for it cannot know that it was the only one. */
    CHECK(load_relaxed(word()) & SHMP_LOCK_WAITERS);
    shmp_unlock(word());
    CHECK_EQ(wakes, 2);
    shmp_sys.futex_wake = real_wake;
    close_pipe();
}

TEST(a_word_that_names_nobody_is_taken)
{
    static const uint32_t rubbish[] = {0x00001000u, SHMP_LOCK_WAITERS, 0xfffu,
                                       SHMP_HOLDERS + 1, 0xffffffffu, 0x40000000u};
    make_pipe();
    for (size_t i = 0; i < sizeof rubbish / sizeof rubbish[0]; i++) {
        store_relaxed(word(), rubbish[i]);
        CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED_FROM_DEAD);
        shmp_unlock(word());
        CHECK_EQ(load_relaxed(word()), 0);
    }
    close_pipe();
}

TEST(an_owner_of_an_earlier_generation_is_dead)
{
    make_pipe();
    uint32_t mine = shmp_live_owner(live());
    uint32_t earlier = mine - (1u << SHMP_LOCK_GEN_SHIFT);
    store_relaxed(word(), earlier);
    CHECK_EQ(shmp_lock(live(), word(), true), SHMP_LOCKED_FROM_DEAD);
    CHECK_EQ(load_relaxed(word()) & ~SHMP_LOCK_WAITERS, mine);
    shmp_unlock(word());
    close_pipe();
}
