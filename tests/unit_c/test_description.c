/* test_description.c - file status flags: shared over fork and tokens, and given back. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "pipe.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];

static void make_pipe(int flags)
{
    CHECK_EQ(shmp_pipe2(ends, flags | O_CLOEXEC), 0);
}

static void close_pipe(void)
{
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}

static uint32_t entry(uint32_t index)
{
    return (uint32_t)load_acquire(&ends[0]->pipe->seg.descriptions[index]);
}

/* A second handle of the same description, as a process that got a token makes it. */
static shmp_end *import_copy(shmp_end *end)
{
    struct shmp_token token;
    CHECK_EQ(shmp_export(end, &token), 0);
    token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
    token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
    shmp_end *copy = shmp_import(&token);
    CHECK(copy != NULL);
    return copy;
}

TEST(each_end_has_its_own_flags)
{
    make_pipe(O_NONBLOCK | O_DIRECT);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY | O_NONBLOCK);
    CHECK_EQ(shmp_fcntl(ends[1], F_GETFL, 0), O_WRONLY | O_NONBLOCK | O_DIRECT);
    CHECK(ends[0]->shared && ends[1]->shared);
    CHECK(ends[0]->description != ends[1]->description);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETFL, 0), 0);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY);
    CHECK_EQ(shmp_fcntl(ends[1], F_GETFL, 0), O_WRONLY | O_NONBLOCK | O_DIRECT);
    close_pipe();
}

TEST(only_five_flags_can_be_set)
{
    make_pipe(0);
    int real[2];
    CHECK_EQ(pipe2(real, O_CLOEXEC), 0);
    for (int bit = 0; bit < 32; bit++) {
        long flag = (long)(1u << bit);
        if (flag == O_ASYNC)
            continue; /* arms SIGIO: tested elsewhere */
        CHECK_EQ(fcntl(real[1], F_SETFL, (int)flag), shmp_fcntl(ends[1], F_SETFL, flag));
        CHECK_EQ(fcntl(real[1], F_GETFL), shmp_fcntl(ends[1], F_GETFL, 0));
    }
    close(real[0]);
    close(real[1]);
    close_pipe();
}

TEST(a_fork_shares_the_description)
{
    int changed = unit_gate();
    int looked = unit_gate();
    make_pipe(0);
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK(ends[0]->shared);
        CHECK_EQ(shmp_fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
        unit_pass(changed);
        unit_await(looked);
        CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY);
        unit_done();
    }
    unit_await(changed);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY | O_NONBLOCK);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETFL, 0), 0);
    unit_pass(looked);
    unit_join(child);
    close(changed);
    close(looked);
    close_pipe();
}

TEST(a_token_shares_the_description)
{
    make_pipe(0);
    shmp_end *copy = import_copy(ends[0]);
    CHECK_EQ(copy->description, ends[0]->description);
    CHECK_EQ(shmp_fcntl(copy, F_SETFL, O_NONBLOCK), 0);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY | O_NONBLOCK);
    CHECK_EQ(shmp_close(copy), 0);
    CHECK(entry(ends[0]->description) & SHMP_DESCRIPTION_USED); /* one handle is left */
    CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY | O_NONBLOCK);
    close_pipe();
}

TEST(a_stale_token_gets_flags_of_its_own)
{
    struct shmp_token token;
    make_pipe(O_NONBLOCK);
    shmp_end *spare = import_copy(ends[0]); /* keeps the read side open */
    CHECK_EQ(shmp_export(spare, &token), 0);
    token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
    token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
    uint32_t index = spare->description;
    CHECK_EQ(shmp_close(spare), 0);
    CHECK_EQ(shmp_close(ends[0]), 0); /* the description is gone */
    shmp_end *other = import_copy(ends[1]);
    (void)other;
    ends[0] = shmp_import(&token);
    CHECK(ends[0] != NULL);
    CHECK(ends[0]->description != index ||
          ends[0]->description_gen != token.generation);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY | O_NONBLOCK);
    CHECK_EQ(shmp_close(other), 0);
    close_pipe();
}

TEST(closing_gives_the_entry_back)
{
    make_pipe(0);
    shmp_end *again = import_copy(ends[0]);
    uint32_t index = ends[1]->description;
    CHECK_EQ(shmp_close(ends[1]), 0);
    CHECK_EQ(entry(index) & SHMP_DESCRIPTION_USED, 0);
    CHECK_EQ(shmp_close(again), 0);
    CHECK_EQ(shmp_close(ends[0]), 0);
}

TEST(a_full_table_means_flags_of_ones_own)
{
    make_pipe(O_NONBLOCK);
    int gate = unit_gate();
    /* All entries used, and locked by a living process. */
    pid_t crowd = unit_fork();
    if (crowd == 0) {
        struct flock all = {.l_type = F_RDLCK,
                            .l_whence = SEEK_SET,
                            .l_start = SHMP_DESCRIPTION_LOCK,
                            .l_len = SHMP_DESCRIPTIONS};
        CHECK_EQ(fcntl(ends[0]->pipe->seg.fd, F_SETLK, &all), 0);
        for (uint32_t i = 0; i < SHMP_DESCRIPTIONS; i++)
            fetch_or_seq_cst(&ends[0]->pipe->seg.descriptions[i], SHMP_DESCRIPTION_USED);
        unit_pass(gate);
        for (;;)
            pause();
    }
    unit_await(gate);
    struct shmp_token token;
    CHECK_EQ(shmp_export(ends[0], &token), 0);
    token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
    token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
    token.description = UINT32_MAX;
    shmp_end *end = shmp_import(&token);
    CHECK(end != NULL);
    CHECK(!end->shared);
    CHECK_EQ(shmp_fcntl(end, F_GETFL, 0), O_RDONLY | O_NONBLOCK);
    CHECK_EQ(shmp_fcntl(end, F_SETFL, 0), 0);
    CHECK_EQ(shmp_fcntl(end, F_GETFL, 0), O_RDONLY);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY | O_NONBLOCK);
    pid_t child = unit_fork(); /* a fork copies them */
    if (child == 0) {
        CHECK_EQ(shmp_fcntl(end, F_GETFL, 0), O_RDONLY);
        CHECK_EQ(shmp_fcntl(end, F_SETFL, O_NONBLOCK), 0);
        unit_done();
    }
    unit_join(child);
    CHECK_EQ(shmp_fcntl(end, F_GETFL, 0), O_RDONLY);
    /* And when the crowd has died its entries are free, though nobody marked them so. */
    unit_kill(crowd);
    shmp_end *fresh = import_copy(end);
    CHECK(fresh->shared);
    CHECK_EQ(shmp_close(fresh), 0);
    CHECK_EQ(shmp_close(end), 0);
    close(gate);
    close_pipe();
}

TEST(an_entry_of_the_dead_is_used_again)
{
    make_pipe(0);
    int gate = unit_gate();
    uint32_t *index = unit_shared(sizeof *index);
    pid_t child = unit_fork();
    if (child == 0) {
        struct shmp_token token;
        CHECK_EQ(shmp_export(ends[0], &token), 0);
        token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
        token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
        token.description = UINT32_MAX;
        shmp_end *own = shmp_import(&token);
        CHECK(own != NULL && own->shared);
        *index = own->description;
        unit_pass(gate);
        for (;;)
            pause();
    }
    unit_await(gate);
    CHECK(entry(*index) & SHMP_DESCRIPTION_USED);
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = SHMP_DESCRIPTION_LOCK + *index,
                         .l_len = 1};
    CHECK_EQ(fcntl(ends[0]->pipe->seg.fd, F_GETLK, &lock), 0);
    CHECK_EQ(lock.l_type, F_RDLCK);
    unit_kill(child);
    lock.l_type = F_WRLCK;
    CHECK_EQ(fcntl(ends[0]->pipe->seg.fd, F_GETLK, &lock), 0);
    CHECK_EQ(lock.l_type, F_UNLCK);
    munmap(index, sizeof *index);
    close(gate);
    close_pipe();
}

/* ---- A parent that closes while its child is just being born -------------------------------- */

static long (*real_lock)(int, int, struct flock *);
static pid_t parent;
static int parent_closed = -1;

/* In the child's fork hook, before it takes its lock on a description: by then the parent has
 * closed its end. */
static long late_lock(int fd, int command, struct flock *lock)
{
    if (getpid() != parent && parent_closed >= 0 && command == F_SETLK &&
        lock->l_type == F_RDLCK && lock->l_start >= SHMP_DESCRIPTION_LOCK) {
        unit_await(parent_closed);
        unit_pass(parent_closed); /* for the next one */
    }
    return real_lock(fd, command, lock);
}

TEST(a_parent_that_closes_at_once_leaves_its_child_the_flags)
{
    int done = unit_gate();
    parent = getpid();
    real_lock = shmp_sys.lock;
    make_pipe(O_NONBLOCK);
    parent_closed = unit_gate();
    shmp_sys.lock = late_lock;
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY | O_NONBLOCK);
        CHECK_EQ(shmp_fcntl(ends[1], F_GETFL, 0), O_WRONLY | O_NONBLOCK);
        unit_done();
    }
    close_pipe();
    unit_pass(parent_closed);
    unit_join(child);
    shmp_sys.lock = real_lock;
    close(parent_closed);
    close(done);
}
