/* operations.h - what victims do: a call of the library each, in a process that dies in it. */
#ifndef SWEEP_OPERATIONS_H
#define SWEEP_OPERATIONS_H

#include <stdbool.h>

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
    /* What it needs, and no part of it. */
    void (*prepare)(struct victim *victim);
    bool threads; /* of its own, besides the victim's */
    bool executes; /* argument: KEEPS_ITS_END, or the kernel closes it */
    /* The victim is a child of who has prepared it; that one goes on, or is gone before. */
    enum { NO_CHILD, CHILD_OF_THE_LIVING, ORPHAN, ORPHAN_OF_A_SLEEPER } born;
    enum { OF_A_PIPE, BY_NAME, MAKES_NAME } kind;
};

#define KEEPS_ITS_END 1

extern const struct operation write_small, write_slot, write_merging, write_many, write_all, write_long,
    write_sleeping, write_sleeping_long, read_small, read_slot, read_all, read_sleeping,
    read_halves, close_reader, close_writer, fork_reader, fork_writer, child_reader,
    child_writer, orphan_reader, orphan_writer, orphan_sleeper, exec_reader, exec_writer, exec_closing_reader, exec_closing_writer, grow, grow_reader, shrink,
    look_reader, look_writer, async_reader, async_writer, arm_reader, arm_writer, pending,
    listen_reader, listen_writer, count_reader, count_writer, rescue_reader, rescue_writer,
    unlisten_reader, unlisten_writer, dup_reader, dup_writer, import_reader, import_writer,
    open_reader, open_writer, open_both, make_name, drop_name;

/* The one that it has. */
shmp_end *victim_end(const struct victim *victim);

#endif
