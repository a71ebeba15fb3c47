/* peek.c - reading a segment without mapping it. */
#include "peek.h"

#include <fcntl.h>

#include "atomic.h"
#include "sys.h"

int shmp_peek_bytes(int fd, void *to, size_t n, uint64_t offset)
{
    unsigned char *at = to;
    while (n > 0) {
        long r = shmp_sys.pread(fd, at, n, (off_t)offset);
        if (r < 0)
            return (int)r;
        if (r == 0) {
            shmp_set_reason("the segment is damaged: the file ends inside it");
            return -SHMP_ECORRUPT;
        }
        at += r;
        offset += (uint64_t)r;
        n -= (size_t)r;
    }
    return 0;
}

int shmp_peek_words(const struct shmp_peek *peek, uint32_t first, uint32_t count,
                    _Atomic uint32_t *words)
{
    uint32_t slot = first & (peek->shape.ring_size - 1);
    uint32_t part = peek->shape.ring_size - slot < count ? peek->shape.ring_size - slot : count;
    int r = shmp_peek_bytes(peek->fd, words, part * sizeof *words,
                            peek->shape.area_offset + slot * sizeof *words);
    if (r == 0 && part < count) /* across the wrap */
        r = shmp_peek_bytes(peek->fd, words + part, (count - part) * sizeof *words,
                            peek->shape.area_offset);
    return r;
}

int shmp_peek_holders(int fd, uint32_t first, uint32_t count,
                      struct shmp_holder *holders)
{
    return shmp_peek_bytes(fd, holders, count * sizeof *holders,
                           SHMP_HOLDERS_OFFSET + first * sizeof *holders);
}

bool shmp_peek_stood_still(const struct shmp_peek *peek, const struct shmp_header *now)
{
    const struct shmp_header *then = &peek->header;
    const struct shmp_geometry *g = &now->geometry[peek->shape.gen & 1];
    return load_relaxed(&then->tail) == load_relaxed(&now->tail) &&
           load_relaxed(&then->head) == load_relaxed(&now->head) &&
           /* The first copy may have met a resize between a geometry and its generation. */
           load_relaxed(&now->wait.geometry_gen) == peek->shape.gen &&
           load_relaxed(&g->area_offset) == peek->shape.area_offset &&
           load_relaxed(&g->ring_size) == peek->shape.ring_size &&
           load_relaxed(&g->max_usage) == peek->shape.max_usage;
}

bool shmp_peek_is_locked(int fd, uint32_t index)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SHMP_HOLDER_LOCK + index, .l_len = 1};
    return shmp_sys.lock(fd, F_GETLK, &lock) < 0 || lock.l_type != F_UNLCK;
}
