/* test_seg.c - making a segment, and judging one that anybody may have made. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "atomic.h"
#include "seg.h"
#include "sys.h"
#include "unit.h"

static int object(void)
{
    int fd = memfd_create("object", MFD_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static int good_segment(uint32_t slots)
{
    int fd = object();
    struct shmp_options options = {.capacity = (uint64_t)slots * SHMP_SLOT_SIZE,
                                   .first_index = UINT32_MAX - 2};
    CHECK_EQ(shmp_seg_format(fd, SHMP_KIND_NAMED, "somebody", 42, &options), 0);
    CHECK_EQ(shmp_seg_publish(fd, 1, 2), 0);
    return fd;
}

static int judge(int fd)
{
    struct shmp_header copy;
    shmp_set_reason("nothing");
    return shmp_seg_judge(fd, &copy);
}

static void expect(int fd, int error, const char *word)
{
    CHECK_EQ(judge(fd), -error);
    if (strstr(shmp_reason(), word) == NULL)
        unit_fail(__FILE__, __LINE__, "the reason is '%s' and does not say '%s'", shmp_reason(),
                  word);
}

static struct shmp_header *header_of(int fd)
{
    void *p = mmap(NULL, SHMP_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

TEST(slots_for_a_capacity)
{
    CHECK_EQ(shmp_slots_for(0), 1);
    CHECK_EQ(shmp_slots_for(1), 1);
    CHECK_EQ(shmp_slots_for(4096), 1);
    CHECK_EQ(shmp_slots_for(4097), 2);
    CHECK_EQ(shmp_slots_for(10000), 4);
    CHECK_EQ(shmp_slots_for(65536), 16);
    CHECK_EQ(shmp_slots_for(SHMP_CAPACITY_MAX), SHMP_MAX_SLOTS);
    CHECK_EQ(shmp_slots_for((uint64_t)SHMP_CAPACITY_MAX + 1), 0);
    CHECK_EQ(shmp_slots_for(UINT64_MAX), 0);
}

TEST(judges_a_good_segment)
{
    struct shmp_header copy;
    int fd = good_segment(4);
    CHECK_EQ(shmp_seg_judge(fd, &copy), 0);
    CHECK_EQ(copy.kind, SHMP_KIND_NAMED);
    CHECK_EQ(copy.instance, 42);
    CHECK_EQ(copy.fifo_dev, 1);
    CHECK_EQ(copy.fifo_ino, 2);
    CHECK_EQ(copy.default_usage, 4);
    CHECK(strcmp(copy.name, "somebody") == 0);
    CHECK_EQ(load_relaxed(&copy.head), UINT32_MAX - 2);
    CHECK_EQ(SHMP_QUEUE_EPOCH(load_relaxed(&copy.wait.readable.word)), UINT32_MAX - 2);
    CHECK_EQ(SHMP_QUEUE_WAITERS(load_relaxed(&copy.wait.readable.word)), 0);
    close(fd);
}

TEST(nothing_there_yet)
{
    int fd = object();
    CHECK_EQ(judge(fd), -ENOENT); /* just created */
    CHECK_EQ(ftruncate(fd, 100000), 0);
    CHECK_EQ(judge(fd), -ENOENT); /* sized, no magic */
    CHECK_EQ(shmp_seg_format(fd, SHMP_KIND_NAMED, "x", 1, NULL), 0);
    CHECK_EQ(judge(fd), -ENOENT); /* formatted, not published */
    CHECK_EQ(shmp_seg_publish(fd, 0, 0), 0);
    CHECK_EQ(judge(fd), 0);
    close(fd);
}

TEST(not_a_file_of_ours)
{
    int fd = object();
    int fds[2];
    CHECK_EQ(write(fd, "short", 5), 5);
    expect(fd, SHMP_ECORRUPT, "inside the header");
    close(fd);
    fd = object();
    for (int i = 0; i < 1000; i++)
        CHECK_EQ(write(fd, "text, text", 10), 10);
    expect(fd, SHMP_EINCOMPATIBLE, "not a shmpipe segment");
    close(fd);
    CHECK_EQ(pipe2(fds, O_CLOEXEC), 0);
    expect(fds[0], SHMP_EINCOMPATIBLE, "not a shared memory object");
    close(fds[0]);
    close(fds[1]);
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    expect(fd, SHMP_EINCOMPATIBLE, "not a shared memory object");
    close(fd);
    CHECK_EQ(judge(-1), -EBADF);
}

/* One wrong field at a time; each must be seen, and named. */
TEST(each_wrong_field_is_named)
{
    int fd = good_segment(4);
    struct shmp_header *h = header_of(fd);
    uint32_t gen = load_relaxed(&h->wait.geometry_gen);
    struct shmp_geometry *g = &h->geometry[gen & 1];
#define WRONG(field, value, error, word)                                                  \
    do {                                                                                  \
        __typeof__(h->field) kept = h->field;                                             \
        h->field = (value);                                                               \
        expect(fd, error, word);                                                          \
        h->field = kept;                                                                  \
        CHECK_EQ(judge(fd), 0);                                                           \
    } while (0)
    WRONG(version, SHMP_ABI_VERSION + 1, SHMP_EINCOMPATIBLE, "version");
    WRONG(word_bits, (uint16_t)(8 * sizeof(void *) == 64 ? 32 : 64), SHMP_EINCOMPATIBLE,
          "word size");
    WRONG(page_size, 16384, SHMP_EINCOMPATIBLE, "page size");
    WRONG(fingerprint, shmp_fingerprint() ^ 1, SHMP_EINCOMPATIBLE, "fingerprint");
    WRONG(byte_order, 0x04030201u, SHMP_EINCOMPATIBLE, "byte order");
    WRONG(byte_order, 0, SHMP_ECORRUPT, "contradicts");
    WRONG(header_bytes, 17, SHMP_ECORRUPT, "contradicts");
    WRONG(kind, 0, SHMP_ECORRUPT, "contradicts");
    WRONG(kind, 3, SHMP_ECORRUPT, "contradicts");
    WRONG(default_usage, 0, SHMP_ECORRUPT, "default");
    WRONG(default_usage, SHMP_MAX_SLOTS + 1, SHMP_ECORRUPT, "default");
    WRONG(name[0], '/', SHMP_ECORRUPT, "slash"); /* it would lead the FIFO's path elsewhere */
    WRONG(name[7], '/', SHMP_ECORRUPT, "slash");
#undef WRONG
#define WRONG(member, value, word)                                                        \
    do {                                                                                  \
        uint64_t kept = load_relaxed(&g->member);                                         \
        store_relaxed(&g->member, (value));                                               \
        expect(fd, SHMP_ECORRUPT, word);                                                  \
        store_relaxed(&g->member, (__typeof__((g->member) + 0))kept);                     \
        CHECK_EQ(judge(fd), 0);                                                           \
    } while (0)
    WRONG(ring_size, 0, "ring size");
    WRONG(ring_size, 3, "ring size");
    WRONG(ring_size, SHMP_MAX_SLOTS * 2, "ring size");
    WRONG(ring_size, 0x80000000u, "ring size");
    WRONG(ring_size, 8, "too short");
    WRONG(max_usage, 0, "capacity");
    WRONG(max_usage, 5, "capacity");
    WRONG(area_offset, 0, "offset");
    WRONG(area_offset, SHMP_FIXED_BYTES - SHMP_PAGE, "offset");
    WRONG(area_offset, SHMP_FIXED_BYTES + 1, "offset");
    WRONG(area_offset, SHMP_FIXED_BYTES + SHMP_PAGE, "too short");
    WRONG(area_offset, UINT64_C(0xfffffffffffff000), "offset");
#undef WRONG
    uint64_t magic = load_relaxed(&h->magic);
    store_relaxed(&h->magic, __builtin_bswap64(magic));
    expect(fd, SHMP_EINCOMPATIBLE, "byte order");
    store_relaxed(&h->magic, magic + 1);
    expect(fd, SHMP_EINCOMPATIBLE, "not a shmpipe segment");
    munmap(h, SHMP_PAGE);
    close(fd);
}

TEST(a_name_without_an_end_is_cut)
{
    struct shmp_header copy;
    int fd = good_segment(1);
    struct shmp_header *h = header_of(fd);
    memset(h->name, 'n', sizeof h->name);
    munmap(h, SHMP_PAGE);
    CHECK_EQ(shmp_seg_judge(fd, &copy), 0);
    CHECK_EQ(strlen(copy.name), SHMP_NAME_MAX);
    close(fd);
}

TEST(truncated_after_the_fact)
{
    int fd = good_segment(4);
    off_t size = (off_t)(SHMP_FIXED_BYTES + shmp_area_bytes(4));
    CHECK_EQ(ftruncate(fd, size - 1), 0);
    expect(fd, SHMP_ECORRUPT, "too short");
    CHECK_EQ(ftruncate(fd, 4096), 0);
    expect(fd, SHMP_ECORRUPT, "too short");
    CHECK_EQ(ftruncate(fd, 64), 0);
    expect(fd, SHMP_ECORRUPT, "inside the header");
    CHECK_EQ(ftruncate(fd, 0), 0);
    CHECK_EQ(judge(fd), -ENOENT);
    close(fd);
}

TEST(a_side_refuses_a_file_cut_under_it)
{
    struct shmp_header copy;
    struct shmp_seg seg;
    int fd = good_segment(4);
    CHECK_EQ(shmp_seg_judge(fd, &copy), 0);
    CHECK_EQ(shmp_seg_map(&seg, fd, &copy), 0);
    CHECK_EQ(shmp_ring_refresh(&seg, &seg.read_side), 0);
    CHECK_EQ(ftruncate(fd, SHMP_FIXED_BYTES), 0);
    CHECK_EQ(shmp_ring_refresh(&seg, &seg.read_side), -SHMP_ECORRUPT);
    CHECK(seg.read_side.map != NULL); /* as before */
    shmp_seg_unmap(&seg);
}

TEST(format_takes_over_what_a_dead_creator_left)
{
    struct shmp_header copy;
    struct shmp_options first = {.capacity = 16 * 4096, .first_index = 7};
    struct shmp_options second = {.capacity = 2 * 4096, .first_index = 9};
    int fd = object();
    CHECK_EQ(shmp_seg_format(fd, SHMP_KIND_NAMED, "the first one's long name", 1, &first), 0);
    struct shmp_header *h = header_of(fd);
    /* Rubbish that a crash or a stranger left in the tables and in the lines. */
    store_relaxed(&h->w.lock, 77);
    store_relaxed(&h->wait.holder_limit, 5);
    store_relaxed(&h->wait.geometry_gen, 1);
    store_relaxed(&h->wait.readable.word, UINT64_MAX);
    munmap(h, SHMP_PAGE);
    CHECK_EQ(shmp_seg_format(fd, SHMP_KIND_NAMED, "second", 2, &second), 0);
    CHECK_EQ(judge(fd), -ENOENT);
    CHECK_EQ(shmp_seg_publish(fd, 3, 4), 0);
    CHECK_EQ(shmp_seg_judge(fd, &copy), 0);
    CHECK(strcmp(copy.name, "second") == 0);
    CHECK_EQ(copy.default_usage, 2);
    CHECK_EQ(load_relaxed(&copy.w.lock), 0);
    CHECK_EQ(load_relaxed(&copy.wait.holder_limit), 0);
    CHECK_EQ(load_relaxed(&copy.wait.geometry_gen), 0);
    CHECK_EQ(load_relaxed(&copy.wait.readable.word), 9);
    CHECK_EQ(load_relaxed(&copy.head), 9);
    CHECK_EQ(load_relaxed(&copy.geometry[0].ring_size), 2);
    close(fd);
}

TEST(too_large_a_capacity_is_eperm)
{
    struct shmp_options options = {.capacity = (uint64_t)SHMP_CAPACITY_MAX + 1};
    int fd = object();
    struct stat st;
    CHECK_EQ(shmp_seg_format(fd, SHMP_KIND_NAMED, "x", 1, &options), -EPERM);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_size, 0);
    close(fd);
}

TEST(an_anonymous_segment_cannot_shrink)
{
    int fd = -1;
    CHECK_EQ(shmp_seg_create(&fd, NULL), 0);
    CHECK_EQ(judge(fd), 0);
    CHECK_ERRNO(ftruncate(fd, 4096), EPERM);
    CHECK((fcntl(fd, F_GET_SEALS) & (F_SEAL_SHRINK | F_SEAL_SEAL)) ==
          (F_SEAL_SHRINK | F_SEAL_SEAL));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
}

TEST(reserving_never_shrinks)
{
    int fd = -1;
    struct stat st;
    CHECK_EQ(shmp_seg_create(&fd, NULL), 0);
    CHECK_EQ(fstat(fd, &st), 0);
    off_t before = st.st_size;
    CHECK_EQ(shmp_seg_reserve(fd, SHMP_KIND_ANONYMOUS, SHMP_FIXED_BYTES, 4096), 0);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_size, before);
    CHECK_EQ(shmp_seg_reserve(fd, SHMP_KIND_ANONYMOUS, (uint64_t)before, 8192), 0);
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_size, before + 8192);
    close(fd);
}

/* ---- The geometry's double read ------------------------------------------------------- */

/* A turn of the generation between the two reads of it, by the only other user of this header:
 * a thread that resizes without pause between two shapes that must not be mixed. */
struct turner {
    struct shmp_header *h;
    _Atomic bool stop;
};

static void *turn(void *argument)
{
    struct turner *t = argument;
    for (uint32_t i = 1; !atomic_load(&t->stop); i++) {
        uint32_t gen = load_relaxed(&t->h->wait.geometry_gen) + 1;
        struct shmp_geometry *g = &t->h->geometry[gen & 1];
        uint32_t slots = 1u << (gen % 8);
        store_relaxed(&g->area_offset, SHMP_FIXED_BYTES + (uint64_t)(gen % 8) * SHMP_PAGE);
        store_relaxed(&g->ring_size, slots);
        store_relaxed(&g->max_usage, slots);
        store_seq_cst(&t->h->wait.geometry_gen, gen);
        if (i % 64 == 0)
            unit_yield();
    }
    return NULL;
}

TEST(the_geometry_is_read_whole)
{
    struct shmp_shape shape;
    pthread_t thread;
    int fd = good_segment(1);
    struct turner t = {.h = header_of(fd)};
    uint32_t seen = 0;
    uint32_t last = UINT32_MAX;
    CHECK_EQ(pthread_create(&thread, NULL, turn, &t), 0);
    /* Where processors are scarce each thread's turn shows one generation. */
    uint64_t end = shmp_now_ns() + UINT64_C(3000000000);
    while (seen < 2 || (seen < unit_rounds(20000) && shmp_now_ns() < end)) {
        int r = shmp_shape_read(t.h, UINT64_C(1) << 30, &shape);
        if (r < 0) /* it may give up on a geometry that never stands still; it must not mix */
            continue;
        CHECK_EQ(shape.max_usage, shape.ring_size);
        if (shape.gen != 0) {
            CHECK_EQ(shape.ring_size, 1u << (shape.gen % 8));
            CHECK_EQ(shape.area_offset, SHMP_FIXED_BYTES + (uint64_t)(shape.gen % 8) * SHMP_PAGE);
        }
        seen += shape.gen != last;
        last = shape.gen;
    }
    atomic_store(&t.stop, true);
    pthread_join(thread, NULL);
    munmap(t.h, SHMP_PAGE);
    close(fd);
}

/* ---- Mappings ---------------------------------------------------------------------------- */

TEST(the_data_is_mapped_twice_in_a_row)
{
    struct shmp_header copy;
    struct shmp_seg seg;
    int fd = good_segment(2);
    CHECK_EQ(shmp_seg_judge(fd, &copy), 0);
    CHECK_EQ(shmp_seg_map(&seg, fd, &copy), 0);
    CHECK(seg.read_side.map == seg.write_side.map);
    unsigned char *data = seg.read_side.data;
    memset(data, 1, 8192);
    data[8192 + 5] = 9; /* the second copy of byte 5 */
    __asm__ volatile("" ::: "memory");
    CHECK_EQ(((volatile unsigned char *)data)[5], 9);
    shmp_seg_unmap(&seg);
}

/* Each side moves to a new area when it has its lock; the old one stays until both have. */
TEST(sides_move_one_after_the_other)
{
    struct shmp_header copy;
    struct shmp_seg seg;
    int fd = good_segment(2);
    uint64_t second = SHMP_FIXED_BYTES + shmp_area_bytes(2);
    CHECK_EQ(shmp_seg_judge(fd, &copy), 0);
    CHECK_EQ(shmp_seg_map(&seg, fd, &copy), 0);
    unsigned before = unit_mappings();
    CHECK_EQ(ftruncate(fd, (off_t)(second + shmp_area_bytes(8))), 0);
    store_relaxed(&seg.header->geometry[1].area_offset, second);
    store_relaxed(&seg.header->geometry[1].ring_size, 8);
    store_relaxed(&seg.header->geometry[1].max_usage, 8);
    store_seq_cst(&seg.header->wait.geometry_gen, 1);
    CHECK_EQ(shmp_ring_refresh(&seg, &seg.write_side), 0);
    CHECK_EQ(seg.write_side.ring_size, 8);
    CHECK_EQ(seg.read_side.ring_size, 2);
    seg.read_side.data[0] = 1; /* still mapped */
    CHECK_EQ(shmp_ring_refresh(&seg, &seg.read_side), 0);
    CHECK(seg.read_side.map == seg.write_side.map);
    CHECK_EQ(seg.read_side.mask, 7);
    CHECK_EQ(unit_mappings(), before);
    shmp_seg_unmap(&seg);
}
