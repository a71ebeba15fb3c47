/* contexts.h - what is swept: an operation, in a state, beside survivors in a stance. */
#ifndef SWEEP_CONTEXTS_H
#define SWEEP_CONTEXTS_H

#include <stddef.h>

#include "operations.h"

enum state {
    EMPTY,    /* used before, nothing in it */
    SOME,     /* one slot with 100 bytes, 30 of them read */
    TWO,      /* a full slot, and 100 bytes in another one */
    NEARLY,   /* one free slot */
    FULL,     /* every slot, and every byte */
    STATES
};

enum stance {
    ABSENT,
    IDLE,
    ASLEEP,
    POLLS,
    EDGE,    /* polls, edge triggered */
    ARMED,   /* sleeps as an event loop does that looks for itself first (shmp_arm) */
    LOOKED,
    LISTENS, /* idle, with a notifier */
};

/* How the victim came to its ends. */
enum arrival {
    FORKED,
    EXECUTED, /* by execve(), and attached after it */
    STALE,    /* and the thread that attached, and locked the words of its life, has ended */
};

/* What the first survivor to act does: it meets what the dead has left. */
enum first { FIRST_READ, FIRST_WRITE, FIRST_RESIZE, FIRST_LOOK, FIRST_PENDING };

struct context {
    const struct operation *operation;
    enum state state;
    bool wrapped; /* the indices pass 2^32 */
    bool packets; /* every write is O_DIRECT */
    enum arrival arrival;
    unsigned slots;
    enum stance reader;
    enum stance writer;
    enum first first;
    bool late; /* the victim came after the others fell asleep */
    bool cold; /* it has never looked for the other side, nor for whom to watch */
    /* P8: this one died before, in its lock, after each change that it made there. */
    const struct operation *dead;
    /* While the victim is stopped at each such change: a survivor does this. */
    enum who meanwhile_who;
    enum command meanwhile;
    long meanwhile_argument;
    bool dense; /* it comes at each instruction inside a lock; deaths at changes alone */
    bool only_all; /* not in the sample */
};

extern const char *const state_names[];
extern const char *const stance_names[];
extern const char *const command_names[];

#define CONTEXTS_MAX 1024

/* Fills the table once; how many. */
size_t contexts_make(void);
const struct context *context_at(size_t index);
long context_number(const struct context *context);
void context_describe(const struct context *context, char *text, size_t size);
/* A table in Markdown: operations against states, how many contexts of each. */
void contexts_print_matrix(size_t count);

#endif
