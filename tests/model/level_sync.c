/* level_sync.c - S4: bringing the companion to the ring's level, in its lock. */
#include "level_state.h"

void call_sync(int i, enum op op, enum back back)
{
    struct process *p = &level_next.p[i];
    p->op = op & 3;
    p->back = back & 7;
    p->pc = S4;
}

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
    struct process *p = &level_next.p[i];
    enum back back = p->back;
    p->act = 0;
    p->op = 0;
    p->back = 0;
    if (back != TO_S5 && (back != TO_LOOK_END || is(FLAG_AFTER_THE_LEVEL)))
        level_set_owner(COMPANION, 0);
    switch (back) {
    case TO_S5:
        p->pc = S5;
        break;
    case TO_S2:
        p->pc = S2;
        break;
    case TO_PASSED:
        p->pc = p->repairs == WRITERS ? UNPASS_WRITE : UNPASS_READ;
        p->repairs = 0;
        break;
    case TO_FINISHED:
        p->pc = FINISHED;
        break;
    case TO_LATER_END:
        p->told = 0;
        p->pc = FINISH;
        break;
    case TO_LOOK_END:
        p->pc = is(FLAG_AFTER_THE_LEVEL) ? FLAG_LATE : L4;
        break;
    }
    level_emit(OWN, i, what);
}

static void look_at_the_ring(const struct state *s, int i)
{
    struct process *p = level_begin(s, i);
    bool notes = !is(LEVEL_WITHOUT_NOTES);
    /* What is noted will be so. */
    bool empty = s->used == 0 && !(notes && noted(s, WRITERS) != 0);
    bool full = s->used == level_set.slots && !(notes && noted(s, READERS) != 0);
    if (is(LEVEL_FROM_THE_OPERATION) && p->back == TO_S5) {
        /* What this operation made of it when it looked: here, before another one's change. */
        empty = side_of(i) == READERS;
        full = full && side_of(i) == WRITERS;
    }
    unsigned mine = p->back == TO_LOOK_END ? 1u << side_of(i) : 0;
    unsigned flags = is(FLAG_AFTER_THE_LEVEL) ? 3 : s->in_step | mine;
    p->act = wanted(s, i, empty && looked_at(flags, READERS), full && looked_at(flags, WRITERS)) & 7;
    if (p->act == NOTHING) {
        end_sync(i, "S4 load tail, head: the level is right");
        return;
    }
    level_go(i, p->act == FILL ? S4_LEVEL : S4_BYTES, "S4 load tail, head: the level is another");
}

void sync_level(const struct state *s, int i)
{
    struct process *p = level_begin(s, i);
    enum act act = p->act;
    switch (p->pc) {
    case S4:
        look_at_the_ring(s, i);
        return;
    case S4_BYTES:
        if (act == DRAIN)
            level_next.content = EMPTY;
        else if (act == LEAVE_ONE && s->content == FULL)
            level_next.content = SOME;
        else if ((act == TAKE_SLOTS && s->content != EMPTY) || act == FILL)
            level_next.content = FULL;
        else if (act == ONE_BYTE && s->content == EMPTY)
            level_next.content = SOME;
        if (act == FILL || act == ONE_BYTE) {
            tell_readers();
            end_sync(i, act == FILL ? "S4 fills the companion" : "S4 one byte into the companion");
            return;
        }
        level_go(i, S4_LEVEL, act == DRAIN       ? "S4 drains the companion"
                        : act == LEAVE_ONE ? "S4 leaves one byte in the companion"
                                           : "S4 takes the companion's free slots away");
        return;
    default: /* S4_LEVEL */
        level_next.level = act == FILL || act == TAKE_SLOTS ? IS_FULL : NOT_FULL;
        if (act == FILL) {
            level_go(i, S4_BYTES, "S4 level = full");
            return;
        }
        end_sync(i, "S4 store level");
        return;
    }
}
