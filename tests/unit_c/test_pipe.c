/* test_pipe.c - the public calls: reads and writes beside the kernel's, blocking, signals, sizes. */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <termios.h>

#include "companion.h"
#include "lock.h"
#include "pipe.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];
static int real[2];
static unsigned char out[140000];
static unsigned char in[140000];
static unsigned char in_real[140000];

static void make(int flags, uint32_t slots)
{
    struct shmp_options options = {.capacity = (uint64_t)slots * SHMP_SLOT_SIZE,
                                   .first_index = UINT32_MAX - 2};
    CHECK_EQ(shmp_pipe2_with(ends, flags | O_CLOEXEC, &options), 0);
}

static void close_ends(void)
{
    for (int i = 0; i < 2; i++)
        if (ends[i])
            CHECK_EQ(shmp_close(ends[i]), 0);
    ends[0] = ends[1] = NULL;
}

static void close_end(int i)
{
    CHECK_EQ(shmp_close(ends[i]), 0);
    ends[i] = NULL;
}

static struct shmp_header *header(int i)
{
    return ends[i]->pipe->seg.header;
}

static void fill_random(unsigned char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bytes[i] = (unsigned char)(unit_random() >> 40);
}

/* ---- Beside the kernel's pipe ----------------------------------------------------------- */

static void compare(ssize_t ours, int our_errno, ssize_t kernels, int kernel_errno, const char *what)
{
    if (ours != kernels || (ours < 0 && our_errno != kernel_errno))
        unit_fail(__FILE__, __LINE__, "%s: %zd errno %d, and the kernel %zd errno %d", what, ours,
                  our_errno, kernels, kernel_errno);
}

#define BOTH(what, ours, kernels)                                                         \
    do {                                                                                  \
        errno = 0;                                                                        \
        ssize_t ours_ = (ours);                                                           \
        int errno_ = errno;                                                               \
        errno = 0;                                                                        \
        ssize_t kernels_ = (kernels);                                                     \
        compare(ours_, errno_, kernels_, errno, what);                                    \
    } while (0)

static size_t some_size(void)
{
    static const size_t sizes[] = {0,    1,    2,    99,    2048,  2049,  4095,
                                   4096, 4097, 8191, 8192,  65535, 65536, 65537};
    switch (unit_below(3)) {
    case 0:
        return sizes[unit_below(14)];
    case 1:
        return unit_below(200);
    default:
        return unit_below(12000);
    }
}

static int split(struct iovec iov[4], unsigned char *bytes, size_t n)
{
    int count = 1 + (int)unit_below(4);
    size_t at = 0;
    for (int i = 0; i < count; i++) {
        size_t part = i == count - 1 ? n - at : unit_below((uint32_t)(n - at) + 1);
        iov[i] = (struct iovec){bytes + at, part};
        at += part;
    }
    return count;
}

static void random_step(void)
{
    struct iovec iov[4];
    size_t n = some_size();
    int count;
    int ours;
    int kernels;
    switch (unit_below(12)) {
    case 0:
    case 1:
    case 2:
        fill_random(out, n);
        BOTH("write", shmp_write(ends[1], out, n), write(real[1], out, n));
        break;
    case 3:
    case 4:
        fill_random(out, n);
        count = split(iov, out, n);
        BOTH("writev", shmp_writev(ends[1], iov, count), writev(real[1], iov, count));
        break;
    case 5:
    case 6:
    case 7:
        BOTH("read", shmp_read(ends[0], in, n), read(real[0], in_real, n));
        CHECK(memcmp(in, in_real, sizeof in) == 0);
        break;
    case 8: {
        count = split(iov, in, n);
        ssize_t r = shmp_readv(ends[0], iov, count);
        int e = errno;
        errno = 0;
        ssize_t k = read(real[0], in_real, n);
        compare(r, e, k, errno, "readv");
        CHECK(memcmp(in, in_real, sizeof in) == 0);
        break;
    }
    case 9:
        ours = kernels = -1;
        BOTH("FIONREAD", shmp_ioctl(ends[1], FIONREAD, &ours), ioctl(real[1], FIONREAD, &kernels));
        CHECK_EQ(ours, kernels);
        break;
    case 10: {
        long size = unit_below(70000); /* at most 32 slots: unprivileged users may too */
        BOTH("F_SETPIPE_SZ", shmp_fcntl(ends[0], F_SETPIPE_SZ, size),
             fcntl(real[0], F_SETPIPE_SZ, size));
        BOTH("F_GETPIPE_SZ", shmp_fcntl(ends[1], F_GETPIPE_SZ, 0), fcntl(real[1], F_GETPIPE_SZ));
        break;
    }
    default: {
        long flags = O_NONBLOCK | (unit_below(4) == 0 ? O_DIRECT : 0);
        BOTH("F_SETFL", shmp_fcntl(ends[1], F_SETFL, flags), fcntl(real[1], F_SETFL, flags));
        BOTH("F_GETFL", shmp_fcntl(ends[1], F_GETFL, 0), fcntl(real[1], F_GETFL));
    }
    }
}

TEST(random_calls_equal_the_kernels)
{
    for (uint32_t run = 0; run < unit_rounds(40); run++) {
        uint32_t slots = 1u << unit_below(5);
        CHECK_EQ(pipe2(real, O_NONBLOCK | O_CLOEXEC), 0);
        if (fcntl(real[1], F_SETPIPE_SZ, (int)(slots * 4096)) < 0)
            SKIP("this user's pipes hold too many pages");
        make(O_NONBLOCK, slots);
        memset(in, 0, sizeof in);
        memset(in_real, 0, sizeof in_real);
        for (int i = 0; i < 400; i++)
            random_step();
        close_ends();
        close(real[0]);
        close(real[1]);
    }
}

TEST(arguments_are_judged_as_the_kernel_does)
{
    struct iovec iov[1025];
    char byte = 0;
    int number;
    shmp_end *untouched[2] = {(shmp_end *)7, (shmp_end *)8};
    for (int bit = 0; bit < 31; bit++) {
        int flag = 1 << bit;
        int made = pipe2(real, flag);
        int e = errno;
        if (made == 0) {
            close(real[0]);
            close(real[1]);
            CHECK_EQ(shmp_pipe2(ends, flag), 0);
            close_ends();
        } else {
            errno = 0;
            CHECK_EQ(shmp_pipe2(untouched, flag), -1);
            CHECK(errno == e || (flag == O_EXCL && errno == ENOPKG));
            CHECK(untouched[0] == (shmp_end *)7 && untouched[1] == (shmp_end *)8);
        }
    }
    make(O_NONBLOCK, 4);
    CHECK_ERRNO(shmp_write(ends[0], &byte, 1), EBADF);
    CHECK_ERRNO(shmp_write(ends[0], &byte, 0), EBADF);
    CHECK_ERRNO(shmp_read(ends[1], &byte, 1), EBADF);
    CHECK_ERRNO(shmp_read(ends[1], &byte, 0), EBADF);
    for (int i = 0; i < 1025; i++)
        iov[i] = (struct iovec){&byte, 1};
    CHECK_ERRNO(shmp_writev(ends[1], iov, 1025), EINVAL);
    CHECK_ERRNO(shmp_writev(ends[1], iov, -1), EINVAL);
    CHECK_EQ(shmp_writev(ends[1], iov, 1024), 1024);
    CHECK_EQ(shmp_writev(ends[1], iov, 0), 0);
    iov[0].iov_len = SSIZE_MAX;
    CHECK_ERRNO(shmp_readv(ends[0], iov, 2), EINVAL);
    CHECK_ERRNO(shmp_ioctl(ends[0], TIOCOUTQ, &number), ENOTTY);
    CHECK_ERRNO(shmp_fcntl(ends[0], 99999, 0), EINVAL);
    CHECK_EQ(shmp_ioctl(ends[0], FIONREAD, &number), 0);
    CHECK_EQ(number, 1024);
    number = 0;
    CHECK_EQ(shmp_ioctl(ends[0], FIONBIO, &number), 0);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY);
    number = 1;
    CHECK_EQ(shmp_ioctl(ends[0], FIONBIO, &number), 0);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY | O_NONBLOCK);
    close_ends();
}

TEST(sizes_are_rounded_and_refused_as_in_the_kernel)
{
    make(O_NONBLOCK, 16);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 0), 4096);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 4097), 8192);
    CHECK_EQ(shmp_fcntl(ends[1], F_SETPIPE_SZ, 10000), 16384);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETPIPE_SZ, 0), 16384);
    CHECK_ERRNO(shmp_fcntl(ends[0], F_SETPIPE_SZ, -1), EINVAL);
    CHECK_ERRNO(shmp_fcntl(ends[0], F_SETPIPE_SZ, (1L << 31) + 1), EINVAL);
    CHECK_ERRNO(shmp_fcntl(ends[0], F_SETPIPE_SZ, 1L << 31), EPERM);
    CHECK_ERRNO(shmp_fcntl(ends[0], F_SETPIPE_SZ, INT_MIN), EPERM);
    CHECK_ERRNO(shmp_fcntl(ends[0], F_SETPIPE_SZ, (long)SHMP_CAPACITY_MAX + 1), EPERM);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, (1L << 32) + 8192), 8192);
    struct shmp_options too_large = {.capacity = (uint64_t)SHMP_CAPACITY_MAX + 1};
    shmp_end *none[2];
    CHECK_ERRNO(shmp_pipe2_with(none, 0, &too_large), EPERM);
    close_ends();
}

TEST(shrinking_below_the_slots_in_use_is_ebusy)
{
    make(O_NONBLOCK, 16);
    CHECK_EQ(shmp_write(ends[1], out, 4097), 4097);
    CHECK_ERRNO(shmp_fcntl(ends[0], F_SETPIPE_SZ, 4096), EBUSY);
    CHECK_EQ(shmp_fcntl(ends[0], F_GETPIPE_SZ, 0), 65536);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 8192), 8192);
    CHECK_ERRNO(shmp_write(ends[1], out, 4096), EAGAIN);
    CHECK_EQ(shmp_write(ends[1], out, 4095), 4095); /* merges */
    CHECK_EQ(shmp_read(ends[0], in, 4096), 4096);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 1), 4096);
    CHECK_EQ(shmp_read(ends[0], in, 10000), 4096);
    close_ends();
}

/* Growth moves the ring into another part of the file, there and back. */
TEST(contents_survive_each_move)
{
    uint64_t written = 0;
    uint64_t taken = 0;
    make(O_NONBLOCK, 1);
    for (long size = 4096; size <= 1 << 21; size *= 2) {
        CHECK_EQ(shmp_fcntl(ends[size & 8192 ? 1 : 0], F_SETPIPE_SZ, size), size);
        for (int i = 0; i < 3; i++) {
            for (size_t j = 0; j < 5000; j++)
                out[j] = (unsigned char)((written + j) * 31 % 251);
            ssize_t r = shmp_write(ends[1], out, 5000);
            CHECK(r > 0 || errno == EAGAIN);
            written += r > 0 ? (uint64_t)r : 0;
        }
        ssize_t r = shmp_read(ends[0], in, 3333);
        for (ssize_t j = 0; j < r; j++, taken++)
            CHECK_EQ(in[j], taken * 31 % 251);
    }
    for (ssize_t r; (r = shmp_read(ends[0], in, sizeof in)) > 0;)
        for (ssize_t j = 0; j < r; j++, taken++)
            CHECK_EQ(in[j], taken * 31 % 251);
    CHECK_EQ(taken, written);
    close_ends();
}

/* ---- Signals ------------------------------------------------------------------------------ */

static _Atomic int sigpipes;
static _Atomic pid_t sigpipe_task;
static _Atomic int alarms;

static void on_signal(int signal)
{
    if (signal == SIGPIPE) {
        atomic_fetch_add(&sigpipes, 1);
        sigpipe_task = (pid_t)syscall(SYS_gettid);
    } else {
        atomic_fetch_add(&alarms, 1);
    }
}

static void handle(int signal)
{
    struct sigaction action = {.sa_handler = on_signal};
    CHECK_EQ(sigaction(signal, &action, NULL), 0);
}

TEST(each_write_without_readers_is_one_sigpipe)
{
    handle(SIGPIPE);
    make(0, 2);
    close_end(0);
    for (int i = 1; i <= 3; i++) {
        CHECK_ERRNO(shmp_write(ends[1], out, 10), EPIPE);
        CHECK_EQ(sigpipes, i);
        CHECK_EQ(sigpipe_task, syscall(SYS_gettid));
    }
    CHECK_EQ(shmp_write(ends[1], out, 0), 0);
    CHECK_EQ(sigpipes, 3);
    signal(SIGPIPE, SIG_IGN);
    CHECK_ERRNO(shmp_write(ends[1], out, 100000), EPIPE);
    close_ends();
}

TEST(sigpipe_kills_by_default)
{
    make(0, 2);
    close_end(0);
    pid_t child = unit_fork();
    if (child == 0) {
        shmp_write(ends[1], out, 10);
        _exit(3);
    }
    int status = unit_wait(child);
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGPIPE);
    close_ends();
}

struct call {
    ssize_t result;
    int error;
    size_t n;
    _Atomic pid_t task;
    _Atomic bool returned;
};

static void *write_in_thread(void *argument)
{
    struct call *call = argument;
    call->task = (pid_t)syscall(SYS_gettid);
    errno = 0;
    call->result = shmp_write(ends[1], out, call->n);
    call->error = errno;
    call->returned = true;
    return NULL;
}

static void *read_in_thread(void *argument)
{
    struct call *call = argument;
    call->task = (pid_t)syscall(SYS_gettid);
    errno = 0;
    call->result = shmp_read(ends[0], in, call->n);
    call->error = errno;
    call->returned = true;
    return NULL;
}

static pthread_t start(struct call *call, void *(*run)(void *), size_t n)
{
    pthread_t thread;
    *call = (struct call){.n = n};
    CHECK_EQ(pthread_create(&thread, NULL, run, call), 0);
    UNTIL(call->task != 0);
    return thread;
}

static void await_sleep(struct call *call, struct shmp_queue *queue)
{
    UNTIL(SHMP_QUEUE_WAITERS(load_relaxed(&queue->word)) != 0);
    unit_await_futex(call->task);
    CHECK(!call->returned);
}

/* A partly done write whose readers go away: the count, and a SIGPIPE; then EPIPE (WR-14). */
TEST(readers_that_leave_a_blocked_write)
{
    struct call call;
    handle(SIGPIPE);
    make(0, 2);
    pthread_t thread = start(&call, write_in_thread, 10000);
    await_sleep(&call, &header(1)->wait.writable);
    close_end(0);
    pthread_join(thread, NULL);
    CHECK_EQ(call.result, 8192); /* two slots */
    CHECK_EQ(sigpipes, 1);
    CHECK_ERRNO(shmp_write(ends[1], out, 1), EPIPE);
    CHECK_EQ(sigpipes, 2);
    close_ends();
}

TEST(a_signal_cuts_a_blocked_write)
{
    struct call call;
    handle(SIGALRM);
    make(0, 2);
    pthread_t thread = start(&call, write_in_thread, 100000);
    await_sleep(&call, &header(1)->wait.writable);
    pthread_kill(thread, SIGALRM);
    pthread_join(thread, NULL);
    CHECK_EQ(call.result, 8192); /* progress wins */
    thread = start(&call, write_in_thread, 1);
    await_sleep(&call, &header(1)->wait.writable);
    pthread_kill(thread, SIGALRM);
    pthread_join(thread, NULL);
    CHECK_EQ(call.result, -1);
    CHECK_EQ(call.error, EINTR);
    CHECK_EQ(alarms, 2);
    int pending = 0;
    CHECK_EQ(shmp_ioctl(ends[0], FIONREAD, &pending), 0);
    CHECK_EQ(pending, 8192);
    close_ends();
}

TEST(a_signal_ends_a_blocked_read)
{
    struct call call;
    handle(SIGALRM);
    make(0, 2);
    pthread_t thread = start(&call, read_in_thread, 10);
    await_sleep(&call, &header(0)->wait.readable);
    pthread_kill(thread, SIGALRM);
    pthread_join(thread, NULL);
    CHECK_EQ(call.result, -1);
    CHECK_EQ(call.error, EINTR);
    CHECK_EQ(SHMP_QUEUE_WAITERS(load_relaxed(&header(0)->wait.readable.word)), 0);
    close_ends();
}

TEST(a_blocked_read_gets_data_or_the_end)
{
    struct call call;
    make(0, 2);
    pthread_t thread = start(&call, read_in_thread, 10);
    await_sleep(&call, &header(0)->wait.readable);
    CHECK_EQ(shmp_write(ends[1], "hello", 5), 5);
    pthread_join(thread, NULL);
    CHECK_EQ(call.result, 5);
    CHECK(memcmp(in, "hello", 5) == 0);
    thread = start(&call, read_in_thread, 10);
    await_sleep(&call, &header(0)->wait.readable);
    close_end(1);
    pthread_join(thread, NULL);
    CHECK_EQ(call.result, 0);
    CHECK_EQ(load_relaxed(&header(0)->stats.slice_found_work), 0);
    close_ends();
}

TEST(a_killed_writer_is_the_end)
{
    struct call call;
    make(0, 2);
    pid_t child = unit_fork();
    if (child == 0) {
        shmp_write(ends[1], "abc", 3);
        for (;;)
            pause();
    }
    UNTIL(!shmp_ring_looks_empty(header(0)));
    close_end(1);
    CHECK_EQ(shmp_read(ends[0], in, 10), 3);
    pthread_t thread = start(&call, read_in_thread, 10);
    await_sleep(&call, &header(0)->wait.readable);
    unit_kill(child);
    pthread_join(thread, NULL);
    CHECK_EQ(call.result, 0);
    CHECK_EQ(load_relaxed(&header(0)->stats.slice_found_work), 0);
    close_ends();
}

TEST(setting_nonblock_does_not_wake_a_sleeper)
{
    struct call call;
    make(0, 2);
    pthread_t thread = start(&call, read_in_thread, 10);
    await_sleep(&call, &header(0)->wait.readable);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    await_sleep(&call, &header(0)->wait.readable);
    CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
    pthread_join(thread, NULL);
    CHECK_EQ(call.result, 1);
    close_ends();
}

/* ---- close while somebody is inside (RD-9) --------------------------------------------------- */

TEST(close_waits_for_the_call_inside)
{
    struct call call;
    make(0, 2);
    pthread_t thread = start(&call, read_in_thread, 10);
    await_sleep(&call, &header(0)->wait.readable);
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_write(ends[1], "late", 4), 4); /* the call still holds the description */
    pthread_join(thread, NULL);
    CHECK_EQ(call.result, 4);
    signal(SIGPIPE, SIG_IGN);
    CHECK_ERRNO(shmp_write(ends[1], "x", 1), EPIPE);
    ends[0] = NULL;
    close_ends();
}

static void *fileno_in_thread(void *argument)
{
    struct call *call = argument;
    call->task = (pid_t)syscall(SYS_gettid);
    call->result = shmp_fileno(ends[0]);
    return NULL;
}

static void *poll_in_thread(void *argument)
{
    struct call *call = argument;
    struct shmp_pollfd p = {ends[0], POLLIN, 0};
    call->task = (pid_t)syscall(SYS_gettid);
    call->result = shmp_poll(&p, 1, -1) == 1 ? p.revents : -1;
    return NULL;
}

/* The look waits for the writers' lock, and the end is closed. */
static long look_at_a_closed_end(void *(*look)(void *))
{
    struct call call;
    make(O_NONBLOCK, 2);
    _Atomic uint32_t *held = &ends[1]->pipe->held[SHMP_SIDE_READERS];
    CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
    CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0);
    pthread_t thread = start(&call, look, 0);
    unit_await_futex(call.task);
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(load_seq_cst(held), 1);
    shmp_side_unlock(ends[1], SHMP_SIDE_WRITERS);
    pthread_join(thread, NULL);
    CHECK_EQ(load_seq_cst(held), 0);
    ends[0] = NULL;
    close_ends();
    return call.result;
}

TEST(close_waits_for_the_look_inside)
{
    CHECK(look_at_a_closed_end(fileno_in_thread) >= 0);
    CHECK_EQ(look_at_a_closed_end(poll_in_thread), POLLIN);
}

TEST(a_poll_of_many_holds_them_all)
{
    enum { PIPES = 100 };
    static struct shmp_pollfd p[2 * PIPES];
    for (int i = 0; i < PIPES; i++) {
        shmp_end *both[2];
        CHECK_EQ(shmp_pipe2(both, O_CLOEXEC | O_NONBLOCK), 0);
        p[2 * i] = (struct shmp_pollfd){both[0], POLLIN, 0};
        p[2 * i + 1] = (struct shmp_pollfd){both[1], POLLOUT, 0};
    }
    CHECK_EQ(shmp_poll(p, 2 * PIPES, -1), PIPES);
    for (int i = 0; i < 2 * PIPES; i++) {
        CHECK_EQ(load_relaxed(&p[i].end->refs), 1);
        CHECK_EQ(shmp_close(p[i].end), 0);
    }
}

/* More than a thread's calls hold at a time, but as many as shmp_hold or shmp_poll may. */
TEST(a_fork_child_keeps_what_the_forking_thread_holds)
{
    enum { PIPES = 40 };
    static shmp_end *many[PIPES][2];
    for (int i = 0; i < PIPES; i++) {
        CHECK_EQ(shmp_pipe2(many[i], O_CLOEXEC | O_NONBLOCK), 0);
        shmp_hold(many[i][0]);
    }
    for (int i = 0; i < PIPES; i += 3) /* out of order, and what is unused is used again */
        shmp_release(many[i][0]);
    for (int i = 0; i < PIPES; i += 3)
        shmp_hold(many[i][0]);
    shmp_hold(many[5][0]);
    pid_t child = unit_fork();
    for (int i = 0; i < PIPES; i++)
        CHECK_EQ(load_relaxed(&many[i][0]->refs), i == 5 ? 3 : 2);
    shmp_release(many[5][0]);
    for (int i = 0; i < PIPES; i++)
        shmp_release(many[i][0]);
    for (int i = 0; i < PIPES; i++) {
        CHECK_EQ(shmp_write(many[i][1], "x", 1), 1);
        CHECK_EQ(shmp_close(many[i][1]), 0);
        CHECK_EQ(shmp_close(many[i][0]), 0);
    }
    if (child == 0)
        unit_done();
    unit_join(child);
}

struct closer {
    int go;
    bool closed;
};

static void *close_in_thread(void *argument)
{
    struct closer *closer = argument;
    unit_await(closer->go);
    closer->closed = shmp_close(ends[0]) == 0;
    return NULL;
}

TEST(of_many_that_close_at_once_one_closes)
{
    enum { CLOSERS = 4 };
    struct closer closers[CLOSERS];
    pthread_t threads[CLOSERS];
    struct call call;
    make(0, 2);
    /* This call keeps the end for those who come too late. */
    pthread_t reader = start(&call, read_in_thread, 10);
    await_sleep(&call, &header(0)->wait.readable);
    int go = unit_gate();
    for (int i = 0; i < CLOSERS; i++) {
        closers[i] = (struct closer){.go = go};
        CHECK_EQ(pthread_create(&threads[i], NULL, close_in_thread, &closers[i]), 0);
    }
    for (int i = 0; i < CLOSERS; i++)
        unit_pass(go);
    int closed = 0;
    for (int i = 0; i < CLOSERS; i++) {
        pthread_join(threads[i], NULL);
        closed += closers[i].closed;
    }
    CHECK_EQ(closed, 1);
    CHECK_EQ(shmp_write(ends[1], "late", 4), 4);
    pthread_join(reader, NULL);
    CHECK_EQ(call.result, 4);
    ends[0] = NULL;
    close(go);
    close_ends();
}

/* ---- Other processes --------------------------------------------------------------------------- */

TEST(growth_frees_writers_in_other_processes)
{
    pid_t children[3];
    int wrote = unit_gate();
    int end = unit_gate();
    make(0, 1);
    CHECK_EQ(shmp_write(ends[1], out, 4096), 4096);
    for (int i = 0; i < 3; i++) {
        children[i] = unit_fork();
        if (children[i] == 0) {
            memset(out, 'a' + i, 4096);
            CHECK_EQ(shmp_write(ends[1], out, 4096), 4096);
            unit_pass(wrote);
            unit_await(end); /* whoever exits wakes the others, too: that would hide a fault */
            unit_done();
        }
    }
    for (int i = 0; i < 3; i++)
        unit_await_futex(children[i]);
    /* At least (I1): one that a newcomer made gather again has registered twice. */
    CHECK(SHMP_QUEUE_WAITERS(load_relaxed(&header(0)->wait.writable.word)) >= 3);
    /* One wake (CP-8), and each hands on while there is room (WK-3). */
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 4 * 4096), 4 * 4096);
    for (int i = 0; i < 3; i++)
        unit_await(wrote);
    /* The resize's, and those of the first two: not the safety slice a second later. */
    CHECK_EQ(load_relaxed(&header(0)->stats.write_wakes), 3);
    for (int i = 0; i < 3; i++)
        unit_pass(end);
    for (int i = 0; i < 3; i++)
        unit_join(children[i]);
    close(wrote);
    close(end);
    CHECK_EQ(shmp_read(ends[0], in, sizeof in), 4 * 4096);
    for (int i = 1; i < 4; i++)
        for (int j = 1; j < 4096; j++)
            CHECK_EQ(in[i * 4096 + j], in[i * 4096]); /* each write is whole */
    CHECK_EQ(load_relaxed(&header(0)->stats.slice_found_work), 0);
    close_ends();
}

static volatile sig_atomic_t noted;

static void note(int number)
{
    (void)number;
    noted = 1;
}

/* The ring is not locked meanwhile, and a handler ends the wait. */
TEST(a_resize_waits_for_a_stopped_poller_outside_the_ring)
{
    make(O_NONBLOCK, 16);
    CHECK(shmp_fileno(ends[0]) >= 0);
    CHECK(shmp_fileno(ends[1]) >= 0);
    pid_t poller = unit_fork();
    if (poller == 0) {
        shmp_companion_lock_now(&ends[0]->pipe->live);
        raise(SIGSTOP);
        shmp_companion_unlock(&ends[0]->pipe->live);
        unit_done();
    }
    unit_await_state(poller, 'T');
    pid_t resizer = unit_fork();
    if (resizer == 0) {
        struct sigaction action = {.sa_handler = note};
        CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
        CHECK_ERRNO(shmp_fcntl(ends[1], F_SETPIPE_SZ, 65536 * 4), EINTR);
        CHECK(noted);
        unit_done();
    }
    UNTIL((load_seq_cst(&header(0)->companion.lock) & SHMP_LOCK_WAITERS) != 0);
    unit_await_futex(resizer);
    CHECK_EQ(load_seq_cst(&header(0)->r.lock), 0);
    CHECK_EQ(load_seq_cst(&header(0)->w.lock), 0);
    CHECK_EQ(kill(resizer, SIGALRM), 0);
    unit_join(resizer);
    CHECK_EQ(shmp_fcntl(ends[1], F_GETPIPE_SZ, 0), 65536);
    kill(poller, SIGCONT);
    unit_join(poller);
    CHECK_EQ(shmp_fcntl(ends[1], F_SETPIPE_SZ, 65536 * 4), 65536 * 4);
    close_ends();
}

TEST(resizes_under_a_stream_between_processes)
{
    static unsigned char piece[20000];
    uint64_t total = 400000 * (uint64_t)unit_rounds(16);
    make(0, 2);
    pid_t child = unit_fork();
    if (child == 0) {
        uint64_t done = 0;
        while (done < total) {
            size_t n = 1 + unit_below(sizeof piece);
            if (n > total - done)
                n = (size_t)(total - done);
            for (size_t i = 0; i < n; i++)
                piece[i] = (unsigned char)((done + i) * 2654435761u >> 24);
            CHECK_EQ(shmp_write(ends[1], piece, n), n);
            done += n;
        }
        unit_done();
    }
    close_end(1);
    uint64_t done = 0;
    for (;;) {
        if (unit_below(4) == 0) {
            long r = shmp_fcntl(ends[0], F_SETPIPE_SZ, (long)(4096u << unit_below(6)));
            CHECK(r > 0 || errno == EBUSY);
        }
        ssize_t r = shmp_read(ends[0], in, 1 + unit_below(30000));
        CHECK(r >= 0);
        if (r == 0)
            break;
        for (ssize_t i = 0; i < r; i++)
            CHECK_EQ(in[i], (unsigned char)((done + (uint64_t)i) * 2654435761u >> 24));
        done += (uint64_t)r;
    }
    CHECK_EQ(done, total);
    CHECK_EQ(load_relaxed(&header(0)->stats.slice_found_work), 0);
    unit_join(child);
    close_ends();
}

/* Many writers, one-slot ring: each small write is whole, each byte arrives once. */
TEST(small_writes_of_many_are_whole)
{
    enum { WRITERS = 4 };
    uint32_t rounds = unit_rounds(2000);
    pid_t children[WRITERS];
    uint32_t next[WRITERS] = {0};
    struct message {
        uint32_t who;
        uint32_t number;
        unsigned char rest[92];
    } message;
    make(0, 1);
    for (int i = 0; i < WRITERS; i++) {
        children[i] = unit_fork();
        if (children[i] == 0) {
            for (uint32_t n = 0; n < rounds; n++) {
                message.who = (uint32_t)i;
                message.number = n;
                memset(message.rest, (int)n, sizeof message.rest);
                CHECK_EQ(shmp_write(ends[1], &message, sizeof message), sizeof message);
            }
            unit_done();
        }
    }
    close_end(1);
    size_t have = 0;
    for (;;) {
        ssize_t r = shmp_read(ends[0], in + have, 3000);
        CHECK(r >= 0);
        if (r == 0)
            break;
        have += (size_t)r;
        size_t used = 0;
        for (; have - used >= sizeof message; used += sizeof message) {
            memcpy(&message, in + used, sizeof message);
            CHECK(message.who < WRITERS);
            CHECK_EQ(message.number, next[message.who]);
            next[message.who]++;
            for (size_t j = 0; j < sizeof message.rest; j++)
                CHECK_EQ(message.rest[j], (unsigned char)message.number);
        }
        memmove(in, in + used, have - used);
        have -= used;
    }
    CHECK_EQ(have, 0);
    for (int i = 0; i < WRITERS; i++) {
        unit_join(children[i]);
        CHECK_EQ(next[i], rounds);
    }
    CHECK_EQ(load_relaxed(&header(0)->stats.slice_found_work), 0);
    close_ends();
}

/* A writer that dies with its lock: the next write repairs and goes on. */
TEST(a_write_takes_over_from_a_dead_writer)
{
    make(0, 4);
    int has = unit_gate();
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0);
        store_relaxed(&header(1)->w.tail_seen, 99); /* half-written knowledge */
        unit_pass(has);
        for (;;)
            pause();
    }
    unit_await(has);
    unit_kill(child);
    CHECK_EQ(shmp_write(ends[1], "abc", 3), 3);
    CHECK_EQ(shmp_read(ends[0], in, 10), 3);
    CHECK_EQ(load_relaxed(&header(0)->stats.recoveries), 1);
    close(has);
    close_ends();
}

TEST(a_read_takes_over_from_a_dead_reader)
{
    make(0, 1);
    CHECK_EQ(shmp_write(ends[1], "abc", 3), 3);
    int has = unit_gate();
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(shmp_side_lock(ends[0], SHMP_SIDE_READERS, true), 0);
        uint32_t newest = load_relaxed(&header(0)->head) - 1;
        struct shmp_ring *ring = &ends[0]->pipe->seg.read_side;
        fetch_or_seq_cst(&ring->words[newest & ring->mask], SHMP_WORD_SEALED); /* T3, no T4 */
        unit_pass(has);
        for (;;)
            pause();
    }
    unit_await(has);
    unit_kill(child);
    CHECK_EQ(shmp_read(ends[0], in, 1), 1);
    CHECK_EQ(shmp_write(ends[1], "de", 2), 2); /* one slot: it must merge, or it would hang */
    CHECK_EQ(shmp_read(ends[0], in, 10), 4);
    CHECK(memcmp(in, "bcde", 4) == 0);
    close(has);
    close_ends();
}

/* ---- The two halves of a read ---------------------------------------------------------------- */

TEST(a_read_in_two_halves)
{
    struct shmp_turn turn;
    make(O_NONBLOCK, 4);
    CHECK_EQ(shmp_read_begin(ends[0], 10, &turn), -EAGAIN);
    CHECK_EQ(shmp_read_begin(ends[1], 10, &turn), -EBADF);
    CHECK_EQ(shmp_read_begin(ends[0], 0, &turn), 0);
    CHECK_EQ(shmp_write(ends[1], "hello", 5), 5);
    CHECK_EQ(shmp_read_begin(ends[0], 10, &turn), 5);
    CHECK(load_relaxed(&header(0)->r.lock) != 0);
    shmp_turn_end(ends[0], SHMP_SIDE_READERS, &turn, false, false);
    CHECK_EQ(load_relaxed(&header(0)->r.lock), 0);
    CHECK_EQ(shmp_read_begin(ends[0], 2, &turn), 2);
    CHECK_EQ(shmp_read_finish(ends[0], in, 2, &turn), 2);
    CHECK(memcmp(in, "he", 2) == 0);
    CHECK_EQ(shmp_read_begin(ends[0], 10, &turn), 3);
    CHECK_EQ(shmp_write(ends[1], "XY", 2), 2); /* comes in between: not for this read */
    CHECK_EQ(shmp_read_finish(ends[0], in, 3, &turn), 3);
    CHECK(memcmp(in, "llo", 3) == 0);
    CHECK_EQ(shmp_read(ends[0], in, 10), 2);
    close_end(1);
    CHECK_EQ(shmp_read_begin(ends[0], 10, &turn), 0);
    close_ends();
}

/* ---- Passing on ------------------------------------------------------------------------------ */

/* Refused descriptors are the caller's: open, and inheritable as they were. */
static void import_refused(struct shmp_token token, int segment_fd, int companion_fd, int error)
{
    token.segment_fd = fcntl(segment_fd, F_DUPFD, 3);
    token.companion_fd = fcntl(companion_fd, F_DUPFD, 3);
    CHECK(token.segment_fd >= 0 && token.companion_fd >= 0);
    CHECK(shmp_import(&token) == NULL && errno == error);
    CHECK_EQ(fcntl(token.segment_fd, F_GETFD), 0);
    CHECK_EQ(fcntl(token.companion_fd, F_GETFD), 0);
    CHECK_EQ(shmp_close_segment(token.segment_fd), 0);
    CHECK_EQ(shmp_close_segment(token.companion_fd), 0);
}

TEST(import_judges_what_it_gets)
{
    struct shmp_token token;
    make(0, 2);
    CHECK_EQ(shmp_export(ends[0], &token), 0);
    int segment = token.segment_fd, companion = token.companion_fd;
    import_refused(token, segment, segment, EINVAL);                  /* not a pipe */
    import_refused(token, companion, companion, SHMP_EINCOMPATIBLE); /* not a segment */
    struct shmp_token wrong = token;
    wrong.mode = O_WRONLY; /* not what the descriptor is */
    import_refused(wrong, segment, companion, EINVAL);
    int empty = memfd_create("empty", 0);
    import_refused(token, empty, companion, SHMP_EINCOMPATIBLE);
    CHECK_EQ(close(empty), 0);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", segment);
    int unwritable = open(path, O_RDONLY);
    import_refused(token, unwritable, companion, EINVAL);
    CHECK_EQ(shmp_close_segment(unwritable), 0);
    wrong = token;
    wrong.segment_fd = -1;
    CHECK(shmp_import(&wrong) == NULL && errno == EBADF);
    wrong = token;
    wrong.companion_fd = -1;
    CHECK(shmp_import(&wrong) == NULL && errno == EBADF);
    CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
    CHECK_EQ(shmp_read(ends[0], in, 1), 1);
    close_ends();
}

/* What the inspector says, without disturbing anything. */
TEST(inspect_sees_the_state)
{
    static struct shmp_snapshot s;
    make(O_NONBLOCK, 4);
    CHECK_EQ(shmp_write(ends[1], out, 5000), 5000);
    CHECK_EQ(shmp_read(ends[0], in, 100), 100);
    CHECK_EQ(shmp_inspect_fd(shmp_segment_fd(ends[0]), &s), 0);
    CHECK_EQ(s.torn, 0);
    CHECK_EQ(s.occupancy, 2);
    CHECK_EQ(s.pending, 4900);
    CHECK_EQ(s.tail_offset, 100);
    CHECK_EQ(s.slot_count, 2);
    CHECK_EQ(s.capacity, 4 * 4096);
    CHECK_EQ(s.bytes_written, 5000);
    CHECK_EQ(s.bytes_read, 100);
    CHECK_EQ(s.writes, 1);
    CHECK_EQ(s.reads, 1);
    CHECK_EQ(s.holders, 1);
    CHECK_EQ(s.readers, 1);
    CHECK_EQ(s.writers, 1);
    CHECK_EQ(s.named, 0);
    CHECK_EQ(s.creator_pid, getpid());
    CHECK_EQ(shmp_inspect_fd(ends[0]->fd, &s), -1);
    CHECK_EQ(errno, SHMP_EINCOMPATIBLE);
    close_ends();
}

TEST(poll_takes_handles)
{
    make(O_NONBLOCK, 1);
    struct shmp_pollfd p[3] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}, {NULL, POLLIN, 7}};
    CHECK_EQ(shmp_poll(p, 3, 0), 1);
    CHECK_EQ(p[0].revents, 0);
    CHECK_EQ(p[1].revents, POLLOUT);
    CHECK_EQ(p[2].revents, 0);
    CHECK_EQ(shmp_write(ends[1], out, 4096), 4096);
    CHECK_EQ(shmp_poll(p, 3, -1), 1);
    CHECK_EQ(p[0].revents, POLLIN);
    CHECK_EQ(p[1].revents, 0);
    CHECK_EQ(shmp_poll(NULL, 0, 0), 0);
    close_ends();
}
