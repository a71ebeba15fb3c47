/* test_block.c - sleepers and those who wake them, stopped or killed at chosen instants. */
#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "companion.h"
#include "lock.h"
#include "pipe.h"
#include "sys.h"
#include "unit.h"
#include "wait.h"

static shmp_end *ends[2];
static struct shmp_sys_table kernel;
static unsigned char bytes[65536];

static struct shmp_header *header(void)
{
    return ends[0]->pipe->seg.header;
}

static void make(uint32_t slots)
{
    struct shmp_options options = {.capacity = (uint64_t)slots * SHMP_SLOT_SIZE,
                                   .first_index = UINT32_MAX - 2};
    kernel = shmp_sys;
    CHECK_EQ(shmp_pipe2_with(ends, O_CLOEXEC, &options), 0);
}

static void finish(void)
{
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}

static void set_nonblock(int i, bool on)
{
    CHECK_EQ(shmp_fcntl(ends[i], F_SETFL, on ? O_NONBLOCK : 0), 0);
}

/* A process that sleeps in a read of one byte, and writes what it got to the result. */
static pid_t sleeping_reader(_Atomic int *result)
{
    pid_t child = unit_fork();
    if (child == 0) {
        unsigned char byte;
        CHECK_EQ(shmp_close(ends[1]), 0); /* or its exit would concern the others */
        CHECK_EQ(shmp_read(ends[0], &byte, 1), 1);
        atomic_store(result, byte);
        unit_done();
    }
    unit_await_futex(child);
    return child;
}

static pid_t sleeping_writer(unsigned char byte)
{
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(shmp_close(ends[0]), 0);
        CHECK_EQ(shmp_write(ends[1], &byte, 1), 1);
        unit_done();
    }
    unit_await_futex(child);
    return child;
}

/* ---- A newcomer wakes ahead -------------------------------------------------------------------- */

static long wake_and_wait_until_it_waits_for_the_lock(const void *address, int count)
{
    static bool woken;
    if (woken)
        raise(SIGKILL); /* published, and about to hand the lock over */
    woken = true;
    CHECK(shmp_ring_looks_empty(header()));
    long r = kernel.futex_wake(address, count);
    UNTIL((load_seq_cst(&header()->w.lock) & SHMP_LOCK_WAITERS) != 0);
    return r;
}

TEST(who_is_woken_ahead_waits_for_the_newcomers_change)
{
    _Atomic int *result = unit_shared(sizeof *result);
    make(16);
    pid_t reader = sleeping_reader(result);
    pid_t newcomer = unit_fork(); /* the reader does not watch it */
    if (newcomer == 0) {
        shmp_sys.futex_wake = wake_and_wait_until_it_waits_for_the_lock;
        shmp_write(ends[1], "x", 1);
        unit_done();
    }
    CHECK_EQ(unit_wait(newcomer), SIGKILL);
    unit_join(reader);
    CHECK_EQ(atomic_load(result), 'x');
    CHECK_EQ(load_relaxed(&header()->stats.slice_found_work), 0);
    finish();
}

static long die(const void *address, int count)
{
    (void)address;
    (void)count;
    raise(SIGKILL);
    return 0;
}

static long wake_and_die(const void *address, int count)
{
    kernel.futex_wake(address, count);
    return die(address, count);
}

/* The wake is spent, or half spent, and the change never came. */
static void newcomer_dies(long (*instead_of_waking)(const void *, int))
{
    _Atomic int *result = unit_shared(sizeof *result);
    make(16);
    pid_t reader = sleeping_reader(result);
    pid_t newcomer = unit_fork();
    if (newcomer == 0) {
        shmp_sys.futex_wake = instead_of_waking;
        shmp_write(ends[1], "x", 1);
        unit_done();
    }
    CHECK_EQ(unit_wait(newcomer), SIGKILL);
    CHECK_EQ(shmp_write(ends[1], "y", 1), 1);
    unit_join(reader);
    CHECK_EQ(atomic_load(result), 'y');
    finish();
}

TEST(a_newcomer_that_dies_after_its_wake_disturbs_nobody)
{
    newcomer_dies(wake_and_die);
}

TEST(a_newcomer_that_dies_in_its_wake_disturbs_nobody)
{
    newcomer_dies(die);
}

/* It is introduced when as many have got up as slept when it came. */
TEST(a_newcomer_wakes_ahead_no_longer_than_necessary)
{
    enum { SLEEPERS = 3 };
    _Atomic int *results = unit_shared(2 * SLEEPERS * sizeof *results);
    pid_t readers[2 * SLEEPERS];
    make(16);
    for (int i = 0; i < SLEEPERS; i++)
        readers[i] = sleeping_reader(&results[i]);
    int may = unit_gate();
    int done = unit_gate();
    pid_t newcomer = unit_fork();
    if (newcomer == 0) {
        for (int i = 0; i < 2 * SLEEPERS; i++) {
            unit_await(may);
            CHECK_EQ((load_relaxed(&ends[1]->pipe->live.introduced) &
                      SHMP_INTRODUCED(SHMP_SIDE_READERS)) != 0, i >= SLEEPERS);
            CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
            unit_pass(done);
        }
        unit_done();
    }
    for (int i = 0; i < 2 * SLEEPERS; i++) {
        unit_pass(may);
        unit_await(done);
        unit_join(readers[i]); /* in order */
        if (i < SLEEPERS) /* there is always somebody asleep */
            readers[SLEEPERS + i] = sleeping_reader(&results[SLEEPERS + i]);
    }
    unit_join(newcomer);
    CHECK_EQ(load_relaxed(&header()->stats.read_wakes), 2 * SLEEPERS);
    close(may);
    close(done);
    finish();
}

static int signals_pending;

static int raise_the_second_time(void)
{
    return signals_pending++ == 0 ? 0 : -1;
}

static int looks_until_it_raises;

/* A signal comes right behind the look, and what follows takes a millisecond. */
static int look_slowly(void)
{
    uint64_t start = shmp_now_ns();
    UNTIL(shmp_now_ns() - start > 1000000);
    return looks_until_it_raises-- > 0 ? 0 : -1;
}

/* H50: noted when the binding had looked, and before anybody slept. */
TEST(a_signal_that_came_while_the_sleep_was_prepared_is_heard)
{
    unsigned char byte;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    make(16);
    shmp_on_tick = look_slowly;
    for (int looks = 0; looks < 3; looks++) { /* before, again, after a tick */
        looks_until_it_raises = looks;
        CHECK_ERRNO(shmp_read(ends[0], &byte, 1), EINTR);
    }
    struct shmp_transfer op = {.cursor = {.iov = &iov, .left = 1},
                               .left = 1,
                               .looked = shmp_now_ns() - 1000000};
    looks_until_it_raises = 0;
    CHECK_EQ(shmp_read_run(ends[0], &op, true), -EINTR);
    shmp_on_tick = NULL;
    finish();
}

static int was_woken;
static int may_publish;

static long wake_and_wait(const void *address, int count)
{
    long r = kernel.futex_wake(address, count);
    unit_pass(was_woken);
    unit_await(may_publish);
    shmp_sys = kernel;
    return r;
}

/* The change that he was woken ahead of is the next sleeper's then. */
TEST(who_is_woken_ahead_and_raises_passes_the_wake_on)
{
    _Atomic int *result = unit_shared(sizeof *result);
    make(16);
    was_woken = unit_gate();
    may_publish = unit_gate();
    pid_t raising = unit_fork();
    if (raising == 0) {
        unsigned char byte;
        CHECK_EQ(shmp_close(ends[1]), 0);
        shmp_on_tick = raise_the_second_time;
        CHECK_ERRNO(shmp_read(ends[0], &byte, 1), EINTR);
        _exit(0);
    }
    unit_await_futex(raising);
    pid_t next = sleeping_reader(result);
    uint64_t start = shmp_now_ns(); /* a handler's turn comes not before that */
    UNTIL(shmp_now_ns() - start > SHMP_TICK_NS);
    pid_t newcomer = unit_fork();
    if (newcomer == 0) {
        shmp_sys.futex_wake = wake_and_wait;
        CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
        unit_done();
    }
    unit_await(was_woken);
    unit_join(raising);
    unit_pass(may_publish);
    unit_join(next);
    CHECK_EQ(atomic_load(result), 'x');
    unit_join(newcomer);
    close(was_woken);
    close(may_publish);
    finish();
}

/* ---- Stopped between being chosen and going on (WK-10) ------------------------------------------ */

static long wait_and_stop(struct shmp_futex_waitv *words, unsigned count,
                          const struct timespec *deadline)
{
    long r = kernel.futex_waitv(words, count, deadline);
    if (r == 0)
        raise(SIGSTOP);
    return r;
}

TEST(a_write_wakes_another_reader_when_the_chosen_one_is_stopped)
{
    _Atomic int *results = unit_shared(2 * sizeof *results);
    make(16);
    shmp_sys.futex_waitv = wait_and_stop;
    pid_t chosen = sleeping_reader(&results[0]);
    shmp_sys = kernel;
    pid_t next = sleeping_reader(&results[1]);
    CHECK_EQ(shmp_write(ends[1], "a", 1), 1);
    unit_await_state(chosen, 'T');
    /* One write wakes nobody else: the chosen one may merely be slow. */
    uint64_t start = shmp_now_ns();
    UNTIL(shmp_now_ns() - start > SHMP_OVERDUE_NS);
    CHECK_EQ(shmp_write(ends[1], "b", 1), 1);
    unit_join(next);
    CHECK_EQ(atomic_load(&results[1]), 'a');
    kill(chosen, SIGCONT);
    unit_join(chosen);
    CHECK_EQ(atomic_load(&results[0]), 'b');
    finish();
}

TEST(a_read_wakes_another_writer_when_the_chosen_one_is_stopped)
{
    make(2);
    CHECK_EQ(shmp_write(ends[1], bytes, 2 * SHMP_SLOT_SIZE), 2 * SHMP_SLOT_SIZE);
    shmp_sys.futex_waitv = wait_and_stop;
    pid_t chosen = sleeping_writer('a');
    shmp_sys = kernel;
    pid_t next = sleeping_writer('b');
    CHECK_EQ(shmp_read(ends[0], bytes, SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
    unit_await_state(chosen, 'T');
    uint64_t start = shmp_now_ns();
    UNTIL(shmp_now_ns() - start > SHMP_OVERDUE_NS);
    CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
    unit_join(next);
    CHECK_EQ(shmp_read(ends[0], bytes, SHMP_SLOT_SIZE - 1), SHMP_SLOT_SIZE - 1);
    kill(chosen, SIGCONT);
    unit_join(chosen);
    finish();
}

/* Nobody goes to sleep for long while the other side sleeps and could go on: here all would sleep
 * until the stopped one goes on. */
TEST(a_reader_does_not_sleep_beside_writers_that_could_go_on)
{
    make(1);
    CHECK_EQ(shmp_write(ends[1], bytes, SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
    shmp_sys.futex_waitv = wait_and_stop;
    pid_t chosen = sleeping_writer('a');
    shmp_sys = kernel;
    pid_t next = sleeping_writer('b');
    CHECK_EQ(shmp_read(ends[0], bytes, SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
    unit_await_state(chosen, 'T');
    CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
    CHECK_EQ(bytes[0], 'b');
    unit_join(next);
    kill(chosen, SIGCONT);
    unit_join(chosen);
    finish();
}

TEST(a_writer_does_not_sleep_beside_readers_that_could_go_on)
{
    _Atomic int *results = unit_shared(2 * sizeof *results);
    make(1);
    shmp_sys.futex_waitv = wait_and_stop;
    pid_t chosen = sleeping_reader(&results[0]);
    shmp_sys = kernel;
    pid_t next = sleeping_reader(&results[1]);
    memset(bytes, 'x', sizeof bytes);
    CHECK_EQ(shmp_write(ends[1], bytes, SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
    unit_await_state(chosen, 'T');
    pid_t writer = sleeping_writer('y'); /* it may sleep, but not for ever */
    unit_join(next);
    CHECK_EQ(atomic_load(&results[1]), 'x');
    kill(chosen, SIGCONT);
    unit_join(chosen);
    set_nonblock(0, true);
    CHECK(shmp_read(ends[0], bytes, sizeof bytes) > 0);
    unit_join(writer);
    finish();
}

/* ---- Spinning --------------------------------------------------------------------------------- */

/* It halves with each time in vain, and is whole again when it pays. */
TEST(spinning_in_vain_gets_shorter)
{
    uint64_t fastest[2] = {UINT64_MAX, UINT64_MAX};
    make(16);
    for (int round = 0; round < 20; round++) {
        store_relaxed(&header()->w.cpu, shmp_cpu() + 1);
        for (int i = 0; i < 6; i++) {
            uint64_t start = shmp_now_ns();
            CHECK(!shmp_spin(ends[0], SHMP_SIDE_READERS));
            uint64_t took = shmp_now_ns() - start;
            if ((i == 0 || i == 5) && took < fastest[i == 5])
                fastest[i == 5] = took;
            store_relaxed(&header()->w.cpu, shmp_cpu() + 1); /* we may have moved */
        }
        CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
        store_relaxed(&header()->w.cpu, shmp_cpu() + 1);
        CHECK(shmp_spin(ends[0], SHMP_SIDE_READERS));
        CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
    }
    CHECK(fastest[1] * 4 < fastest[0]);
    finish();
}

/* ---- A write that has begun, with a handler that restarts (WR-12) ------------------------------- */

static void note(int number)
{
    (void)number;
}

static void stop_inside(int lock)
{
    if (lock == 2)
        CHECK(shmp_companion_lock(&ends[0]->pipe->live, SHMP_LOCK_SIGNALS));
    else
        CHECK_EQ(shmp_side_lock(ends[0], SHMP_SIDE_READERS, true), 0);
    raise(SIGSTOP);
    if (lock == 2)
        shmp_companion_unlock(&ends[0]->pipe->live);
    else
        shmp_side_unlock(ends[0], SHMP_SIDE_READERS);
}

/* Before it sleeps it arms the companion, which takes locks: their owner may be stopped. */
static void a_handler_ends_it_beside_a_stopped_owner(int lock)
{
    make(1);
    pid_t owner = unit_fork();
    if (owner == 0) {
        stop_inside(lock);
        unit_done();
    }
    unit_await_state(owner, 'T');
    pid_t writer = unit_fork();
    if (writer == 0) {
        struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
        struct itimerval often = {{0, 2000}, {0, 2000}};
        CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
        CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
        CHECK_EQ(shmp_write(ends[1], bytes, 2 * SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
        unit_done();
    }
    unit_join(writer);
    kill(owner, SIGCONT);
    unit_join(owner);
    finish();
}

TEST(a_handler_ends_a_write_that_has_begun_beside_a_stopped_reader)
{
    a_handler_ends_it_beside_a_stopped_owner(SHMP_SIDE_READERS);
}

TEST(a_handler_ends_a_write_that_has_begun_beside_a_stopped_poller)
{
    a_handler_ends_it_beside_a_stopped_owner(2);
}

/* The same of its own lock, when there is room again. */
TEST(a_handler_ends_a_write_that_has_begun_beside_a_stopped_writer)
{
    make(1);
    pid_t writer = unit_fork();
    if (writer == 0) {
        struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
        CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
        CHECK_EQ(shmp_write(ends[1], bytes, 3 * SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
        unit_done();
    }
    UNTIL(load_relaxed(&header()->w.sleeps) != 0);
    pid_t owner = unit_fork();
    if (owner == 0) {
        CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0);
        raise(SIGSTOP);
        shmp_side_unlock(ends[1], SHMP_SIDE_WRITERS);
        unit_done();
    }
    unit_await_state(owner, 'T');
    CHECK_EQ(shmp_read(ends[0], bytes, sizeof bytes), SHMP_SLOT_SIZE);
    int status;
    while (waitpid(writer, &status, WNOHANG) == 0) {
        kill(writer, SIGALRM);
        unit_yield();
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    kill(owner, SIGCONT);
    unit_join(owner);
    finish();
}

/* Whose owner is not stopped, but slow: then it ends the write where that would sleep next. */
TEST(a_handler_that_came_in_the_wait_for_a_lock_ends_the_write_at_its_next_sleep)
{
    bool signalled = false;
    struct shmp_turn turn;
    make(1);
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_EQ(shmp_write(ends[1], bytes, SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
    struct shmp_transfer op = {.left = SHMP_SLOT_SIZE, .done = 1, .signalled = true};
    struct iovec iov = {.iov_base = bytes, .iov_len = SHMP_SLOT_SIZE};
    op.cursor = (struct shmp_cursor){.iov = &iov, .left = 1};
    CHECK_EQ(shmp_write_run(ends[1], &op, true), 1); /* the ring is full */
    CHECK_EQ(shmp_wait_for_turn(ends[1], SHMP_SIDE_WRITERS, &turn, &signalled), 0);
    CHECK(!signalled);
    shmp_turn_end(ends[1], SHMP_SIDE_WRITERS, &turn, false, false);
    finish();
}

static _Atomic unsigned *questions;

static long counting_question(void)
{
    fetch_add_relaxed(questions, 1);
    return kernel.restarting_handlers();
}

TEST(a_long_write_asks_for_handlers_that_restart_once)
{
    enum { SLOTS = sizeof bytes / SHMP_SLOT_SIZE };
    questions = unit_shared(sizeof *questions);
    make(1);
    pid_t writer = unit_fork();
    if (writer == 0) {
        shmp_sys.restarting_handlers = counting_question;
        CHECK_EQ(shmp_write(ends[1], bytes, SLOTS * SHMP_SLOT_SIZE), SLOTS * SHMP_SLOT_SIZE);
        unit_done();
    }
    for (int i = 0; i < SLOTS; i++) {
        UNTIL(i == SLOTS - 1 || shmp_side_sleeps(header(), SHMP_SIDE_WRITERS));
        UNTIL(shmp_read(ends[0], bytes, SHMP_SLOT_SIZE) == SHMP_SLOT_SIZE);
    }
    unit_join(writer);
    CHECK_EQ(load_relaxed(questions), 1);
    finish();
}

/* ---- Order --------------------------------------------------------------------------------------- */

static _Atomic unsigned *sleeps_of_the_child;

static long counting_wait(struct shmp_futex_waitv *words, unsigned count,
                          const struct timespec *deadline)
{
    atomic_fetch_add(sleeps_of_the_child, 1);
    return kernel.futex_waitv(words, count, deadline);
}

/* Who sleeps anew goes to the tail of the queue (WK-4). */
TEST(a_sleeper_that_watches_everybody_does_not_get_up_by_itself)
{
    _Atomic int *result = unit_shared(sizeof *result);
    sleeps_of_the_child = unit_shared(sizeof *sleeps_of_the_child);
    make(16);
    shmp_sys.futex_waitv = counting_wait;
    pid_t reader = sleeping_reader(result);
    shmp_sys = kernel;
    uint64_t start = shmp_now_ns();
    UNTIL(shmp_now_ns() - start > UINT64_C(1300000000));
    CHECK_EQ(atomic_load(sleeps_of_the_child), 1);
    CHECK_EQ(shmp_write(ends[1], "z", 1), 1);
    unit_join(reader);
    finish();
}
