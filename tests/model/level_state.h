/* level_state.h - the state of the model of the companion, and what its parts share. */
#ifndef MODEL_LEVEL_STATE_H
#define MODEL_LEVEL_STATE_H

#include <string.h>

#include "level.h"

enum { READERS, WRITERS, COMPANION };
#define ASYNC 2 /* beside READERS and WRITERS in usage, in_step: signals wanted, and no level */
#define MOST 4
#define ABANDONED 7u /* a lock whose dead owner nobody could repair for */

enum pc {
    IDLE,
    LOCK,
    REPAIR,
    S2,
    S3_WAIT, /* for the companion's lock, in no other */
    CHECK,
    NOTE,
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
    FINISH, /* for a dead one of the other side, if nothing was found */
    FINISHED,
    L0,
    L1,
    PASS_WRITE,
    PASS_READ,
    UNPASS_WRITE,
    UNPASS_READ,
    LOOK_LOCK,
    L3,
    L4,
    UNLOOK,
    FLAG_LATE,
    SET_ASYNC,
    POLLING,
    WAITING, /* for a signal */
    GONE,
};

enum op { LEVEL, READ, WRITE, WRITTEN };
enum back { TO_S5, TO_S2, TO_PASSED, TO_FINISHED, TO_LATER_END, TO_LOOK_END };
enum content { EMPTY, SOME, FULL };
enum word { UNKNOWN, NOT_FULL, IS_FULL };
enum act { NOTHING, DRAIN, LEAVE_ONE, TAKE_SLOTS, FILL, ONE_BYTE };

struct process {
    uint32_t pc : 6;
    uint32_t back : 3;
    uint32_t op : 2;
    uint32_t held : 1;
    uint32_t told : 1;
    uint32_t more : 1;
    uint32_t slots : 2;
    uint32_t act : 3;     /* what S4 does to the companion */
    uint32_t unseen : 1;  /* nobody looked when it asked too early */
    uint32_t repairs : 1; /* which side's lock it has from the dead */
    uint32_t nothing : 1; /* to read, no room */
    uint32_t async : 1;
    uint32_t signalled : 1;
    uint32_t buffered : 1; /* its note is still in its store buffer */
    uint32_t was_told : 1; /* by poll(), what it is now about to do */
    uint32_t unused : 6;
};

struct state {
    uint32_t used : 3;
    uint32_t content : 2;
    uint32_t level : 2;
    uint32_t usage : 3;
    uint32_t in_step : 3;
    uint32_t lock0 : 3; /* owner + 1 */
    uint32_t lock1 : 3;
    uint32_t lock2 : 3;
    uint32_t noted0 : 2; /* slots that a read is about to free, */
    uint32_t noted1 : 2; /* a write to fill */
    uint32_t deaths : 2;
    uint32_t wrong : 1; /* poll() was, for the only one of its side, or before the first write */
    uint32_t written : 1; /* somebody has begun to write */
    uint32_t unused : 2;
    struct process p[MOST];
};
_Static_assert(sizeof(struct state) <= STATE_MAX, "a state fits");

extern struct level_setting level_set;
extern struct state level_next; /* the state that a step makes */

static inline bool is(enum level_variant variant)
{
    return level_set.variant == variant;
}

static inline int processes(void)
{
    return (int)(level_set.readers + level_set.writers);
}

static inline unsigned side_of(int i)
{
    return i < (int)level_set.readers ? READERS : WRITERS;
}

static inline bool looked_at(unsigned sides, unsigned side)
{
    return ((sides >> side) & 1) != 0;
}

void level_emit(enum kind kind, int i, const char *what);
void level_go(int i, enum pc pc, const char *what);
struct process *level_begin(const struct state *s, int i);
unsigned level_owner_of(const struct state *s, unsigned lock);
void level_set_owner(unsigned lock, unsigned owner);
bool is_a_dead_ones(const struct state *s, unsigned lock);
/* 0: busy.  1: taken.  2: taken from the dead. */
int level_take(const struct state *s, int i, unsigned lock);
bool has_to_tell(const struct state *s, unsigned side);
unsigned noted(const struct state *s, unsigned side);
void set_noted(unsigned side, unsigned slots);
/* The store buffer drains. */
void level_drain(int i);
void tell_readers(void);

/* level_turn.c */
void turn_begin(const struct state *s, int i);
void turn(const struct state *s, int i);
void turn_end(const struct state *s, int i);
void call_repair(int i, unsigned side, enum back back, const char *what);
/* level_sync.c */
void call_sync(int i, enum op op, enum back back);
void sync_level(const struct state *s, int i);

#endif
