/* victim.h - the process that dies: it takes its ends, and begins its operation under the tracer. */
#ifndef SWEEP_VICTIM_H
#define SWEEP_VICTIM_H

#include "contexts.h"

/* An end of its own description, so that O_NONBLOCK and O_DIRECT are nobody else's. */
shmp_end *on_its_own(shmp_end *end);

/* In a child that has the director's ends. */
_Noreturn void victim_run(const struct victim *victim, const struct context *context,
                          shmp_end *ends[2]);
/* In the program that it has executed: with what is after "--victim". */
_Noreturn void victim_go_on(char **arguments);

/* The operation itself, when all is prepared. */
_Noreturn void victim_perform(struct victim *victim);

#define VICTIM_ARGUMENTS 5

/* From the director: a descriptor of its pages that talk to victims, for programs. */
extern int victim_control_fd;

#endif
