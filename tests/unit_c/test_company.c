/* test_company.c - deaths in company: who is woken for a death is killed before he can tell.
 *
 * The kernel wakes one of those who sleep on a word of the dead, and he wakes the others.  Whoever
 * needs to hear must not depend on a process of whose death nobody would tell him.
 *
 * In each test a maker holds the pipes, bystanders sleep on its words first and are killed by the
 * very wake that its death gives them, and a survivor, who came last, has to hear of it. */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "companion.h"
#include "pipe.h"
#include "sys.h"
#include "unit.h"

#define PIPES (SHMP_RECORD_PLACES + 15)

static shmp_end *ends[PIPES][2];
static struct shmp_sys_table real_calls;

static void make(unsigned pipes)
{
    for (unsigned i = 0; i < pipes; i++)
        CHECK_EQ(shmp_pipe2(ends[i], O_CLOEXEC), 0);
}

/* All but those of a pipe; -1: all. */
static void close_but(int pipe, int side)
{
    for (int i = 0; i < (int)PIPES; i++)
        for (int j = 0; j < 2; j++)
            if (ends[i][j] && (i != pipe || (side >= 0 && j != side))) {
                CHECK_EQ(shmp_close(ends[i][j]), 0);
                ends[i][j] = NULL;
            }
}

static _Atomic unsigned *sleeps; /* of bystanders; NULL: nobody counts them */

/* Killed as soon as it is told of a death, with whatever it was to tell others. */
static long die_of_a_death(struct shmp_futex_waitv *words, unsigned count,
                           const struct timespec *until)
{
    if (sleeps)
        atomic_fetch_add(sleeps, 1);
    long r = real_calls.futex_waitv(words, count, until);
    for (unsigned i = 1; i < count; i++)
        if ((load_seq_cst((const _Atomic uint32_t *)(uintptr_t)words[i].address) & 0x40000000u) != 0)
            raise(SIGKILL);
    return r;
}

static void be_a_bystander(void)
{
    real_calls = shmp_sys;
    shmp_sys.futex_waitv = die_of_a_death;
}

typedef void role(int pipe);

static void read_to_the_end(int pipe)
{
    char byte;
    CHECK_EQ(shmp_read(ends[pipe][0], &byte, 1), 0);
}

static _Atomic pid_t *relay_task;

static long note_task(struct shmp_futex_waitv *words, unsigned count, const struct timespec *until)
{
    store_release(relay_task, (pid_t)syscall(SYS_gettid));
    return die_of_a_death(words, count, until);
}

/* A relay of which nobody expects anything. */
static void listen_in_vain(int pipe)
{
    shmp_sys.futex_waitv = note_task;
    CHECK(shmp_notifier_open(ends[pipe][0]) >= 0);
    for (;;)
        pause();
}

/* Until the maker, who holds the companion's lock, lets go. */
static void wait_for_the_lock(int pipe)
{
    shmp_companion_lock(&ends[pipe][0]->pipe->live, SHMP_LOCK_WAIT);
    unit_fail(__FILE__, __LINE__, "it got the lock of a process that lives");
}

static pid_t start(role *work, int pipe, bool bystander)
{
    relay_task = unit_shared(sizeof *relay_task);
    pid_t child = unit_fork();
    if (child == 0) {
        close_but(pipe, 0);
        if (bystander)
            be_a_bystander();
        work(pipe);
        unit_done();
    }
    pid_t task = child;
    if (work == listen_in_vain)
        UNTIL((task = load_acquire(relay_task)) != 0);
    unit_await_futex(task);
    return child;
}

static void prepare_nothing(void)
{
}

static void lock_the_companion(void)
{
    CHECK(shmp_companion_lock(&ends[0][1]->pipe->live, SHMP_LOCK_WAIT));
}

#define BYSTANDERS 48

/* The maker holds the pipes' write ends. */
static void survive(unsigned pipes, void (*prepare)(void), role *bystander, int their_pipe,
                    int our_pipe)
{
    int ready = unit_gate();
    pid_t killed[BYSTANDERS];
    make(pipes);
    pid_t maker = unit_fork();
    if (maker == 0) {
        for (unsigned i = 0; i < pipes; i++)
            CHECK_EQ(shmp_close(ends[i][0]), 0);
        prepare();
        unit_pass(ready);
        for (;;)
            pause();
    }
    unit_await(ready);
    for (unsigned i = 0; i < pipes; i++)
        CHECK_EQ(shmp_close(ends[i][1]), 0);
    for (unsigned i = 0; i < pipes; i++)
        ends[i][1] = NULL;
    for (int i = 0; i < BYSTANDERS; i++)
        killed[i] = start(bystander, their_pipe, true);
    pid_t survivor = start(read_to_the_end, our_pipe, false);
    unit_kill(maker);
    unit_join(survivor);
    for (int i = 0; i < BYSTANDERS; i++)
        unit_kill(killed[i]);
    close_but(-1, -1);
    close(ready);
}

TEST(sleepers_of_another_pipe_take_the_wake_with_them)
{
    survive(2, prepare_nothing, read_to_the_end, 0, 1);
}

TEST(sleepers_of_the_same_pipe_take_the_wake_with_them)
{
    survive(1, prepare_nothing, read_to_the_end, 0, 0);
}

TEST(relays_of_another_pipe_take_the_wake_with_them)
{
    survive(2, prepare_nothing, listen_in_vain, 0, 1);
}

TEST(relays_of_the_same_pipe_take_the_wake_with_them)
{
    survive(1, prepare_nothing, listen_in_vain, 0, 0);
}

TEST(those_who_wait_for_a_lock_take_the_wake_with_them)
{
    survive(1, lock_the_companion, wait_for_the_lock, 0, 0);
}

/* ---- A place that another pipe had ------------------------------------------------------------- */

static uint32_t place_of(shmp_end *end)
{
    return end->pipe->live.place;
}

/* The maker closes its end of one pipe, on whose words a bystander sleeps on because others write
 * there, too, and makes another pipe, which gets the same place. */
static void reuse_the_place(int told, int closed, pid_t *survivor)
{
    shmp_end *pipe[2];
    uint32_t place = place_of(ends[0][1]);
    CHECK_EQ(shmp_close(ends[0][0]), 0);
    unit_pass(told);
    unit_await(closed);
    CHECK_EQ(shmp_close(ends[0][1]), 0);
    for (;;) {
        CHECK_EQ(shmp_pipe2(pipe, O_CLOEXEC), 0);
        if (place_of(pipe[1]) == place)
            break;
        CHECK_EQ(shmp_close(pipe[0]), 0);
        CHECK_EQ(shmp_close(pipe[1]), 0);
    }
    pid_t reader = unit_fork();
    if (reader == 0) {
        char byte;
        CHECK_EQ(shmp_close(pipe[1]), 0);
        unit_pass(told);
        CHECK_EQ(shmp_read(pipe[0], &byte, 1), 0);
        unit_pass(told);
        unit_await(closed);
        unit_done();
    }
    CHECK_EQ(shmp_close(pipe[0]), 0);
    unit_await_futex(reader);
    *survivor = reader;
    unit_pass(told);
    for (;;)
        pause();
}

TEST(who_sleeps_at_a_place_that_was_given_back_gets_up)
{
    int told = unit_gate();
    int closed = unit_gate();
    pid_t *survivor = unit_shared(sizeof *survivor);
    sleeps = unit_shared(sizeof *sleeps);
    make(1);
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0); /* of a grandchild */
    pid_t maker = unit_fork();
    if (maker == 0)
        reuse_the_place(told, closed, survivor);
    unit_await(told);
    pid_t bystander = unit_fork();
    if (bystander == 0) {
        CHECK_EQ(shmp_close(ends[0][1]), 0);
        be_a_bystander();
        read_to_the_end(0);
        unit_done();
    }
    unit_await_futex(bystander);
    unit_pass(closed);
    unit_await(told);
    unit_await(told);
    UNTIL(load_acquire(sleeps) > 1); /* elsewhere */
    unit_await_futex(bystander);
    unit_kill(maker);
    unit_await(told);
    unit_pass(closed);
    unit_join(*survivor);
    close_but(-1, -1);
    unit_join(bystander);
    munmap(survivor, sizeof *survivor);
    munmap(sleeps, sizeof *sleeps);
    close(told);
    close(closed);
}

/* ---- More pipes than places --------------------------------------------------------------------- */

static void share_the_common_place(void)
{
    CHECK_EQ(place_of(ends[0][1]), SHMP_COMMON_PLACE);
    CHECK_EQ(place_of(ends[1][1]), SHMP_COMMON_PLACE);
}

TEST(the_common_words_are_looked_at)
{
    survive(PIPES, share_the_common_place, read_to_the_end, 0, 1);
}
