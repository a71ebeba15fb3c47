/* relay.c - notifiers as a state machine: those who operate count, the relays' threads tell.  The
 * names of the steps are the labels of docs/explanation/notifier.md.
 *
 * What is abstract: of `ops` only by how much it is behind what was published and ahead of what each
 * relay has told, of `sleep` whether it is odd and who still knows its value.  So a run may be as
 * long as it likes.  A relay has a timer only while the ring lock's owner is one that it does not
 * watch.  The process of a relay does nothing else.  Reads are as writes (the same code, the other lock).
 */
#include "relay.h"

#include <stdio.h>
#include <string.h>

#define MOST 4

enum pc {
    ABSENT,
    IDLE,
    LOCK,
    SETTLE,
    INTRODUCE,
    N1,
    N2,
    PUBLISH,
    N3,
    UNLOCK,
    N4,
    N5_CHANGE,
    N5_WAKE,
    N5_EVEN,
    K1,
    GATHER,
    RESCUE,
    RESCUED,
    K2,
    K3,
    ASLEEP,
    PASS_ON,
    LOOK,
    DYING, /* marked; its files are still open */
    GONE,
};

/* Where N4, N5 return to. */
enum back { TO_IDLE, TO_BEGIN, TO_INTRODUCED, TO_RESCUED, TO_COUNT };
enum buffered { NO_STORE, COUNT_STORE, SLEEP_STORE };

#define MANY 3u /* operations, and more */

struct process {
    uint32_t pc : 5;
    uint32_t back : 3;
    uint32_t live : 1;
    uint32_t marked : 1;
    uint32_t introduced : 1;
    uint32_t moved : 1; /* this operation has published */
    uint32_t mine : 1;  /* `sleep` is as I left it */
    uint32_t untold : 2;
    uint32_t buffer : 2;
    uint32_t gathered : 3;
    uint32_t chosen : 1; /* woken on `sleep` */
    uint32_t timed : 1;
    uint32_t death : 1;
    uint32_t before : 2; /* so many have slept for longer */
    uint32_t unused : 7;
    uint32_t lives : 4; /* watched */
    uint32_t woken : 4; /* those of them that woke it */
    uint32_t unused2 : 24;
};

struct state {
    uint32_t odd : 1;
    uint32_t begun : 1;      /* is ops + 1 */
    uint32_t moved : 1;      /* the ring stands elsewhere than `before` says */
    uint32_t uncounted : 2;  /* what was published is so much ahead of ops */
    uint32_t too_many : 1;   /* ops is ahead of what was published */
    uint32_t lock : 3;
    uint32_t deaths : 2;
    uint32_t unused : 21;
    struct process p[MOST];
};
_Static_assert(sizeof(struct state) <= STATE_MAX, "a state fits");

static struct relay_setting set;
static struct model relay;
static struct state next;

static bool is(enum relay_variant variant)
{
    return set.variant == variant;
}

static int processes(void)
{
    return (int)(set.relays + set.writers);
}

static bool is_relay(int i)
{
    return i < (int)set.relays;
}

static struct process *begin(const struct state *s, int i)
{
    next = *s;
    return &next.p[i];
}

static void go(int i, enum pc pc, const char *what)
{
    next.p[i].pc = pc & 31;
    step(&next, OWN, i, what);
}

/* ops + 1 */
static void count_one(void)
{
    for (int i = 0; i < (int)set.relays; i++)
        if (next.p[i].untold < MANY)
            next.p[i].untold++;
    if (next.uncounted == 0)
        next.too_many = 1;
    else
        next.uncounted--;
}

static void change_sleep(int i, bool odd)
{
    next.odd = odd;
    for (int other = 0; other < processes(); other++)
        next.p[other].mine = 0;
    next.p[i].mine = 1;
}

static void drain(int i)
{
    if (next.p[i].buffer == COUNT_STORE) {
        count_one();
        next.begun = 0;
    } else if (next.p[i].buffer == SLEEP_STORE) {
        change_sleep(i, true);
    }
    next.p[i].buffer = NO_STORE;
}

/* Taken from the dead: the ring is repaired, and what the dead one has not counted is. */
static void settle(void)
{
    if (!next.begun || is(NO_SETTLE))
        return;
    next.begun = 0;
    if (next.moved)
        count_one();
}

/* ---- N4, N5 ------------------------------------------------------------------------ */

static void call_wake(int i, enum back back)
{
    next.p[i].back = back & 7;
    next.p[i].pc = N4;
}

static void go_back(int i, const char *what)
{
    static const enum pc pcs[] = {IDLE, INTRODUCE, N1, RESCUED, N3};
    struct process *p = &next.p[i];
    enum back back = p->back;
    p->back = 0;
    go(i, pcs[back], what);
}

static void wake(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    switch (p->pc) {
    case N4:
        if (s->odd)
            go(i, is(WORD_KEPT_BY_N5) ? N5_WAKE : N5_CHANGE, "N4 load sleep: odd");
        else
            go_back(i, "N4 load sleep: even");
        return;
    case N5_CHANGE:
        if (!s->odd) {
            go_back(i, "N5 sleep is even by now");
            return;
        }
        change_sleep(i, true);
        go(i, N5_WAKE, "N5 sleep += 2");
        return;
    case N5_WAKE:
        if (!is(COUNTED_AND_NOBODY_WOKEN))
            for (int other = 0; other < (int)set.relays; other++)
                if (s->p[other].pc == ASLEEP)
                    next.p[other].chosen = 1;
        go(i, N5_EVEN, "N5 FUTEX_WAKE all");
        return;
    default: /* N5_EVEN */
        if (p->mine || is(EVEN_WHOEVER_CAME))
            change_sleep(i, false);
        next.p[i].mine = 0;
        go_back(i, p->mine ? "N5 sleep += 1" : "N5 somebody has registered since");
        return;
    }
}

/* ---- Who operates ------------------------------------------------------------------ */

static void operate(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    switch (p->pc) {
    case ABSENT:
        p->live = 1;
        p->untold = 0;
        p->pc = is_relay(i) ? K1 : IDLE;
        step(&next, WORLD, i, "C3 attaches: live = 1");
        return;
    case IDLE:
        p->pc = LOCK;
        step(&next, WORLD, i, "write()");
        return;
    case LOCK:
        if (s->lock != 0 && s->p[s->lock - 1].pc != GONE)
            return;
        next.lock = ((unsigned)i + 1) & 7;
        go(i, s->lock != 0 ? SETTLE : INTRODUCE,
           s->lock != 0 ? "lock, from the dead" : "lock");
        return;
    case SETTLE:
        settle();
        call_wake(i, TO_BEGIN);
        step(&next, OWN, i, "settle");
        return;
    case INTRODUCE:
        if (p->introduced || is(NEWCOMER_SILENT)) {
            go(i, N1, "N0 armed");
            return;
        }
        p->introduced = 1;
        call_wake(i, TO_INTRODUCED);
        step(&next, OWN, i, "N0a introduced |= relays: it was not");
        return;
    case N1:
        if (!is(NO_BEFORE))
            next.moved = 0;
        go(i, N2, "N1 before = where the ring stands");
        return;
    case N2:
        next.begun = !is(NO_BEGUN);
        go(i, is(COUNTED_BEFORE_THE_PUBLISH) ? N3 : PUBLISH, "N2 begun = ops + 1");
        return;
    case PUBLISH:
        if (!is(COUNTED_BEFORE_THE_PUBLISH)) {
            next.begun = 0;
            go(i, UNLOCK, "nothing to move: begun = ops");
            p = begin(s, i);
        }
        next.moved = 1;
        if (next.uncounted < MANY)
            next.uncounted++;
        p->moved = 1;
        go(i, is(COUNTED_AFTER_N4) || is(COUNTED_BEFORE_THE_PUBLISH) ? UNLOCK : N3, "P1 publish");
        return;
    case N3:
        p->buffer = COUNT_STORE;
        if (!is(COUNT_BUFFERED))
            drain(i);
        go(i, is(COUNTED_AFTER_N4) ? IDLE : is(COUNTED_BEFORE_THE_PUBLISH) ? PUBLISH : UNLOCK,
           "N3 ops + 1");
        return;
    default: { /* UNLOCK */
        bool moved = p->moved;
        next.lock = 0;
        p->moved = 0;
        if (moved)
            call_wake(i, is(COUNTED_AFTER_N4) ? TO_COUNT : TO_IDLE);
        else
            p->pc = IDLE;
        step(&next, OWN, i, "unlock");
        return;
    }
    }
}

/* ---- The relay --------------------------------------------------------------------- */

static unsigned sleepers(const struct state *s)
{
    unsigned n = 0;
    for (int i = 0; i < (int)set.relays; i++)
        n += s->p[i].pc == ASLEEP;
    return n;
}

/* The kernel's queue is first in, first out. */
static void leave_queue(int i)
{
    for (int other = 0; other < (int)set.relays; other++)
        if (next.p[other].pc == ASLEEP && next.p[other].before > next.p[i].before)
            next.p[other].before--;
    next.p[i].before = 0;
}

static enum pc first_of_a_round(void)
{
    return is(GATHERED_BEFORE_K1) ? GATHER : K1;
}

static void forget_watch(struct process *p)
{
    p->lives = p->woken = 0;
    p->chosen = p->timed = p->death = 0;
    p->mine = 0;
}

static void gather(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    int whom = (int)p->gathered;
    struct process *q = &next.p[whom];
    if (whom != i && q->live) {
        bool unreachable = ((set.unreachable >> whom) & 1) != 0;
        if (!q->marked && !unreachable && !is(LIVES_UNWATCHED)) {
            p->lives = (p->lives | 1u << whom) & 15;
        } else if (q->pc == GONE) {
            q->live = 0; /* reaped */
            p->death = 1;
        } else if (q->marked || unreachable) {
            p->death = 1;
            if (!is(NOT_DISMISSED))
                q->introduced = 0;
        }
    }
    p->gathered = (p->gathered + 1) & 7;
    if ((int)p->gathered < processes()) {
        go(i, GATHER, "gathers one more");
        return;
    }
    p->gathered = 0;
    go(i, is(GATHERED_BEFORE_K1) ? K1 : is(NO_RESCUE) ? K2 : RESCUE, "gathers the last one");
}

static bool watched_life_is_over(const struct state *s, int i)
{
    for (int whom = 0; whom < processes(); whom++)
        if (((s->p[i].lives >> whom) & 1) != 0 && s->p[whom].marked)
            return true;
    return false;
}

static void get_up(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    leave_queue(i);
    if (p->chosen || p->woken != 0) {
        bool passes = p->woken != 0 && !is(DEATH_NOT_PASSED_ON);
        p->chosen = 0;
        p->timed = p->death = 0;
        p->lives = 0;
        p->mine = 0;
        if (!passes)
            p->woken = 0;
        go(i, passes ? PASS_ON : LOOK, p->woken != 0 ? "K3 a life word woke it" : "K3 is woken");
    } else if (p->timed) {
        forget_watch(p);
        p->pc = LOOK;
        step(&next, TIMER, i, "its slice is over");
    }
}

static void pass_on(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned words = p->woken;
    if (is(DEATH_PASSED_ON_FOR_ONE_WORD)) /* the highest, which is what futex_waitv returns */
        while ((words & (words - 1)) != 0)
            words &= words - 1;
    for (int other = 0; other < (int)set.relays; other++)
        if (next.p[other].pc == ASLEEP)
            next.p[other].woken = (next.p[other].woken | (words & next.p[other].lives)) & 15;
    p->woken = 0;
    go(i, LOOK, "passes the wakes of deaths on");
}

static void listen(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    enum pc to_gather = is(GATHERED_BEFORE_K1) ? (is(NO_RESCUE) ? K2 : RESCUE) : GATHER;
    switch (p->pc) {
    case K1:
        p->buffer = SLEEP_STORE;
        if (is(K1_KEEPS_AN_ODD_WORD) && s->odd) {
            p->buffer = NO_STORE;
            p->mine = 1;
        } else if (!is(K1_BUFFERED)) {
            drain(i);
        }
        go(i, to_gather, "K1 sleep is another, and odd");
        return;
    case GATHER:
        gather(s, i);
        return;
    case RESCUE: {
        const struct process *owner = s->lock != 0 ? &s->p[s->lock - 1] : NULL;
        if (owner == NULL || owner->pc != GONE || !(p->death || !owner->live)) {
            /* A newcomer may have it from the dead, and nobody watches that one yet. */
            if (owner != NULL && !owner->introduced && !is(STRANGERS_TRUSTED))
                p->timed = 1;
            go(i, K2, owner == NULL ? "the lock is free" : "the lock is not a known dead one's");
            return;
        }
        next.lock = ((unsigned)i + 1) & 7;
        settle();
        call_wake(i, TO_RESCUED);
        step(&next, OWN, i, "takes the lock from the dead: settle");
        return;
    }
    case RESCUED:
        next.lock = 0;
        go(i, K2, "gives the lock back");
        return;
    case K2:
        if (!is(NO_LOOK_AFTER_K1))
            p->untold = 0;
        go(i, K3, "K2 load ops: tells");
        return;
    case K3:
        if (!p->mine || watched_life_is_over(s, i)) {
            forget_watch(p);
            go(i, LOOK, "K3 futex_waitv: EAGAIN");
            return;
        }
        p->death = 0;
        p->before = sleepers(s) & 3;
        go(i, ASLEEP, "K3 futex_waitv: sleeps");
        return;
    case ASLEEP:
        get_up(s, i);
        return;
    case PASS_ON:
        pass_on(s, i);
        return;
    default: /* LOOK */
        p->untold = 0;
        go(i, first_of_a_round(), "load ops: tells");
        return;
    }
}

/* ---- Deaths ------------------------------------------------------------------------ */

/* The kernel wakes one of those who sleep on the life word. */
static void die(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    int front = -1;
    drain(i); /* what the processor has taken, it stores */
    if (p->pc == ASLEEP)
        leave_queue(i);
    memset(p, 0, sizeof *p);
    p->pc = DYING;
    p->live = p->marked = 1;
    next.deaths = (s->deaths + 1) & 3;
    for (int other = 0; other < (int)set.relays; other++)
        if (next.p[other].pc == ASLEEP && ((next.p[other].lives >> i) & 1) != 0 &&
            (front < 0 || next.p[other].before < next.p[front].before))
            front = other;
    if (front >= 0)
        next.p[front].woken = (next.p[front].woken | 1u << i) & 15;
    step(&next, WORLD, i, "is killed: the kernel marks its life word");
}

static void one_process(const struct state *s, int i)
{
    enum pc pc = s->p[i].pc;
    bool loads = pc == N4 || pc == K2 || pc == GATHER || pc == RESCUE ||
                 (is(COUNT_BUFFERED) && pc == UNLOCK);
    if (s->p[i].buffer != NO_STORE) {
        begin(s, i);
        drain(i);
        step(&next, OWN, i, "its store buffer drains");
    }
    if (s->p[i].buffer == NO_STORE || loads) {
        if (pc <= UNLOCK)
            operate(s, i);
        else if (pc <= N5_EVEN)
            wake(s, i);
        else if (pc <= LOOK)
            listen(s, i);
    }
    if (pc == DYING) {
        begin(s, i);
        go(i, GONE, "the kernel has closed its files");
    }
    if (pc != ABSENT && pc < DYING && s->deaths < set.deaths)
        die(s, i);
}

/* ---- The model --------------------------------------------------------------------- */

static void first(void *state)
{
    struct state *s = state;
    memset(s, 0, sizeof *s);
    for (int i = 0; i < processes(); i++) {
        if (((set.late >> i) & 1) != 0)
            continue;
        s->p[i].pc = is_relay(i) ? first_of_a_round() & 31 : IDLE;
        s->p[i].live = 1;
        s->p[i].introduced = 1;
    }
}

static void successors(const void *state)
{
    struct state s = {0};
    memcpy(&s, state, relay.bytes);
    for (int i = 0; i < processes(); i++)
        one_process(&s, i);
}

static const char *broken(const void *state)
{
    const struct state *s = state;
    return s->too_many ? "an operation is counted that nobody has made" : NULL;
}

static const char *stuck(const void *state)
{
    const struct state *s = state;
    for (int i = 0; i < processes(); i++) {
        const struct process *p = &s->p[i];
        if (is_relay(i) && p->pc == ASLEEP && !p->timed && (p->untold != 0 || s->uncounted != 0))
            return "a relay sleeps beside an operation that it has not told";
        if (p->pc != ASLEEP && p->pc != IDLE && p->pc != ABSENT && p->pc != GONE)
            return "somebody waits for a lock for ever";
    }
    return NULL;
}

static const char *name(int i)
{
    static const char *const names[2][MOST] = {{"writer 1", "writer 2", "writer 3", "writer 4"},
                                               {"relay 1", "relay 2", "relay 3", "relay 4"}};
    if (i < 0)
        return "";
    return names[is_relay(i)][is_relay(i) ? i : i - (int)set.relays];
}

static void show(const void *state, char *line, size_t bytes)
{
    const struct state *s = state;
    size_t n = (size_t)snprintf(line, bytes, "sleep %s, %u not counted, untold:",
                                s->odd ? "odd" : "even", s->uncounted);
    for (int i = 0; i < (int)set.relays; i++)
        n += (size_t)snprintf(line + n, bytes - n, " %u", s->p[i].untold);
}

const struct model *relay_model(const struct relay_setting *setting)
{
    set = *setting;
    relay = (struct model){
        .bytes = offsetof(struct state, p) + sizeof(struct process) * (size_t)processes(),
        .first = first,
        .successors = successors,
        .broken = broken,
        .stuck = stuck,
        .name = name,
        .show = show,
    };
    return &relay;
}
