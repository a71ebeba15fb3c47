/* block.c - spinning and sleeping until a side can go on. */
#include <errno.h>

#include "companion.h"
#include "pipe.h"
#include "sys.h"
#include "wait.h"

int (*shmp_on_tick)(void);

/* A signal whose handler only notes it, as Python's do, does not interrupt a sleep that begins after
 * it.  So the binding looks for such notes right before a sleep; but that may take its interpreter
 * lock, so not more often than every 5 ms.  Whoever goes to sleep after a look that is not fresh is cut
 * short, and looks then: a turn, or the first meeting with many, takes milliseconds (H50). */
#define LOOKED_RECENTLY_NS UINT64_C(5000000)
#define FRESH_NS UINT64_C(50000)
static _Thread_local uint64_t looked_ns;

static bool is_stale(uint64_t now)
{
    return shmp_on_tick != NULL && now - looked_ns >= FRESH_NS;
}

void shmp_looked_now(void)
{
    looked_ns = shmp_now_ns();
}

static bool tick_raises(void)
{
    shmp_looked_now();
    return shmp_on_tick() < 0;
}

#define SPIN_NS UINT64_C(50000) /* one wake latency: what a sleep would cost anyway */

/* The condition this side sleeps for, without its other half, the last close (WK-12). */
static bool ready(struct shmp_header *h, int side)
{
    return side == SHMP_SIDE_READERS ? !shmp_ring_looks_empty(h)
                                     : !shmp_ring_looks_full(h, shmp_max_usage(h));
}

static bool spin_for(struct shmp_header *h, int side, int looks)
{
    for (int i = 0; i < looks; i++) {
        if (ready(h, side))
            return true;
        cpu_relax();
    }
    return false;
}

/* A stream's reader that looks at once finds one message, and takes the lines of head and
 * slot words away from the writer each time.  So after a few waits that were over almost at
 * once it stays away for about a microsecond first, and finds a batch (limits 2.3).  If it finds
 * a single operation after all, this is a dialogue, in which each side waits for the other's
 * answer, and staying away only delays it. */
#define STAY_AWAY 40 /* pauses, about 1 us */
#define STREAM 4     /* short waits in a row */
#define SHORT_WAIT_NS 150
#define LOOKS 32 /* between two looks at the clock, about 0.8 us */

static bool stay_away(struct shmp_end *end, int side)
{
    struct shmp_header *h = end->pipe->seg.header;
    const _Atomic uint64_t *calls = side == SHMP_SIDE_READERS ? &h->w.calls : &h->r.calls;
    uint64_t before = load_relaxed(calls);
    for (int i = 0; i < STAY_AWAY; i++)
        cpu_relax();
    if (load_relaxed(calls) - before < 2)
        store_relaxed(&end->short_waits, 0);
    return ready(h, side);
}

bool shmp_can_spin(struct shmp_end *end, int side)
{
    struct shmp_header *h = end->pipe->seg.header;
    /* On one CPU the other side can only run when we do not (limits 3j). */
    return load_relaxed(side == SHMP_SIDE_READERS ? &h->w.cpu : &h->r.cpu) != shmp_cpu();
}

/* Each spin that was in vain halves the next one: with more processes than CPUs it keeps the one
 * that it waits for from running.  One that pays, or a sleep that was over in the time of one, makes
 * it whole again. */
#define MOST_VAIN 4

bool shmp_spin(struct shmp_end *end, int side)
{
    struct shmp_header *h = end->pipe->seg.header;
    if (!shmp_can_spin(end, side))
        return ready(h, side);
    if (load_relaxed(&end->short_waits) >= STREAM && stay_away(end, side))
        return true;
    uint8_t vain = load_relaxed(&end->vain);
    uint64_t start = shmp_now_ns();
    while (!spin_for(h, side, LOOKS)) {
        if (shmp_now_ns() - start >= SPIN_NS >> vain || !shmp_can_spin(end, side)) {
            store_relaxed(&end->short_waits, 0);
            if (vain < MOST_VAIN)
                store_relaxed(&end->vain, vain + 1);
            return false;
        }
    }
    store_relaxed(&end->vain, 0);
    if (shmp_now_ns() - start >= SHORT_WAIT_NS)
        store_relaxed(&end->short_waits, 0);
    else if (load_relaxed(&end->short_waits) < STREAM)
        count_locked(&end->short_waits, 1);
    return true;
}

/* Before it sleeps again: waits for a change that is being made this very moment.  Whoever makes it
 * may have woken us ahead of it, or ahead of it somebody who has died since, and owes no wake after
 * it (shmp_wake_ahead).  0; -EINTR. */
static int wait_for_the_lock(struct shmp_end *end, int side)
{
    struct shmp_header *h = end->pipe->seg.header;
    int other = shmp_other_side(side);
    /* Acquire: who was woken ahead sees the lock taken, or the change made. */
    if (load_acquire(other == SHMP_SIDE_READERS ? &h->r.lock : &h->w.lock) == 0 || ready(h, side))
        return 0;
    /* Nobody makes one any more: it is a dead one's lock, or one of our side is in it, who may be stopped. */
    if (shmp_side_is_hung_up(end, other))
        return 0;
    int r = shmp_side_lock(end, other, true);
    if (r == 0)
        shmp_side_unlock(end, other);
    else if (r == -EINTR && !ready(h, side))
        shmp_side_wake_one(h, side); /* somebody else must wait for it then */
    else
        r = 0;
    return r;
}

/* Sleepers of the other side could go on, and do not: whoever was woken, or was to wake them, is
 * stopped (WK-10).  Nobody of this side sleeps for long beside that. */
struct stall {
    uint64_t tail;
    uint32_t head;
    uint64_t since; /* 0: all is well */
};

static bool is_overdue(struct stall *stall, struct shmp_header *h, int other)
{
    if (!shmp_side_sleeps(h, other) || !ready(h, other)) {
        stall->since = 0;
        return false;
    }
    uint64_t now = shmp_now_ns();
    uint64_t tail = load_seq_cst(&h->tail);
    uint32_t head = load_seq_cst(&h->head);
    bool moved = stall->since == 0 || tail != stall->tail || head != stall->head;
    if (!moved && now - stall->since < SHMP_OVERDUE_NS)
        return false;
    *stall = (struct stall){.tail = tail, .head = head, .since = now};
    return !moved;
}

/* The backstop is over, the condition holds, and we are still registered: either somebody who was
 * woken for it is merely late, then the ring or the epoch will move, or a wake was lost, which is
 * a bug (or its receiver, or its waker, is stopped: decision 0024). */
static void judge_lost_wake(struct shmp_header *h, const _Atomic uint32_t *word, int side)
{
    uint32_t epoch = load_seq_cst(word);
    uint64_t tail = load_seq_cst(&h->tail);
    uint32_t head = load_seq_cst(&h->head);
    struct timespec grace = shmp_timespec(shmp_now_ns() + 100000000u);
    if (shmp_sys.futex_wait(word, epoch, &grace) == -ETIMEDOUT && load_seq_cst(word) == epoch &&
        load_seq_cst(&h->tail) == tail && load_seq_cst(&h->head) == head && ready(h, side))
        fetch_add_relaxed(&h->stats.slice_found_work, 1);
}

/* In a dialogue on one CPU each sleep takes a few microseconds, and gathering whom to watch
 * takes a good part of that.  While the last sleep was brief the next one begins with a wait on
 * the queue word alone.  For so long a death may go unnoticed; but a nearer timer would be the
 * CPU's next one to fire, and programming that costs more than the gathering (decision 0010). */
#define BRIEF_NS UINT64_C(30000)
#define BRIEF_SLICE_NS UINT64_C(10000000)

/* true: the wait is over, *r is what it returns. */
static bool wait_briefly(struct shmp_end *end, int side, int *r)
{
    struct shmp_header *h = end->pipe->seg.header;
    struct shmp_queue *queue = shmp_side_queue(h, side);
    uint32_t epoch = shmp_queue_register(queue);
    bool go_on = ready(h, side);
    long woken = -EAGAIN;
    if (!go_on) {
        uint64_t start = shmp_now_ns();
        struct timespec until = shmp_timespec(start + BRIEF_SLICE_NS);
        fetch_add_relaxed(side == SHMP_SIDE_READERS ? &h->r.sleeps : &h->w.sleeps, 1);
        struct shmp_futex_waitv word = {.value = epoch,
                                        .address = (uintptr_t)shmp_queue_word(queue),
                                        .flags = SHMP_FUTEX_32};
        woken = shmp_sys.futex_waitv(&word, 1, &until); /* which SA_RESTART restarts */
        store_relaxed(&end->brief, shmp_now_ns() - start < BRIEF_NS);
        go_on = ready(h, side);
    }
    if (woken != 0) /* not chosen; if the epoch has moved, this does nothing (I3) */
        shmp_queue_leave(queue, epoch);
    *r = !go_on && woken == -EINTR ? -EINTR : 0;
    return go_on || woken == -EINTR;
}

/* The kernel restarts a wait on several futexes after a handler with SA_RESTART, but a write that has
 * begun must return short (WR-12).  So it sleeps in a poll, which every handler ends; signals come in
 * nowhere else.
 *
 * A lock is free in a moment, or a stopped process's.  0; -EINTR. */
static long wait_for_a_lock(uint64_t start, const sigset_t *mask, bool *stopped)
{
    *stopped = shmp_now_ns() - start >= SHMP_OVERDUE_NS;
    struct timespec slice = shmp_timespec(*stopped ? SHMP_LAST_SLICE_NS : 0);
    return shmp_sys.ppoll(NULL, 0, &slice, mask);
}

int shmp_wait_for_turn(struct shmp_end *end, int side, struct shmp_turn *turn, bool *signalled)
{
    sigset_t all;
    sigset_t before;
    bool stopped = false;
    sigfillset(&all);
    shmp_sys.set_sigmask(&all, &before);
    uint64_t start = shmp_now_ns();
    int r;
    while ((r = shmp_turn_try(end, side, turn)) == SHMP_WOULD_SLEEP) {
        if (*signalled && stopped) {
            r = -EINTR;
            break;
        }
        if (wait_for_a_lock(start, &before, &stopped) == -EINTR)
            *signalled = true;
    }
    shmp_sys.set_sigmask(&before, NULL);
    return r;
}

/* Sleeps as an event loop does (arm.c).  0, perhaps for nothing; -EINTR. */
static int wait_for_any_handler(struct shmp_end *end, int side)
{
    struct timespec soon = shmp_timespec(SHMP_TICK_NS);
    struct shmp_header *h = end->pipe->seg.header;
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    shmp_sys.set_sigmask(&all, &before);
    uint64_t start = shmp_now_ns();
    bool tick = is_stale(start);
    long r;
    bool stopped = false;
    while ((r = shmp_end_arm(end, side, false)) == SHMP_WOULD_SLEEP && !ready(h, side)) {
        r = wait_for_a_lock(start, &before, &stopped);
        if (r < 0 || (tick && stopped))
            break;
    }
    if (r == 0 && !ready(h, side)) {
        struct pollfd p = {.fd = end->fd,
                           .events = side == SHMP_SIDE_READERS ? POLLIN : POLLOUT};
        fetch_add_relaxed(side == SHMP_SIDE_READERS ? &h->r.sleeps : &h->w.sleeps, 1);
        r = shmp_sys.ppoll(&p, 1, tick ? &soon : NULL, &before);
    }
    shmp_sys.set_sigmask(&before, NULL);
    return r == -EINTR && !ready(h, side) ? -EINTR : 0;
}

enum outlook {
    MUST_SLEEP,
    CAN_GO_ON,
    IS_ALONE, /* the other side is gone, and has left nothing to do */
};

/* Registered: is there anything to wait for?  Gathers whom to watch meanwhile. */
static enum outlook look_out(struct shmp_end *end, int side, struct shmp_watch *watch)
{
    struct shmp_pipe *pipe = end->pipe;
    struct shmp_header *h = pipe->seg.header;
    int other = shmp_other_side(side);
    uint64_t tail = load_seq_cst(&h->tail);
    shmp_watch_others(watch, &pipe->live, side);
    if (load_acquire(&pipe->held[other]) == 0 && watch->tracked == 0) {
        /* Then the look: the last writer may have published right before it closed.  And if it has, and
         * another one has read that meanwhile, perhaps there is a new writer by now: no end then, unless
         * the lock says so.  What is empty after the companion's word, with nothing read since before
         * it, was empty then. */
        if (shmp_side_is_hung_up(end, other))
            return ready(h, side) || load_seq_cst(&h->tail) != tail ? CAN_GO_ON : IS_ALONE;
        watch->complete = false; /* the kernel counts a holder that we cannot see */
    }
    if (watch->complete)
        shmp_watch_own(watch, &pipe->live);
    return ready(h, side) ? CAN_GO_ON : MUST_SLEEP;
}

/* The others look more seldom the more they are (watch.h): so whoever finds that it is alone tells them.
 *
 * Then a crowd leaves at once, and the ring's lock would let them go one by one, a sleep each: but nothing
 * can come any more, so nobody needs it.  Only if somebody polls a dead writer may have foretold what the
 * lock's repair makes. */
static int leave_alone(struct shmp_header *h, int side)
{
    shmp_queue_wake_all(shmp_side_queue(h, side));
    return side == SHMP_SIDE_WRITERS || !shmp_companion_is_watched(h) ? SHMP_THE_END : 0;
}

static int wait_side(struct shmp_end *end, int side, bool any_handler, uint64_t looked)
{
    struct shmp_pipe *pipe = end->pipe;
    struct shmp_header *h = pipe->seg.header;
    struct shmp_queue *queue = shmp_side_queue(h, side);
    struct shmp_pace pace = {0};
    struct stall stall = {0};
    struct shmp_watch watch;
    int other = shmp_other_side(side);
    bool first = true;
    bool may_look = true;
    int r;

    if (looked != 0)
        looked_ns = looked;
    else if (shmp_on_tick && shmp_now_ns() - looked_ns < LOOKED_RECENTLY_NS)
        may_look = false;
    else if (shmp_on_tick && tick_raises())
        return -EINTR;
    if ((load_relaxed(&pipe->live.introduced) & SHMP_INTRODUCED(side)) == 0)
        shmp_queue_step_epoch(queue);
    if (any_handler)
        return wait_for_any_handler(end, side);
    if (load_relaxed(&end->brief)) {
        if (wait_briefly(end, side, &r))
            return r;
        first = false;
    }
    for (;;) {
        if (!first && (r = wait_for_the_lock(end, side)) < 0)
            return r;
        /* Announce, then gather whom to watch, then look: a holder that attaches after the
         * gathering changes the epoch, a publish after the look finds us registered. */
        uint32_t epoch = shmp_queue_register(queue);
        enum outlook outlook = look_out(end, side, &watch);
        if (outlook != MUST_SLEEP) {
            shmp_queue_leave(queue, epoch);
            shmp_watch_release(&watch);
            return outlook == IS_ALONE ? leave_alone(h, side) : 0;
        }
        /* After our look: of two sides that go to sleep at once, one sees the other registered. */
        if (is_overdue(&stall, h, other) && !shmp_wake_ahead(pipe, other))
            shmp_side_wake_one(h, other);
        pace.soon = stall.since != 0;
        pace.crowd = shmp_queue_waiters(queue);
        uint64_t start = shmp_now_ns();
        pace.tick = is_stale(start);
        if (pace.tick && may_look) {
            /* The same again, which is faster now: who is cut short loses his place in the queue. */
            may_look = false;
            shmp_queue_leave(queue, epoch);
            shmp_watch_release(&watch);
            if (!tick_raises())
                continue;
            /* Perhaps ahead of a change, which is somebody else's then. */
            if (load_acquire(shmp_queue_word(queue)) != epoch)
                shmp_side_wake_one(h, side);
            return -EINTR;
        }
        fetch_add_relaxed(side == SHMP_SIDE_READERS ? &h->r.sleeps : &h->w.sleeps, 1);
        first = false;
        enum shmp_woken woken = shmp_watch_sleep(&watch, shmp_queue_word(queue), epoch, 0, &pace);
        bool go_on = ready(h, side);
        uint64_t now = shmp_now_ns();
        bool brief = now - start < BRIEF_NS;
        store_relaxed(&end->brief, brief);
        if (brief)
            store_relaxed(&end->vain, 0);
        if (go_on && pace.safety)
            judge_lost_wake(h, shmp_queue_word(queue), side);
        if (woken != SHMP_WOKEN && woken != SHMP_CHANGED)
            shmp_queue_leave(queue, epoch);
        shmp_watch_release(&watch);
        if (go_on) /* data wins over a signal (SG-4) */
            return 0;
        if (woken == SHMP_SIGNAL)
            return -EINTR;
        if (shmp_on_tick && now - looked_ns >= SHMP_TICK_NS) {
            may_look = true;
            if (tick_raises()) {
                if (woken == SHMP_WOKEN) /* as above */
                    shmp_side_wake_one(h, side);
                return -EINTR;
            }
        }
        /* A long wait: time to see to it that others can watch us. */
        shmp_renew();
    }
}

int shmp_wait_side(struct shmp_end *end, int side, bool any_handler, uint64_t looked)
{
    struct shmp_call *call = shmp_live_calls();
    call->queue = shmp_side_queue(end->pipe->seg.header, side); /* for a handler's fork child */
    int r = wait_side(end, side, any_handler, looked);
    call->queue = NULL;
    return r;
}
