/* model.c - the kernel's pipe as its rules say it. */
#include "model.h"

#include <string.h>

size_t model_write(struct model *m, const unsigned char *bytes, size_t n, bool packet)
{
    size_t done = 0;
    size_t odd = n % 4096;
    if (odd != 0 && m->used > 0) {
        struct model_slot *newest = &m->slot[m->used - 1];
        if (newest->can_merge && newest->end + odd <= 4096) {
            memcpy(newest->bytes + newest->end, bytes, odd);
            newest->end += odd;
            done = odd;
        }
    }
    while (done < n && m->used < m->max) {
        struct model_slot *fresh = &m->slot[m->used++];
        size_t part = n - done < 4096 ? n - done : 4096;
        fresh->start = 0;
        fresh->end = part;
        fresh->can_merge = !packet;
        fresh->packet = packet;
        memcpy(fresh->bytes, bytes + done, part);
        done += part;
    }
    return done;
}

size_t model_read(struct model *m, unsigned char *bytes, size_t n)
{
    size_t done = 0;
    while (done < n && m->used > 0) {
        struct model_slot *oldest = &m->slot[0];
        size_t part = oldest->end - oldest->start;
        bool packet = oldest->packet;
        if (part > n - done)
            part = n - done;
        memcpy(bytes + done, oldest->bytes + oldest->start, part);
        done += part;
        oldest->start += part;
        if (packet || oldest->start == oldest->end) {
            m->used--;
            memmove(&m->slot[0], &m->slot[1], m->used * sizeof m->slot[0]);
        }
        if (packet)
            break;
    }
    return done;
}

size_t model_pending(const struct model *m)
{
    size_t sum = 0;
    for (size_t i = 0; i < m->used; i++)
        sum += m->slot[i].end - m->slot[i].start;
    return sum;
}
