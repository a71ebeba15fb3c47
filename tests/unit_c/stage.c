/* stage.c - a ring by hand, without a segment: header, slot words, data twice, guard pages. */
#include "stage.h"

#include <sys/mman.h>

#include "unit.h"

static void *map_part(void *where, size_t bytes, int fd, off_t offset)
{
    void *p = mmap(where, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, offset);
    CHECK(p == where);
    return p;
}

void stage_make(struct stage *s, uint32_t slots, uint32_t first_index)
{
    size_t words = shmp_words_bytes(slots);
    size_t data = shmp_data_bytes(slots);
    memset(s, 0, sizeof *s);
    int fd = memfd_create("stage", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(ftruncate(fd, (off_t)(SHMP_PAGE + words + data)), 0);
    /* guard | header | guard | words | guard | data | data | guard: whoever leaves its place
     * dies of it. */
    s->span_bytes = 5 * SHMP_PAGE + words + 2 * data;
    s->span = mmap(NULL, s->span_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(s->span != MAP_FAILED);
    unsigned char *at = s->span + SHMP_PAGE;
    s->header = map_part(at, SHMP_PAGE, fd, 0);
    at += 2 * SHMP_PAGE;
    _Atomic uint32_t *slot_words = map_part(at, words, fd, SHMP_PAGE);
    at += words + SHMP_PAGE;
    map_part(at, data, fd, (off_t)(SHMP_PAGE + words));
    map_part(at + data, data, fd, (off_t)(SHMP_PAGE + words));
    close(fd);
    s->writer = (struct shmp_ring){.header = s->header,
                                   .words = slot_words,
                                   .data = at,
                                   .mask = slots - 1,
                                   .ring_size = slots,
                                   .max_usage = slots};
    s->reader = s->writer;
    store_relaxed(&s->header->head, first_index);
    shmp_ring_clear(&s->writer);
}

void stage_free(struct stage *s)
{
    munmap(s->span, s->span_bytes);
}

long stage_write(struct stage *s, const unsigned char *bytes, size_t n, bool packet)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = n};
    struct shmp_cursor from = {.iov = &iov, .left = 1};
    size_t left = n;
    uint32_t odd = (uint32_t)(n % SHMP_SLOT_SIZE);
    if (odd != 0 && shmp_ring_merge(&s->writer, &from, odd))
        left -= odd;
    while (left > 0) {
        struct shmp_put put;
        int r = shmp_ring_fill(&s->writer, &from, left, packet, &put);
        if (r < 0)
            return r;
        if (put.bytes == 0)
            break;
        shmp_ring_commit(&s->writer, &put);
        left -= put.bytes;
    }
    return (long)(n - left);
}

long stage_read(struct stage *s, unsigned char *bytes, size_t n)
{
    struct iovec iov = {.iov_base = bytes, .iov_len = n};
    struct shmp_cursor to = {.iov = &iov, .left = 1};
    size_t left = n;
    while (left > 0) {
        struct shmp_taken taken;
        int r = shmp_ring_copy(&s->reader, &to, left, &taken);
        if (r < 0)
            return r;
        if (taken.bytes == 0)
            break;
        shmp_ring_consume(&s->reader, &taken);
        left -= taken.bytes;
        if (taken.packet_end)
            break;
    }
    return (long)(n - left);
}
