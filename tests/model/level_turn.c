/* level_turn.c - an operation: a stay in its side's lock, and in the companion's if somebody looks. */
#include "level_state.h"

/* ---- After the lock was taken from the dead -------------------------------------------- */

/* Those who look for what was noted have been told.  A reader cannot ask, but tell of room. */
static bool is_told(const struct state *s, int i, unsigned side)
{
    if (is(NOTES_MADE_UNTOLD))
        return true;
    if (is(NOTES_MADE_UNTOLD_OF_BY_SIGNAL) && side == WRITERS && !looked_at(s->usage, READERS))
        return true;
    if (!looked_at(s->in_step, side == WRITERS ? READERS : WRITERS))
        return false;
    if (side == WRITERS)
        return s->content != EMPTY;
    if (side_of(i) == WRITERS)
        return s->content != FULL;
    if (s->content == FULL)
        level_next.content = SOME;
    level_next.level = NOT_FULL;
    return true;
}

/* What was noted is made, or dropped. */
static void make_noted(unsigned side, bool told)
{
    unsigned slots = noted(&level_next, side);
    if (told && side == WRITERS)
        level_next.used = (level_next.used + slots) & 7;
    if (told && side == READERS)
        level_next.used = (level_next.used - slots) & 7;
    set_noted(side, 0);
}

static void end_repair(int i, const char *what)
{
    struct process *p = &level_next.p[i];
    enum back back = p->back;
    unsigned side = p->repairs;
    p->back = 0;
    p->repairs = 0;
    p->pc = back == TO_S2       ? S2
            : back == TO_PASSED ? (side == WRITERS ? UNPASS_WRITE : UNPASS_READ)
                                : FINISHED;
    level_emit(OWN, i, what);
}

/* The lock of that side has just been taken from the dead. */
void call_repair(int i, unsigned side, enum back back, const char *what)
{
    struct process *p = &level_next.p[i];
    p->repairs = side & 1;
    p->back = back & 7;
    level_go(i, REPAIR, what);
}

static void repair(const struct state *s, int i)
{
    struct process *p = level_begin(s, i);
    unsigned side = p->repairs;
    enum back back = p->back;
    if (s->usage == 0) {
        make_noted(side, false);
        end_repair(i, "repairs: nobody looks");
        return;
    }
    if (level_take(s, i, COMPANION) == 0) {
        if (back != TO_FINISHED)
            return;
        level_set_owner(side, ABANDONED);
        p->back = p->repairs = 0;
        p->nothing = 0;
        level_go(i, p->async ? WAITING : IDLE, "the companion is busy: the lock stays a dead one's");
        return;
    }
    if (noted(s, side) != 0)
        make_noted(side, is_told(s, i, side));
    call_sync(i, WRITE, back);
    level_emit(OWN, i, "repairs: locks the companion");
}

/* ---- A turn ------------------------------------------------------------------------ */

/* Signals tell of writes and leave no level to keep: then a reader locks the companion only if it
 * finds nothing, for a writer may have told it and not made the change yet. */
static bool begins_in_the_companion(const struct state *s, int i)
{
    return has_to_tell(s, side_of(i)) || (s->used == 0 && !is(TELLER_NOT_WAITED_FOR));
}

void turn_begin(const struct state *s, int i)
{
    struct process *p = level_begin(s, i);
    unsigned side = side_of(i);
    int taken;
    switch (p->pc) {
    case LOCK:
        taken = level_take(s, i, side);
        if (taken == 0)
            return;
        p->held = p->told = p->nothing = 0;
        if (taken == 2)
            call_repair(i, side, TO_S2, "S0 lock its side, from the dead");
        else
            level_go(i, S2, "S0 lock its side");
        return;
    case REPAIR:
        repair(s, i);
        return;
    case S2:
        if (s->usage == 0 || !begins_in_the_companion(s, i)) {
            p->unseen = level_set.old_look && is(S2_RELAXED);
            level_go(i, CHECK, s->usage == 0 ? "S2 nobody looks" : "S2 has nothing to tell");
            return;
        }
        if (level_take(s, i, COMPANION) != 0) {
            p->held = 1;
            level_go(i, CHECK, "S2 somebody looks: S3 lock the companion");
            return;
        }
        level_set_owner(side, 0);
        level_go(i, S3_WAIT, "S3 the companion is busy: gives its side back");
        return;
    default: /* S3_WAIT */
        if (level_take(s, i, COMPANION) == 0)
            return;
        level_set_owner(COMPANION, 0);
        level_go(i, LOCK, "S3 the companion has been free");
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
    struct process *p = &level_next.p[i];
    p->more = 0;
    p->slots = 0;
    if (!p->held || is(NO_SYNC_AT_THE_END))
        p->pc = p->held ? S5 : UNLOCK;
    else
        call_sync(i, end_op(p, i), TO_S5);
    level_emit(OWN, i, what);
}

/* F */
static void foretell(const struct state *s, int i)
{
    struct process *p = level_begin(s, i);
    level_drain(i); /* a system call */
    if (is(TOLD_WITHOUT_THE_LOCK)) {
        level_set_owner(COMPANION, 0);
        p->held = 0;
    }
    if (is(NOTED_AFTER_IT_IS_TOLD))
        set_noted(side_of(i), 0);
    if (side_of(i) == WRITERS) {
        if ((looked_at(s->usage, READERS) || looked_at(s->usage, ASYNC)) && s->used == 0) {
            p->told = 1;
            if (s->content == EMPTY)
                level_next.content = SOME;
            tell_readers();
        }
    } else if (is(FORETOLD_ONLY_FROM_FULL) ? s->level == IS_FULL : s->level != NOT_FULL) {
        p->told = s->content != EMPTY;
        if (s->content == FULL)
            level_next.content = SOME;
        level_next.level = NOT_FULL;
    }
    level_go(i, S1, "F foretell");
}

/* S1, and whether more is to come. */
static void publish(const struct state *s, int i)
{
    struct process *p = level_begin(s, i);
    bool writes = side_of(i) == WRITERS;
    level_next.used = (writes ? s->used + p->slots : s->used - p->slots) & 7;
    set_noted(side_of(i), 0);
    p->buffered = 0;
    p->slots = 0;
    struct state after = level_next;
    over(i, writes ? "S1 store head" : "S1 store tail");
    level_next = after;
    if (p->held)
        level_set_owner(COMPANION, 0);
    p->held = 0;
    p->more = 1;
    level_go(i, CHECK, writes ? "S1 store head; more to come: companion unlocked"
                        : "S1 store tail; more to come: companion unlocked");
}

void turn(const struct state *s, int i)
{
    struct process *p = level_begin(s, i);
    bool writes = side_of(i) == WRITERS;
    unsigned room = writes ? level_set.slots - s->used : s->used;
    bool later = is(LATER_STEPS_UNTOLD) && p->more;
    switch (p->pc) {
    case CHECK:
        if (room == 0) {
            p->nothing = !p->more;
            over(i, writes ? "full" : "empty");
            return;
        }
        if (s->used > 0 && !p->more)
            over(i, writes ? "P2 merges" : "takes a part of a slot");
        for (unsigned slots = 1; slots <= room; slots++) {
            p = level_begin(s, i);
            p->slots = slots & 3;
            p->more = 0;
            enum pc then = is(TOLD_AFTER_THE_CHANGE) || later ? S1
                           : p->held || is(NOTED_OUTSIDE_THE_LOCK) ? NOTE
                                                                   : FORETELL_LOCK;
            level_go(i, then, writes ? "fills slots" : "copies slots");
        }
        return;
    case FORETELL_LOCK:
        if (!has_to_tell(s, side_of(i)) || (is(LATER_STEPS_UNTOLD) && !p->held)) {
            level_go(i, is(NOTED_OUTSIDE_THE_LOCK) ? S1 : NOTE, "F nobody looks");
            return;
        }
        if (level_take(s, i, COMPANION) == 0)
            return;
        level_drain(i);
        p->held = 1;
        level_go(i, is(NOTED_OUTSIDE_THE_LOCK) ? FORETELL : NOTE, "F lock the companion, inside");
        return;
    case NOTE: {
        enum pc then = p->held ? FORETELL : is(NOTED_OUTSIDE_THE_LOCK) ? FORETELL_LOCK : S1;
        if (!is(NOT_NOTED))
            p->buffered = 1;
        level_go(i, then, "notes what it is about to change");
        return;
    }
    case FORETELL:
        foretell(s, i);
        return;
    default:
        publish(s, i);
        return;
    }
}

static bool is_alone_on_its_side(int i)
{
    return (side_of(i) == READERS ? level_set.readers : level_set.writers) == 1;
}

void turn_end(const struct state *s, int i)
{
    struct process *p = level_begin(s, i);
    unsigned other = 1 - side_of(i);
    switch (p->pc) {
    case S5:
        level_set_owner(COMPANION, 0);
        level_go(i, UNLOCK, "S5 unlock the companion");
        return;
    case UNLOCK: {
        bool later = !p->held && !p->unseen;
        level_set_owner(side_of(i), 0);
        p->held = p->unseen = 0;
        level_go(i, later ? S2_AGAIN : FINISH, "unlock its side");
        return;
    }
    case S2_AGAIN: {
        bool tells = has_to_tell(s, side_of(i)) && !is(NO_SYNC_AT_THE_END);
        if (!tells)
            p->told = 0;
        level_go(i, tells ? LATER_LOCK : FINISH,
           tells ? "S2 somebody looks by now" : "S2 still nobody looks");
        return;
    }
    case LATER_LOCK:
        if (level_take(s, i, COMPANION) == 0)
            return;
        call_sync(i, end_op(p, i), TO_LATER_END);
        level_emit(OWN, i, "S3 lock the companion");
        return;
    case FINISH:
        if (p->nothing && noted(s, other) != 0 && is_a_dead_ones(s, other) &&
            !is(NOTES_LEFT_TO_THE_NEXT_WRITER)) {
            level_take(s, i, other);
            call_repair(i, other, TO_FINISHED, "takes the other side's lock from the dead");
            return;
        }
        /* Signals: until a read finds nothing. */
        p->told = 0;
        level_next.wrong = p->was_told && p->nothing && is_alone_on_its_side(i) && s->deaths == 0;
        p->was_told = 0;
        bool waits = p->async && p->nothing;
        bool again = p->async && !p->nothing;
        p->nothing = 0;
        level_go(i, waits ? WAITING : again ? LOCK : IDLE, "the call is over");
        return;
    default: { /* FINISHED */
        bool found = other == WRITERS ? s->used != 0 : s->used != level_set.slots;
        level_set_owner(other, 0);
        p->repairs = 0;
        p->nothing = 0;
        level_go(i, found ? LOCK : p->async ? WAITING : IDLE, "gives the other side's lock back");
        return;
    }
    }
}
