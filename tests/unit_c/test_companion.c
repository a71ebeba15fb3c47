/* test_companion.c - what poll() says of both ends, beside a real pipe with as many slots. */
#include "companion.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "lock.h"
#include "pipe.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];
static int real[2];
static unsigned char bytes[70000];

static void make_both(uint32_t slots, uint32_t first_index)
{
    struct shmp_options options = {.capacity = (uint64_t)slots * SHMP_SLOT_SIZE,
                                   .first_index = first_index};
    CHECK_EQ(shmp_pipe2_with(ends, O_CLOEXEC | O_NONBLOCK, &options), 0);
    CHECK_EQ(pipe2(real, O_CLOEXEC | O_NONBLOCK), 0);
    if (fcntl(real[1], F_SETPIPE_SZ, (int)(slots * SHMP_SLOT_SIZE)) < 0)
        SKIP("this user's pipes hold too many pages for a pipe of %u slots", slots);
}

static void close_both(void)
{
    for (int i = 0; i < 2; i++) {
        if (ends[i])
            CHECK_EQ(shmp_close(ends[i]), 0);
        if (real[i] >= 0)
            close(real[i]);
    }
}

static short polled(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM};
    CHECK(poll(&p, 1, 0) >= 0);
    return p.revents;
}

static void compare_polls(const char *after, size_t n, bool reader, bool writer)
{
    if (reader && ends[0]) {
        short ours = polled(shmp_fileno(ends[0]));
        short kernels = polled(real[0]);
        if (ours != kernels)
            unit_fail(__FILE__, __LINE__, "read end after %s of %zu: %#x, and the kernel's %#x",
                      after, n, (unsigned)ours, (unsigned)kernels);
    }
    if (writer && ends[1]) {
        short ours = polled(shmp_fileno(ends[1]));
        short kernels = polled(real[1]);
        if (ours != kernels)
            unit_fail(__FILE__, __LINE__, "write end after %s of %zu: %#x, and the kernel's %#x",
                      after, n, (unsigned)ours, (unsigned)kernels);
    }
}

static size_t some_size(void)
{
    static const size_t sizes[] = {1, 100, 2049, 4095, 4096, 4097, 8192, 16384, 65536};
    return unit_below(2) ? sizes[unit_below(9)] : 1 + unit_below(6000);
}

/* One operation on both; what they return must be equal, too. */
static void operate(bool reader, bool writer)
{
    size_t n = some_size();
    if (unit_below(2)) {
        ssize_t ours = shmp_write(ends[1], bytes, n);
        int our_errno = errno;
        ssize_t kernels = write(real[1], bytes, n);
        CHECK_EQ(ours, kernels);
        CHECK(ours >= 0 || our_errno == errno);
        compare_polls("write", n, reader, writer);
    } else {
        ssize_t ours = shmp_read(ends[0], bytes, n);
        int our_errno = errno;
        ssize_t kernels = read(real[0], bytes, n);
        CHECK_EQ(ours, kernels);
        CHECK(ours >= 0 || our_errno == errno);
        compare_polls("read", n, reader, writer);
    }
}

/* The first look may come at any time, from either side first. */
static void random_run(uint32_t slots, uint32_t first_index, uint32_t rounds)
{
    uint32_t reader_looks = unit_below(rounds / 2);
    uint32_t writer_looks = unit_below(rounds / 2);
    make_both(slots, first_index);
    for (uint32_t i = 0; i < rounds; i++)
        operate(i >= reader_looks, i >= writer_looks);
    close_both();
}

TEST(polls_as_the_kernels_pipe)
{
    for (uint32_t slots = 1; slots <= 16; slots *= 2)
        for (uint32_t run = 0; run < unit_rounds(24); run++)
            random_run(slots, UINT32_MAX - run, 120);
}

/* Level by level, and the order of the first looks: before or after there is anything. */
TEST(empty_some_full_for_each_order_of_looks)
{
    for (uint32_t order = 0; order < 16; order++) {
        make_both(2, 0);
        bool reader_early = order & 1;
        bool writer_early = order & 2;
        bool leave_bytes = order & 4;
        bool reader_first = order & 8;
        compare_polls("making", 0, reader_early, writer_early);
        for (int turn = 0; turn < 3; turn++) {
            CHECK_EQ(shmp_write(ends[1], bytes, 10), write(real[1], bytes, 10));
            compare_polls("some", 10, reader_early, writer_early);
            CHECK_EQ(shmp_write(ends[1], bytes, 8192), write(real[1], bytes, 8192));
            compare_polls("full", 8192, reader_early, writer_early);
            size_t n = leave_bytes ? 10 : 20000;
            CHECK_EQ(shmp_read(ends[0], bytes, n), read(real[0], bytes, n));
            compare_polls("room", n, reader_early, writer_early);
            if (reader_first) {
                compare_polls("read end's first look", n, true, false);
                compare_polls("write end's look", n, true, true);
            } else {
                compare_polls("write end's first look", n, false, true);
                compare_polls("read end's look", n, true, true);
            }
            CHECK_EQ(shmp_read(ends[0], bytes, 30000), read(real[0], bytes, 30000));
            compare_polls("empty", 30000, true, true);
        }
        close_both();
        ends[0] = ends[1] = NULL;
    }
}

TEST(last_close_of_either_side)
{
    for (int filled = 0; filled < 3; filled++)
        for (int side = 0; side < 2; side++)
            for (int early = 0; early < 2; early++) {
                size_t n = filled == 0 ? 0 : filled == 1 ? 100 : 8192;
                make_both(2, 0);
                if (early)
                    compare_polls("early look", 0, true, true);
                if (n > 0)
                    CHECK_EQ(shmp_write(ends[1], bytes, n), write(real[1], bytes, n));
                CHECK_EQ(shmp_close(ends[side]), 0);
                close(real[side]);
                ends[side] = NULL;
                real[side] = -1;
                compare_polls("close", n, true, true);
                if (side == 1)
                    for (int i = 0; i < 3; i++) {
                        CHECK_EQ(shmp_read(ends[0], bytes, 5000), read(real[0], bytes, 5000));
                        compare_polls("read to the end", 5000, true, true);
                    }
                close_both();
                ends[0] = ends[1] = NULL;
            }
}

static _Atomic int sigpipes;

static void on_sigpipe(int signal)
{
    (void)signal;
    sigpipes++;
}

TEST(one_sigpipe_for_a_write_and_none_for_the_companions_own)
{
    signal(SIGPIPE, on_sigpipe);
    for (int filled = 0; filled < 2; filled++)
        for (int early = 0; early < 2; early++) {
            make_both(1, 0);
            if (early)
                compare_polls("early look", 0, true, true);
            if (filled)
                CHECK_EQ(shmp_write(ends[1], bytes, 4096), write(real[1], bytes, 4096));
            CHECK_EQ(shmp_close(ends[0]), 0);
            close(real[0]);
            ends[0] = NULL;
            real[0] = -1;
            sigpipes = 0;
            compare_polls("close of the reader", 0, true, true); /* syncs, and writes */
            CHECK_EQ(sigpipes, 0);
            CHECK_ERRNO(shmp_write(ends[1], bytes, 1), EPIPE);
            CHECK_EQ(sigpipes, 1);
            CHECK_EQ(shmp_write(ends[1], bytes, 0), 0);
            CHECK_EQ(sigpipes, 1);
            /* A resize is told to pollers through the companion, too. */
            CHECK_EQ(shmp_fcntl(ends[1], F_SETPIPE_SZ, 8192), 8192);
            CHECK_EQ(sigpipes, 1);
            close_both();
            ends[0] = ends[1] = NULL;
        }
}

static long (*real_write_quiet)(int, const void *, size_t);

/* The last reader goes between the ring's publish and the companion's byte. */
static long write_after_close(int fd, const void *data, size_t count)
{
    if (ends[0]) {
        CHECK_EQ(shmp_close(ends[0]), 0);
        ends[0] = NULL;
    }
    long r = real_write_quiet(fd, data, count);
    CHECK_EQ(r, -EPIPE);
    return r;
}

TEST(a_reader_that_leaves_before_the_companions_byte)
{
    signal(SIGPIPE, on_sigpipe);
    make_both(1, 0);
    compare_polls("look", 0, true, true);
    real_write_quiet = shmp_sys.write_quiet;
    shmp_sys.write_quiet = write_after_close;
    CHECK_EQ(shmp_write(ends[1], bytes, 1), 1); /* it was there when the byte was written */
    shmp_sys.write_quiet = real_write_quiet;
    CHECK(ends[0] == NULL);
    CHECK_EQ(sigpipes, 0);
    CHECK_ERRNO(shmp_write(ends[1], bytes, 1), EPIPE);
    CHECK_EQ(sigpipes, 1);
    close_both();
}

TEST(each_write_is_an_edge)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    make_both(16, 0);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    CHECK_EQ(epoll_ctl(epoll, EPOLL_CTL_ADD, shmp_fileno(ends[0]), &event), 0);
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 0);
    /* More than the companion could ever hold. */
    for (int i = 0; i < 40000; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
        CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 1);
        if (i == 20000) /* halfway, somebody reads a little: no event */
            CHECK_EQ(shmp_read(ends[0], bytes, 100), 100);
    }
    CHECK_EQ(epoll_wait(epoll, &event, 1, 0), 0);
    close(epoll);
    close_both();
}

TEST(without_a_look_the_companion_is_left_alone)
{
    int queued = -1;
    make_both(16, 0);
    int fd = ends[0]->fd;
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 3000), 3000);
        CHECK_EQ(shmp_read(ends[0], bytes, 3000), 3000);
    }
    CHECK_EQ(ioctl(fd, FIONREAD, &queued), 0);
    CHECK_EQ(queued, 1);
    CHECK_EQ(load_relaxed(&ends[0]->pipe->seg.header->wait.poll_usage), 0);
    close_both();
}

/* A process that died while it brought the companion to a level may have written down a level
 * that it did not reach.  Whoever takes over its lock must not believe it. */
static void leave_a_dead_ones_lock(struct shmp_header *h)
{
    struct shmp_live *live = &ends[0]->pipe->live;
    uint32_t earlier = shmp_live_owner(live) - (1u << SHMP_LOCK_GEN_SHIFT);
    store_relaxed(&h->companion.level, SHMP_LEVEL_FULL);
    store_relaxed(&h->companion.lock, earlier);
}

TEST(a_level_that_a_dead_one_wrote_down_is_not_believed)
{
    struct shmp_header *h;
    make_both(1, 0);
    h = ends[0]->pipe->seg.header;
    compare_polls("look", 0, true, true);
    leave_a_dead_ones_lock(h);
    CHECK_EQ(shmp_write(ends[1], bytes, 4096), write(real[1], bytes, 4096));
    compare_polls("write to full", 4096, true, true);
    CHECK_EQ(shmp_read(ends[0], bytes, 4096), read(real[0], bytes, 4096));
    compare_polls("read", 4096, true, true);

    leave_a_dead_ones_lock(h);
    shmp_companion_prime(&ends[1]->pipe->live, ends[1]->fd, O_WRONLY);
    CHECK_EQ(load_relaxed(&h->companion.lock), 0);
    CHECK_EQ(shmp_write(ends[1], bytes, 4096), write(real[1], bytes, 4096));
    compare_polls("write to full after priming", 4096, true, true);
    CHECK_EQ(shmp_read(ends[0], bytes, 4096), read(real[0], bytes, 4096));

    leave_a_dead_ones_lock(h);
    CHECK(!shmp_never_had_writers(ends[0]));
    CHECK_EQ(shmp_write(ends[1], bytes, 4096), write(real[1], bytes, 4096));
    compare_polls("write to full after asking for writers", 4096, true, true);
    close_both();
}

/* ---- A look that is interrupted, and the next one ------------------------------------------------ */

static struct shmp_sys_table kernel;
static int places_left;
static int interruption;

/* Before and behind each of the companion's calls. */
static void interrupt_here(int fd)
{
    if ((fd == ends[0]->fd || fd == ends[1]->fd) && places_left-- == 0)
        raise(interruption);
}

static long interrupted_read(int fd, void *buffer, size_t count)
{
    interrupt_here(fd);
    long r = kernel.read(fd, buffer, count);
    interrupt_here(fd);
    return r;
}

static long interrupted_write(int fd, const void *buffer, size_t count)
{
    interrupt_here(fd);
    long r = kernel.write_quiet(fd, buffer, count);
    interrupt_here(fd);
    return r;
}

static long interrupted_fcntl(int fd, int command, long argument)
{
    interrupt_here(fd);
    long r = kernel.fcntl(fd, command, argument);
    interrupt_here(fd);
    return r;
}

static long interrupted_ioctl(int fd, unsigned long request, void *argument)
{
    interrupt_here(fd);
    long r = kernel.ioctl(fd, request, argument);
    interrupt_here(fd);
    return r;
}

/* In a child, which gets that signal at the place of that number. */
static pid_t look_in_a_child(int side, int place, int signal_number)
{
    pid_t child = unit_fork();
    if (child != 0)
        return child;
    kernel = shmp_sys;
    places_left = place;
    interruption = signal_number;
    shmp_sys.read = interrupted_read;
    shmp_sys.write_quiet = interrupted_write;
    shmp_sys.fcntl = interrupted_fcntl;
    shmp_sys.ioctl = interrupted_ioctl;
    CHECK(shmp_fileno(ends[side]) >= 0);
    shmp_sys = kernel;
    unit_done();
}

/* With nothing to do for that side: its poll may say so and no more. */
static void make_for(int side)
{
    make_both(1, 0);
    if (side == SHMP_SIDE_WRITERS)
        CHECK_EQ(shmp_write(ends[1], bytes, 4096), write(real[1], bytes, 4096));
}

static void look(int side, const char *after, int place)
{
    compare_polls(after, (size_t)place, side == SHMP_SIDE_READERS, side == SHMP_SIDE_WRITERS);
}

TEST(a_look_that_dies_around_any_of_its_calls)
{
    for (int side = 0; side < 2; side++) {
        int status = SIGKILL;
        int place = 0;
        for (; status == SIGKILL; place++) {
            make_for(side);
            status = unit_wait(look_in_a_child(side, place, SIGKILL));
            look(side, "a look that died at place", place);
            close_both();
        }
        CHECK_EQ(status, 0);
        CHECK(place > 2);
    }
}

TEST(a_look_beside_one_that_stands_at_any_of_its_calls)
{
    for (int side = 0; side < 2; side++) {
        int status = 0;
        int place = 0;
        do {
            make_for(side);
            pid_t first = look_in_a_child(side, place, SIGSTOP);
            CHECK_EQ(waitpid(first, &status, WUNTRACED), first);
            pid_t second = WIFSTOPPED(status) ? unit_fork() : -1;
            if (second == 0) {
                look(side, "half a look, up to place", place);
                unit_done();
            }
            if (second > 0) {
                unit_await_futex_or_end(second);
                kill(first, SIGCONT);
                unit_join(second);
                unit_join(first);
            }
            close_both();
            place++;
        } while (WIFSTOPPED(status));
        CHECK_EQ(status, 0);
        CHECK(place > 2);
    }
}
