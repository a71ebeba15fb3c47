/* level.c - the companion beside the ring, as a state machine.  The names of the steps are the
 * labels of docs/explanation/companion-sync.md.
 *
 * What is abstract: the companion is empty, has some bytes or is full; events (edges) and sizes are
 * left out.  A process that holds an end reads, writes, or looks at it and sleeps in poll().  A
 * poller has no timer.  Locks are taken when they are free or their owner is dead.
 */
#include "level.h"

#include <stdio.h>
#include <string.h>

enum { READERS, WRITERS, COMPANION };
#define MOST 4

enum pc {
    IDLE,
    LOCK,
    REPAIR_LOCK,
    S2,
    S3_WAIT, /* for the companion's lock, in no other */
    CHECK,
    FORETELL_LOCK,
    FORETELL,
    S1,
    S4,
    S4_LEVEL,
    S4_BYTES,
    S5,
    UNLOCK,
    S2_AGAIN,
    LATER_LOCK,
    L0,
    L1,
    PASS_WRITE,
    PASS_READ,
    UNPASS_WRITE,
    UNPASS_READ,
    LOOK_LOCK,
    L3,
    FLAG_LATE,
    POLLING,
    GONE,
};

enum op { LEVEL, READ, WRITE, WRITTEN };
enum back { TO_S5, TO_S2, TO_LATER_END, TO_LOOK_END };
enum content { EMPTY, SOME, FULL };
enum word { UNKNOWN, NOT_FULL, IS_FULL };

struct process {
    uint32_t pc : 5;
    uint32_t back : 2;
    uint32_t op : 2;
    uint32_t held : 1;
    uint32_t told : 1;
    uint32_t more : 1;
    uint32_t slots : 2;
    uint32_t empty : 1;
    uint32_t full : 1;
    uint32_t level_first : 1; /* what S4 does to the companion */
    uint32_t act : 3;
    uint32_t unseen : 1; /* nobody looked when it asked too early */
    uint32_t unused : 11;
};
enum act { NOTHING, DRAIN, LEAVE_ONE, TAKE_SLOTS, FILL, ONE_BYTE };

struct state {
    uint32_t used : 3;
    uint32_t content : 2;
    uint32_t level : 2;
    uint32_t usage : 2;
    uint32_t in_step : 2;
    uint32_t lock0 : 3;
    uint32_t lock1 : 3;
    uint32_t lock2 : 3;
    uint32_t deaths : 2;
    uint32_t unused : 10;
    struct process p[MOST];
};
_Static_assert(sizeof(struct state) <= STATE_MAX, "a state fits");

static struct level_setting set;
static struct model level;
static struct state next;

static bool is(enum level_variant variant)
{
    return set.variant == variant;
}

static int processes(void)
{
    return (int)(set.readers + set.writers);
}

static unsigned side_of(int i)
{
    return i < (int)set.readers ? READERS : WRITERS;
}

static bool looked_at(unsigned sides, unsigned side)
{
    return ((sides >> side) & 1) != 0;
}

static unsigned owner_of(const struct state *s, unsigned lock)
{
    return lock == READERS ? s->lock0 : lock == WRITERS ? s->lock1 : s->lock2;
}

static void set_owner(unsigned lock, unsigned owner)
{
    if (lock == READERS)
        next.lock0 = owner & 7;
    else if (lock == WRITERS)
        next.lock1 = owner & 7;
    else
        next.lock2 = owner & 7;
}

static bool others_present(const struct state *s, unsigned side)
{
    for (int i = 0; i < processes(); i++)
        if (side_of(i) == side && s->p[i].pc != GONE)
            return true;
    return false;
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

/* 0: busy.  1: taken.  2: taken from the dead. */
static int take(const struct state *s, int i, unsigned lock)
{
    unsigned owner = owner_of(s, lock);
    if (owner != 0 && s->p[owner - 1].pc != GONE)
        return 0;
    set_owner(lock, (unsigned)i + 1);
    if (lock == COMPANION && owner != 0 && !is(DEAD_LEVEL_BELIEVED))
        next.level = UNKNOWN;
    return owner != 0 ? 2 : 1;
}

static void call_sync(int i, enum op op, enum back back)
{
    struct process *p = &next.p[i];
    p->op = op & 3;
    p->back = back & 3;
    p->pc = S4;
}

/* ---- A turn ------------------------------------------------------------------------ */

static void turn_begin(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned side = side_of(i);
    int taken;
    switch (p->pc) {
    case LOCK:
        taken = take(s, i, side);
        if (taken == 0)
            return;
        p->held = p->told = 0;
        go(i, taken == 2 && s->usage != 0 ? REPAIR_LOCK : S2,
           taken == 2 ? "S0 lock its side, from the dead" : "S0 lock its side");
        return;
    case REPAIR_LOCK:
        if (take(s, i, COMPANION) == 0)
            return;
        call_sync(i, WRITE, TO_S2);
        step(&next, OWN, i, "repair: lock the companion");
        return;
    case S2:
        if (s->usage == 0) {
            p->unseen = set.old_look && is(S2_RELAXED);
            go(i, CHECK, "S2 nobody looks");
            return;
        }
        if (take(s, i, COMPANION) != 0) {
            p->held = 1;
            go(i, CHECK, "S2 somebody looks: S3 lock the companion");
            return;
        }
        set_owner(side, 0);
        go(i, S3_WAIT, "S3 the companion is busy: gives its side back");
        return;
    default: /* S3_WAIT */
        if (take(s, i, COMPANION) == 0)
            return;
        set_owner(COMPANION, 0);
        go(i, LOCK, "S3 the companion has been free");
        return;
    }
}

static enum op end_op(const struct process *p, int i)
{
    if (side_of(i) == WRITERS)
        return p->told ? WRITTEN : WRITE;
    return p->told ? LEVEL : READ;
}

static void over(int i, const char *what)
{
    struct process *p = &next.p[i];
    p->more = 0;
    p->slots = 0;
    if (!p->held || is(NO_SYNC_AT_THE_END))
        p->pc = p->held ? S5 : UNLOCK;
    else
        call_sync(i, end_op(p, i), TO_S5);
    step(&next, OWN, i, what);
}

static void turn(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned side = side_of(i);
    unsigned room = side == WRITERS ? set.slots - s->used : s->used;
    bool early = !is(TOLD_AFTER_THE_CHANGE);
    switch (p->pc) {
    case CHECK:
        if (room == 0) {
            over(i, side == WRITERS ? "full" : "empty");
            return;
        }
        if (s->used > 0 && !p->more)
            over(i, side == WRITERS ? "P2 merges" : "takes a part of a slot");
        for (unsigned slots = 1; slots <= room; slots++) {
            p = begin(s, i);
            p->slots = slots & 3;
            enum pc then = !early ? S1 : p->held ? FORETELL : FORETELL_LOCK;
            if (is(LATER_STEPS_UNTOLD) && p->more)
                then = S1;
            p->more = 0;
            go(i, then, side == WRITERS ? "fills slots" : "copies slots");
        }
        return;
    case FORETELL_LOCK:
        if (s->usage == 0 || (is(LATER_STEPS_UNTOLD) && !p->held)) {
            go(i, S1, "F nobody looks");
            return;
        }
        if (take(s, i, COMPANION) == 0)
            return;
        p->held = 1;
        go(i, FORETELL, "F lock the companion, inside");
        return;
    case FORETELL:
        if (is(TOLD_WITHOUT_THE_LOCK)) {
            set_owner(COMPANION, 0);
            p->held = 0;
        }
        if (side == WRITERS && looked_at(s->usage, READERS) && s->used == 0) {
            p->told = 1;
            if (next.content == EMPTY)
                next.content = SOME;
        } else if (side == READERS &&
                   (is(FORETOLD_ONLY_FROM_FULL) ? s->level == IS_FULL : s->level != NOT_FULL)) {
            p->told = s->content != EMPTY;
            if (next.content == FULL)
                next.content = SOME;
            next.level = NOT_FULL;
        }
        go(i, S1, "F foretell");
        return;
    default: /* S1, and whether more is to come */
        next.used = (side == WRITERS ? s->used + p->slots : s->used - p->slots) & 7;
        p->slots = 0;
        for (int more = 0; more < 2; more++) {
            struct state after = next;
            struct process *q = &next.p[i];
            if (more) {
                if (q->held)
                    set_owner(COMPANION, 0);
                q->held = 0;
                q->more = 1;
                go(i, CHECK, side == WRITERS ? "S1 store head; more to come: companion unlocked"
                                             : "S1 store tail; more to come: companion unlocked");
            } else {
                over(i, side == WRITERS ? "S1 store head" : "S1 store tail");
            }
            next = after;
        }
        return;
    }
}

static void turn_end(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    switch (p->pc) {
    case S5:
        set_owner(COMPANION, 0);
        go(i, UNLOCK, "S5 unlock the companion");
        return;
    case UNLOCK: {
        bool later = !p->held && !p->unseen;
        set_owner(side_of(i), 0);
        p->held = p->unseen = 0;
        go(i, later ? S2_AGAIN : IDLE, "unlock its side");
        return;
    }
    case S2_AGAIN:
        go(i, s->usage != 0 && !is(NO_SYNC_AT_THE_END) ? LATER_LOCK : IDLE,
           s->usage != 0 ? "S2 somebody looks by now" : "S2 still nobody looks");
        return;
    default: /* LATER_LOCK */
        if (take(s, i, COMPANION) == 0)
            return;
        call_sync(i, end_op(p, i), TO_LATER_END);
        step(&next, OWN, i, "S3 lock the companion");
        return;
    }
}

/* ---- S4: sync_locked --------------------------------------------------------------- */

static enum act wanted(const struct state *s, int i, bool empty, bool full)
{
    const struct process *p = &s->p[i];
    if (side_of(i) == READERS) {
        if (empty)
            return DRAIN;
        return !full && s->level != NOT_FULL ? LEAVE_ONE : NOTHING;
    }
    if (full && s->level != IS_FULL)
        return p->op != WRITE ? TAKE_SLOTS : FILL;
    return p->op == WRITE && !empty ? ONE_BYTE : NOTHING;
}

static void end_sync(int i, const char *what)
{
    struct process *p = &next.p[i];
    enum back back = p->back;
    p->empty = p->full = p->level_first = 0;
    p->act = 0;
    p->op = 0;
    p->back = 0;
    switch (back) {
    case TO_S5:
        p->pc = S5;
        break;
    case TO_S2:
        set_owner(COMPANION, 0);
        p->pc = S2;
        break;
    case TO_LATER_END:
        set_owner(COMPANION, 0);
        p->told = 0;
        p->pc = IDLE;
        break;
    case TO_LOOK_END:
        set_owner(COMPANION, 0);
        p->pc = is(FLAG_AFTER_THE_LEVEL) ? FLAG_LATE : POLLING;
        break;
    }
    step(&next, OWN, i, what);
}

static void sync_level(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    enum act act = p->act;
    switch (p->pc) {
    case S4: {
        bool empty = s->used == 0;
        bool full = s->used == set.slots;
        if (is(LEVEL_FROM_THE_OPERATION) && p->back == TO_S5) {
            /* What this operation made of it when it looked: here, before another one's change. */
            empty = side_of(i) == READERS;
            full = full && side_of(i) == WRITERS;
        }
        unsigned flags = is(FLAG_AFTER_THE_LEVEL) ? 3 : s->in_step;
        p->act = wanted(s, i, empty && looked_at(flags, READERS), full && looked_at(flags, WRITERS)) & 7;
        if (p->act == NOTHING) {
            end_sync(i, "S4 load tail, head: the level is right");
            return;
        }
        go(i, p->act == FILL ? S4_LEVEL : S4_BYTES, "S4 load tail, head: the level is another");
        return;
    }
    case S4_BYTES:
        if (act == DRAIN)
            next.content = EMPTY;
        else if (act == LEAVE_ONE && s->content == FULL)
            next.content = SOME;
        else if ((act == TAKE_SLOTS && s->content != EMPTY) || act == FILL)
            next.content = FULL;
        else if (act == ONE_BYTE && s->content == EMPTY)
            next.content = SOME;
        if (act == FILL || act == ONE_BYTE) {
            end_sync(i, act == FILL ? "S4 fills the companion" : "S4 one byte into the companion");
            return;
        }
        go(i, S4_LEVEL, act == DRAIN       ? "S4 drains the companion"
                        : act == LEAVE_ONE ? "S4 leaves one byte in the companion"
                                           : "S4 takes the companion's free slots away");
        return;
    default: /* S4_LEVEL */
        next.level = act == FILL || act == TAKE_SLOTS ? IS_FULL : NOT_FULL;
        if (act == FILL) {
            go(i, S4_BYTES, "S4 level = full");
            return;
        }
        end_sync(i, "S4 store level");
        return;
    }
}

/* ---- The first look, and poll() ------------------------------------------------------ */

static void look(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned side = side_of(i);
    int taken;
    switch (p->pc) {
    case L0:
        if (looked_at(s->in_step, side)) {
            go(i, POLLING, "L0 in step: poll()");
            return;
        }
        go(i, is(FLAG_AFTER_THE_LEVEL) ? LOOK_LOCK : L1, "L0 not in step");
        return;
    case L1:
        next.usage = (s->usage | 1u << side) & 3;
        go(i, is(LOOK_PAST_THE_LOCKS) || set.old_look ? LOOK_LOCK : PASS_WRITE, "L1 poll_usage");
        return;
    case PASS_WRITE:
    case PASS_READ: {
        unsigned lock = p->pc == PASS_WRITE ? WRITERS : READERS;
        taken = take(s, i, lock);
        if (taken == 0)
            return;
        /* The repair of a dead one's lock is a sync, too: the look below does the same. */
        go(i, lock == WRITERS ? UNPASS_WRITE : UNPASS_READ,
           lock == WRITERS ? "passes through the write lock" : "passes through the read lock");
        return;
    }
    case UNPASS_WRITE:
        set_owner(WRITERS, 0);
        go(i, PASS_READ, "gives the write lock back");
        return;
    case UNPASS_READ:
        set_owner(READERS, 0);
        go(i, LOOK_LOCK, "gives the read lock back");
        return;
    case LOOK_LOCK:
        if (take(s, i, COMPANION) == 0)
            return;
        go(i, L3, "lock the companion");
        return;
    case L3:
        if (!is(FLAG_AFTER_THE_LEVEL))
            next.in_step = (s->in_step | 1u << side) & 3;
        call_sync(i, LEVEL, TO_LOOK_END);
        step(&next, OWN, i, "L3 in_step");
        return;
    case FLAG_LATE:
        next.in_step = (s->in_step | 1u << side) & 3;
        next.usage = (s->usage | 1u << side) & 3;
        go(i, POLLING, "L1, L3 flags: poll()");
        return;
    default: { /* POLLING */
        bool hung_up = !others_present(s, 1 - side);
        if (hung_up || (side == READERS ? s->content != EMPTY : s->content != FULL))
            go(i, LOCK, "poll() returns: reads or writes");
        return;
    }
    }
}

static void one_process(const struct state *s, int i)
{
    enum pc pc = s->p[i].pc;
    if (pc == IDLE) {
        begin(s, i)->pc = LOCK;
        step(&next, WORLD, i, side_of(i) == READERS ? "read()" : "write()");
        begin(s, i)->pc = L0;
        step(&next, WORLD, i, "poll()");
    } else if (pc <= S3_WAIT) {
        turn_begin(s, i);
    } else if (pc <= S1) {
        turn(s, i);
    } else if (pc <= S4_BYTES) {
        sync_level(s, i);
    } else if (pc <= LATER_LOCK) {
        turn_end(s, i);
    } else if (pc <= POLLING) {
        look(s, i);
    }
    if (pc != GONE && s->deaths < set.deaths) {
        struct process *p = begin(s, i);
        memset(p, 0, sizeof *p);
        p->pc = GONE;
        next.deaths = (s->deaths + 1) & 3;
        step(&next, WORLD, i, "is killed");
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
    (void)state;
    return NULL;
}

static const char *stuck(const void *state)
{
    const struct state *s = state;
    for (int i = 0; i < processes(); i++) {
        const struct process *p = &s->p[i];
        if (p->pc != POLLING && p->pc != IDLE && p->pc != GONE)
            return "somebody waits for a lock for ever";
        if (p->pc != POLLING)
            continue;
        if (side_of(i) == READERS && s->used > 0)
            return "a reader's poll() sleeps beside data";
        if (side_of(i) == WRITERS && s->used < set.slots)
            return "a writer's poll() sleeps beside room";
    }
    if (s->deaths == 0 && looked_at(s->in_step, READERS) && s->used == 0 && s->content != EMPTY)
        return "the companion says data, and there is none";
    if (s->deaths == 0 && looked_at(s->in_step, WRITERS) && s->used == set.slots && s->content != FULL)
        return "the companion says room, and there is none";
    return NULL;
}

static const char *name(int i)
{
    static const char *const names[2][MOST] = {{"reader 1", "reader 2", "reader 3", "reader 4"},
                                               {"writer 1", "writer 2", "writer 3", "writer 4"}};
    if (i < 0)
        return "";
    return names[side_of(i)][side_of(i) == READERS ? i : i - (int)set.readers];
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
    set = *setting;
    level = (struct model){
        .bytes = offsetof(struct state, p) + sizeof(struct process) * (size_t)processes(),
        .first = first,
        .successors = successors,
        .broken = broken,
        .stuck = stuck,
        .name = name,
        .show = show,
    };
    return &level;
}
