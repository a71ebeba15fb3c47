/* wake.c - the wake protocol as a state machine.  One step is one access to shared memory or
 * one system call; its name is the label of docs/explanation/wait-and-wake.md and the C code.
 *
 * What is abstract, and why nothing is lost by it:
 *   - Only the difference of head and tail exists, and of an epoch only whether it is still the
 *     one that a process knows.  So a run may be as long as it likes, and nothing wraps.
 *   - A slot holds "some bytes": a write may merge and a read may leave a part, at will.
 *   - A ring lock is taken when it is free or its owner is proven dead.  How one waits for it
 *     is lock.c's affair, and has a timer.
 *   - A sleeper that knows that it does not watch everybody (watch.complete is false) has a
 *     timer.  All others have none, and must not need one.
 */
#include <stdio.h>

#include "wake_state.h"

static struct model wake;

static void idle(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    p->pc = LOCK;
    emit(WORLD, i, side_of(i) == READERS ? "read()" : "write()");
    if (wake_set.closes) {
        p = begin(s, i);
        p->pc = CLOSING;
        emit(WORLD, i, "close()");
    }
}

static void die(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    bool in_call = p->in_call;
    drain(&wake_next, i); /* what the processor has taken, it stores */
    if (p->pc == ASLEEP)
        dequeue(&wake_next, i);
    bool live = p->live, counted = p->counted;
    uint32_t introduced = p->introduced;
    memset(p, 0, sizeof *p);
    p->pc = DYING;
    p->marked = p->open = 1;
    p->in_call = in_call;
    p->live = live;
    p->counted = counted;
    p->introduced = introduced & 3;
    wake_next.deaths = (s->deaths + 1) & 3;
    wake_watchers(&wake_next, i, false, 1, -1);
    if (in_call)
        wake_watchers(&wake_next, i, true, 1, -1);
    emit(WORLD, i, "D1 is killed: the kernel marks its words");
}

static void dying(const struct state *s, int i)
{
    begin(s, i)->open = 0;
    go(i, GONE, "the kernel has closed its files");
}

static void one_process(const struct state *s, int i)
{
    const struct process *p = &s->p[i];
    bool locked_step = p->pc != W2 && p->pc != W2_INDEX && p->pc != R2 && p->pc != R2_SECOND &&
                       p->pc != GATHER && p->pc != ANNOUNCE_READABLE &&
                       p->pc != ANNOUNCE_WRITABLE;
    if (p->stopped) {
        begin(s, i)->stopped = 0;
        wake_next.stops = (s->stops - 1) & 3;
        emit(WORLD, i, "SIGCONT");
        return;
    }
    if (s->stops < wake_set.stops && ((p->pc == R5 && p->reason == CHOSEN) ||
                                 (p->pc == LOCK && p->slept) ||
                                 (p->pc == W3 && is(STOPPED_WAKER)))) {
        begin(s, i)->stopped = 1;
        wake_next.stops = (s->stops + 1) & 3;
        emit(WORLD, i, "SIGSTOP");
    }
    if (p->buffer != NO_STORE) {
        begin(s, i);
        drain(&wake_next, i);
        emit(OWN, i, "its store buffer drains");
    }
    if (p->buffer != NO_STORE && locked_step)
        return; /* a locked instruction, or the kernel, drains it first */
    if (p->pc <= ANNOUNCE_WRITABLE)
        attach(s, i);
    else if (p->pc == IDLE)
        idle(s, i);
    else if (p->pc <= UNLOCK)
        transfer(s, i);
    else if (p->pc <= ALL_WAKE)
        wake_others(s, i);
    else if (p->pc <= WAITED)
        before_r1(s, i);
    else if (p->pc <= R3)
        fall_asleep(s, i);
    else if (p->pc <= R6)
        get_up(s, i);
    else if (p->pc <= LEAVE_CALL)
        leave(s, i);
    else if (p->pc <= CLOSE_ENTRY)
        close_end(s, i);
    else if (p->pc == DYING)
        dying(s, i);
    if (p->pc != ABSENT && p->pc < DYING && s->deaths < wake_set.deaths)
        die(s, i);
}

static void first(void *state)
{
    struct state *s = state;
    memset(s, 0, sizeof *s);
    for (int i = 0; i < processes(); i++) {
        if (((wake_set.late >> i) & 1) != 0)
            continue;
        s->p[i].pc = IDLE;
        s->p[i].live = s->p[i].counted = s->p[i].open = 1;
        s->p[i].introduced = 3;
    }
}

/* For the notes of operations; sleepers have the same 10 ms in p->nap. */
static void time_passes(const struct state *s, unsigned side)
{
    if (wake_set.stops == 0 || idle_of(s, side) != SEEN)
        return;
    wake_next = *s;
    set_idle(&wake_next, side, OVERDUE_NOW);
    step(&wake_next, WORLD, -1,
         side == READERS ? "10 ms pass: no reader moves" : "10 ms pass: no writer moves");
}

static void successors(const void *state)
{
    struct state s = {0};
    memcpy(&s, state, wake.bytes);
    time_passes(&s, READERS);
    time_passes(&s, WRITERS);
    for (int i = 0; i < processes(); i++)
        one_process(&s, i);
}

static unsigned rename_bits(unsigned bits, const int *to)
{
    unsigned renamed = 0;
    for (int i = 0; i < processes(); i++)
        renamed |= ((bits >> i) & 1) << to[i];
    return renamed & 31;
}

static unsigned rename_one(unsigned one, const int *to)
{
    return one == 0 ? 0 : ((unsigned)to[one - 1] + 1) & 7;
}

/* The state with process i called to[i]. */
static void give_names(struct state *t, const struct state *s, const int *to)
{
    *t = *s;
    t->lock0 = rename_one(s->lock0, to) & 7;
    t->lock1 = rename_one(s->lock1, to) & 7;
    t->asleep = 0;
    for (unsigned queue = 0; queue < 2; queue++)
        for (unsigned place = 0; place < 5; place++)
            t->asleep = (t->asleep | rename_one(sleeper(s, queue, place), to)
                                         << (queue * 15 + place * 3)) & 0x3fffffff;
    for (int i = 0; i < processes(); i++) {
        struct process *p = &t->p[to[i]];
        *p = s->p[i];
        p->life = rename_bits(s->p[i].life, to) & 31;
        p->call0 = rename_bits(s->p[i].call0, to) & 31;
        p->call1 = rename_bits(s->p[i].call1, to) & 31;
        p->woken_all = rename_bits(s->p[i].woken_all, to) & 31;
        p->woken_by = rename_one(s->p[i].woken_by, to) & 7;
    }
}

/* What is known of a process without the names of others, for an order of equals. */
static int compare(const struct state *s, int i, int j)
{
    struct process p = s->p[i];
    struct process q = s->p[j];
    p.life = p.call0 = p.call1 = p.woken_all = 0;
    q.life = q.call0 = q.call1 = q.woken_all = 0;
    p.woken_by = p.woken_by != 0;
    q.woken_by = q.woken_by != 0;
    int order = memcmp(&p, &q, sizeof p);
    if (order != 0)
        return order;
    unsigned owner = owner_of(s, side_of(i));
    return (owner == (unsigned)j + 1) - (owner == (unsigned)i + 1);
}

/* Processes of one side that were there from the start differ only in their number.  Of two that are equal
 * as far as they go themselves, what others know of them decides. */
static void canonical(void *state)
{
    struct state s = {0};
    struct state t = {0};
    memcpy(&s, state, wake.bytes);
    for (int i = 0; i + 1 < processes(); i++) {
        int to[MOST] = {0, 1, 2, 3, 4};
        if (side_of(i) != side_of(i + 1) || ((wake_set.late >> i) & 3) != 0)
            continue;
        int order = compare(&s, i, i + 1);
        if (order < 0)
            continue;
        to[i] = i + 1;
        to[i + 1] = i;
        give_names(&t, &s, to);
        if (order > 0 || memcmp(&t, &s, wake.bytes) < 0)
            s = t;
    }
    memcpy(state, &s, wake.bytes);
}

static const char *broken(const void *state)
{
    const struct state *s = state;
    return s->lost_data ? "end of file is reported beside data" : NULL;
}

/* While somebody is stopped, whom he was to wake may sleep on, as long as nobody of the other side
 * sleeps beside it for more than 10 ms. */
static const char *stalled(const struct state *s)
{
    bool could[2] = {false, false};
    bool asleep[2] = {false, false};
    for (int i = 0; i < processes(); i++) {
        const struct process *p = &s->p[i];
        if (p->stopped || p->pc != ASLEEP)
            continue;
        if (p->timed || p->nap != 0)
            return NULL;
        asleep[side_of(i)] = true;
        could[side_of(i)] = could[side_of(i)] || can_go_on(s, i);
    }
    if ((could[READERS] && asleep[WRITERS]) || (could[WRITERS] && asleep[READERS]))
        return "both sides sleep, because of one who is stopped";
    return NULL;
}

static const char *stuck(const void *state)
{
    const struct state *s = state;
    if (s->stops != 0)
        return stalled(s);
    for (int i = 0; i < processes(); i++) {
        const struct process *p = &s->p[i];
        if (p->pc == ASLEEP && !p->timed && can_go_on(s, i))
            return side_of(i) == READERS ? "a reader sleeps and could go on, and nothing wakes it"
                                         : "a writer sleeps and could go on, and nothing wakes it";
        if (p->pc != ASLEEP && p->pc != IDLE && p->pc != ABSENT && p->pc != GONE && !p->stopped)
            return "somebody waits for a lock for ever";
    }
    return NULL;
}

static const char *name(int i)
{
    static const char *const names[2][MOST] = {
        {"reader 1", "reader 2", "reader 3", "reader 4", "reader 5"},
        {"writer 1", "writer 2", "writer 3", "writer 4", "writer 5"}};
    if (i < 0)
        return "";
    return names[side_of(i)][side_of(i) == READERS ? i : i - (int)wake_set.readers];
}

static void show(const void *state, char *line, size_t bytes)
{
    const struct state *s = state;
    size_t n = (size_t)snprintf(line, bytes, "slots %u, registered %u/%u, asleep:", s->used,
                                s->count0, s->count1);
    for (unsigned queue = 0; queue < 2; queue++)
        for (unsigned place = 0; place < 5 && sleeper(s, queue, place) != 0; place++)
            n += (size_t)snprintf(line + n, bytes - n, " %s",
                                  name((int)sleeper(s, queue, place) - 1));
}

const struct model *wake_model(const struct wake_setting *setting)
{
    wake_set = *setting;
    wake = (struct model){
        .bytes = offsetof(struct state, p) + sizeof(struct process) * (size_t)processes(),
        .parts = (size_t)processes(),
        .part_bytes = sizeof(struct process),
        .first = first,
        .successors = successors,
        .broken = broken,
        .stuck = stuck,
        .canonical = wake_set.stepwise || wake_set.deaths > 1 ? NULL : canonical,
        .name = name,
        .show = show,
    };
    return &wake;
}
