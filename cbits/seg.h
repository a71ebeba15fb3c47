/* seg.h - the segment: making it, judging a stranger's, mapping it. */
#ifndef SHMP_SEG_H
#define SHMP_SEG_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "abi.h"
#include "atomic.h"

/* One mapping of an area.  The two sides of the ring move to a new area at
 * different times, so it is counted. */
struct shmp_map {
    unsigned refs; /* guarded by shmp_seg.mutex */
    uint32_t ring_size;
    unsigned char *base;
    size_t length;
};

/* What one side of the ring knows of the geometry: copied and checked once per
 * generation, never read from shared memory again (D12).  Touched only by the
 * holder of that side's lock. */
struct shmp_ring {
    struct shmp_header *header;
    _Atomic uint32_t *words;
    unsigned char *data; /* mapped twice in a row */
    uint32_t mask;
    uint32_t ring_size;
    uint32_t max_usage;
    uint32_t gen;
    struct shmp_map *map;
};

struct shmp_seg {
    int fd;
    int guard_fd; /* close-on-exec where fd is not, or -1: exec must drop our record locks */
    dev_t dev;
    ino_t ino;
    uint32_t kind;
    uint64_t instance;
    uint32_t default_usage;
    char name[SHMP_NAME_MAX + 1];
    struct shmp_header *header;
    _Atomic uint64_t *descriptions;
    struct shmp_holder *holders;
    struct shmp_ring read_side;
    struct shmp_ring write_side;
    struct shmp_map *newest;
    pthread_mutex_t mutex;
};

/* All return 0 or -errno, and leave nothing behind when they fail. */

/* A fresh anonymous segment on a sealed memfd. */
int shmp_seg_create(int *fd, const struct shmp_options *options);

/* Makes an empty object a segment, but for the magic (stored by shmp_seg_publish):
 * an opener sees nothing until then. */
int shmp_seg_format(int fd, uint32_t kind, const char *name, uint64_t instance,
                    const struct shmp_options *options);
int shmp_seg_publish(int fd, uint64_t fifo_dev, uint64_t fifo_ino);

/* A checked copy of the present geometry: what resize and the inspector start from. */
struct shmp_shape {
    uint64_t area_offset;
    uint32_t ring_size;
    uint32_t max_usage;
    uint32_t gen;
};

/* Reads and judges the header of a segment that anybody may have made.
 * -ENOENT: not published yet.  -SHMP_EINCOMPATIBLE, -SHMP_ECORRUPT: see shmp_reason(). */
int shmp_seg_judge(int fd, struct shmp_header *copy);
/* The same, with its geometry and the size of its file. */
int shmp_seg_read(int fd, struct shmp_header *copy, struct shmp_shape *shape,
                  uint64_t *file_bytes);

/* Maps a segment that was judged.  Takes the descriptor on success. */
int shmp_seg_map(struct shmp_seg *seg, int fd, const struct shmp_header *judged);
void shmp_seg_unmap(struct shmp_seg *seg);

/* Brings a side to the present geometry.  Call with that side's lock held. */
int shmp_ring_refresh(struct shmp_seg *seg, struct shmp_ring *ring);

int shmp_shape_read(struct shmp_header *header, uint64_t file_bytes, struct shmp_shape *shape);

/* The present capacity in slots, without a lock: a hint, and hostile like everything shared. */
static inline uint32_t shmp_max_usage(struct shmp_header *h)
{
    return load_relaxed(&h->geometry[load_seq_cst(&h->wait.geometry_gen) & 1].max_usage);
}

/* Makes a part of the file usable: ftruncate for a memfd, fallocate for a named object, so
 * that a full /dev/shm is ENOSPC now and not SIGBUS later (D12). */
int shmp_seg_reserve(int fd, uint32_t kind, uint64_t offset, uint64_t bytes);

/* Maps [words | data | data again] of an area. */
int shmp_area_map(int fd, uint64_t offset, uint32_t ring_size, unsigned char **base);
size_t shmp_area_span(uint32_t ring_size);  /* bytes of address space */
size_t shmp_area_bytes(uint32_t ring_size); /* bytes of file */

/* The slots a capacity needs: rounded up to a power of two; 0 if above the limit. */
uint32_t shmp_slots_for(uint64_t capacity);

/* One line for people about the last failure on this thread. */
void shmp_set_reason(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
