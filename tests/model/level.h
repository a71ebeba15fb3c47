/* level.h - the model of companion.c, turn.c and the first look: does who sleeps in poll() get up? */
#ifndef MODEL_LEVEL_H
#define MODEL_LEVEL_H

#include "explore.h"

enum level_variant {
    LEVEL_AS_BUILT,
    LOOK_PAST_THE_LOCKS,
    LATER_STEPS_UNTOLD,
    TOLD_AFTER_THE_CHANGE,
    TOLD_WITHOUT_THE_LOCK,
    LEVEL_FROM_THE_OPERATION,
    FLAG_AFTER_THE_LEVEL,
    IN_STEP_BEFORE_THE_LEVEL,
    DEAD_LEVEL_BELIEVED,
    NO_SYNC_AT_THE_END,
    NO_WAITING_BYTE,
    S2_RELAXED,
    FORETOLD_ONLY_FROM_FULL,
    CONTENT_WITH_THE_FLAG,
    NOT_NOTED,
    NOTED_OUTSIDE_THE_LOCK,
    NOTES_MADE_UNTOLD_OF_BY_SIGNAL,
    NOTED_AFTER_IT_IS_TOLD,
    NOTES_LEFT_TO_THE_NEXT_WRITER,
    NOTES_MADE_UNTOLD,
    LEVEL_WITHOUT_NOTES,
    TELLER_NOT_WAITED_FOR,
};

struct level_setting {
    unsigned readers; /* numbered first */
    unsigned writers;
    unsigned slots;
    unsigned deaths;
    bool old_look;   /* one that does not pass through the locks */
    bool async;      /* readers do not poll: they wait for SIGIO */
    enum level_variant variant;
};

const struct model *level_model(const struct level_setting *setting);

#endif
