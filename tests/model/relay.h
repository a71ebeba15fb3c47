/* relay.h - the model of notify.c and the threads of relay.c: is each operation told, and none before
 * it is done? */
#ifndef MODEL_RELAY_H
#define MODEL_RELAY_H

#include "explore.h"

enum relay_variant {
    RELAY_AS_BUILT,
    NO_BEFORE,
    NO_BEGUN,
    NO_SETTLE,
    COUNTED_BEFORE_THE_PUBLISH,
    COUNTED_AFTER_N4,
    COUNT_BUFFERED,
    WORD_KEPT_BY_N5,
    EVEN_WHOEVER_CAME,
    COUNTED_AND_NOBODY_WOKEN,
    K1_BUFFERED,
    K1_KEEPS_AN_ODD_WORD,
    NO_LOOK_AFTER_K1,
    LIVES_UNWATCHED,
    GATHERED_BEFORE_K1,
    NO_RESCUE,
    DEATH_NOT_PASSED_ON,
    DEATH_PASSED_ON_FOR_ONE_WORD,
    NEWCOMER_SILENT,
    STRANGERS_TRUSTED,
    NOT_DISMISSED,
};

struct relay_setting {
    unsigned relays; /* numbered first; each in a process of its own */
    unsigned writers;
    unsigned late; /* a bit for each process that is not there at first */
    unsigned deaths;
    unsigned unreachable; /* a bit for each process whose life nobody can watch */
    enum relay_variant variant;
};

const struct model *relay_model(const struct relay_setting *setting);

#endif
