/* wake.h - the model of wait.c, block.c, watch.c and the callers in transfer.c, attach.c and
 * presence.c: who sleeps, who wakes, who dies. */
#ifndef MODEL_WAKE_H
#define MODEL_WAKE_H

#include "explore.h"

/* What is left out or done otherwise: one thing at a time. */
enum wake_variant {
    AS_BUILT,
    NO_HAND_ON,
    HAND_ON_ONLY_ON_SUCCESS,
    HAND_ON_AFTER_THE_CALL_WORD,
    CALL_WORD_AFTER_R1,
    NO_EPOCH_CHANGE,
    LOOK_BEFORE_R1,
    NO_LOOK_AFTER_R1,
    GATHER_BEFORE_R1,
    GATHER_AFTER_R2,
    LOOK_IN_THE_WRONG_ORDER,
    W1_RELAXED,
    R1_RELAXED,
    W2_BEFORE_W1,
    OTHER_INDEX_BEFORE_W1,
    WAKES_BEFORE_W1,
    W4_LEFT_OUT,
    NO_LIFE_WORDS,
    NO_CALL_WORDS,
    IDLE_CALL_WORDS_UNWATCHED,
    NOT_PASSED_ON,
    PASSED_ON_FOR_ONE_WORD,
    NOT_INTRODUCED,
    NEWCOMER_KEEPS_EPOCH,
    CLAIM_RELAXED,
    ANNOUNCE_BEFORE_CLAIM,
    LAST_CLOSE_WAKES_ONE,
    LAST_CLOSE_WAKES_NOBODY,
    CLOSER_COUNTS_STRANGERS,
    EOF_WITHOUT_A_LOOK,
    WAKE_ALL_COUNTS_FIRST,
    HEAL_WHOEVER_CAME,
    LEAVE_ANY_EPOCH,
    HUNG_UP_NOT_ASKED,
    NO_NUDGE,
    REGISTRATION_TAKEN_FIRST,
    AHEAD_WITHOUT_A_WAKE,
    WAKER_LOWERS_ANY_EPOCH,
    STOPPED_WAKER,
    NO_WAIT_FOR_THE_LOCK,
};

struct wake_setting {
    unsigned readers; /* numbered first */
    unsigned writers;
    unsigned late;    /* a bit for each process that is not there at first */
    unsigned slots;
    unsigned deaths;  /* how many may die */
    unsigned stops;   /* how many of those that were chosen may be stopped */
    bool closes;
    bool signals;
    bool plain;     /* no merges, no partial reads, no long writes */
    bool two_loads; /* a look is two loads, and not one moment */
    bool stepwise;  /* whom to watch is gathered one after the other */
    unsigned too_many; /* by how much a count may err; runs beyond that are not followed */
    enum wake_variant variant;
};

const struct model *wake_model(const struct wake_setting *setting);

#endif
