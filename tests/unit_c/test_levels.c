/* test_levels.c - a long history of operations, many of which are killed at one of their system
 * calls, beside pollers: nobody is ever told too little, and whoever is told too much is put right by
 * the operation that he was told of.
 *
 * One death leaves a state that others start from, and the next death another one: a test of single
 * deaths from fresh states does not come there.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "companion.h"
#include "pipe.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];
static unsigned char bytes[40 * SHMP_SLOT_SIZE];

/* ---- A process that is killed at a system call on the companion ---------------------------------- */

static unsigned calls_left; /* 0: it lives */
static bool after_it;
static struct shmp_sys_table real;

static void count_down(bool after)
{
    if (calls_left != 0 && after == after_it && --calls_left == 0)
        raise(SIGKILL);
}

static long deadly_read(int fd, void *to, size_t n)
{
    count_down(false);
    long r = real.read(fd, to, n);
    count_down(true);
    return r;
}

static long deadly_write(int fd, const void *from, size_t n)
{
    count_down(false);
    long r = real.write_quiet(fd, from, n);
    count_down(true);
    return r;
}

static long deadly_fcntl(int fd, int command, long argument)
{
    count_down(false);
    long r = real.fcntl(fd, command, argument);
    count_down(true);
    return r;
}

static long deadly_wake(const void *address, int count)
{
    count_down(false);
    long r = real.futex_wake(address, count);
    count_down(true);
    return r;
}

static void die_at(unsigned call, bool after)
{
    real = shmp_sys;
    calls_left = call;
    after_it = after;
    shmp_sys.read = deadly_read;
    shmp_sys.write_quiet = deadly_write;
    shmp_sys.fcntl = deadly_fcntl;
    shmp_sys.futex_wake = deadly_wake;
}

/* ---- Operations ------------------------------------------------------------------------------------ */

enum kind { WRITE, WRITE_ALL, READ, READ_ALL, RESIZE, KINDS };
static const char *const names[] = {"write", "write all", "read", "read all", "resize"};

struct operation {
    enum kind kind;
    size_t n; /* bytes, or slots */
    unsigned dies_at;
    bool after;
};

static struct operation some_operation(void)
{
    static const size_t few[] = {1, 4095, 4096, 4097, 8192};
    struct operation op = {.kind = unit_below(KINDS), .n = few[unit_below(5)]};
    if (op.kind == WRITE_ALL || op.kind == READ_ALL)
        op.n = sizeof bytes;
    if (op.kind == RESIZE)
        op.n = (size_t)1 << unit_below(5);
    op.dies_at = unit_below(2) ? 1 + unit_below(4) : 0;
    op.after = unit_below(2);
    return op;
}

static bool is_above; /* this user's pipes hold too many pages: a pipe gets no further slots */

static ssize_t operate(const struct operation *op)
{
    if (op->kind == RESIZE) /* there a write end cannot take the companion's bytes, and has no slots to give */
        return shmp_fcntl(ends[is_above ? 0 : unit_below(2)], F_SETPIPE_SZ, (long)op->n * SHMP_SLOT_SIZE);
    if (op->kind == WRITE || op->kind == WRITE_ALL)
        return shmp_write(ends[1], bytes, op->n);
    return shmp_read(ends[0], bytes, op->n);
}

static void operate_and_die(const struct operation *op)
{
    pid_t child = unit_fork();
    if (child == 0) {
        die_at(op->dies_at, op->after);
        operate(op);
        _exit(0);
    }
    unit_wait(child);
}

/* ---- What pollers are told --------------------------------------------------------------------------- */

static bool told(int i)
{
    struct pollfd p = {.fd = ends[i]->fd, .events = i == 0 ? POLLIN : POLLOUT};
    CHECK(poll(&p, 1, 0) >= 0);
    return p.revents != 0;
}

static void fail_after(const struct operation *op, const char *what)
{
    struct shmp_header *h = ends[0]->pipe->seg.header;
    unit_fail(__FILE__, __LINE__, "after %s of %zu, killed at call %u (%s): %s; head %u tail %llu max %u level %u queued %u size %d",
              names[op->kind], op->n, op->dies_at, op->after ? "after" : "before", what,
              load_relaxed(&h->head), (unsigned long long)load_relaxed(&h->tail), shmp_max_usage(h),
              load_relaxed(&h->companion.level), load_relaxed(&h->companion.queued),
              fcntl(ends[1]->fd, F_GETPIPE_SZ));
}

static void check_told(const struct operation *op, int watched)
{
    struct shmp_header *h = ends[0]->pipe->seg.header;
    if ((watched & 1) != 0 && !shmp_ring_looks_empty(h) && !told(0))
        fail_after(op, "data, and POLLIN is not set");
    if ((watched & 2) != 0 && !shmp_ring_looks_full(h, shmp_max_usage(h)) && !told(1))
        fail_after(op, "room, and POLLOUT is not set");
}

/* Another reader (writer, resizer) has died, perhaps after it took what a poller had been told of. */
static bool is_taken;
static bool is_filled;

static void note_death(enum kind kind)
{
    is_taken = is_taken || kind == READ || kind == READ_ALL;
    is_filled = is_filled || kind == WRITE || kind == WRITE_ALL || kind == RESIZE;
}

/* As C programs do, or as Python's read does. */
static ssize_t read_one(void)
{
    struct shmp_turn turn;
    ssize_t r = unit_below(2) ? shmp_read_begin(ends[0], 1, &turn) : SHMP_WOULD_SLEEP;
    if (r > 0)
        return shmp_read_finish(ends[0], bytes, 1, &turn);
    return r == SHMP_WOULD_SLEEP ? shmp_read(ends[0], bytes, 1) : r;
}

/* Who believes what he is told. */
static void follow(const struct operation *op, int watched)
{
    struct shmp_header *h = ends[0]->pipe->seg.header;
    if ((watched & 1) != 0 && told(0)) {
        if (read_one() < 0 && (!is_taken || told(0)))
            fail_after(op, "POLLIN is set, and nothing was there");
    }
    if ((watched & 2) != 0 && told(1) && shmp_ring_looks_full(h, shmp_max_usage(h))) {
        if (shmp_write(ends[1], bytes, SHMP_SLOT_SIZE) < 0 && (!is_filled || told(1)))
            fail_after(op, "POLLOUT is set, and there was no room");
    }
}

static void walk(uint32_t steps, int watched, unsigned dying)
{
    is_taken = false;
    is_filled = is_above; /* there a resize from a read end cannot say that nothing is left */
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    for (int i = 0; i < 2; i++)
        if ((watched & 1 << i) != 0)
            CHECK(shmp_fileno(ends[i]) >= 0);
    for (uint32_t i = 0; i < steps; i++) {
        struct operation op = some_operation();
        if (op.dies_at == 0 || (dying & 1u << op.kind) == 0) {
            operate(&op);
        } else {
            operate_and_die(&op);
            note_death(op.kind);
        }
        check_told(&op, watched);
        if (unit_below(2)) {
            follow(&op, watched);
            check_told(&op, watched);
        }
    }
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}

#define ANY (~0u)
#define WRITERS (1u << WRITE | 1u << WRITE_ALL)
#define READERS (1u << READ | 1u << READ_ALL)

static void walks(int watched, unsigned dying)
{
    for (int i = 0; i < 10; i++)
        walk(unit_rounds(100), watched, dying);
}

TEST(many_deaths_beside_who_looks_for_data)
{
    walks(1, ANY);
}

TEST(many_deaths_beside_who_looks_for_room)
{
    walks(2, ANY);
}

TEST(many_deaths_beside_who_looks_for_both)
{
    walks(3, ANY);
}

/* As long as he is the only one to read, he finds what he is told of. */
TEST(many_deaths_of_writers_beside_who_looks_for_data)
{
    walks(1, WRITERS);
}

TEST(many_deaths_of_readers_beside_who_looks_for_room)
{
    walks(2, READERS);
}

TEST(many_deaths_of_writers_beside_who_looks_for_both)
{
    walks(3, WRITERS);
}

/* One that has grown is not full, so a reader who dies before he drains it leaves four slots used
 * beside an empty ring.  The next byte would take the fifth, and of five none can be taken away. */
TEST(a_reader_dies_before_he_drains_one_that_has_grown)
{
    const struct operation takes_all = {.kind = READ_ALL, .n = sizeof bytes, .dies_at = 1};
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    CHECK(shmp_fileno(ends[0]) >= 0);
    CHECK(shmp_fileno(ends[1]) >= 0);
    CHECK_EQ(shmp_write(ends[1], bytes, 1), 1); /* the next one fills the companion with its own edge */
    CHECK_EQ(shmp_write(ends[1], bytes, sizeof bytes), 15 * SHMP_SLOT_SIZE);
    CHECK(!told(1));
    CHECK_EQ(shmp_fcntl(ends[1], F_SETPIPE_SZ, 32 * SHMP_SLOT_SIZE), 32 * SHMP_SLOT_SIZE);
    CHECK(told(1));
    operate_and_die(&takes_all);
    CHECK(shmp_ring_looks_empty(ends[0]->pipe->seg.header));
    CHECK_EQ(load_relaxed(&ends[0]->pipe->seg.header->companion.level), SHMP_LEVEL_GROWN);
    CHECK_EQ(shmp_write(ends[1], bytes, sizeof bytes), 32 * SHMP_SLOT_SIZE);
    CHECK(told(0));
    CHECK(!told(1));
    CHECK_EQ(shmp_read(ends[0], bytes, SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
    CHECK(told(1));
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}

/* ---- Above the limit of pages in pipes (CP-5) ---------------------------------------------------------- */

static long refusing_fcntl(int fd, int command, long argument)
{
    if (is_above && command == F_SETPIPE_SZ && argument > fcntl(fd, F_GETPIPE_SZ))
        return -EPERM;
    int r = fcntl(fd, command, argument);
    return r < 0 ? -errno : r;
}

static long small_pipe2(int fds[2], int flags)
{
    if (pipe2(fds, flags) < 0)
        return -errno;
    return fcntl(fds[0], F_SETPIPE_SZ, 2 * SHMP_PAGE) < 0 ? -errno : 0;
}

TEST(many_deaths_above_the_limit)
{
    is_above = true;
    shmp_sys.fcntl = refusing_fcntl;
    shmp_sys.pipe2 = small_pipe2;
    for (int i = 0; i < 12; i++)
        walk(unit_rounds(100), 1 + i % 3, ANY);
}

static long read_and_die(int fd, void *buffer, size_t count)
{
    long r = read(fd, buffer, count);
    if (fd == ends[0]->fd)
        raise(SIGKILL);
    return r < 0 ? -errno : r;
}

/* Where one byte is enough: the repair's sync after such a death must know that the companion may be empty, and
 * bring the byte. */
TEST(who_dies_behind_the_drain_of_his_arming_leaves_no_empty_companion)
{
    int queued = -1;
    is_above = true;
    shmp_sys.fcntl = refusing_fcntl;
    shmp_sys.pipe2 = small_pipe2;
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    struct shmp_header *h = ends[0]->pipe->seg.header;
    struct shmp_live *live = &ends[0]->pipe->live;
    CHECK_EQ(shmp_arm(ends[0], POLLIN), 0);
    CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
    CHECK_EQ(shmp_read(ends[0], bytes, 100), 1);
    store_relaxed(&h->r.lock, shmp_live_owner(live) - (1u << SHMP_LOCK_GEN_SHIFT));
    pid_t reader = unit_fork();
    if (reader == 0) {
        shmp_sys.read = read_and_die;
        shmp_arm(ends[0], POLLIN);
        unit_done();
    }
    CHECK_EQ(unit_wait(reader), SIGKILL);
    CHECK_EQ(shmp_ioctl(ends[1], FIONREAD, &queued), 0); /* repairs the read side */
    CHECK_EQ(queued, 0);
    CHECK_EQ(shmp_write(ends[1], bytes, 100), 100);
    CHECK(shmp_fileno(ends[0]) >= 0);
    CHECK(told(0));
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}

/* The companion of a full ring has one slot left when its user comes to the limit, and gets none back:
 * "some" is not to be had.  A reader that goes on makes room heard of; and below the limit all is well. */
TEST(the_limit_comes_between)
{
    const struct operation none = {.kind = READ};
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    CHECK_EQ(shmp_write(ends[1], bytes, sizeof bytes), 16 * SHMP_SLOT_SIZE);
    CHECK(shmp_fileno(ends[1]) >= 0);
    CHECK(shmp_fileno(ends[0]) >= 0);
    CHECK(!told(1));
    CHECK_EQ(fcntl(ends[0]->fd, F_GETPIPE_SZ), SHMP_PAGE);
    shmp_sys.fcntl = refusing_fcntl;
    is_above = true;
    for (int i = 0; i < 15; i++) {
        CHECK_EQ(shmp_read(ends[0], bytes, SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
        CHECK(told(0));
    }
    CHECK_EQ(shmp_read(ends[0], bytes, SHMP_SLOT_SIZE), SHMP_SLOT_SIZE);
    check_told(&none, 3);
    CHECK_EQ(shmp_write(ends[1], bytes, 2 * SHMP_SLOT_SIZE), 2 * SHMP_SLOT_SIZE);
    CHECK(told(0));
    is_above = false;
    CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
    check_told(&none, 3);
    CHECK_EQ(shmp_write(ends[1], bytes, sizeof bytes), 14 * SHMP_SLOT_SIZE);
    CHECK(!told(1));
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}

/* The same with the kernel's own limit. */
TEST(a_user_above_the_limit)
{
    enum { USER = 64231, PIPES = 200, NO_LIMIT = 3 };
    if (geteuid() != 0)
        SKIP("only root can be another user");
    pid_t child = unit_fork();
    if (child == 0) {
        int pipes[PIPES][2];
        int n = 0;
        CHECK_EQ(setuid(USER), 0);
        CHECK_EQ(prctl(PR_SET_DUMPABLE, 1), 0); /* its records can be seen */
        while (n < PIPES && pipe2(pipes[n], O_CLOEXEC) == 0 &&
               fcntl(pipes[n++][0], F_SETPIPE_SZ, 1 << 20) >= 0)
            ;
        while (n < PIPES && pipe2(pipes[n], O_CLOEXEC) == 0 &&
               fcntl(pipes[n++][0], F_GETPIPE_SZ) > 2 * (int)SHMP_PAGE)
            ;
        is_above = fcntl(pipes[n - 1][0], F_GETPIPE_SZ) == 2 * (int)SHMP_PAGE;
        if (!is_above)
            _exit(NO_LIMIT);
        for (int i = 0; i < 6; i++)
            walk(unit_rounds(100), 1 + i % 3, ANY);
        unit_done();
    }
    int status = unit_wait(child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_LIMIT)
        SKIP("this machine has no limit, or a high one");
    CHECK_EQ(status, 0);
}
