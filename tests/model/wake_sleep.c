/* wake_sleep.c - who wakes whom, and how one falls asleep and gets up. */
#include "wake_state.h"

struct state wake_next;

struct process *begin(const struct state *s, int i)
{
    wake_next = *s;
    return &wake_next.p[i];
}

void emit(enum kind kind, int i, const char *what)
{
    if (wake_next.p[i].pc == IDLE)
        wake_next.p[i].slept = wake_next.p[i].failed = 0, wake_next.p[i].nap = 0;
    step(&wake_next, kind, i, what);
}

void go(int i, enum pc pc, const char *what)
{
    wake_next.p[i].pc = pc;
    emit(OWN, i, what);
}

enum pc after_unlock(const struct process *p)
{
    if (p->waits)
        return is(CALL_WORD_AFTER_R1) ? R1 : ENTER_CALL;
    if (!p->slept || is(NO_HAND_ON) || (is(HAND_ON_ONLY_ON_SUCCESS) && p->failed))
        return p->in_call ? LEAVE_CALL : IDLE;
    return HAND_ON;
}

static enum pc to_register(int i)
{
    (void)i;
    if (is(GATHER_BEFORE_R1))
        return GATHER;
    if (is(LOOK_BEFORE_R1))
        return R2;
    return R1;
}

static enum pc to_sleep_path(const struct process *p, int i)
{
    bool introduced = ((p->introduced >> side_of(i)) & 1) != 0;
    if (!introduced && !is(NEWCOMER_KEEPS_EPOCH))
        return STEP_EPOCH;
    return to_register(i);
}

void call(struct process *p, enum pc pc, unsigned queue, bool both, enum back back)
{
    p->pc = pc;
    p->queue = queue & 1;
    p->both = both;
    p->back = back;
}

/* After a wake ahead: one more has got up; when all that slept at first have, or nobody slept,
 * everybody watches us. */
static void pay(struct process *p, enum back back)
{
    if ((back != TO_PUBLISH && back != TO_LEAVE_CALL && back != TO_R1) || !p->stranger)
        return;
    p->stranger = 0;
    unsigned debts = p->queue == READERS ? p->debts0 : p->debts1;
    if (debts == 1 || !p->one)
        p->introduced = (p->introduced | 1u << p->queue) & 3;
    if (debts != 0 && p->queue == READERS)
        p->debts0 = (debts - 1) & 7;
    if (debts != 0 && p->queue == WRITERS)
        p->debts1 = (debts - 1) & 7;
}

/* HEAL is over, or was not needed. */
static void go_back(int i, const char *what)
{
    struct process *p = &wake_next.p[i];
    p->heal_epoch = 0;
    p->heal_count = 0;
    if (p->both) { /* shmp_broadcast: now the other queue */
        p->both = 0;
        p->queue = WRITERS;
        go(i, ALL_EPOCH, what);
        return;
    }
    enum back back = p->back;
    bool one = p->one;
    p->back = 0;
    pay(p, back);
    p->one = 0;
    p->queue = 0;
    switch (back) {
    case TO_MOVE_ON:
        p->pc = after_unlock(p);
        break;
    case TO_NEXT_STEP:
        p->pc = MOVE;
        break;
    case TO_MOVE:
        p->pc = to_move(p, i) & 63;
        break;
    case TO_LEAVE_CALL:
        p->pc = LEAVE_CALL;
        break;
    case TO_CLOSE_COUNT:
        p->introduced = (p->introduced | 1u << (1 - side_of(i))) & 3;
        p->pc = CLOSE_COUNT;
        break;
    case TO_CLOSE_ENTRY:
        p->pc = CLOSE_ENTRY;
        break;
    case TO_PUBLISH:
        p->ahead = one || is(AHEAD_WITHOUT_A_WAKE);
        p->tried = 1;
        p->pc = MOVE;
        break;
    case TO_WAITED:
        p->pc = WAITED;
        break;
    case TO_R1:
        p->pc = R3;
        break;
    }
    emit(OWN, i, what);
}

enum pc to_wake(void)
{
    return is(REGISTRATION_TAKEN_FIRST) ? TAKE_OFF : W3;
}

/* shmp_wake_ahead_slow: while some of the sleepers do not watch us. */
void wake_ahead(const struct state *s, int i, unsigned queue, enum back back)
{
    struct process *p = begin(s, i);
    unsigned asleep = count_of(s, queue);
    p->stranger = 1;
    if (queue == READERS && p->debts0 == 0)
        p->debts0 = asleep & 7;
    if (queue == WRITERS && p->debts1 == 0)
        p->debts1 = asleep & 7;
    call(p, to_wake(), queue, false, back);
    emit(OWN, i, asleep != 0 ? "somebody is registered: wakes one ahead"
                             : "nobody is registered: but to be sure");
}

void wake_others(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned queue = p->queue;
    unsigned count = count_of(s, queue);
    unsigned n;
    switch (p->pc) {
    case W3:
        if (count == 0) {
            go_back(i, "W3 nobody is registered any more");
            return;
        }
        if (!is(NO_EPOCH_CHANGE))
            change_epoch(&wake_next, queue);
        p->heal_epoch = 1;
        p->heal_count = count & 7;
        go(i, W4, "W3 epoch + 1");
        return;
    case W4:
        n = is(W4_LEFT_OUT) ? 1 : wake_queue(&wake_next, queue, 1);
        p->one = n != 0;
        go(i, p->one || is(WAKER_LOWERS_ANY_EPOCH) ? W5 : HEAL,
           p->one ? "W4 FUTEX_WAKE 1: one" : "W4 FUTEX_WAKE 1: nobody slept");
        return;
    case W5:
        if (count != 0 && is(WAKER_LOWERS_ANY_EPOCH))
            change_epoch(&wake_next, queue);
        if (count != 0 && (p->heal_epoch || is(WAKER_LOWERS_ANY_EPOCH)))
            set_count(&wake_next, queue, count - 1);
        go_back(i, "W5 registered - 1, if the epoch is still ours");
        return;
    case TAKE_OFF:
        if (count == 0) {
            go_back(i, "nobody is registered any more");
            return;
        }
        set_count(&wake_next, queue, count - 1);
        change_epoch(&wake_next, queue);
        p->heal_epoch = 1;
        p->heal_count = (count - 1) & 7;
        go(i, TAKEN_WAKE, "registered - 1, epoch + 1");
        return;
    case TAKEN_WAKE:
        p->one = wake_queue(&wake_next, queue, 1) != 0;
        if (p->one)
            go_back(i, "FUTEX_WAKE 1: one");
        else
            go(i, HEAL, "FUTEX_WAKE 1: nobody slept");
        return;
    case ALL_EPOCH:
        if (count == 0) {
            go_back(i, "A wake all: nobody is registered");
            return;
        }
        if (is(WAKE_ALL_COUNTS_FIRST))
            set_count(&wake_next, queue, 0);
        change_epoch(&wake_next, queue);
        p->heal_epoch = 1;
        p->heal_count = count_of(&wake_next, queue) & 7;
        go(i, ALL_WAKE, "A epoch + 1");
        return;
    case ALL_WAKE:
        wake_queue(&wake_next, queue, is(LAST_CLOSE_WAKES_ONE) && p->back == TO_CLOSE_ENTRY ? 1 : MOST);
        go(i, HEAL, "A FUTEX_WAKE all");
        return;
    default:
        if (is(HEAL_WHOEVER_CAME) || (p->heal_epoch && p->heal_count == count))
            set_count(&wake_next, queue, 0);
        go_back(i, p->heal_epoch && p->heal_count == count ? "heal: registered = 0"
                                                           : "heal: the word has changed");
        return;
    }
}

static void gather_one(struct state *s, int me, int i)
{
    struct process *p = &s->p[me];
    struct process *q = &s->p[i];
    if (i == me || !q->live)
        return;
    bool ours = q->counted && side_of(i) == side_of(me);
    unsigned bit = 1u << i;
    if (ours && (is(NO_CALL_WORDS) || (is(IDLE_CALL_WORDS_UNWATCHED) && !q->in_call)))
        return;
    if (!ours && is(NO_LIFE_WORDS)) {
        p->tracked = 1;
        return;
    }
    if (ours && !q->in_call) {
        p->call0 = (p->call0 | bit) & 31;
    } else if (!q->marked) {
        if (ours)
            p->call1 = (p->call1 | bit) & 31;
        else
            p->life = (p->life | bit) & 31;
        if (!ours && q->counted)
            p->tracked = 1;
    } else if (q->pc == GONE) {
        q->live = q->counted = 0; /* reaped: all witnesses agree */
        q->in_call = 0;
    } else {
        p->timed = 1;
    }
}

static void gather(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    enum pc then = is(GATHER_BEFORE_R1) ? R1 : is(GATHER_AFTER_R2) ? R3 : R2;
    if (!wake_set.stepwise) {
        for (int q = 0; q < processes(); q++)
            gather_one(&wake_next, i, q);
    } else {
        gather_one(&wake_next, i, (int)p->gathered);
        p->gathered = (p->gathered + 1) & 7;
        if ((int)p->gathered < processes()) {
            go(i, GATHER, "gather one more");
            return;
        }
    }
    p->gathered = 0;
    go(i, then, "gather whom to watch");
}

/* The kernel compares all words: is it the epoch, are all others as they were? */
static bool watch_changed(const struct state *s, int i)
{
    const struct process *p = &s->p[i];
    for (int q = 0; q < processes(); q++) {
        const struct process *o = &s->p[q];
        if ((watches(p, q, false) && o->marked) ||
            (((p->call1 >> q) & 1) != 0 && (o->marked || !o->in_call)) ||
            (((p->call0 >> q) & 1) != 0 && o->in_call))
            return true;
    }
    return false;
}

static void decide(int i, const char *what)
{
    struct process *p = &wake_next.p[i];
    bool go_on = p->go_on;
    p->go_on = 0;
    if (go_on) {
        p->slept = 1;
        p->waits = 0;
        p->reason = 0;
        p->nap = 0;
        go(i, LOCK, what);
        return;
    }
    if (p->reason == SIGNAL) {
        p->waits = 0;
        p->failed = 1;
        p->reason = 0;
        go(i, after_unlock(p), what);
        return;
    }
    p->reason = 0;
    if (!is(NO_WAIT_FOR_THE_LOCK))
        p->pc = WAIT_LOCK;
    else
        p->pc = to_register(i) & 63;
    emit(OWN, i, what);
}

/* What a sleeper does before it registers, if it was about to sleep already. */
void before_r1(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned side = side_of(i);
    unsigned owner = owner_of(s, 1 - side);
    enum pc then = to_register(i);
    bool could = side == READERS ? s->used > 0 : s->used < wake_set.slots;
    switch (p->pc) {
    case WAIT_LOCK:
        go(i, owner == 0 || could ? then : WAIT_LOCK_MORE, "is a change being made?");
        return;
    case WAIT_LOCK_MORE:
        if (owner == 0) {
            go(i, then, "waits for the other side's lock");
            return;
        }
        if (s->p[owner - 1].pc == GONE && s->p[owner - 1].marked) {
            set_owner(&wake_next, 1 - side, (unsigned)i + 1);
            call(p, ALL_EPOCH, READERS, true, TO_WAITED);
            emit(OWN, i, "takes the other side's lock from the dead");
            return;
        }
        if (wake_set.signals) {
            p->waits = 0;
            p->failed = 1;
            if (could)
                p->pc = then;
            else
                call(p, to_wake(), side, false, TO_MOVE_ON);
            emit(WORLD, i, "a signal while it waits for the other side's lock");
        }
        return;
    case WAITED:
        set_owner(&wake_next, 1 - side, 0);
        go(i, then, "gives the other side's lock back");
        return;
    default: { /* OVERDUE: is_overdue of block.c */
        bool other_could = side == READERS ? s->used < wake_set.slots : s->used > 0;
        if (count_of(s, 1 - side) == 0 || !other_could || is(NO_NUDGE)) {
            p->nap = 0;
            go(i, R3, "nobody of the other side is overdue");
            return;
        }
        if (p->nap == 2) {
            p->nap = 1;
            if (((p->introduced >> (1 - side)) & 1) == 0 && !is(NOT_INTRODUCED)) {
                wake_ahead(s, i, 1 - side, TO_R1);
                return;
            }
            call(p, to_wake(), 1 - side, false, TO_R1);
            emit(OWN, i, "the other side is overdue: wakes one");
            return;
        }
        p->nap = 1;
        go(i, R3, "somebody of the other side may be overdue");
        return;
    }
    }
}

/* R1 to R3: shmp_wait_side up to the system call. */
void fall_asleep(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    unsigned side = side_of(i);
    switch (p->pc) {
    case GATHER:
        gather(s, i);
        return;
    case ENTER_CALL:
        p->in_call = 1;
        go(i, is(CALL_WORD_AFTER_R1) ? GATHER : to_sleep_path(p, i), "locks its call words");
        return;
    case STEP_EPOCH:
        if (count_of(s, side) != 0)
            change_epoch(&wake_next, side);
        go(i, to_register(i), "N epoch + 1 if anybody is registered");
        return;
    case R1:
        if (count_of(s, side) == most_registered(side)) {
            step_beyond();
            return;
        }
        p->epoch_is_mine = 1;
        p->buffer = R1_STORE;
        if (!is(R1_RELAXED))
            drain(&wake_next, i);
        if (is(LOOK_BEFORE_R1))
            p->pc = R3;
        else if (is(GATHER_BEFORE_R1))
            p->pc = R2;
        else if (is(NO_LOOK_AFTER_R1))
            p->pc = R3;
        else if (is(CALL_WORD_AFTER_R1) && !p->in_call)
            p->pc = ENTER_CALL;
        else if (is(GATHER_AFTER_R2))
            p->pc = R2;
        else
            p->pc = GATHER;
        emit(OWN, i, "R1 registered + 1, e = epoch");
        return;
    case R2:
        p->lag = 0;
        if (wake_set.two_loads) {
            go(i, R2_SECOND, side == READERS ? "R2 load tail" : "R2 load head");
            return;
        }
        /* fall through */
    case R2_SECOND:
        p->go_on = ready(s, i);
        p->lag = 0;
        if (is(LOOK_BEFORE_R1))
            p->pc = p->go_on ? LOCK : R1;
        else if (is(GATHER_AFTER_R2))
            p->pc = p->go_on ? R6_EARLY : GATHER;
        else
            p->pc = !p->go_on && !p->tracked ? HUNG_UP : p->go_on ? R6_EARLY
                    : wake_set.stops != 0 ? OVERDUE
                                                                                : R3;
        if (is(LOOK_BEFORE_R1) && p->go_on) {
            p->slept = 1;
            p->go_on = 0;
        }
        emit(OWN, i, side == READERS ? "R2 load head" : "R2 load tail");
        return;
    case HUNG_UP:
        if (!is(HUNG_UP_NOT_ASKED)) {
            p->go_on = !is_present(s, 1 - side);
            p->timed = 1; /* the kernel counts a holder that we cannot see */
        }
        go(i, p->go_on ? R6_EARLY : R3, "asks the companion");
        return;
    case R6_EARLY:
        if (p->epoch_is_mine && count_of(s, side) != 0)
            set_count(&wake_next, side, count_of(s, side) - 1);
        p->epoch_is_mine = 0;
        forget_watch(p);
        decide(i, "R6 leaves: it can go on");
        return;
    default:
        if (!p->epoch_is_mine || watch_changed(s, i)) {
            p->reason = p->epoch_is_mine ? LOOK : CHANGED;
            p->epoch_is_mine = p->epoch_is_mine && p->reason == LOOK;
            forget_watch(p);
            go(i, R5, "R3 futex_waitv: EAGAIN");
            return;
        }
        enqueue(&wake_next, i);
        p->tracked = 0;
        go(i, ASLEEP, "R3 futex_waitv: sleeps");
        return;
    }
}

/* R5: the system call returns. */
void get_up(const struct state *s, int i)
{
    struct process *p = begin(s, i);
    switch (p->pc) {
    case ASLEEP:
        if (p->woken) {
            dequeue(&wake_next, i);
            p->reason = p->woken_by != 0 ? LOOK : CHOSEN;
            go(i, p->woken_by != 0 && !is(NOT_PASSED_ON) ? PASS_ON : R5,
               p->woken_by != 0 ? "R5 a life or call word woke it" : "R5 was chosen");
            return;
        }
        dequeue(&wake_next, i);
        p->pc = R5;
        if (p->timed || p->nap != 0) {
            p->reason = LOOK;
            p->nap = p->nap != 0 ? 2 : 0;
            emit(TIMER, i, "its slice is over");
        }
        if (wake_set.signals) {
            p->reason = SIGNAL;
            emit(WORLD, i, "a signal");
        }
        return;
    case PASS_ON: {
        for (int whom = 0; whom < processes(); whom++)
            if (is(PASSED_ON_FOR_ONE_WORD) ? (int)p->woken_by == whom + 1
                                           : ((p->woken_all >> whom) & 1) != 0)
                wake_watchers(&wake_next, whom, watches(p, whom, true), MOST, i);
        go(i, R5, "passes the wake on to all watchers of that word");
        return;
    }
    case R5:
        forget_watch(p);
        if (wake_set.two_loads) {
            go(i, R5_SECOND, side_of(i) == READERS ? "R5 load tail" : "R5 load head");
            return;
        }
        /* fall through */
    case R5_SECOND:
        p->go_on = ready(s, i);
        p->lag = 0;
        if (p->reason == LOOK || p->reason == SIGNAL) {
            go(i, R6, side_of(i) == READERS ? "R5 load head" : "R5 load tail");
            return;
        }
        p->epoch_is_mine = 0;
        decide(i, side_of(i) == READERS ? "R5 load head" : "R5 load tail");
        return;
    default:
        if ((p->epoch_is_mine || is(LEAVE_ANY_EPOCH)) && count_of(s, side_of(i)) != 0)
            set_count(&wake_next, side_of(i), count_of(s, side_of(i)) - 1);
        p->epoch_is_mine = 0;
        decide(i, "R6 leaves");
        return;
    }
}
