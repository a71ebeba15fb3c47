/* stage.h - one trial's pipe and processes. */
#ifndef SWEEP_STAGE_H
#define SWEEP_STAGE_H

#include "abi.h"
#include "contexts.h"
#include "tracer.h"

enum { VICTIM, SECOND, VICTIMS };

/* Where the ring stands. */
struct position {
    uint32_t head;
    uint32_t newest_end; /* bytes in the slot before head */
    uint64_t tail;
};

struct stage {
    const struct context *context;
    char name[64];        /* of a named pipe */
    int segment_fd;       /* the director's own, opened when it holds no end any more */
    struct shmp_header *header; /* header and tables */
    const struct shmp_holder *holders;
    pid_t victim[VICTIMS];
    pid_t parent; /* of the victim, where that is a fork child; 0: the director */
    pid_t actor[ACTORS];
    struct intent *intent[VICTIMS];
    bool reader_left; /* survivors with such an end */
    bool writer_left;
    struct position before; /* the operation */
};

/* Everything is there, the survivors in their stances, each victim stopped before its operation.
 * NULL, or what went wrong. */
const char *stage_set(struct stage *stage, const struct context *context);
/* A fork child's parent dies. */
void stage_end_parent(struct stage *stage);
/* Whatever is still there is killed, closed, unlinked. */
void stage_clear(struct stage *stage);
/* Starts a survivor that asks for its end by name. */
const char *stage_late_actor(struct stage *stage, enum who who);
/* Opens the director's view of the segment. */
bool stage_view(struct stage *stage, int fd);

/* What the ring shows now. */
uint32_t stage_used(const struct stage *stage);
bool stage_is_empty(const struct stage *stage);
bool stage_is_full(const struct stage *stage);
struct position stage_position(const struct stage *stage);

#endif
