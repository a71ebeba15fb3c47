/* model.h - the kernel's pipe as its rules say it: a list of slots, nothing shared, no cleverness. */
#ifndef MODEL_H
#define MODEL_H

#include <stdbool.h>
#include <stddef.h>

#define MODEL_SLOTS 64

struct model_slot {
    size_t start;
    size_t end;
    bool can_merge;
    bool packet;
    unsigned char bytes[4096];
};

struct model {
    size_t used;
    size_t max;
    struct model_slot slot[MODEL_SLOTS]; /* [0] is the oldest */
};

/* Rules WR-2..WR-10, PK-1, PK-2, PK-5, PK-7.  Bytes taken; 0 is EAGAIN. */
size_t model_write(struct model *m, const unsigned char *bytes, size_t n, bool packet);
/* Rules RD-2, PK-3, PK-4, PK-6. */
size_t model_read(struct model *m, unsigned char *bytes, size_t n);
size_t model_pending(const struct model *m);

#endif
