/* seg.c - the segment: making it, judging a stranger's, mapping it.
 *
 * Life of a segment: sized -> formatted -> magic stored last -> attached.  A creator
 * that dies before the magic leaves an object that no opener accepts and that the
 * next mkfifo takes over.  Nothing that is read from the file is used unchecked, and
 * what was checked is a private copy (H40).
 */
#include "seg.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "atomic.h"
#include "sys.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

#define BYTE_ORDER_MARK 0x01020304u
#define BYTE_ORDER_SWAPPED 0x04030201u

static _Thread_local char reason[256] = "no failure recorded on this thread";

void shmp_set_reason(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
}

const char *shmp_reason(void)
{
    return reason;
}

uint32_t shmp_slots_for(uint64_t capacity)
{
    if (capacity > SHMP_CAPACITY_MAX)
        return 0;
    uint32_t slots = 1;
    while ((uint64_t)slots * SHMP_SLOT_SIZE < capacity)
        slots <<= 1;
    return slots;
}

size_t shmp_area_bytes(uint32_t ring_size)
{
    return shmp_words_bytes(ring_size) + shmp_data_bytes(ring_size);
}

size_t shmp_area_span(uint32_t ring_size)
{
    return shmp_area_bytes(ring_size) + shmp_data_bytes(ring_size);
}

int shmp_seg_reserve(int fd, uint32_t kind, uint64_t offset, uint64_t bytes)
{
    long r;
    if (kind == SHMP_KIND_ANONYMOUS) {
        struct stat st;
        r = shmp_sys.fstat(fd, &st);
        if (r == 0 && (uint64_t)st.st_size < offset + bytes)
            r = shmp_sys.ftruncate(fd, (off_t)(offset + bytes));
        return (int)r;
    }
    /* A large allocation is cut short by every signal and keeps what it has got, so
     * trying again makes progress. */
    do
        r = shmp_sys.fallocate(fd, 0, (off_t)offset, (off_t)bytes);
    while (r == -EINTR);
    return (int)r;
}

static uint32_t slots_of(const struct shmp_options *options)
{
    uint64_t capacity = options && options->capacity ? options->capacity : SHMP_CAPACITY_DEFAULT;
    return shmp_slots_for(capacity);
}

static void write_header(struct shmp_header *h, uint32_t kind, const char *name, uint64_t instance,
                         uint32_t slots, uint32_t first_index)
{
    h->version = SHMP_ABI_VERSION;
    h->fingerprint = shmp_fingerprint();
    h->byte_order = BYTE_ORDER_MARK;
    h->word_bits = (uint16_t)(8 * sizeof(void *));
    h->kind = (uint16_t)kind;
    h->page_size = SHMP_PAGE;
    h->header_bytes = sizeof(struct shmp_header);
    h->instance = instance;
    h->created_ns = shmp_clock_ns(CLOCK_REALTIME);
    h->creator_pid = (uint32_t)getpid();
    h->creator_uid = (uint32_t)getuid();
    h->first_index = first_index;
    h->default_usage = slots;
    memset(h->name, 0, sizeof h->name);
    if (name)
        memcpy(h->name, name, strnlen(name, SHMP_NAME_MAX));
    store_relaxed(&h->geometry[0].area_offset, SHMP_FIXED_BYTES);
    store_relaxed(&h->geometry[0].ring_size, slots);
    store_relaxed(&h->geometry[0].max_usage, slots);
    store_relaxed(&h->head, first_index);
    store_relaxed(&h->tail, SHMP_TAIL(first_index, 0));
    store_relaxed(&h->w.tail_seen, first_index);
    store_relaxed(&h->r.head_seen, first_index);
    store_relaxed(&h->wait.readable.word, (uint64_t)first_index);
    store_relaxed(&h->wait.writable.word, (uint64_t)first_index);
}

/* The slot before head must refuse merges while the ring is empty: that is how a
 * writer knows emptiness without looking at tail. */
static void seal_before_head(_Atomic uint32_t *words, uint32_t mask, uint32_t head)
{
    store_relaxed(&words[(head - 1) & mask], SHMP_WORD_SEALED);
}

int shmp_seg_format(int fd, uint32_t kind, const char *name, uint64_t instance,
                    const struct shmp_options *options)
{
    uint32_t slots = slots_of(options);
    uint32_t first_index = options ? options->first_index : 0;
    if (slots == 0)
        return -EPERM;
    size_t bytes = SHMP_FIXED_BYTES + shmp_area_bytes(slots);
    int r = shmp_seg_reserve(fd, kind, 0, bytes);
    if (r < 0)
        return r;
    size_t mapped = SHMP_FIXED_BYTES + shmp_words_bytes(slots);
    void *base;
    r = (int)shmp_sys.mmap(&base, NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (r < 0)
        return r;
    if (kind == SHMP_KIND_NAMED)
        memset(base, 0, SHMP_FIXED_BYTES); /* a creator that died here may have begun */
    write_header(base, kind, name, instance, slots, first_index);
    seal_before_head((_Atomic uint32_t *)(void *)((char *)base + SHMP_FIXED_BYTES), slots - 1,
                     first_index);
    shmp_sys.munmap(base, mapped);
    return 0;
}

int shmp_seg_publish(int fd, uint64_t fifo_dev, uint64_t fifo_ino)
{
    void *base;
    int r = (int)shmp_sys.mmap(&base, NULL, SHMP_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (r < 0)
        return r;
    struct shmp_header *h = base;
    h->fifo_dev = fifo_dev;
    h->fifo_ino = fifo_ino;
    /* Release: whoever reads the magic reads a whole header.  Dies before: the object
     * stays unpublished, and ENOENT for openers. */
    store_release(&h->magic, SHMP_MAGIC);
    shmp_sys.munmap(base, SHMP_PAGE);
    return 0;
}

int shmp_seg_create(int *out, const struct shmp_options *options)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    long fd = shmp_sys.memfd_create("shmpipe", flags | MFD_NOEXEC_SEAL);
    if (fd == -EINVAL) /* before Linux 6.3 */
        fd = shmp_sys.memfd_create("shmpipe", flags);
    if (fd < 0)
        return (int)fd;
    uint64_t instance = 0;
    long r = shmp_sys.random(&instance, sizeof instance);
    if (r >= 0)
        r = shmp_seg_format((int)fd, SHMP_KIND_ANONYMOUS, NULL, instance, options);
    if (r == 0)
        r = shmp_seg_publish((int)fd, 0, 0);
    if (r == 0) /* it may grow with the capacity, but never shrink under a mapping */
        r = shmp_sys.fcntl((int)fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL);
    if (r < 0) {
        shmp_sys.close((int)fd);
        return (int)r;
    }
    *out = (int)fd;
    return 0;
}

static int incompatible(const char *what, unsigned long theirs, unsigned long ours)
{
    shmp_set_reason("made by another build: its %s is %lu, this one's %lu (all sides of a pipe need "
                    "the same shmpipe)", what, theirs, ours);
    return -SHMP_EINCOMPATIBLE;
}

static int corrupt(const char *what)
{
    shmp_set_reason("the segment is damaged: %s", what);
    return -SHMP_ECORRUPT;
}

static int judge_identity(struct shmp_header *copy)
{
    uint64_t magic = load_relaxed(&copy->magic);
    if (magic == 0)
        return -ENOENT;
    if (magic == __builtin_bswap64(SHMP_MAGIC) || copy->byte_order == BYTE_ORDER_SWAPPED)
        return incompatible("byte order", copy->byte_order, BYTE_ORDER_MARK);
    if (magic != SHMP_MAGIC) {
        shmp_set_reason("not a shmpipe segment");
        return -SHMP_EINCOMPATIBLE;
    }
    if (copy->version != SHMP_ABI_VERSION)
        return incompatible("layout version", copy->version, SHMP_ABI_VERSION);
    if (copy->word_bits != 8 * sizeof(void *))
        return incompatible("word size in bits", copy->word_bits, 8 * sizeof(void *));
    if (copy->page_size != SHMP_PAGE)
        return incompatible("page size", copy->page_size, SHMP_PAGE);
    if (copy->fingerprint != shmp_fingerprint())
        return incompatible("layout fingerprint", copy->fingerprint, shmp_fingerprint());
    if (copy->byte_order != BYTE_ORDER_MARK || copy->header_bytes != sizeof *copy ||
        (copy->kind != SHMP_KIND_ANONYMOUS && copy->kind != SHMP_KIND_NAMED))
        return corrupt("the header contradicts itself");
    if (copy->default_usage == 0 || copy->default_usage > SHMP_MAX_SLOTS)
        return corrupt("impossible default capacity");
    copy->name[SHMP_NAME_MAX] = '\0';
    if (strchr(copy->name, '/')) /* it becomes part of a path */
        return corrupt("a slash in its name");
    return 0;
}

int shmp_seg_read(int fd, struct shmp_header *copy, struct shmp_shape *shape,
                  uint64_t *file_bytes)
{
    struct stat st;
    int r = -SHMP_ECORRUPT;
    /* A resize while the kernel copies can leave half of a geometry in the copy.  What is damaged
     * stays so. */
    for (int tries = 0; tries < 8 && r == -SHMP_ECORRUPT; tries++) {
        r = (int)shmp_sys.fstat(fd, &st);
        if (r < 0)
            return r;
        if (!S_ISREG(st.st_mode)) {
            shmp_set_reason("not a shared memory object");
            return -SHMP_EINCOMPATIBLE;
        }
        if (st.st_size == 0)
            return -ENOENT;
        long got = shmp_sys.pread(fd, copy, sizeof *copy, 0);
        if (got < 0)
            return (int)got;
        if ((size_t)got < sizeof *copy)
            return corrupt("the file ends inside the header");
        r = judge_identity(copy);
        if (r < 0)
            return r;
        *file_bytes = (uint64_t)st.st_size;
        r = shmp_shape_read(copy, *file_bytes, shape);
    }
    return r;
}

int shmp_seg_judge(int fd, struct shmp_header *copy)
{
    struct shmp_shape shape;
    uint64_t file_bytes;
    return shmp_seg_read(fd, copy, &shape, &file_bytes);
}

int shmp_shape_read(struct shmp_header *h, uint64_t file_bytes, struct shmp_shape *shape)
{
    /* A resize writes the geometry that does not count, then turns the generation:
     * two equal reads of it bracket one consistent copy. */
    for (int tries = 0; tries < 64; tries++) {
        uint32_t gen = load_acquire(&h->wait.geometry_gen);
        struct shmp_geometry *g = &h->geometry[gen & 1];
        shape->gen = gen;
        shape->area_offset = load_relaxed(&g->area_offset);
        shape->ring_size = load_relaxed(&g->ring_size);
        shape->max_usage = load_relaxed(&g->max_usage);
        atomic_thread_fence(memory_order_acquire);
        if (load_relaxed(&h->wait.geometry_gen) != gen)
            continue;
        if (shape->ring_size == 0 || shape->ring_size > SHMP_MAX_SLOTS ||
            (shape->ring_size & (shape->ring_size - 1)) != 0)
            return corrupt("impossible ring size");
        if (shape->max_usage == 0 || shape->max_usage > shape->ring_size)
            return corrupt("impossible capacity");
        if (shape->area_offset < SHMP_FIXED_BYTES || shape->area_offset % SHMP_PAGE != 0 ||
            shape->area_offset > (UINT64_C(1) << 40))
            return corrupt("impossible data offset");
        if (shape->area_offset + shmp_area_bytes(shape->ring_size) > file_bytes)
            return corrupt("the file is too short for its ring");
        return 0;
    }
    return corrupt("the geometry never stands still");
}

int shmp_area_map(int fd, uint64_t offset, uint32_t ring_size, unsigned char **out)
{
    size_t words = shmp_words_bytes(ring_size);
    size_t data = shmp_data_bytes(ring_size);
    void *base;
    void *part;
    /* Reserve the whole span first, so that the second copy of the data has a place. */
    int r = (int)shmp_sys.mmap(&base, NULL, words + 2 * data, PROT_NONE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r < 0)
        return r;
    unsigned char *bytes = base;
    r = (int)shmp_sys.mmap(&part, bytes, words + data, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_FIXED, fd, (off_t)offset);
    if (r == 0)
        r = (int)shmp_sys.mmap(&part, bytes + words + data, data, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_FIXED, fd, (off_t)(offset + words));
    if (r < 0) {
        shmp_sys.munmap(base, words + 2 * data);
        return r;
    }
    *out = bytes;
    return 0;
}

static void map_put(struct shmp_map *map)
{
    if (map && --map->refs == 0) {
        shmp_sys.munmap(map->base, map->length);
        free(map);
    }
}

/* Called with seg->mutex held.  ring_size names an area: it only grows (capacity.c). */
static int map_get(struct shmp_seg *seg, const struct shmp_shape *shape, struct shmp_map **out)
{
    struct shmp_map *map = seg->newest;
    if (map == NULL || map->ring_size != shape->ring_size) {
        map = calloc(1, sizeof *map);
        if (map == NULL)
            return -ENOMEM;
        int r = shmp_area_map(seg->fd, shape->area_offset, shape->ring_size, &map->base);
        if (r < 0) {
            free(map);
            return r;
        }
        map->length = shmp_area_span(shape->ring_size);
        map->ring_size = shape->ring_size;
        map->refs = 1;
        map_put(seg->newest);
        seg->newest = map;
    }
    map->refs++;
    *out = map;
    return 0;
}

int shmp_ring_refresh(struct shmp_seg *seg, struct shmp_ring *ring)
{
    struct stat st;
    struct shmp_shape shape;
    struct shmp_map *map = NULL;
    long r = shmp_sys.fstat(seg->fd, &st);
    if (r < 0)
        return (int)r;
    r = shmp_shape_read(seg->header, (uint64_t)st.st_size, &shape);
    if (r < 0)
        return (int)r;
    pthread_mutex_lock(&seg->mutex);
    r = map_get(seg, &shape, &map);
    if (r == 0) {
        map_put(ring->map);
        ring->map = map;
        ring->header = seg->header;
        ring->words = (_Atomic uint32_t *)(void *)map->base;
        ring->data = map->base + shmp_words_bytes(shape.ring_size);
        ring->ring_size = shape.ring_size;
        ring->mask = shape.ring_size - 1;
        ring->max_usage = shape.max_usage;
        ring->gen = shape.gen;
    }
    pthread_mutex_unlock(&seg->mutex);
    return (int)r;
}

int shmp_seg_map(struct shmp_seg *seg, int fd, const struct shmp_header *judged)
{
    struct stat st;
    void *base;
    long r = shmp_sys.fstat(fd, &st);
    if (r < 0)
        return (int)r;
    r = shmp_sys.mmap(&base, NULL, SHMP_FIXED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (r < 0)
        return (int)r;
    memset(seg, 0, sizeof *seg);
    pthread_mutex_init(&seg->mutex, NULL);
    seg->fd = fd;
    seg->guard_fd = -1;
    seg->dev = st.st_dev;
    seg->ino = st.st_ino;
    seg->kind = judged->kind;
    seg->instance = judged->instance;
    seg->default_usage = judged->default_usage;
    memcpy(seg->name, judged->name, SHMP_NAME_MAX);
    seg->header = base;
    seg->descriptions =
        (_Atomic uint64_t *)(void *)((char *)base + SHMP_DESCRIPTIONS_OFFSET);
    seg->holders = (struct shmp_holder *)(void *)((char *)base + SHMP_HOLDERS_OFFSET);
    r = shmp_ring_refresh(seg, &seg->read_side);
    if (r == 0)
        r = shmp_ring_refresh(seg, &seg->write_side);
    if (r < 0) {
        seg->fd = -1; /* still the caller's */
        shmp_seg_unmap(seg);
    }
    return (int)r;
}

void shmp_seg_unmap(struct shmp_seg *seg)
{
    map_put(seg->read_side.map);
    map_put(seg->write_side.map);
    map_put(seg->newest);
    shmp_sys.munmap(seg->header, SHMP_FIXED_BYTES);
    if (seg->guard_fd >= 0)
        shmp_sys.close(seg->guard_fd);
    if (seg->fd >= 0)
        shmp_sys.close(seg->fd);
    pthread_mutex_destroy(&seg->mutex);
}
