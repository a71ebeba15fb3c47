/* test_witness.c - a living process is not proven dead, whatever its threads and its judge are at. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "pipe.h"
#include "record.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];
static struct shmp_sys_table kernel;
static int go;
static int done;

static struct shmp_live *live(void)
{
    return &ends[0]->pipe->live;
}

static void *make_in_thread(void *argument)
{
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC), 0);
    return argument;
}

/* A holder whose words are all marked, because the thread that locked them has ended. */
static void make(void)
{
    pthread_t thread;
    kernel = shmp_sys;
    go = unit_gate();
    done = unit_gate();
    CHECK_EQ(pthread_create(&thread, NULL, make_in_thread, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK(!shmp_record_is_fresh(live()->record_seq));
}

static void finish(pid_t child)
{
    unit_join(child);
    CHECK(shmp_holder_reap(live(), 1));
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
    close(go);
    close(done);
}

/* As in a close() within the library, before it locks again (m14). */
static void lose_the_lock(void)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]->pipe->seg.fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    close(fd);
}

/* The judge finds lock and words as they were, and is about to look for a record that is none any more. */
static long let_it_renew_first(const char *path, struct stat *st)
{
    unit_pass(go);
    unit_await(done);
    return kernel.stat(path, st);
}

static pid_t judge(void (*prepare)(void))
{
    pid_t child = unit_fork();
    if (child == 0) {
        unit_await(done);
        prepare();
        CHECK(!shmp_holder_is_dead(live(), 0, SHMP_STATE_GEN(load_acquire(&ends[0]->pipe->seg.holders[0].state))));
        unit_pass(go);
        unit_done();
    }
    return child;
}

static void be_late(void)
{
    shmp_sys.stat = let_it_renew_first;
}

TEST(one_that_locks_and_renews_between_two_looks_is_alive)
{
    make();
    pid_t child = judge(be_late);
    lose_the_lock();
    unit_pass(done);
    unit_await(go);
    shmp_live_relock(live());
    shmp_renew();
    unit_pass(done);
    finish(child);
}

TEST(one_that_renews_between_two_looks_and_has_lost_its_lock_again_is_alive)
{
    make();
    pid_t child = judge(be_late);
    lose_the_lock();
    unit_pass(done);
    unit_await(go);
    shmp_live_relock(live());
    shmp_renew();
    lose_the_lock();
    unit_pass(done);
    finish(child);
}

static long close_and_be_judged(int fd)
{
    long r = kernel.close(fd);
    shmp_sys.close = kernel.close;
    unit_pass(done);
    unit_await(go);
    return r;
}

/* The old record is closed, and the entry does not name the new one yet. */
TEST(one_that_is_renewing_its_record_is_alive)
{
    make();
    pid_t child = judge(be_late);
    lose_the_lock();
    unit_pass(done);
    unit_await(go);
    shmp_live_relock(live());
    shmp_sys.close = close_and_be_judged;
    shmp_renew();
    finish(child);
}

static long no_descriptor(const char *path, int flags)
{
    (void)path;
    (void)flags;
    return -EMFILE;
}

static void have_no_descriptor(void)
{
    shmp_sys.open = no_descriptor;
}

TEST(a_judge_without_a_free_descriptor_proves_nothing)
{
    make();
    pid_t child = judge(have_no_descriptor);
    lose_the_lock();
    unit_pass(done);
    finish(child);
}

/* ---- Nobody relies on a word that nobody will mark --------------------------------------------------- */

static long no_memfd(const char *name, unsigned flags)
{
    (void)name;
    (void)flags;
    return -EMFILE;
}

TEST(a_call_whose_record_cannot_be_renewed_is_not_watched)
{
    make();
    shmp_sys.memfd_create = no_memfd;
    pid_t child = unit_fork();
    if (child == 0) {
        unit_await(done);
        struct shmp_peer *peer = shmp_peer_get(live(), 0);
        CHECK(peer != NULL);
        uint32_t call = load_acquire(shmp_peer_word(peer, SHMP_WORD_CALL));
        CHECK(call != 0);
        CHECK(shmp_life_is_marked(call));
        shmp_peer_put(peer);
        unit_pass(go);
        unit_done();
    }
    struct shmp_call call;
    CHECK(shmp_live_enter_call(live(), &call));
    shmp_renew();
    unit_pass(done);
    unit_await(go);
    shmp_live_leave_call(&call);
    shmp_sys = kernel;
    unit_join(child);
    shmp_holder_reap(live(), 1);
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
    close(go);
    close(done);
}

/* The kernel would have woken who sleeps on it, had it still named the thread. */
TEST(who_sleeps_on_a_call_that_is_marked_by_its_process_is_woken)
{
    make();
    shmp_sys.memfd_create = no_memfd;
    pid_t child = unit_fork();
    if (child == 0) {
        struct shmp_peer *peer = shmp_peer_get(live(), 0);
        CHECK(peer != NULL);
        shmp_sys.futex_wait(shmp_peer_word(peer, SHMP_WORD_CALL), 0, NULL);
        shmp_peer_put(peer);
        unit_done();
    }
    unit_await_futex(child);
    struct shmp_call call;
    CHECK(shmp_live_enter_call(live(), &call));
    unit_join(child);
    shmp_live_leave_call(&call);
    shmp_sys = kernel;
    shmp_holder_reap(live(), 1);
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
    close(go);
    close(done);
}
