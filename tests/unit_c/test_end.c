/* test_end.c - the end of a pipe, seen by a crowd that sleeps. */
#include <fcntl.h>
#include <signal.h>

#include "companion.h"
#include "pipe.h"
#include "sys.h"
#include "unit.h"
#include "wait.h"
#include "watch.h"

static shmp_end *ends[2];
static struct shmp_sys_table kernel;

static struct shmp_header *header(void)
{
    return ends[0]->pipe->seg.header;
}

static void make(void)
{
    kernel = shmp_sys;
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC), 0);
}

static void fill(void)
{
    static unsigned char bytes[65536];
    CHECK_EQ(shmp_write(ends[1], bytes, sizeof bytes), (ssize_t)sizeof bytes);
}

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

static void see_the_end(int i)
{
    unsigned char byte = 'x';
    signal(SIGPIPE, SIG_IGN);
    if (i == 0)
        CHECK_EQ(shmp_read(ends[0], &byte, 1), 0);
    else
        CHECK_ERRNO(shmp_write(ends[1], &byte, 1), EPIPE);
}

/* A process that sleeps at that end until the other one is gone. */
static pid_t sleeper(int i, void (*prepare)(void))
{
    pid_t child = unit_fork();
    if (child == 0) {
        keep_only(i);
        if (prepare)
            prepare();
        see_the_end(i);
        unit_done();
    }
    unit_await_futex(child);
    return child;
}

static pid_t last_of_the_other_side(int i)
{
    pid_t child = unit_fork();
    if (child == 0) {
        keep_only(1 - i);
        raise(SIGSTOP);
        unit_done();
    }
    unit_await_state(child, 'T');
    keep_only(i);
    return child;
}

/* ---- No lock ----------------------------------------------------------------------------------- */

static void ends_beside_a_stopped_owner_of_the_lock(int i, int side)
{
    make();
    if (i == 1)
        fill();
    pid_t waits = sleeper(i, NULL);
    pid_t stopped = unit_fork();
    if (stopped == 0) {
        keep_only(i);
        CHECK_EQ(shmp_side_lock(ends[i], side, true), 0);
        raise(SIGSTOP);
        unit_done();
    }
    unit_await_state(stopped, 'T');
    keep_only(i);
    unit_join(waits);
    unit_kill(stopped);
    close_end(i);
}

TEST(end_of_file_does_not_wait_for_a_stopped_reader)
{
    ends_beside_a_stopped_owner_of_the_lock(SHMP_SIDE_READERS, SHMP_SIDE_READERS);
}

TEST(end_of_file_does_not_wait_for_a_stopped_reader_in_the_writers_lock)
{
    ends_beside_a_stopped_owner_of_the_lock(SHMP_SIDE_READERS, SHMP_SIDE_WRITERS);
}

TEST(epipe_does_not_wait_for_a_stopped_writer)
{
    ends_beside_a_stopped_owner_of_the_lock(SHMP_SIDE_WRITERS, SHMP_SIDE_WRITERS);
}

TEST(epipe_does_not_wait_for_a_stopped_writer_in_the_readers_lock)
{
    ends_beside_a_stopped_owner_of_the_lock(SHMP_SIDE_WRITERS, SHMP_SIDE_READERS);
}

/* ---- The first to find it tells the others ------------------------------------------------------- */

static long sleep_until_told(struct shmp_futex_waitv *words, unsigned count, const struct timespec *until)
{
    (void)count;
    (void)until;
    return kernel.futex_waitv(words, 1, NULL);
}

static void watch_nobody(void)
{
    shmp_sys.futex_waitv = sleep_until_told;
}

static void is_told(int i)
{
    make();
    if (i == 1)
        fill();
    pid_t deaf[3];
    for (int k = 0; k < 3; k++)
        deaf[k] = sleeper(i, watch_nobody);
    pid_t looks = sleeper(i, NULL);
    pid_t last = last_of_the_other_side(i);
    unit_kill(last);
    unit_join(looks);
    for (int k = 0; k < 3; k++)
        unit_join(deaf[k]);
    close_end(i);
}

TEST(who_finds_the_end_of_file_tells_the_other_readers)
{
    is_told(SHMP_SIDE_READERS);
}

TEST(who_finds_nobody_to_read_tells_the_other_writers)
{
    is_told(SHMP_SIDE_WRITERS);
}

/* ---- A crowd looks as often as one alone ---------------------------------------------------------- */

static uint64_t until_ns;
static int unseen = -1; /* a write end of the companion that no entry tells of */

static long note_the_first_timer(struct shmp_futex_waitv *words, unsigned count,
                                 const struct timespec *until)
{
    (void)words;
    (void)count;
    if (unseen >= 0) {
        until_ns = (uint64_t)until->tv_sec * 1000000000u + (uint64_t)until->tv_nsec;
        close(unseen);
    }
    unseen = -1;
    return -ETIMEDOUT;
}

TEST(the_crowd_is_who_sleeps_in_the_same_queue)
{
    make();
    unseen = fcntl(ends[1]->fd, F_DUPFD_CLOEXEC, 0);
    close_end(1);
    for (int i = 0; i < 9; i++)
        shmp_queue_register(&header()->wait.readable);
    shmp_sys.futex_waitv = note_the_first_timer;
    uint64_t before = shmp_now_ns();
    see_the_end(0);
    CHECK(until_ns - before >= 10 * SHMP_FIRST_SLICE_NS);
    close_end(0);
}

/* ---- Strangers are not met at the end -------------------------------------------------------------- */

static _Atomic int *mapped;

static long count_mappings(void **out, void *where, size_t length, int protection, int flags, int fd,
                           off_t offset)
{
    atomic_fetch_add(mapped, 1);
    return kernel.mmap(out, where, length, protection, flags, fd, offset);
}

static void note_mappings(void)
{
    shmp_sys.mmap = count_mappings;
}

struct crowd {
    pid_t last;
    pid_t first; /* has never seen the others */
    pid_t others[3];
};

static void gather(struct crowd *crowd)
{
    mapped = unit_shared(sizeof *mapped);
    crowd->last = last_of_the_other_side(SHMP_SIDE_READERS);
    crowd->first = sleeper(SHMP_SIDE_READERS, note_mappings);
    for (int i = 0; i < 3; i++)
        crowd->others[i] = sleeper(SHMP_SIDE_READERS, NULL);
    CHECK(atomic_exchange(mapped, 0) > 0); /* it has met the writer */
}

static void all_see_the_end(const struct crowd *crowd)
{
    unit_join(crowd->first);
    CHECK_EQ(atomic_load(mapped), 0);
    for (int i = 0; i < 3; i++)
        unit_join(crowd->others[i]);
    close_end(0);
}

TEST(who_finds_the_end_has_not_met_the_others_for_it)
{
    struct crowd crowd;
    make();
    gather(&crowd);
    CHECK_EQ(kill(crowd.first, SIGSTOP), 0);
    unit_await_state(crowd.first, 'T');
    unit_kill(crowd.last); /* is gone by the first look */
    CHECK_EQ(kill(crowd.first, SIGCONT), 0);
    all_see_the_end(&crowd);
}

static uint64_t sleeps(void)
{
    return load_relaxed(&header()->r.sleeps);
}

TEST(who_is_about_to_find_the_end_does_not_meet_the_others_meanwhile)
{
    struct crowd crowd;
    make();
    int fd = ends[1]->fd;
    gather(&crowd);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", crowd.last, fd);
    int still_there = open(path, O_WRONLY | O_CLOEXEC); /* not inherited by anybody */
    CHECK(still_there >= 0);
    uint64_t before = sleeps();
    unit_kill(crowd.last);
    UNTIL(sleeps() > before + 100); /* all look again and again */
    close(still_there);
    all_see_the_end(&crowd);
}

/* ---- Who comes too late ------------------------------------------------------------------------------ */

#define MESSAGES 3000u

static void *send_all(void *unused)
{
    static unsigned char bytes[SHMP_SLOT_SIZE];
    (void)unused;
    for (unsigned i = 0; i < unit_rounds(MESSAGES); i++)
        CHECK_EQ(shmp_write(ends[1], bytes, sizeof bytes), (ssize_t)sizeof bytes);
    return NULL;
}

static void *receive_all(void *unused)
{
    unsigned char bytes[SHMP_SLOT_SIZE];
    (void)unused;
    for (unsigned i = 0; i < unit_rounds(MESSAGES); i++)
        CHECK_EQ(shmp_read(ends[0], bytes, sizeof bytes), (ssize_t)sizeof bytes);
    return NULL;
}

/* Woken for something that another one was faster to take: that is no end. */
TEST(who_is_too_late_sleeps_again)
{
    pthread_t threads[6];
    struct shmp_options options = {.capacity = SHMP_SLOT_SIZE};
    kernel = shmp_sys;
    CHECK_EQ(shmp_pipe2_with(ends, O_CLOEXEC, &options), 0);
    for (int i = 0; i < 6; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, i % 2 ? send_all : receive_all, NULL), 0);
    for (int i = 0; i < 6; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    close_end(0);
    close_end(1);
}

/* ---- What pollers were told comes first ------------------------------------------------------------- */

static pid_t writer;

static long tell_and_die(int fd, const void *buffer, size_t count)
{
    kernel.write_quiet(fd, buffer, count);
    raise(SIGKILL);
    return -EIO;
}

static int let_the_writer_die(void)
{
    if (writer != 0) {
        CHECK_EQ(kill(writer, SIGCONT), 0);
        CHECK_EQ(unit_wait(writer), SIGKILL);
    }
    writer = 0;
    return 0;
}

TEST(no_end_before_the_data_that_a_dead_writer_has_told_pollers_of)
{
    unsigned char byte = 0;
    make();
    CHECK(shmp_fileno(ends[0]) >= 0);
    writer = unit_fork();
    if (writer == 0) {
        keep_only(SHMP_SIDE_WRITERS);
        shmp_sys.write_quiet = tell_and_die;
        raise(SIGSTOP);
        shmp_write(ends[1], "x", 1);
        unit_done();
    }
    unit_await_state(writer, 'T');
    keep_only(SHMP_SIDE_READERS);
    shmp_on_tick = let_the_writer_die; /* between our turn and our registration */
    CHECK_EQ(shmp_read(ends[0], &byte, 1), 1);
    CHECK_EQ(byte, 'x');
    CHECK_EQ(writer, 0);
    CHECK_EQ(shmp_read(ends[0], &byte, 1), 0);
    close_end(0);
}

/* ---- No end in between two lives --------------------------------------------------------------------- */

enum { LAST, OTHER_READER, NEXT, CAST };
static pid_t cast[CAST];
static int turn[CAST];
static int over;

static void play(int who)
{
    unit_pass(turn[who]);
    unit_await(over);
}

static int let_the_last_write_and_die(void)
{
    if (cast[LAST] != 0) {
        play(LAST);
        unit_join(cast[LAST]);
        cast[LAST] = 0;
    } else {
        play(NEXT); /* which is there to write */
    }
    return 0;
}

static long read_it_after_the_look(struct pollfd *fds, unsigned long count, int timeout)
{
    long r = kernel.poll(fds, count, timeout);
    if (cast[LAST] == 0 && cast[OTHER_READER] != 0) {
        CHECK_EQ(r, 1);
        play(NEXT);
        play(OTHER_READER);
        unit_join(cast[OTHER_READER]);
        cast[OTHER_READER] = 0;
    }
    return r;
}

/* When no writer was there data was, and when there was none a new writer had come. */
TEST(the_end_is_one_moment)
{
    unsigned char byte = 0;
    const char *name = unit_name();
    kernel = shmp_sys;
    over = unit_gate();
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    ends[0] = shmp_open(name, O_RDONLY | O_NONBLOCK);
    CHECK(ends[0] != NULL);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETFL, 0), 0);
    for (int who = 0; who < CAST; who++) {
        turn[who] = unit_gate();
        cast[who] = unit_fork();
        if (cast[who] != 0)
            continue;
        shmp_end *end = NULL;
        if (who == LAST)
            CHECK((end = shmp_open(name, O_WRONLY)) != NULL);
        unit_pass(over);
        unit_await(turn[who]);
        if (who == LAST) {
            CHECK_EQ(shmp_write(end, "last", 4), 4);
            CHECK_EQ(shmp_close(end), 0);
        } else if (who == OTHER_READER) {
            unsigned char bytes[4];
            CHECK_EQ(shmp_read(ends[0], bytes, 4), 4);
        } else {
            CHECK((end = shmp_open(name, O_WRONLY)) != NULL);
            unit_pass(over);
            unit_await(turn[who]);
            CHECK_EQ(shmp_write(end, "next", 4), 4);
        }
        unit_pass(over);
        unit_done();
    }
    for (int who = 0; who < CAST; who++)
        unit_await(over);
    shmp_on_tick = let_the_last_write_and_die;
    shmp_sys.poll = read_it_after_the_look;
    CHECK_EQ(shmp_read(ends[0], &byte, 1), 1);
    CHECK_EQ(byte, 'n');
    unit_join(cast[NEXT]);
    close_end(0);
    CHECK_EQ(shmp_unlink(name), 0);
    for (int who = 0; who < CAST; who++)
        close(turn[who]);
    close(over);
}
