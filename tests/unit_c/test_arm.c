/* test_arm.c - readiness on demand: armed ends sleep exactly while there is nothing to do. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "companion.h"
#include "lock.h"
#include "pipe.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];
static unsigned char bytes[70000];

static void make(uint64_t capacity)
{
    struct shmp_options options = {.capacity = capacity, .first_index = UINT32_MAX - 5};
    CHECK_EQ(shmp_pipe2_with(ends, O_CLOEXEC | O_NONBLOCK, &options), 0);
}

static void close_both(void)
{
    for (int i = 0; i < 2; i++)
        if (ends[i])
            CHECK_EQ(shmp_close(ends[i]), 0);
}

static short polled(int which)
{
    struct pollfd p = {.fd = shmp_descriptor(ends[which]), .events = which ? POLLOUT : POLLIN};
    CHECK(poll(&p, 1, 0) >= 0);
    return p.revents;
}

static uint32_t usage(void)
{
    return load_relaxed(&ends[0]->pipe->seg.header->wait.poll_usage);
}

TEST(who_has_not_armed_is_ready_and_costs_nothing)
{
    make(8192);
    CHECK_EQ(polled(0), POLLIN);
    CHECK_EQ(polled(1), POLLOUT);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 8192), 8192);
        CHECK_EQ(polled(1), POLLOUT);
        CHECK_EQ(shmp_read(ends[0], bytes, 8192), 8192);
        CHECK_EQ(polled(0), POLLIN);
    }
    CHECK_EQ(usage(), 0);
    close_both();
}

TEST(an_armed_reader_is_told_once_and_stays_ready)
{
    make(8192);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(shmp_arm(ends[0], POLLIN), 0);
        CHECK_EQ(polled(0), 0);
        CHECK_EQ(usage(), SHMP_ARMED_READERS);
        CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
        CHECK_EQ(polled(0), POLLIN);
        CHECK_EQ(usage(), 0);
        CHECK_EQ(shmp_write(ends[1], bytes, 100), 100);
        CHECK_EQ(shmp_read(ends[0], bytes, 8192), 101);
        CHECK_EQ(polled(0), POLLIN); /* until it arms */
        CHECK_EQ(shmp_write(ends[1], bytes, 100), 100);
        CHECK_EQ(usage(), 0);
        CHECK_EQ(shmp_arm(ends[0], POLLIN), 1); /* there is something to read */
        CHECK_EQ(polled(0), POLLIN);
        CHECK_EQ(shmp_read(ends[0], bytes, 8192), 100);
        CHECK_EQ(polled(0), POLLIN);
    }
    close_both();
}

TEST(an_armed_writer_is_told_once_and_stays_ready)
{
    make(8192);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 8192), 8192);
        CHECK_EQ(polled(1), POLLOUT); /* until it arms */
        CHECK_EQ(shmp_arm(ends[1], POLLOUT), 0);
        CHECK_EQ(polled(1), 0);
        CHECK_EQ(shmp_read(ends[0], bytes, 100), 100); /* frees no slot */
        CHECK_EQ(polled(1), 0);
        CHECK_EQ(shmp_read(ends[0], bytes, 4096), 4096);
        CHECK_EQ(polled(1), POLLOUT);
        CHECK_EQ(usage(), 0);
        CHECK_EQ(shmp_read(ends[0], bytes, 8192), 8192 - 4196);
    }
    CHECK_EQ(shmp_arm(ends[1], POLLOUT), 1); /* there is room */
    CHECK_EQ(polled(1), POLLOUT);
    close_both();
}

TEST(a_resize_tells_an_armed_writer)
{
    make(4096);
    CHECK_EQ(shmp_write(ends[1], bytes, 4096), 4096);
    CHECK_EQ(shmp_arm(ends[1], POLLOUT), 0);
    CHECK_EQ(polled(1), 0);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 8192), 8192);
    CHECK_EQ(polled(1), POLLOUT);
    close_both();
}

TEST(the_last_close_tells_whoever_is_armed)
{
    for (int which = 0; which < 2; which++) {
        make(4096);
        if (which)
            CHECK_EQ(shmp_write(ends[1], bytes, 4096), 4096);
        CHECK_EQ(shmp_arm(ends[which], which ? POLLOUT : POLLIN), 0);
        CHECK_EQ(polled(which), 0);
        CHECK_EQ(shmp_close(ends[!which]), 0);
        ends[!which] = NULL;
        CHECK(polled(which) != 0);
        close_both();
        ends[0] = ends[1] = NULL;
    }
}

TEST(only_the_ends_own_side_can_be_armed)
{
    make(4096);
    CHECK_ERRNO(shmp_arm(ends[0], POLLOUT), EBADF);
    CHECK_ERRNO(shmp_arm(ends[1], POLLIN), EBADF);
    CHECK_ERRNO(shmp_arm(ends[0], POLLIN | POLLOUT), EINVAL);
    close_both();
}

/* Whatever happens, and whoever looks besides: nobody armed sleeps beside data or room, and who
 * has armed in vain does not spin. */
TEST(no_order_of_operations_leaves_an_armed_end_asleep)
{
    for (uint32_t run = 0; run < unit_rounds(60); run++) {
        bool asleep[2] = {false, false};
        uint32_t looks = unit_below(4);
        make(4096u << unit_below(4));
        for (int i = 0; i < 300; i++) {
            size_t n = unit_below(2) ? 1 + unit_below(200) : 1 + unit_below(20000);
            switch (unit_below(4)) {
            case 0:
                shmp_write(ends[1], bytes, n);
                break;
            case 1:
                shmp_read(ends[0], bytes, n);
                break;
            default: {
                int which = (int)unit_below(2);
                asleep[which] = shmp_arm(ends[which], which ? POLLOUT : POLLIN) == 0;
                if (asleep[which])
                    CHECK_EQ(polled(which), 0);
            }
            }
            if (looks != 0 && i == 100 * (int)looks)
                shmp_fileno(ends[looks & 1]);
            struct shmp_header *h = ends[0]->pipe->seg.header;
            if (!shmp_ring_looks_empty(h))
                CHECK_EQ(polled(0), POLLIN);
            if (!shmp_ring_looks_full(h, shmp_max_usage(h)))
                CHECK_EQ(polled(1), POLLOUT);
        }
        close_both();
    }
}

/* I3 of arm.c: a turn that began before must end before. */
static _Atomic int armed_result = -1;

static void *arm_reader(void *unused)
{
    (void)unused;
    armed_result = shmp_arm(ends[0], POLLIN);
    return NULL;
}

TEST(arming_waits_for_a_write_that_has_not_seen_it)
{
    pthread_t thread;
    make(4096);
    struct shmp_header *h = ends[0]->pipe->seg.header;
    struct shmp_turn turn;
    CHECK_EQ(shmp_turn_begin(ends[1], SHMP_SIDE_WRITERS, true, &turn), 0);
    CHECK(!turn.held);
    CHECK_EQ(pthread_create(&thread, NULL, arm_reader, NULL), 0);
    UNTIL(load_relaxed(&h->w.lock) & SHMP_LOCK_WAITERS);
    CHECK_EQ(armed_result, -1);
    CHECK_EQ(usage(), SHMP_ARMED_READERS);
    shmp_turn_end(ends[1], SHMP_SIDE_WRITERS, &turn, false, false);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(armed_result, 0);
    CHECK_EQ(polled(0), 0);
    close_both();
}

/* It may have died before or after it made its change, which nobody was told of. */
TEST(arming_passes_a_writer_that_died_in_its_turn)
{
    for (int changed = 0; changed < 2; changed++) {
        make(4096);
        struct shmp_header *h = ends[0]->pipe->seg.header;
        struct shmp_live *live = &ends[0]->pipe->live;
        if (changed)
            CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
        store_relaxed(&h->w.lock, shmp_live_owner(live) - (1u << SHMP_LOCK_GEN_SHIFT));
        CHECK_EQ(shmp_arm(ends[0], POLLIN), changed);
        CHECK_EQ(load_relaxed(&h->w.lock), 0);
        CHECK_EQ(polled(0), changed ? POLLIN : 0);
        CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
        CHECK_EQ(polled(0), POLLIN);
        close_both();
    }
}

/* A3 comes after A2: until then the byte stays that a write begun before will not bring. */
TEST(who_has_only_announced_to_sleep_leaves_the_waiting_byte)
{
    make(4096);
    struct shmp_header *h = ends[0]->pipe->seg.header;
    shmp_companion_announce(h, SHMP_ARMED_READERS); /* and dies */
    CHECK_ERRNO(shmp_read(ends[0], bytes, 1), EAGAIN);
    CHECK_EQ(polled(0), POLLIN);
    CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
    CHECK_EQ(usage(), 0);
    CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
    CHECK_EQ(polled(0), POLLIN);
    close_both();
}

static long die_instead_of_asking(int fd, unsigned long request, void *argument)
{
    if (fd == ends[0]->fd)
        raise(SIGKILL);
    int r = ioctl(fd, request, argument);
    return r < 0 ? -errno : r;
}

/* A3 takes the companion's lock from a reader who has noted his take and not made it: nothing is full then,
 * its sync tells that, and takes off what has just been armed.  If the bit came only behind that it would stay,
 * of a side that nobody looks at, and make the companion say full to the first who looks, beside an empty ring. */
TEST(who_is_told_while_he_arms_is_not_armed)
{
    const char *name = unit_name();
    struct shmp_options options = {.capacity = 8192};
    CHECK_EQ(shmp_mkfifo_with(name, 0600, &options), 0);
    shmp_end *both = shmp_open(name, O_RDWR | O_NONBLOCK);
    ends[0] = shmp_open(name, O_RDONLY | O_NONBLOCK);
    ends[1] = shmp_open(name, O_WRONLY | O_NONBLOCK);
    CHECK(both && ends[0] && ends[1]);
    CHECK_EQ(shmp_unlink(name), 0);
    struct shmp_header *h = both->pipe->seg.header;
    CHECK_EQ(shmp_write(ends[1], bytes, 8192), 8192);
    shmp_companion_announce(h, SHMP_ARMED_WRITERS);
    CHECK_EQ(shmp_pass_through(both, SHMP_SIDE_READERS, true), 0);
    pid_t reader = unit_fork();
    if (reader == 0) {
        shmp_sys.ioctl = die_instead_of_asking;
        shmp_read(ends[0], bytes, 4096);
        unit_done();
    }
    CHECK_EQ(unit_wait(reader), SIGKILL);
    CHECK(shmp_ring_take_is_noted(h));
    CHECK_EQ(shmp_companion_arm(&both->pipe->live, both->fd, both->mode, SHMP_ARMED_WRITERS, true), 0);
    CHECK_EQ(polled(1), POLLOUT);
    CHECK_EQ(load_relaxed(&h->companion.in_step) & ~usage(), 0);

    CHECK_ERRNO(shmp_write(both, bytes, 1), EAGAIN);
    CHECK_EQ(shmp_read(ends[0], bytes, 8192), 8192);
    CHECK_EQ(shmp_arm(ends[0], POLLIN), 0);
    CHECK_EQ(shmp_write(ends[1], bytes, 8192), 8192);
    CHECK_EQ(shmp_read(ends[0], bytes, 8192), 8192);
    CHECK(shmp_fileno(ends[1]) >= 0);
    CHECK_EQ(polled(1), POLLOUT);
    CHECK_EQ(shmp_close(both), 0);
    close_both();
}
