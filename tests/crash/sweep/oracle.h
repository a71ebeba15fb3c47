/* oracle.h - what must hold after a death, whatever instruction it came at. */
#ifndef SWEEP_ORACLE_H
#define SWEEP_ORACLE_H

#include "stage.h"

/* What the dead may have taken with them: each a read that did not return. */
struct expected {
    long read[VICTIMS];   /* bytes, if it got that far; 0: does not read */
    bool returned;        /* the swept victim was back from its call */
    bool child;           /* it had forked */
    bool lives;           /* it has executed a program, and was let go; or its parent goes on */
};

/* Has the survivors go on to the end.  NULL, or what is wrong, in a static text. */
const char *oracle_check(struct stage *stage, const struct expected *expected);

#endif
