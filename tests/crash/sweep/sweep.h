/* sweep.h - one context: its paths are recorded, and its victim is killed along them. */
#ifndef SWEEP_SWEEP_H
#define SWEEP_SWEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "contexts.h"

#define VIOLATIONS_KEPT 4

struct violation {
    char wrong[200];
    size_t state;
    size_t count;
    const char *variant;
    uint64_t ip;
    bool other; /* another victim had died before, or a survivor had come */
    size_t other_state;
    uint64_t other_ip;
};

struct result {
    int cpu; /* 1 + the one it is worked on at; 0: not yet */
    bool done;
    size_t paths;        /* recorded: more than one where another death, or a meeting, is swept, too */
    size_t instructions; /* along them */
    size_t section;      /* of those of the plain path the most that one stay in locks took */
    size_t section_calls; /* and the system calls of that stay */
    size_t kills;
    size_t thinned;      /* repetitions in loops and string instructions that were left out */
    size_t again;        /* left out: the same instruction in the same state, on another path */
    size_t stepped;      /* kills for which each instruction before had to be stepped, too */
    size_t astray;       /* runs that went another way than the recorded one: not killed */
    size_t violations;
    double seconds;
    struct violation first[VIOLATIONS_KEPT];
};

/* How much of it.  After each change of the segment and each system call there is a kill anyhow. */
struct extent {
    size_t stride;        /* and before every so manyth instruction */
    size_t nested_stride; /* the same where another death or a meeting precedes; each time others */
    size_t nested_points; /* of which every so manyth is taken */
    bool every_pass;      /* of a loop: nothing is left out */
    bool nested_pollers;  /* also where survivors poll: most such kills must be stepped to */
    long only;            /* >= 0: this state of the path alone */
    size_t most;          /* violations before a context is given up */
    bool dry;             /* counts the kills, and kills nobody */
    bool verbose;
};

void sweep_context(const struct context *context, const char *name, const struct extent *extent,
                   struct result *result);

#endif
