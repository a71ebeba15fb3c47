/* contexts.h - what is swept: an operation, in a state, beside survivors in a stance. */
#ifndef SWEEP_CONTEXTS_H
#define SWEEP_CONTEXTS_H

#include <stdbool.h>
#include <stddef.h>

#include "actors.h"
#include "bytes.h"
#include "shmpipe.h"

/* Which ends the victim has when it begins. */
enum ends { HAS_NOTHING, HAS_READER, HAS_WRITER, HAS_DESCRIPTORS };

struct victim {
    enum tag tag;
    shmp_end *reader;
    shmp_end *writer;
    struct shmp_token token[2]; /* HAS_DESCRIPTORS */
    const char *name;
    const struct operation *operation;
};

struct operation {
    const char *name;
    enum ends ends;
    bool writes; /* argument bytes: they belong in the intent log */
    bool reads;  /* what it has taken may die with it */
    long argument;
    long (*run)(struct victim *victim);
    /* What makes it go on where it sleeps; DO_NOTHING: it never does. */
    enum who waker;
    enum command wake;
    long wake_argument;
    bool forks;
    enum { OF_A_PIPE, BY_NAME, MAKES_NAME } kind;
};

enum state {
    EMPTY,    /* used before, nothing in it */
    SOME,     /* one slot with 100 bytes, 30 of them read */
    TWO,      /* a full slot, and 100 bytes in another one */
    NEARLY,   /* one free slot */
    FULL,     /* every slot, and every byte */
    STATES
};

enum stance { ABSENT, IDLE, ASLEEP, POLLS, EDGE, LOOKED };

/* What the first survivor to act does: it meets what the dead has left. */
enum first { FIRST_READ, FIRST_WRITE, FIRST_RESIZE, FIRST_LOOK, FIRST_PENDING };

struct context {
    const struct operation *operation;
    enum state state;
    bool wrapped; /* the indices pass 2^32 */
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
};

extern const char *const state_names[];
extern const char *const stance_names[];
extern const char *const command_names[];

/* Fills the table once; how many. */
size_t contexts_make(void);
const struct context *context_at(size_t index);
void context_describe(const struct context *context, char *text, size_t size);

#endif
