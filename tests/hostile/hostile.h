/* hostile.h - what these tests share: guard pages around every mapping, a watchdog for each case,
 * and what a call on a damaged pipe may answer. */
#ifndef HOSTILE_H
#define HOSTILE_H

#include "pipe.h"
#include "sys.h"
#include "unit.h"

/* Of all cases one in so many is tried, another one each run; 1: all of them. */
#ifndef HOSTILE_PART
#define HOSTILE_PART 8u
#endif
/* How much longer than a sample the tests with random changes run. */
#ifndef HOSTILE_ROUNDS
#define HOSTILE_ROUNDS 1u
#endif

/* From now on each mapping of the core lies between pages that nobody may touch. */
void guard_mappings(void);
/* A check looks again at once: nobody moves here. */
void check_without_waiting(void);

/* ---- Cases in a process of their own ------------------------------------------------------ */

/* What the case in progress is, for a report; and a sign of life. */
void case_begins(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Runs it in a child.  The test fails, and says which case it was, if the child dies or if one
 * case takes longer than two seconds. */
void run_cases(void (*cases)(void));

/* ---- Verdicts ------------------------------------------------------------------------------ */

/* -1 with an errno that a damaged pipe, or a pipe with somebody else's flags, may give. */
bool is_typed_error(long result, int error);

/* A signal every few milliseconds, that ends waits. */
void alarms_begin(void);
void alarms_end(void);

#endif
