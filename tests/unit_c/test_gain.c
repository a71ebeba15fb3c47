/* test_gain.c - a holder of one side gets an end of the other: those who sleep know it as one of their own,
 * whose calls alone they watch. */
#include <fcntl.h>
#include <signal.h>

#include "pipe.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];

static void close_end(int i)
{
    if (ends[i])
        CHECK_EQ(shmp_close(ends[i]), 0);
    ends[i] = NULL;
}

static void keep_only(int i)
{
    close_end(1 - i);
}

/* Sleeps at that end for a byte, or the other side's end. */
static pid_t sleeper(int i)
{
    pid_t child = unit_fork();
    if (child == 0) {
        unsigned char byte = 'x';
        keep_only(i);
        signal(SIGPIPE, SIG_IGN);
        if (i == 0)
            CHECK(shmp_read(ends[0], &byte, 1) >= 0);
        else
            CHECK_ERRNO(shmp_write(ends[1], &byte, 1), EPIPE);
        unit_done();
    }
    unit_await_futex(child);
    return child;
}

static long die(const void *address, int count)
{
    (void)address;
    (void)count;
    raise(SIGKILL);
    return 0;
}

static pid_t one_that_will_gain(int i, int gain, int gained)
{
    pid_t child = unit_fork();
    if (child == 0) {
        struct shmp_token token;
        CHECK_EQ(shmp_export(ends[1 - i], &token), 0);
        token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
        token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
        keep_only(i);
        unit_pass(gained);
        unit_await(gain);
        CHECK((ends[1 - i] = shmp_import(&token)) != NULL);
        unit_pass(gained);
        unit_await(gain);
        shmp_sys.futex_wake = die;
        CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
        unit_done();
    }
    unit_await(gained);
    return child;
}

static void is_seen_to_die(int i)
{
    int gain = unit_gate();
    int gained = unit_gate();
    int leave = unit_gate();
    int closed = unit_gate();
    static unsigned char full[65536];
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC), 0);
    if (i == 1)
        CHECK_EQ(shmp_write(ends[1], full, sizeof full), (ssize_t)sizeof full);
    pid_t gains = one_that_will_gain(i, gain, gained);
    pid_t leaves = unit_fork();
    if (leaves == 0) {
        keep_only(1 - i);
        unit_pass(closed);
        unit_await(leave);
        close_end(1 - i); /* not the last of its side */
        unit_pass(closed);
        unit_await(leave);
        unit_done();
    }
    unit_await(closed);
    keep_only(i);
    pid_t sleeps = sleeper(i);
    unit_pass(gain);
    unit_await(gained);
    unit_pass(leave);
    unit_await(closed);
    unit_kill(gains);
    unit_join(sleeps);
    unit_pass(leave);
    unit_join(leaves);
    close_end(i);
    close(gain);
    close(gained);
    close(leave);
    close(closed);
}

TEST(a_reader_that_became_a_writer_is_the_last_to_die)
{
    is_seen_to_die(SHMP_SIDE_READERS);
}

TEST(a_writer_that_became_a_reader_is_the_last_to_die)
{
    is_seen_to_die(SHMP_SIDE_WRITERS);
}

/* It dies in its first wake: if that is behind its change, the reader sleeps beside a byte. */
TEST(a_reader_that_became_a_writer_wakes_before_it_publishes)
{
    int gain = unit_gate();
    int gained = unit_gate();
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC), 0);
    pid_t gains = one_that_will_gain(SHMP_SIDE_READERS, gain, gained);
    pid_t sleeps = sleeper(SHMP_SIDE_READERS);
    unit_pass(gain);
    unit_await(gained);
    unit_pass(gain);
    CHECK_EQ(unit_wait(gains), SIGKILL);
    if (shmp_ring_looks_empty(ends[0]->pipe->seg.header))
        CHECK_EQ(shmp_write(ends[1], "y", 1), 1);
    unit_join(sleeps);
    close_end(0);
    close_end(1);
    close(gain);
    close(gained);
}

/* One that has woken a sleeper, and only notes it when it has become more than that one knew. */
TEST(a_wake_of_before_is_none_of_the_new_debt)
{
    uint32_t readers = SHMP_INTRODUCED(SHMP_SIDE_READERS);
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC), 0);
    struct shmp_live *live = &ends[0]->pipe->live;
    shmp_live_begin_gain(live, readers);
    shmp_live_end_gain(live);
    uint32_t before = load_relaxed(&live->gains);
    shmp_live_owe(live, SHMP_SIDE_READERS, before, 3);
    shmp_live_begin_gain(live, readers);
    shmp_live_pay(live, SHMP_SIDE_READERS, load_relaxed(&live->gains), false); /* not shown yet */
    shmp_live_end_gain(live);
    uint32_t now = load_relaxed(&live->gains);
    shmp_live_owe(live, SHMP_SIDE_READERS, before, 1); /* counted before */
    shmp_live_owe(live, SHMP_SIDE_READERS, now, 2);
    shmp_live_pay(live, SHMP_SIDE_READERS, before, true);
    shmp_live_pay(live, SHMP_SIDE_READERS, before, false);
    shmp_live_pay(live, SHMP_SIDE_READERS, now, true);
    CHECK((load_relaxed(&live->introduced) & readers) == 0);
    shmp_live_pay(live, SHMP_SIDE_READERS, now, true);
    CHECK((load_relaxed(&live->introduced) & readers) != 0);
    close_end(0);
    close_end(1);
}
