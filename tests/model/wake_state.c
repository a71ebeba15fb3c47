/* wake_state.c - counts, epochs, the kernel's queues, store buffers: what the steps are made of. */
#include "wake_state.h"

struct wake_setting wake_set;

unsigned count_of(const struct state *s, unsigned queue)
{
    return queue == READERS ? s->count0 : s->count1;
}

void set_count(struct state *s, unsigned queue, unsigned count)
{
    if (queue == READERS)
        s->count0 = count & 7;
    else
        s->count1 = count & 7;
}

unsigned owner_of(const struct state *s, unsigned side)
{
    return side == READERS ? s->lock0 : s->lock1;
}

void set_owner(struct state *s, unsigned side, unsigned owner)
{
    if (side == READERS)
        s->lock0 = owner & 7;
    else
        s->lock1 = owner & 7;
}

void change_epoch(struct state *s, unsigned queue)
{
    for (int i = 0; i < processes(); i++) {
        if (side_of(i) == queue)
            s->p[i].epoch_is_mine = 0;
        if (s->p[i].queue == queue)
            s->p[i].heal_epoch = 0;
    }
}

/* The kernel's queue of the futex word, first in, first out: entry 0 sleeps longest. */
unsigned sleeper(const struct state *s, unsigned queue, unsigned place)
{
    return (s->asleep >> (queue * 15 + place * 3)) & 7;
}

void enqueue(struct state *s, int i)
{
    unsigned queue = side_of(i);
    unsigned place = 0;
    while (sleeper(s, queue, place) != 0)
        place++;
    s->asleep = (s->asleep | ((unsigned)i + 1) << (queue * 15 + place * 3)) & 0x3fffffff;
}

void dequeue(struct state *s, int i)
{
    unsigned queue = side_of(i);
    unsigned all = (s->asleep >> (queue * 15)) & 0x7fff;
    unsigned kept = 0;
    unsigned n = 0;
    for (unsigned place = 0; place < 5; place++) {
        unsigned it = (all >> (place * 3)) & 7;
        if (it != 0 && it != (unsigned)i + 1)
            kept |= it << (3 * n++);
    }
    s->asleep = (s->asleep & (0x3fffffffu ^ (0x7fffu << (queue * 15)))) | kept << (queue * 15);
}

unsigned most_registered(unsigned side)
{
    unsigned most = (side == READERS ? wake_set.readers : wake_set.writers) + wake_set.too_many;
    return most < 7 ? most : 7;
}

enum idle idle_of(const struct state *s, unsigned side)
{
    return side == READERS ? s->idle0 : s->idle1;
}

void set_idle(struct state *s, unsigned side, enum idle idle)
{
    if (side == READERS)
        s->idle0 = idle & 3;
    else
        s->idle1 = idle & 3;
}

bool is_present(const struct state *s, unsigned side)
{
    for (int i = 0; i < processes(); i++)
        if (side_of(i) == side && s->p[i].open)
            return true;
    return false;
}

/* is_held_elsewhere of presence.c */
bool held_elsewhere(const struct state *s, int me)
{
    unsigned sleepers = 1 - side_of(me);
    for (int i = 0; i < processes(); i++) {
        const struct process *p = &s->p[i];
        if (i != me && side_of(i) == side_of(me) && p->live && p->counted && !p->marked &&
            (is(CLOSER_COUNTS_STRANGERS) || ((p->introduced >> sleepers) & 1) != 0))
            return true;
    }
    return false;
}

/* The index that a look loads first may be behind when it loads the second: by `lag`. */
static void indices_moved(struct state *s, unsigned by_side, unsigned slots)
{
    set_idle(s, by_side, HAVE_MOVED);
    for (int i = 0; i < processes(); i++) {
        struct process *p = &s->p[i];
        bool looks = p->pc == R2_SECOND || p->pc == R5_SECOND || p->pc == HAND_ON_SECOND;
        unsigned first = is(LOOK_IN_THE_WRONG_ORDER) ? 1 - side_of(i) : side_of(i);
        if (looks && first == by_side)
            p->lag = (p->lag + slots > 3 ? 3 : p->lag + slots) & 3;
    }
}

/* With the second load: a reader loads tail and then head, a writer head and then tail (D4). */
bool ready(const struct state *s, int i)
{
    const struct process *p = &s->p[i];
    int used = (int)s->used;
    int lag = (int)p->lag;
    if (is(LOOK_IN_THE_WRONG_ORDER))
        lag = -lag;
    if (side_of(i) == READERS)
        return used + lag != 0; /* head - old tail */
    return used - lag < (int)wake_set.slots; /* old head - tail */
}

bool can_go_on(const struct state *s, int i)
{
    unsigned other = 1 - side_of(i);
    return (side_of(i) == READERS ? s->used > 0 : s->used < wake_set.slots) || !is_present(s, other);
}

void forget_watch(struct process *p)
{
    p->life = p->call0 = p->call1 = 0;
    p->woken = p->chosen = p->timed = p->tracked = 0;
    p->woken_by = 0;
    p->woken_all = 0;
    p->lag = 0;
}

/* The store buffer drains. */
void drain(struct state *s, int i)
{
    struct process *p = &s->p[i];
    if (p->buffer == INDEX_STORE) {
        if (side_of(i) == WRITERS)
            s->used = (s->used + p->moved) & 7;
        else
            s->used = (s->used - p->moved) & 7;
        indices_moved(s, side_of(i), p->moved);
    } else if (p->buffer == R1_STORE) {
        set_count(s, side_of(i), count_of(s, side_of(i)) + 1);
    } else if (p->buffer == CLAIM_STORE) {
        p->live = 1;
        p->counted = 1;
    }
    p->buffer = NO_STORE;
}

/* FUTEX_WAKE on an epoch.  How many got up. */
unsigned wake_queue(struct state *s, unsigned queue, unsigned most)
{
    unsigned n = 0;
    for (unsigned place = 0; place < 5 && n < most; place++) {
        unsigned it = sleeper(s, queue, place);
        if (it == 0)
            break;
        struct process *p = &s->p[it - 1];
        if (p->chosen)
            continue;
        p->chosen = p->woken = 1;
        n++;
    }
    return n;
}

/* Sleeps on that word, whatever value it expects there. */
bool watches(const struct process *p, int whom, bool call)
{
    return (((call ? p->call0 | p->call1 : p->life) >> whom) & 1) != 0;
}

/* FUTEX_WAKE on a life or call word; at a death the kernel wakes one. */
void wake_watchers(struct state *s, int whom, bool call, unsigned most, int but)
{
    unsigned n = 0;
    for (unsigned queue = 0; queue < 2; queue++) {
        for (unsigned place = 0; place < 5 && n < most; place++) {
            unsigned it = sleeper(s, queue, place);
            if (it == 0)
                break;
            struct process *p = &s->p[it - 1];
            if ((int)it - 1 == but || !watches(p, whom, call) || ((p->woken_all >> whom) & 1) != 0)
                continue;
            p->woken = 1;
            p->woken_all = (p->woken_all | 1u << whom) & 31;
            if (p->woken_by < (unsigned)whom + 1) /* what futex_waitv returns: the highest */
                p->woken_by = ((unsigned)whom + 1) & 7;
            n++;
        }
    }
}
