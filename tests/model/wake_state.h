/* wake_state.h - the state of the model of the wake protocol, and what its parts share. */
#ifndef MODEL_WAKE_STATE_H
#define MODEL_WAKE_STATE_H

#include <string.h>

#include "wake.h"

enum { READERS, WRITERS };
#define MOST 5
#define NOBODY 7u

/* Where a process stands: the next step that it will make. */
enum pc {
    ABSENT, /* not attached yet */
    ANNOUNCE_STATE,
    ANNOUNCE_READABLE,
    ANNOUNCE_WRITABLE,
    IDLE,
    LOCK,
    PRESENT,
    W2_EARLY,
    MOVE,
    AHEAD,
    W2,
    W2_INDEX,
    NOTHING,
    EOF_LOOK,
    SHALL_WAKE,
    UNLOCK,
    W3,
    W4,
    W5,
    HEAL,
    TAKE_OFF, /* a refuted protocol's W3 and W4 */
    TAKEN_WAKE,
    ALL_EPOCH,
    ALL_WAKE,
    OVERDUE,
    WAIT_LOCK,
    WAIT_LOCK_MORE,
    WAITED,
    ENTER_CALL,
    STEP_EPOCH,
    R1,
    GATHER,
    R2,
    R2_SECOND,
    HUNG_UP,
    R6_EARLY,
    R3,
    ASLEEP,
    PASS_ON,
    R5,
    R5_SECOND,
    R6,
    HAND_ON,
    HAND_ON_LOOK,
    HAND_ON_SECOND,
    LEAVE_CALL,
    CLOSING,
    CLOSE_COUNT,
    CLOSE_COMPANION,
    CLOSED,
    MUST_LOOK,
    CLOSE_ENTRY,
    DYING, /* marked; descriptors and record lock still there */
    GONE,
};

/* Where the subroutines W3 to W5, HEAL and ALL_* return to. */
enum back {
    TO_MOVE_ON,
    TO_NEXT_STEP,
    TO_MOVE,
    TO_LEAVE_CALL,
    TO_CLOSE_COUNT,
    TO_CLOSE_ENTRY,
    TO_PUBLISH,
    TO_WAITED,
    TO_R1,
};

enum idle { HAVE_MOVED, SEEN, OVERDUE_NOW };
enum reason { CHOSEN, CHANGED, LOOK, SIGNAL };
enum buffered { NO_STORE, INDEX_STORE, R1_STORE, CLAIM_STORE };

struct process {
    uint32_t pc : 6;
    uint32_t back : 4;
    uint32_t queue : 1; /* the one that is being woken */
    uint32_t both : 1;
    uint32_t moved : 2; /* slots */
    uint32_t more : 1;  /* a long write goes on */
    uint32_t wake : 1;
    uint32_t waits : 1; /* the operation is not over */
    uint32_t slept : 1;
    uint32_t lag : 2; /* of the index that a look has loaded first */
    uint32_t reason : 2;
        uint32_t heal_epoch : 1; /* still that of my wake */
    uint32_t heal_count : 3;
    uint32_t introduced : 2;
    uint32_t live : 1;
    uint32_t counted : 1;
    uint32_t open : 1; /* the companion */

    uint32_t life : 5; /* whose life words are watched */
    uint32_t call0 : 5;
    uint32_t call1 : 5;
    uint32_t woken_by : 3; /* the highest of those that woke it, + 1 */
    uint32_t woken : 1;
    uint32_t chosen : 1;
    uint32_t timed : 1;
    uint32_t tracked : 1;
    uint32_t in_call : 1;
    uint32_t marked : 1;
    uint32_t stopped : 1;
    uint32_t buffer : 2;
    uint32_t go_on : 1;
    uint32_t failed : 1;
    uint32_t epoch_is_mine : 1;

    uint32_t gathered : 3;
    uint32_t woken_all : 5; /* all of those that woke it */
    uint32_t early_look : 1;
    uint32_t nap : 2; /* 1: sleeps for 10 ms only, 2: has done so */
    uint32_t old : 1;
    uint32_t ahead : 1; /* has woken ahead of this step */
    uint32_t debts0 : 3;
    uint32_t debts1 : 3;
    uint32_t one : 1; /* FUTEX_WAKE found somebody */
    uint32_t tried : 1;
    uint32_t stranger : 1; /* the wake in progress is one ahead */
    uint32_t unused : 10;
};

struct state {
    uint32_t used : 3; /* slots */
    uint32_t count0 : 3;
    uint32_t count1 : 3;
    uint32_t lock0 : 3; /* owner + 1 */
    uint32_t lock1 : 3;
    uint32_t deaths : 2;
    uint32_t stops : 2;
    uint32_t lost_data : 1;
    uint32_t idle0 : 2; /* enum idle: readers that could go on, as an operation of writers sees them */
    uint32_t idle1 : 2;
    uint32_t unused : 8;
    uint32_t asleep : 30; /* both kernel queues: 2 * 5 entries of 3 bits */
    uint32_t unused2 : 2;
    struct process p[MOST];
};
_Static_assert(sizeof(struct state) <= STATE_MAX, "a state fits");

extern struct wake_setting wake_set;
extern struct state wake_next; /* the state that a step makes */

static inline bool is(enum wake_variant variant)
{
    return wake_set.variant == variant;
}

static inline int processes(void)
{
    return (int)(wake_set.readers + wake_set.writers);
}

static inline unsigned side_of(int i)
{
    return i < (int)wake_set.readers ? READERS : WRITERS;
}

unsigned count_of(const struct state *s, unsigned queue);
void set_count(struct state *s, unsigned queue, unsigned count);
unsigned owner_of(const struct state *s, unsigned side);
void set_owner(struct state *s, unsigned side, unsigned owner);
void change_epoch(struct state *s, unsigned queue);
unsigned sleeper(const struct state *s, unsigned queue, unsigned place);
void enqueue(struct state *s, int i);
void dequeue(struct state *s, int i);
unsigned most_registered(unsigned side);
enum idle idle_of(const struct state *s, unsigned side);
void set_idle(struct state *s, unsigned side, enum idle idle);
bool is_present(const struct state *s, unsigned side);
bool held_elsewhere(const struct state *s, int me);
bool ready(const struct state *s, int i);
bool can_go_on(const struct state *s, int i);
struct process *begin(const struct state *s, int i);
void emit(enum kind kind, int i, const char *what);
void go(int i, enum pc pc, const char *what);
enum pc to_move(const struct process *p, int i);
enum pc after_unlock(const struct process *p);
void call(struct process *p, enum pc pc, unsigned queue, bool both, enum back back);
void forget_watch(struct process *p);
void drain(struct state *s, int i);
unsigned wake_queue(struct state *s, unsigned queue, unsigned most);
bool watches(const struct process *p, int whom, bool call);
void wake_watchers(struct state *s, int whom, bool call, unsigned most, int but);
void attach(const struct state *s, int i);
enum pc to_wake(void);
void wake_ahead(const struct state *s, int i, unsigned queue, enum back back);
void transfer(const struct state *s, int i);
void wake_others(const struct state *s, int i);
void before_r1(const struct state *s, int i);
void fall_asleep(const struct state *s, int i);
void get_up(const struct state *s, int i);
void leave(const struct state *s, int i);
void close_end(const struct state *s, int i);

#endif
