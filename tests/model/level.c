/* level.c - the companion beside the ring, as a state machine.  The names of the steps are the
 * labels of docs/explanation/companion-sync.md.
 *
 * What is abstract: the companion is empty, has some bytes or is full; edges and sizes are left out,
 * and a signal is one of "there was a write".  A process that holds an end reads, writes, or looks at
 * it and sleeps in poll(), or (async) sets O_ASYNC, reads until there is nothing, and waits for a
 * signal.  None of these has a timer.  Locks are taken when they are free or their owner is dead.
 */
#include <stdio.h>

#include "level_state.h"

struct level_setting level_set;
struct state level_next;

static struct model level;

/* A process that runs while all others rest: see is_exact. */
static struct {
    bool on;
    bool moved;
    struct state next;
} alone;

void level_emit(enum kind kind, int i, const char *what)
{
    if (!alone.on) {
        step(&level_next, kind, i, what);
    } else if (kind == OWN && !alone.moved) {
        alone.next = level_next;
        alone.moved = true;
    }
}

void level_go(int i, enum pc pc, const char *what)
{
    level_next.p[i].pc = pc & 63;
    level_emit(OWN, i, what);
}

struct process *level_begin(const struct state *s, int i)
{
    level_next = *s;
    return &level_next.p[i];
}

unsigned level_owner_of(const struct state *s, unsigned lock)
{
    return lock == READERS ? s->lock0 : lock == WRITERS ? s->lock1 : s->lock2;
}

void level_set_owner(unsigned lock, unsigned owner)
{
    if (lock == READERS)
        level_next.lock0 = owner & 7;
    else if (lock == WRITERS)
        level_next.lock1 = owner & 7;
    else
        level_next.lock2 = owner & 7;
}

bool is_a_dead_ones(const struct state *s, unsigned lock)
{
    unsigned owner = level_owner_of(s, lock);
    return owner == ABANDONED || (owner != 0 && s->p[owner - 1].pc == GONE);
}

int level_take(const struct state *s, int i, unsigned lock)
{
    bool dead = is_a_dead_ones(s, lock);
    if (level_owner_of(s, lock) != 0 && !dead)
        return 0;
    level_set_owner(lock, (unsigned)i + 1);
    if (lock == COMPANION && dead && !is(DEAD_LEVEL_BELIEVED))
        level_next.level = UNKNOWN;
    return dead ? 2 : 1;
}

bool has_to_tell(const struct state *s, unsigned side)
{
    return side == WRITERS ? s->usage != 0 : looked_at(s->usage, READERS) || looked_at(s->usage, WRITERS);
}

unsigned noted(const struct state *s, unsigned side)
{
    return side == READERS ? s->noted0 : s->noted1;
}

void set_noted(unsigned side, unsigned slots)
{
    if (side == READERS)
        level_next.noted0 = slots & 3;
    else
        level_next.noted1 = slots & 3;
}

void level_drain(int i)
{
    if (level_next.p[i].buffered)
        set_noted(side_of(i), level_next.p[i].slots);
    level_next.p[i].buffered = 0;
}

/* SIGIO of a write. */
void tell_readers(void)
{
    for (int i = 0; i < (int)level_set.readers; i++)
        if (level_next.p[i].async)
            level_next.p[i].signalled = 1;
}

static bool others_present(const struct state *s, unsigned side)
{
    for (int i = 0; i < processes(); i++)
        if (side_of(i) == side && s->p[i].pc != GONE)
            return true;
    return false;
}

/* ---- The first look, poll() and SIGIO ------------------------------------------------- */

static unsigned looks_for(int i)
{
    return level_set.async && side_of(i) == READERS ? ASYNC : side_of(i);
}

static void pass(const struct state *s, int i, unsigned lock)
{
    int taken = level_take(s, i, lock);
    if (taken == 0)
        return;
    if (taken == 2)
        call_repair(i, lock, TO_PASSED, "passes through a lock, from the dead");
    else
        level_go(i, lock == WRITERS ? UNPASS_WRITE : UNPASS_READ,
           lock == WRITERS ? "passes through the write lock" : "passes through the read lock");
}

static bool poll_returns(const struct state *s, int i)
{
    bool hung_up = !others_present(s, 1 - side_of(i));
    return hung_up || (side_of(i) == READERS ? s->content != EMPTY : s->content != FULL);
}

static void look(const struct state *s, int i)
{
    struct process *p = level_begin(s, i);
    unsigned side = looks_for(i);
    unsigned flag = 1u << side;
    enum pc asleep = side == ASYNC ? SET_ASYNC : POLLING;
    switch (p->pc) {
    case L0:
        if (looked_at(is(CONTENT_WITH_THE_FLAG) ? s->usage : s->in_step, side)) {
            level_go(i, asleep, "L0 in step");
            return;
        }
        level_go(i, is(FLAG_AFTER_THE_LEVEL) ? LOOK_LOCK : L1, "L0 not in step");
        return;
    case L1:
        level_next.usage = (s->usage | flag) & 7;
        level_go(i, is(LOOK_PAST_THE_LOCKS) || level_set.old_look ? LOOK_LOCK : PASS_WRITE,
           "L1 poll_usage");
        return;
    case PASS_WRITE:
        pass(s, i, WRITERS);
        return;
    case PASS_READ:
        pass(s, i, READERS);
        return;
    case UNPASS_WRITE:
        level_set_owner(WRITERS, 0);
        level_go(i, PASS_READ, "gives the write lock back");
        return;
    case UNPASS_READ:
        level_set_owner(READERS, 0);
        level_go(i, LOOK_LOCK, "gives the read lock back");
        return;
    case LOOK_LOCK:
        if (level_take(s, i, COMPANION) == 0)
            return;
        level_go(i, L3, "lock the companion");
        return;
    case L3:
        if (side == ASYNC) {
            level_go(i, L4, "L3 keeps no level");
            return;
        }
        if (is(IN_STEP_BEFORE_THE_LEVEL))
            level_next.in_step = (s->in_step | flag) & 7;
        call_sync(i, LEVEL, TO_LOOK_END);
        level_emit(OWN, i, "L3");
        return;
    case L4:
        level_next.in_step = (s->in_step | flag) & 7;
        level_go(i, UNLOOK, "L4 in_step");
        return;
    case UNLOOK:
        level_set_owner(COMPANION, 0);
        level_go(i, asleep, "unlock the companion");
        return;
    case FLAG_LATE:
        level_next.in_step = (s->in_step | flag) & 7;
        level_next.usage = (s->usage | flag) & 7;
        level_go(i, POLLING, "L1, L3 flags: poll()");
        return;
    case SET_ASYNC:
        p->async = 1;
        level_go(i, LOCK, "F_SETFL O_ASYNC; reads what is there");
        return;
    case POLLING:
        p->was_told = others_present(s, 1 - side_of(i));
        if (poll_returns(s, i)) {
            level_next.wrong = side_of(i) == READERS && p->was_told && !s->written;
            level_next.written = s->written || side_of(i) == WRITERS;
            level_go(i, LOCK, "poll() returns: reads or writes");
        }
        return;
    default: /* WAITING */
        if (p->signalled) {
            p->signalled = 0;
            level_go(i, LOCK, "SIGIO: reads");
        }
        return;
    }
}

static void one_process(const struct state *s, int i)
{
    enum pc pc = s->p[i].pc;
    bool signals = looks_for(i) == ASYNC;
    if (s->p[i].buffered) {
        level_begin(s, i);
        level_drain(i);
        level_emit(OWN, i, "its store buffer drains");
    }
    if (pc == IDLE) {
        level_begin(s, i)->pc = LOCK;
        level_next.written = s->written || side_of(i) == WRITERS;
        if (!signals)
            level_emit(WORLD, i, side_of(i) == READERS ? "read()" : "write()");
        level_begin(s, i)->pc = L0;
        level_emit(WORLD, i, signals ? "O_ASYNC" : "poll()");
    } else if (pc <= S3_WAIT) {
        turn_begin(s, i);
    } else if (pc <= S1) {
        turn(s, i);
    } else if (pc <= S4_BYTES) {
        sync_level(s, i);
    } else if (pc <= FINISHED) {
        turn_end(s, i);
    } else if (pc <= WAITING) {
        look(s, i);
    }
    if (pc != GONE && s->deaths < level_set.deaths) {
        struct process *p = level_begin(s, i);
        level_drain(i);
        memset(p, 0, sizeof *p);
        p->pc = GONE;
        level_next.deaths = (s->deaths + 1) & 3;
        level_emit(WORLD, i, "is killed");
    }
}

/* ---- The model --------------------------------------------------------------------- */

static void first(void *state)
{
    struct state *s = state;
    memset(s, 0, sizeof *s);
    s->content = is(NO_WAITING_BYTE) ? EMPTY : SOME;
}

static void successors(const void *state)
{
    struct state s = {0};
    memcpy(&s, state, level.bytes);
    for (int i = 0; i < processes(); i++)
        one_process(&s, i);
}

static const char *broken(const void *state)
{
    const struct state *s = state;
    return s->wrong ? "poll() returns, and there is nothing to be done" : NULL;
}

enum answer { SLEEPS, FINDS_SOMETHING, FINDS_NOTHING, HANGS };

/* poll(), and what is done when it returns, by one process while all others rest. */
static enum answer poll_alone(struct state *s, int i)
{
    bool found = false;
    s->p[i].pc = L0;
    for (;;) {
        unsigned room = side_of(i) == WRITERS ? level_set.slots - s->used : s->used;
        found = found || (s->p[i].pc == CHECK && room != 0);
        if (s->p[i].pc == IDLE)
            return found ? FINDS_SOMETHING : FINDS_NOTHING;
        alone.on = true;
        alone.moved = false;
        one_process(s, i);
        alone.on = false;
        if (!alone.moved)
            return s->p[i].pc == POLLING ? SLEEPS : HANGS;
        *s = alone.next;
    }
}

static bool all_of_them_live(const struct state *s, unsigned side)
{
    for (int i = 0; i < processes(); i++)
        if (side_of(i) == side && s->p[i].pc == GONE)
            return false;
    return true;
}

/* Who calls poll() now, and does what it says he can, finds it so.  If one of his own side has died, at the
 * latest the second time: the first one puts right what was left. */
static const char *is_exact(const struct state *s)
{
    for (int i = 0; i < processes(); i++) {
        if ((s->p[i].pc != IDLE && s->p[i].pc != POLLING) || looks_for(i) == ASYNC ||
            !others_present(s, 1 - side_of(i)))
            continue;
        struct state now = *s;
        enum answer answer = poll_alone(&now, i);
        if (answer == FINDS_NOTHING && all_of_them_live(s, side_of(i)))
            return side_of(i) == READERS ? "poll() says data, and a read finds none"
                                         : "poll() says room, and a write finds none";
        if (answer == FINDS_NOTHING)
            answer = poll_alone(&now, i);
        if (answer == FINDS_NOTHING)
            return "poll() is wrong for ever";
        if (answer == HANGS)
            return "somebody waits for a lock for ever";
    }
    return NULL;
}

static const char *stuck(const void *state)
{
    struct state s = {0};
    memcpy(&s, state, level.bytes);
    for (int i = 0; i < processes(); i++) {
        const struct process *p = &s.p[i];
        if (p->pc != POLLING && p->pc != WAITING && p->pc != IDLE && p->pc != GONE)
            return "somebody waits for a lock for ever";
        if (p->pc == WAITING && s.used > 0)
            return "a reader waits for a signal beside data";
        if (p->pc != POLLING)
            continue;
        if (side_of(i) == READERS && s.used > 0)
            return "a reader's poll() sleeps beside data";
        if (side_of(i) == WRITERS && s.used < level_set.slots)
            return "a writer's poll() sleeps beside room";
    }
    if (s.deaths == 0 && looked_at(s.in_step, READERS) && s.used == 0 && s.content != EMPTY)
        return "the companion says data, and there is none";
    if (s.deaths == 0 && looked_at(s.in_step, WRITERS) && s.used == level_set.slots &&
        s.content != FULL)
        return "the companion says room, and there is none";
    return level_set.old_look ? NULL : is_exact(&s);
}

/* All that is known of a process of one side, for an order of equals. */
static uint32_t key_of(const struct state *s, int i)
{
    uint32_t key = 0;
    memcpy(&key, &s->p[i], sizeof key);
    for (unsigned lock = 0; lock < 3; lock++)
        key |= (uint32_t)(level_owner_of(s, lock) == (unsigned)i + 1) << (31 - lock);
    return key;
}

static unsigned renamed(unsigned owner, int i, int j)
{
    unsigned first = (unsigned)i + 1, second = (unsigned)j + 1;
    return (owner == first ? second : owner == second ? first : owner) & 7;
}

static void exchange(struct state *s, int i, int j)
{
    struct process p = s->p[i];
    s->p[i] = s->p[j];
    s->p[j] = p;
    s->lock0 = renamed(s->lock0, i, j) & 7;
    s->lock1 = renamed(s->lock1, i, j) & 7;
    s->lock2 = renamed(s->lock2, i, j) & 7;
}

/* Processes of one side differ only in their number. */
static void canonical(void *state)
{
    struct state s = {0};
    memcpy(&s, state, level.bytes);
    for (int i = 0; i < processes(); i++)
        for (int j = i + 1; j < processes() && side_of(j) == side_of(i); j++)
            if (key_of(&s, j) < key_of(&s, i))
                exchange(&s, i, j);
    memcpy(state, &s, level.bytes);
}

static const char *name(int i)
{
    static const char *const names[2][MOST] = {{"reader 1", "reader 2", "reader 3", "reader 4"},
                                               {"writer 1", "writer 2", "writer 3", "writer 4"}};
    if (i < 0)
        return "";
    return names[side_of(i)][side_of(i) == READERS ? i : i - (int)level_set.readers];
}

static void show(const void *state, char *line, size_t bytes)
{
    static const char *const contents[] = {"empty", "some", "full"};
    static const char *const levels[] = {"unknown", "not full", "full"};
    const struct state *s = state;
    snprintf(line, bytes, "slots %u, companion %s, level %s", s->used, contents[s->content],
             levels[s->level]);
}

const struct model *level_model(const struct level_setting *setting)
{
    level_set = *setting;
    level = (struct model){
        .bytes = offsetof(struct state, p) + sizeof(struct process) * (size_t)processes(),
        .first = first,
        .successors = successors,
        .broken = broken,
        .stuck = stuck,
        .canonical = canonical,
        .name = name,
        .show = show,
    };
    return &level;
}
