/* view.h - what a death leaves to others at some instant, as far as operations change it one word at a
 * time.
 */
#ifndef SWEEP_VIEW_H
#define SWEEP_VIEW_H

#include "stage.h"

#define HOLDERS_SEEN 8
#define WORDS_SEEN 16

struct view {
    struct shmp_header header;
    struct shmp_holder holders[HOLDERS_SEEN];
    uint64_t descriptions[16];
    uint32_t words[WORDS_SEEN];
};

void view_take(const struct stage *stage, struct view *view);
/* Of what survivors can ever notice: not of times, process numbers, CPUs and statistics, but of how
 * far the survivors are, and of the companion in the kernel. */
uint64_t view_hash(const struct stage *stage, const struct view *view);

#endif
