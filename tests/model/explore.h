/* explore.h - every state that a model can reach, shortest way first.
 *
 * A model says which steps a state allows.  Each step is of one kind:
 *
 *   OWN    a process goes on by itself
 *   TIMER  a sleeper looks because its slice is over
 *   WORLD  somebody calls, kills, stops or signals: it may happen, and need not
 *
 * A state without an OWN step is one in which nothing more happens by itself.  The model says
 * whether that is as it should be.  The search is breadth first, so what it finds is a shortest
 * way there.
 */
#ifndef MODEL_EXPLORE_H
#define MODEL_EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kind { OWN, TIMER, WORLD };

#define STATE_MAX 72

/* Called by successors() for each step; `who` is a process or -1. */
void step(const void *next, enum kind kind, int who, const char *what);
/* The same for a step that leads out of what is explored. */
void step_beyond(void);

struct model {
    size_t bytes; /* of a state: no padding, no pointer */
    /* Its last parts, each of so many bytes, of which there are few different ones: a process, say.
     * Kept once, and named by four bytes.  0: all is kept as it is. */
    size_t parts;
    size_t part_bytes;
    void (*first)(void *state);
    void (*successors)(const void *state);
    /* NULL, or what is wrong with it. */
    const char *(*broken)(const void *state);
    /* The same for a state without OWN steps. */
    const char *(*stuck)(const void *state);
    /* Replaces a state by the one that stands for all that differ only in names; or NULL. */
    void (*canonical)(void *state);
    const char *(*name)(int who);
    void (*show)(const void *state, char *line, size_t bytes);
};

struct finding {
    const char *what; /* NULL: nothing, it holds */
    size_t states;
    size_t edges;
    unsigned depth;   /* of the counterexample, or of the whole space */
    size_t beyond;  /* steps that led out of it */
    bool cut;       /* gave up at the limit */
};

struct finding explore(const struct model *model, size_t most_states, bool print);

#endif
