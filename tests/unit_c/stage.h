/* stage.h - a ring by hand, without a segment: header, slot words, data twice, guard pages. */
#ifndef STAGE_H
#define STAGE_H

#include "ring.h"

struct stage {
    struct shmp_header *header;
    struct shmp_ring writer;
    struct shmp_ring reader;
    unsigned char *span;
    size_t span_bytes;
};

void stage_make(struct stage *s, uint32_t slots, uint32_t first_index);
void stage_free(struct stage *s);

/* A whole write or read in one go, as transfer.c does it, non-blocking.  Bytes; 0: no room or
 * nothing there; or -SHMP_ECORRUPT. */
long stage_write(struct stage *s, const unsigned char *bytes, size_t n, bool packet);
long stage_read(struct stage *s, unsigned char *bytes, size_t n);

#endif
