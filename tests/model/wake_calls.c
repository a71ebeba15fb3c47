/* wake_calls.c - attach, read, write, close: what a call does while it is awake. */
#include "wake_state.h"

/* Steps that can only have one outcome are left out. */
static bool ends_go(void)
{
    return wake_set.closes || wake_set.deaths != 0;
}

/* What comes after the last change in the lock. */
static enum pc to_unlock(void)
{
    return wake_set.stops != 0 ? SHALL_WAKE : UNLOCK;
}

enum pc to_move(const struct process *p, int i)
{
    if (side_of(i) == WRITERS && p->pc != PRESENT && ends_go())
        return PRESENT;
    return is(WAKES_BEFORE_W1) || is(W2_BEFORE_W1) ? W2_EARLY : MOVE;
}

void attach(const struct state *s, int i)
{
    struct process *p;
    switch (s->p[i].pc) {
    case ABSENT:
        p = begin(s, i);
        p->open = 1;
        if (is(CLAIM_RELAXED)) {
            p->buffer = CLAIM_STORE;
            p->pc = ANNOUNCE_READABLE;
        } else if (is(ANNOUNCE_BEFORE_CLAIM)) {
            p->pc = ANNOUNCE_READABLE;
        } else {
            p->live = 1;
            p->pc = ANNOUNCE_STATE;
        }
        emit(WORLD, i, "C3 attaches: live = 1");
        return;
    case ANNOUNCE_STATE:
        p = begin(s, i);
        p->live = p->counted = 1;
        go(i, is(ANNOUNCE_BEFORE_CLAIM) ? IDLE : ANNOUNCE_READABLE, "A2 store state");
        return;
    case ANNOUNCE_READABLE:
        p = begin(s, i);
        if (s->count0 == 0)
            p->introduced = (p->introduced | 1) & 3;
        go(i, ANNOUNCE_WRITABLE, "A3 load readable: introduced if nobody is registered");
        return;
    default:
        p = begin(s, i);
        if (s->count1 == 0)
            p->introduced = (p->introduced | 2) & 3;
        go(i, is(ANNOUNCE_BEFORE_CLAIM) ? ANNOUNCE_STATE : IDLE,
           "A3 load writable: introduced if nobody is registered");
        return;
    }
}

static void lock(const struct state *s, int i)
{
    unsigned side = side_of(i);
    unsigned owner = owner_of(s, side);
    struct process *p = begin(s, i);
    enum pc then = to_move(p, i);
    if (is(OTHER_INDEX_BEFORE_W1))
        p->old = (s->used == (side == WRITERS ? 0 : wake_set.slots)) & 1;
    if (owner == 0) {
        set_owner(&wake_next, side, (unsigned)i + 1);
        go(i, then, "lock its side");
        return;
    }
    if (s->p[owner - 1].pc == GONE && s->p[owner - 1].marked) {
        set_owner(&wake_next, side, (unsigned)i + 1);
        call(p, ALL_EPOCH, READERS, true, TO_MOVE);
        emit(OWN, i, "lock its side, from the dead");
        return;
    }
    if (wake_set.signals) {
        p->waits = 0;
        p->failed = 1;
        p->pc = after_unlock(p);
        emit(WORLD, i, "a signal while it waits for the lock: EINTR");
    }
}

static void publish(const struct state *s, int i, unsigned slots, bool more)
{
    static const char *const names[2][2] = {{"T4 store tail", "T4 store tail"},
                                            {"P1 store head", "P1 store head, more to come"}};
    struct process *p = begin(s, i);
    p->moved = slots & 3;
    p->more = more;
    p->waits = 0;
    p->tried = 0;
    p->buffer = INDEX_STORE;
    if (!is(W1_RELAXED))
        drain(&wake_next, i);
    if (p->ahead) {
        p->ahead = 0;
        go(i, more ? MOVE : to_unlock(), names[side_of(i)][more]);
        return;
    }
    go(i, is(W2_BEFORE_W1) || is(WAKES_BEFORE_W1) ? UNLOCK : W2, names[side_of(i)][more]);
}

static void move(const struct state *s, int i)
{
    struct process *p;
    unsigned room = side_of(i) == WRITERS ? wake_set.slots - s->used : s->used;
    if (room == 0) {
        p = begin(s, i);
        p->more = 0;
        p->waits = 1;
        go(i, side_of(i) == WRITERS || !ends_go() ? to_unlock() : NOTHING,
           side_of(i) == WRITERS ? "P0 load tail: full" : "T1 load head: empty");
        return;
    }
    bool stranger = ((s->p[i].introduced >> (1 - side_of(i))) & 1) == 0;
    if (s->used > 0 && !s->p[i].more && !s->p[i].tried && !wake_set.plain) {
        p = begin(s, i);
        p->waits = 0;
        if (side_of(i) == READERS)
            set_idle(&wake_next, READERS, HAVE_MOVED);
        go(i, to_unlock(), side_of(i) == WRITERS ? "P2 merge" : "T4 takes a part of a slot");
    }
    if (stranger && !s->p[i].tried && !is(NOT_INTRODUCED)) {
        begin(s, i);
        go(i, AHEAD, "is a stranger to some who may sleep");
        return;
    }
    for (unsigned slots = 1; slots <= room; slots++) {
        publish(s, i, slots, false);
        if (slots == room && side_of(i) == WRITERS && !wake_set.plain)
            publish(s, i, slots, true);
    }
}

/* W2: owes_reader, owes_writer. */
static void owes(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    bool owed = p->wake;
    if (s->p[i].pc == W2) {
        if (count_of(s, 1 - side_of(i)) != 0) {
            go(i, W2_INDEX, "W2 load registered: somebody");
            return;
        }
    } else if (is(OTHER_INDEX_BEFORE_W1)) {
        owed = owed || p->old;
    } else {
        unsigned buffered = p->buffer == INDEX_STORE ? 0 : p->moved;
        if (side_of(i) == WRITERS)
            owed = owed || s->used <= (p->buffer == INDEX_STORE ? 0 : p->moved);
        else
            owed = owed || s->used + buffered >= wake_set.slots;
    }
    p->wake = owed & 1;
    if (p->more && owed) {
        call(p, to_wake(), 1 - side_of(i), false, TO_NEXT_STEP);
        p->wake = 0;
        emit(OWN, i, "the other index: it owes a wake, and has more to come");
        return;
    }
    go(i, p->more ? MOVE : to_unlock(),
       s->p[i].pc == W2 ? "W2 load registered: nobody"
                        : owed ? "the other index: it owes a wake" : "the other index: no wake");
}

/* shall_wake of transfer.c: the other side could go on, and has not moved for 10 ms. */
static void look_for_overdue(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned side = 1 - side_of(i);
    bool could = side == READERS ? s->used > 0 : s->used < wake_set.slots;
    bool overdue = idle_of(s, side) == OVERDUE_NOW && !p->wake;
    if (count_of(s, side) == 0 || !could) {
        go(i, UNLOCK, "nobody of the other side is overdue");
        return;
    }
    if (p->wake || idle_of(s, side) != SEEN)
        set_idle(&wake_next, side, SEEN);
    if (overdue)
        p->wake = 1;
    go(i, UNLOCK, overdue ? "the other side is overdue: it owes a wake" : "is the other side overdue?");
}

static void unlock(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    set_owner(&wake_next, side_of(i), 0);
    p->moved = 0;
    p->old = 0;
    if (p->wake) {
        p->wake = 0;
        call(p, to_wake(), 1 - side_of(i), false, TO_MOVE_ON);
    } else {
        p->wake = 0;
        p->pc = after_unlock(p);
    }
    emit(OWN, i, "U unlock");
}

void transfer(const struct state *s, int i)
{
    struct process *p;
    unsigned other = 1 - side_of(i);
    switch (s->p[i].pc) {
    case LOCK:
        lock(s, i);
        return;
    case PRESENT:
        p = begin(s, i);
        if (!is_present(s, other)) {
            p->waits = 0;
            p->failed = 1;
            go(i, UNLOCK, "no readers: EPIPE");
            return;
        }
        go(i, to_move(p, i), "there are readers");
        return;
    case W2_EARLY: /* refuted protocols only */
        p = begin(s, i);
        if (is(WAKES_BEFORE_W1) || is(W2_BEFORE_W1)) {
            if (count_of(s, other) != 0 && !p->wake) {
                p->wake = 1;
                if (is(WAKES_BEFORE_W1))
                    call(p, to_wake(), other, false, TO_NEXT_STEP);
                else
                    p->pc = MOVE;
                emit(OWN, i, "W2 load registered: somebody");
                return;
            }
        }
        go(i, MOVE, "W2 load registered: nobody");
        return;
    case MOVE:
        move(s, i);
        return;
    case AHEAD:
        wake_ahead(s, i, other, TO_PUBLISH);
        return;
    case W2:
    case W2_INDEX:
        owes(s, i);
        return;
    case NOTHING:
        p = begin(s, i);
        if (is_present(s, WRITERS)) {
            go(i, UNLOCK, "there are writers");
            return;
        }
        p->waits = 0;
        p->failed = 1;
        if (is(EOF_WITHOUT_A_LOOK)) {
            wake_next.lost_data = (s->used > 0) & 1;
            go(i, UNLOCK, "no writers: end of file");
            return;
        }
        go(i, EOF_LOOK, "no writers");
        return;
    case EOF_LOOK:
        p = begin(s, i);
        if (s->used > 0) {
            p->failed = 0;
            set_owner(&wake_next, READERS, 0);
            go(i, LOCK, "data came in after all");
            return;
        }
        go(i, UNLOCK, "still empty: end of file");
        return;
    case SHALL_WAKE:
        look_for_overdue(s, i);
        return;
    default:
        unlock(s, i);
        return;
    }
}

void leave(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned side = side_of(i);
    switch (p->pc) {
    case HAND_ON:
        if (is(HAND_ON_AFTER_THE_CALL_WORD))
            p->in_call = 0;
        go(i, count_of(s, side) != 0 ? HAND_ON_LOOK : LEAVE_CALL, "hand on? load registered");
        return;
    case HAND_ON_LOOK:
        p->lag = 0;
        if (wake_set.two_loads) {
            go(i, HAND_ON_SECOND, side == READERS ? "hand on? load tail" : "hand on? load head");
            return;
        }
        /* fall through */
    case HAND_ON_SECOND:
        if (!ready(s, i))
            p->pc = LEAVE_CALL;
        else if (((p->introduced >> side) & 1) == 0) {
            wake_ahead(s, i, side, TO_LEAVE_CALL);
            return;
        } else
            call(p, to_wake(), side, false, TO_LEAVE_CALL);
        p->lag = 0;
        emit(OWN, i, side == READERS ? "hand on? load head" : "hand on? load tail");
        return;
    default:
        p->in_call = 0;
        go(i, IDLE, "the call is over");
        return;
    }
}

void close_end(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned sleepers = 1 - side_of(i);
    switch (p->pc) {
    case CLOSING:
        if (((p->introduced >> sleepers) & 1) == 0 && !held_elsewhere(s, i)) {
            call(p, ALL_EPOCH, sleepers, false, TO_CLOSE_COUNT);
            emit(OWN, i, "closes: has to introduce itself");
            return;
        }
        go(i, CLOSE_COUNT, "closes");
        return;
    case CLOSE_COUNT:
        p->counted = 0;
        go(i, CLOSE_COMPANION, "closes: the count");
        return;
    case CLOSE_COMPANION:
        p->open = 0;
        go(i, CLOSED, "closes: the companion");
        return;
    case CLOSED:
        go(i, s->count0 + s->count1 != 0 && !is(LAST_CLOSE_WAKES_NOBODY) ? MUST_LOOK : CLOSE_ENTRY,
           "closes: is anybody registered?");
        return;
    case MUST_LOOK:
        if (held_elsewhere(s, i)) {
            go(i, CLOSE_ENTRY, "closes: another one holds it");
            return;
        }
        call(p, ALL_EPOCH, READERS, true, TO_CLOSE_ENTRY);
        emit(OWN, i, "closes: it was the last, and broadcasts");
        return;
    default:
        p->live = 0;
        go(i, GONE, "closes: live = 0");
        return;
    }
}
