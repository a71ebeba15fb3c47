/* test_turn.c - what happens in the middle of a turn, while its owner copies.
 *
 * The caller's buffer has a page that cannot be touched.  A copy that comes there stops in a
 * SIGSEGV handler, in the middle of the turn, with its locks held; the handler does what the test
 * wants to happen at this instant, gives the page its permissions, and the copy goes on.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "companion.h"
#include "lock.h"
#include "pipe.h"
#include "sys.h"
#include "unit.h"

#define STEP ((size_t)SHMP_STEP_SLOTS * SHMP_SLOT_SIZE)
#define LONG (9 * STEP) /* its first steps are long ones */

static shmp_end *ends[2];
static struct shmp_sys_table kernel;
static unsigned char *buffer; /* the caller's, LONG bytes */
static unsigned char *trap[2];
static void (*in_the_middle[2])(void);
static unsigned char got[LONG];

static struct shmp_header *header(void)
{
    return ends[0]->pipe->seg.header;
}

static void touched(int signal, siginfo_t *info, void *context)
{
    unsigned char *at = info->si_addr;
    (void)signal;
    (void)context;
    for (int i = 0; i < 2; i++)
        if (trap[i] && at >= trap[i] && at < trap[i] + SHMP_PAGE) {
            if (mprotect(trap[i], SHMP_PAGE, PROT_READ | PROT_WRITE) < 0)
                _exit(99);
            trap[i] = NULL;
            in_the_middle[i]();
            return;
        }
    _exit(98);
}

static void set_trap(int i, size_t offset, void (*then)(void))
{
    in_the_middle[i] = then;
    trap[i] = buffer + offset;
    CHECK_EQ(mprotect(trap[i], SHMP_PAGE, PROT_NONE), 0);
}

static void make(uint64_t capacity)
{
    struct shmp_options options = {.capacity = capacity, .first_index = UINT32_MAX - 2};
    struct sigaction action = {.sa_sigaction = touched, .sa_flags = SA_SIGINFO | SA_NODEFER};
    CHECK_EQ(shmp_pipe2_with(ends, O_CLOEXEC | O_NONBLOCK, &options), 0);
    buffer = mmap(NULL, LONG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(buffer != MAP_FAILED);
    CHECK_EQ(sigaction(SIGSEGV, &action, NULL), 0);
}

static void finish(void)
{
    munmap(buffer, LONG);
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}

static short polled(int i, short events)
{
    struct pollfd p = {.fd = ends[i]->fd, .events = events};
    CHECK(poll(&p, 1, 0) >= 0);
    return p.revents;
}

static void die(void)
{
    raise(SIGKILL);
}

/* ---- A long operation, with somebody who looks ------------------------------------------------ */

/* Whoever looks follows what he is told, and takes it all, the companion's bytes included. */
static void read_all_of_it(void)
{
    CHECK_EQ(polled(0, POLLIN), POLLIN);
    CHECK(shmp_read(ends[0], got, LONG) > 0);
    CHECK_EQ(polled(0, POLLIN), 0);
}

TEST(what_a_long_write_adds_after_a_read_is_told)
{
    make(16 * STEP);
    CHECK(shmp_fileno(ends[0]) >= 0);
    set_trap(0, STEP, read_all_of_it);
    CHECK_EQ(shmp_write(ends[1], buffer, LONG), LONG);
    CHECK(trap[0] == NULL);
    CHECK_EQ(polled(0, POLLIN), POLLIN);
    CHECK_EQ(shmp_read(ends[0], got, LONG), LONG - STEP);
    CHECK_EQ(polled(0, POLLIN), 0);
    finish();
}

TEST(a_later_step_of_a_long_write_is_foretold)
{
    make(16 * STEP);
    CHECK(shmp_fileno(ends[0]) >= 0);
    pid_t child = unit_fork();
    if (child == 0) {
        set_trap(0, STEP, read_all_of_it);
        set_trap(1, 2 * STEP, die); /* the second step is published, and nothing synced */
        shmp_write(ends[1], buffer, LONG);
        unit_done();
    }
    CHECK_EQ(unit_wait(child), SIGKILL);
    CHECK(!shmp_ring_looks_empty(header()));
    CHECK_EQ(polled(0, POLLIN), POLLIN);
    CHECK_EQ(shmp_read(ends[0], got, LONG), STEP);
    finish();
}

static void fill_it(void)
{
    CHECK_EQ(polled(1, POLLOUT), POLLOUT);
    CHECK(shmp_write(ends[1], got, LONG) > 0);
    CHECK_EQ(polled(1, POLLOUT), 0);
}

TEST(a_later_step_of_a_long_read_is_foretold)
{
    make(8 * STEP);
    CHECK(shmp_fileno(ends[1]) >= 0);
    CHECK_EQ(shmp_write(ends[1], buffer, LONG), 8 * STEP);
    CHECK_EQ(polled(1, POLLOUT), 0);
    pid_t child = unit_fork();
    if (child == 0) {
        set_trap(0, STEP, fill_it);
        set_trap(1, 2 * STEP, die);
        shmp_read(ends[0], buffer, LONG);
        unit_done();
    }
    CHECK_EQ(unit_wait(child), SIGKILL);
    CHECK(!shmp_ring_looks_full(header(), shmp_max_usage(header())));
    CHECK_EQ(polled(1, POLLOUT), POLLOUT);
    finish();
}

static int wanted; /* gates */
static int taken;

static void let_another_have_the_companion(void)
{
    unit_pass(wanted);
    unit_await(taken);
}

/* Between two steps of a long operation another process takes the companion's lock, and keeps it until
 * the operation waits for it: with its step ready, and not noted.  A sync beside a note leaves the
 * companion as it is, and pollers told of what may not come for long. */
static void a_step_waits_for_the_companion(int side, bool (*is_noted)(struct shmp_header *header))
{
    wanted = unit_gate();
    taken = unit_gate();
    make(8 * STEP);
    CHECK(shmp_fileno(ends[side]) >= 0);
    if (side == SHMP_SIDE_READERS)
        CHECK_EQ(shmp_write(ends[1], buffer, LONG), 8 * STEP);
    pid_t operating = getpid();
    pid_t child = unit_fork();
    if (child == 0) {
        unit_await(wanted);
        shmp_companion_lock_now(&ends[0]->pipe->live);
        unit_pass(taken);
        UNTIL((load_seq_cst(&header()->companion.lock) & SHMP_LOCK_WAITERS) != 0);
        unit_await_futex(operating);
        CHECK(!is_noted(header()));
        shmp_companion_unlock(&ends[0]->pipe->live);
        unit_done();
    }
    set_trap(0, STEP, let_another_have_the_companion);
    if (side == SHMP_SIDE_READERS)
        CHECK_EQ(shmp_read(ends[0], buffer, LONG), 8 * STEP);
    else
        CHECK_EQ(shmp_write(ends[1], buffer, LONG), 8 * STEP);
    CHECK(trap[0] == NULL);
    unit_join(child);
    finish();
    close(wanted);
    close(taken);
}

TEST(a_put_is_noted_in_the_companions_lock)
{
    a_step_waits_for_the_companion(SHMP_SIDE_WRITERS, shmp_ring_put_is_noted);
}

TEST(a_take_is_noted_in_the_companions_lock)
{
    a_step_waits_for_the_companion(SHMP_SIDE_READERS, shmp_ring_take_is_noted);
}

/* ---- A step that was told, and not made ---------------------------------------------------------- */

static long write_and_die(int fd, const void *bytes, size_t count)
{
    kernel.write_quiet(fd, bytes, count);
    die();
    return -EINTR;
}

static void tell_of_a_write_and_die(void)
{
    make(16 * STEP);
    CHECK(shmp_fileno(ends[0]) >= 0);
    pid_t child = unit_fork();
    if (child == 0) {
        kernel = shmp_sys;
        shmp_sys.write_quiet = write_and_die;
        shmp_write(ends[1], buffer, 100);
        unit_done();
    }
    CHECK_EQ(unit_wait(child), SIGKILL);
    CHECK(shmp_ring_looks_empty(header()));
    CHECK_EQ(polled(0, POLLIN), POLLIN);
}

TEST(what_the_dead_have_told_of_is_there_for_a_read)
{
    tell_of_a_write_and_die();
    CHECK_EQ(shmp_read(ends[0], got, LONG), 100);
    CHECK_EQ(polled(0, POLLIN), 0);
    finish();
}

TEST(what_the_dead_have_told_of_is_there_for_a_read_in_two_halves)
{
    struct shmp_turn turn;
    tell_of_a_write_and_die();
    shmp_companion_lock_now(&ends[0]->pipe->live); /* from the dead, and not the ring's */
    shmp_companion_unlock(&ends[0]->pipe->live);
    CHECK_EQ(shmp_read_begin(ends[0], LONG, &turn), 100);
    CHECK_EQ(shmp_read_finish(ends[0], got, 100, &turn), 100);
    CHECK_EQ(polled(0, POLLIN), 0);
    finish();
}

/* ---- A turn that began before the first look --------------------------------------------------- */

static _Atomic uint32_t *lock_of_the_turn;
static uint32_t side_that_looks;

/* The looker is through, or waits for us. */
static void let_somebody_look(void)
{
    struct shmp_header *h = header();
    UNTIL((load_seq_cst(&h->companion.in_step) & side_that_looks) != 0 ||
          (load_seq_cst(lock_of_the_turn) & SHMP_LOCK_WAITERS) != 0);
}

static int inside; /* a gate */

static void say_and_let_somebody_look(void)
{
    unit_pass(inside);
    let_somebody_look();
}

/* The next thing the turn wants of the kernel after its change, whatever it is. */
static uint64_t tail_before;
static uint32_t head_before;

static void die_if_changed(void)
{
    struct shmp_header *h = header();
    if (load_seq_cst(&h->head) != head_before || load_seq_cst(&h->tail) != tail_before)
        die();
}

static long dying_write(int fd, const void *bytes, size_t count)
{
    die_if_changed();
    return kernel.write_quiet(fd, bytes, count);
}

static long dying_read(int fd, void *bytes, size_t count)
{
    die_if_changed();
    return kernel.read(fd, bytes, count);
}

static long dying_wake(const void *address, int count)
{
    die_if_changed();
    return kernel.futex_wake(address, count);
}

static void die_after_the_change(void)
{
    kernel = shmp_sys;
    head_before = load_seq_cst(&header()->head);
    tail_before = load_seq_cst(&header()->tail);
    shmp_sys.write_quiet = dying_write;
    shmp_sys.read = dying_read;
    shmp_sys.futex_wake = dying_wake;
}

TEST(a_first_look_sees_a_write_that_began_before_it)
{
    make(16 * STEP);
    inside = unit_gate();
    lock_of_the_turn = &header()->w.lock;
    side_that_looks = SHMP_POLL_READERS;
    pid_t child = unit_fork();
    if (child == 0) {
        die_after_the_change();
        set_trap(0, 0, say_and_let_somebody_look);
        shmp_write(ends[1], buffer, 100);
        unit_done();
    }
    unit_await(inside);
    CHECK(shmp_fileno(ends[0]) >= 0);
    CHECK_EQ(unit_wait(child), SIGKILL);
    CHECK(!shmp_ring_looks_empty(header()));
    CHECK_EQ(polled(0, POLLIN), POLLIN);
    close(inside);
    finish();
}

TEST(a_first_look_sees_a_read_that_began_before_it)
{
    make(STEP);
    inside = unit_gate();
    lock_of_the_turn = &header()->r.lock;
    side_that_looks = SHMP_POLL_WRITERS;
    CHECK_EQ(shmp_write(ends[1], buffer, STEP), STEP);
    pid_t child = unit_fork();
    if (child == 0) {
        die_after_the_change();
        set_trap(0, 0, say_and_let_somebody_look);
        shmp_read(ends[0], buffer, STEP);
        unit_done();
    }
    unit_await(inside);
    CHECK(shmp_fileno(ends[1]) >= 0);
    CHECK_EQ(unit_wait(child), SIGKILL);
    CHECK(shmp_ring_looks_empty(header()));
    CHECK_EQ(polled(1, POLLOUT), POLLOUT);
    finish();
    close(inside);
}

/* Who takes the companion's lock from the dead does not know its level: it may be full. */
TEST(room_is_foretold_from_an_unknown_level)
{
    make(STEP);
    CHECK(shmp_fileno(ends[1]) >= 0);
    CHECK_EQ(shmp_write(ends[1], buffer, STEP), STEP);
    CHECK_EQ(polled(1, POLLOUT), 0);
    uint32_t earlier = shmp_live_owner(&ends[0]->pipe->live) - (1u << SHMP_LOCK_GEN_SHIFT);
    store_relaxed(&header()->companion.lock, earlier);
    pid_t child = unit_fork();
    if (child == 0) {
        set_trap(0, 0, die_after_the_change);
        shmp_read(ends[0], buffer, STEP);
        unit_done();
    }
    int status = unit_wait(child);
    CHECK(status == SIGKILL || status == 0); /* it may want nothing more of the kernel */
    CHECK(shmp_ring_looks_empty(header()));
    CHECK_EQ(polled(1, POLLOUT), POLLOUT);
    finish();
}

/* A reader that sees the flag of a look that is not over must leave the waiting byte: a write that
 * began before the flag may still publish and die, and only a writer can put a byte in. */
TEST(the_waiting_byte_stays_until_the_look_is_over)
{
    int queued = -1;
    make(16 * STEP);
    shmp_companion_announce(header(), SHMP_POLL_READERS);
    CHECK_ERRNO(shmp_read(ends[0], got, 1), EAGAIN);
    CHECK_EQ(shmp_sys.ioctl(ends[0]->fd, FIONREAD, &queued), 0);
    CHECK_EQ(queued, 1);
    CHECK(shmp_fileno(ends[0]) >= 0);
    CHECK_EQ(polled(0, POLLIN), 0);
    finish();
}

/* ---- Beside a process that is stopped in the companion's lock ---------------------------------------- */

static pid_t stopped_in_the_companions_lock(shmp_end *end)
{
    pid_t child = unit_fork();
    if (child == 0) {
        shmp_companion_lock_now(&end->pipe->live);
        raise(SIGSTOP);
        shmp_companion_unlock(&end->pipe->live);
        unit_done();
    }
    unit_await_state(child, 'T');
    return child;
}

static void go_on(pid_t child)
{
    CHECK_EQ(kill(child, SIGCONT), 0);
    unit_join(child);
}

/* Somebody has announced himself since the turn began, and waits for its end. */
TEST(a_turn_that_began_before_the_first_look_waits_for_nobody)
{
    for (int side = 0; side < 2; side++) {
        struct shmp_turn turn;
        make(4096);
        pid_t owner = stopped_in_the_companions_lock(ends[0]);
        CHECK_EQ(shmp_turn_begin(ends[side], side, false, &turn), 0);
        shmp_companion_announce(header(), SHMP_POLL_READERS | SHMP_POLL_WRITERS);
        CHECK(!shmp_turn_hold(ends[side], side, &turn));
        CHECK(!turn.held);
        shmp_turn_end(ends[side], side, &turn, false, true);
        CHECK_EQ(load_relaxed(side == SHMP_SIDE_READERS ? &header()->r.lock : &header()->w.lock), 0);
        go_on(owner);
        finish();
    }
}

/* A FIFO's read end whose POLLHUP is silent asks read() for writers, in the companion's lock (FO-16). */
static void open_deaf(void)
{
    const char *name = unit_name();
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    ends[0] = shmp_open(name, O_RDONLY | O_NONBLOCK);
    CHECK(ends[0] != NULL);
    CHECK_EQ(shmp_unlink(name), 0);
}

TEST(who_asks_for_writers_does_not_wait_for_a_stopped_one)
{
    open_deaf();
    CHECK_EQ(shmp_read(ends[0], got, 10), 0);
    pid_t owner = stopped_in_the_companions_lock(ends[0]);
    CHECK_ERRNO(shmp_read(ends[0], got, 10), EAGAIN);
    go_on(owner);
    CHECK_EQ(shmp_read(ends[0], got, 10), 0);
    CHECK_EQ(load_relaxed(&header()->wait.poll_usage), 0);
    CHECK_EQ(shmp_close(ends[0]), 0);
}

static bool looker_is_there;

static long read_when_somebody_looks(int fd, void *to, size_t n)
{
    if (!looker_is_there) {
        looker_is_there = true;
        unit_pass(inside);
        UNTIL(((load_seq_cst(&header()->r.lock) | load_seq_cst(&header()->w.lock)) &
               SHMP_LOCK_WAITERS) != 0);
    }
    return kernel.read(fd, to, n);
}

/* He announces himself, and then the flag is taken back by the one who found no writers. */
TEST(a_first_look_beside_who_asks_for_writers)
{
    open_deaf();
    inside = unit_gate();
    pid_t looker = unit_fork();
    if (looker == 0) {
        unit_await(inside);
        CHECK(shmp_fileno(ends[0]) >= 0);
        CHECK((load_relaxed(&header()->wait.poll_usage) & SHMP_POLL_READERS) != 0);
        unit_done();
    }
    kernel = shmp_sys;
    shmp_sys.read = read_when_somebody_looks;
    CHECK_EQ(shmp_read(ends[0], got, 10), 0);
    shmp_sys = kernel;
    unit_join(looker);
    CHECK((load_relaxed(&header()->wait.poll_usage) & SHMP_POLL_READERS) != 0);
    close(inside);
    CHECK_EQ(shmp_close(ends[0]), 0);
}
