/* test_bytes.c - every byte of the header, of the first table entries and of the slot words
 * changed in five ways, times every operation.
 *
 * A word that says where bytes are (head, tail, geometry, slot words) may make a call return other
 * bytes than were written: a peer may garble them.  Any other change must not: a call on it either
 * gives a typed error or does exactly what it would have done.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "hostile.h"

#define SLOTS 4u
#define WRITTEN 9000u
#define CONSUMED 300u
#define CANARY 0xa5

static shmp_end *ends[2];
static const char *name; /* NULL: the pipe has none */
static size_t damaged; /* the byte that is changed */
static unsigned char pattern[WRITTEN];
static unsigned char buffer[20000];

/* ---- Where ------------------------------------------------------------------------------------ */

struct range {
    size_t start;
    size_t bytes;
    bool places; /* says where bytes are, or whether there is room */
};

#define FIELD(member) offsetof(struct shmp_header, member), sizeof((struct shmp_header *)0)->member

static const struct range placing[] = {
    {FIELD(geometry), true},
    {FIELD(head), true},
    {FIELD(tail), true},
    {offsetof(struct shmp_header, w.tail_seen), 4, true},
    {offsetof(struct shmp_header, r.head_seen), 8, true}, /* and word_seen */
    {offsetof(struct shmp_header, wait.geometry_gen), 4, true},
};

static const struct range ranges[] = {
    {0, sizeof(struct shmp_header), false},
    {SHMP_DESCRIPTIONS_OFFSET, 3 * 8, true}, /* O_DIRECT, O_NONBLOCK: other flags, other results */
    {SHMP_HOLDERS_OFFSET, 3 * sizeof(struct shmp_holder), false},
    {SHMP_FIXED_BYTES, SLOTS * 4, true},
};

static bool places_bytes(const struct range *range, size_t at)
{
    if (range->places)
        return true;
    for (size_t i = 0; range == &ranges[0] && i < sizeof placing / sizeof placing[0]; i++)
        if (at >= placing[i].start && at < placing[i].start + placing[i].bytes)
            return true;
    return false;
}

static unsigned char changed(unsigned char was, unsigned way)
{
    switch (way) {
    case 0:
        return was ^ 0xff;
    case 1:
        return 0;
    case 2:
        return 0xff;
    case 3:
        return (unsigned char)(was + 1);
    default:
        return (unsigned char)unit_below(256);
    }
}

/* ---- The operations ---------------------------------------------------------------------------- */

struct answer {
    long result;
    int error;
    const unsigned char *bytes; /* that it delivered */
};

static long do_read(void)
{
    return shmp_read(ends[0], buffer, 4500);
}

static long do_readv(void)
{
    struct iovec iov[3] = {{buffer, 1}, {buffer + 1, 4095}, {buffer + 4096, 12000}};
    return shmp_readv(ends[0], iov, 3);
}

static long do_write(void)
{
    return shmp_write(ends[1], pattern, 5000);
}

static long do_small_write(void)
{
    return shmp_write(ends[1], pattern, 10);
}

static long do_poll(void)
{
    struct shmp_pollfd p[2] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}};
    return shmp_poll(p, 2, 0);
}

static long do_grow(void)
{
    return shmp_fcntl(ends[0], F_SETPIPE_SZ, 1 << 16);
}

static long do_shrink(void)
{
    return shmp_fcntl(ends[0], F_SETPIPE_SZ, 1 << 12);
}

static long do_pending(void)
{
    int pending = -1;
    long r = shmp_ioctl(ends[0], FIONREAD, &pending);
    return r < 0 ? r : pending;
}

static long do_capacity(void)
{
    return shmp_fcntl(ends[1], F_GETPIPE_SZ, 0);
}

static long do_set_flags(void)
{
    return shmp_fcntl(ends[1], F_SETFL, O_NONBLOCK | O_DIRECT);
}

/* By a process that has nothing of it but the descriptors: all checks of an attach. */
static long do_attach(void)
{
    struct shmp_token token;
    shmp_export(ends[0], &token);
    pid_t child = unit_fork();
    if (child == 0) {
        token.segment_fd = fcntl(token.segment_fd, F_DUPFD, 3);
        token.companion_fd = fcntl(token.companion_fd, F_DUPFD, 3);
        CHECK_EQ(shmp_close(ends[0]) | shmp_close(ends[1]), 0);
        shmp_end *end = shmp_import(&token);
        if (end == NULL)
            _exit(is_typed_error(-1, errno) ? 0 : 2);
        long r = shmp_read(end, buffer, 10);
        _exit(r >= 0 || is_typed_error(r, errno) ? 0 : 3);
    }
    unit_join(child);
    return 0;
}

/* What leads to the FIFO, or says which one it is. */
static bool leads_to_the_fifo(size_t at)
{
    return (at >= offsetof(struct shmp_header, instance) &&
            at < offsetof(struct shmp_header, created_ns)) ||
           (at >= offsetof(struct shmp_header, fifo_dev) &&
            at <= offsetof(struct shmp_header, name) + strlen(name));
}

/* By its name, by a process that has nothing of it. */
static long do_open(void)
{
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(shmp_close(ends[0]) | shmp_close(ends[1]), 0);
        shmp_end *end = shmp_open(name, O_RDWR | O_NONBLOCK);
        if (end == NULL)
            _exit(is_typed_error(-1, errno) ? 0 : 2);
        CHECK(!leads_to_the_fifo(damaged));
        long r = shmp_read(end, buffer, 10);
        CHECK(r >= 0 || is_typed_error(r, errno));
        CHECK_EQ(shmp_close(end), 0);
        unit_done();
    }
    unit_join(child);
    return 0;
}

static long do_fork(void)
{
    pid_t child = unit_fork();
    if (child == 0) {
        long r = shmp_read(ends[0], buffer, 10);
        CHECK(r >= 0 || is_typed_error(r, errno));
        CHECK_EQ(shmp_close(ends[0]) | shmp_close(ends[1]), 0);
        unit_done();
    }
    unit_join(child);
    return 0;
}

static long do_inspect(void)
{
    static struct shmp_snapshot s;
    long r = shmp_inspect_fd(shmp_segment_fd(ends[0]), &s);
    CHECK(r < 0 || s.slot_count <= SHMP_SNAPSHOT_SLOTS);
    CHECK(r < 0 || s.holder_count <= SHMP_SNAPSHOT_HOLDERS);
    CHECK(r < 0 || strnlen(s.name, sizeof s.name) <= SHMP_NAME_MAX);
    return r;
}

static long do_check(void)
{
    static struct shmp_check c;
    long r = shmp_check_fd(shmp_segment_fd(ends[0]), &c);
    CHECK(r < 0 || c.count <= SHMP_CHECK_FINDINGS);
    for (uint32_t i = 0; r == 0 && i < c.count; i++) {
        CHECK(strnlen(c.findings[i].text, SHMP_CHECK_TEXT) < SHMP_CHECK_TEXT - 1);
        CHECK(strnlen(c.findings[i].rule, SHMP_CHECK_RULE) < SHMP_CHECK_RULE);
    }
    return r;
}

static long do_close(void)
{
    long r = shmp_close(ends[0]);
    ends[0] = NULL;
    return r;
}

static const struct operation {
    const char *name;
    long (*run)(void);
    long result; /* of an undamaged pipe */
    unsigned rarely; /* so many times fewer cases in a sample: it costs a process */
} operations[] = {
    {"read", do_read, 4500, 1},
    {"readv", do_readv, WRITTEN - CONSUMED, 1},
    {"write", do_write, 5000, 1},
    {"small write", do_small_write, 10, 1},
    {"poll", do_poll, 2, 1},
    {"grow", do_grow, 1 << 16, 1},
    {"shrink", do_shrink, -1, 1},
    {"FIONREAD", do_pending, WRITTEN - CONSUMED, 1},
    {"F_GETPIPE_SZ", do_capacity, SLOTS * 4096, 1},
    {"F_SETFL", do_set_flags, 0, 1},
    {"inspect", do_inspect, 0, 1},
    {"check", do_check, 0, 1},
    {"close", do_close, 0, 1},
    {"attach", do_attach, 0, 8},
    {"fork", do_fork, 0, 8},
    {"open", do_open, 0, 8},
};
#define OPERATIONS (sizeof operations / sizeof operations[0])

/* ---- A case -------------------------------------------------------------------------------------- */

static void make(bool watched, int flags)
{
    struct shmp_options options = {.capacity = SLOTS * SHMP_SLOT_SIZE,
                                   .first_index = UINT32_MAX - 1};
    if (name) {
        CHECK_EQ(shmp_mkfifo_with(name, 0600, &options), 0);
        ends[0] = shmp_open(name, O_RDONLY | O_NONBLOCK);
        ends[1] = shmp_open(name, O_WRONLY | flags);
        CHECK(ends[0] != NULL && ends[1] != NULL);
    } else {
        CHECK_EQ(shmp_pipe2_with(ends, flags | O_CLOEXEC, &options), 0);
    }
    if (watched) {
        shmp_fileno(ends[0]);
        shmp_fileno(ends[1]);
    }
    CHECK_EQ(shmp_write(ends[1], pattern, WRITTEN), WRITTEN);
    CHECK_EQ(shmp_read(ends[0], buffer, CONSUMED), CONSUMED);
    memset(buffer, CANARY, sizeof buffer);
}

static void close_ends(void)
{
    for (int i = 0; i < 2; i++)
        if (ends[i])
            CHECK_EQ(shmp_close(ends[i]), 0);
    ends[0] = ends[1] = NULL;
}

static unsigned char *byte_at(size_t at)
{
    struct shmp_seg *seg = &ends[0]->pipe->seg;
    if (at >= SHMP_FIXED_BYTES)
        return (unsigned char *)(uintptr_t)seg->read_side.words + (at - SHMP_FIXED_BYTES);
    return (unsigned char *)seg->header + at;
}

/* Through the file, when nobody maps it any more; unlink must find the FIFO. */
static void mend_and_unlink(size_t at, unsigned char was)
{
    char object[128];
    snprintf(object, sizeof object, "/shmpipe.%s", name);
    int fd = shm_open(object, O_RDWR, 0);
    CHECK_EQ(pwrite(fd, &was, 1, (off_t)at), 1);
    CHECK_EQ(close(fd), 0);
    CHECK_EQ(shmp_unlink(name), 0);
}

static void judge(const struct operation *op, struct answer a, bool places)
{
    bool reads = op->run == do_read || op->run == do_readv;
    size_t delivered = reads && a.result > 0 ? (size_t)a.result : 0;
    if (a.result < 0 && op->result >= 0 && !is_typed_error(a.result, a.error))
        unit_fail(__FILE__, __LINE__, "errno %d", a.error);
    CHECK(delivered <= (op->run == do_read ? 4500 : 16096));
    for (size_t i = delivered; i < sizeof buffer; i++)
        if (buffer[i] != CANARY && op->run != do_attach)
            unit_fail(__FILE__, __LINE__, "byte %zu behind %zu was written", i, delivered);
    if (places || a.result < 0)
        return;
    if (a.result != op->result && op->run != do_poll)
        unit_fail(__FILE__, __LINE__, "%ld, not %ld", a.result, op->result);
    for (size_t i = 0; i < delivered; i++)
        if (buffer[i] != pattern[CONSUMED + i])
            unit_fail(__FILE__, __LINE__, "byte %zu is wrong", i);
}

static void one_case(const struct operation *op, const struct range *range, size_t at, unsigned way)
{
    bool watched = unit_below(2) != 0;
    make(watched, O_NONBLOCK);
    unsigned char *place = byte_at(at);
    unsigned char was = *place;
    unsigned char is = changed(was, way);
    case_begins("%s%s: byte %zu, 0x%02x instead of 0x%02x", op->name, watched ? ", watched" : "",
                at, is, was);
    damaged = is == was ? SIZE_MAX : at;
    *place = is;
    errno = 0;
    struct answer a = {.result = op->run()};
    a.error = errno;
    judge(op, a, places_bytes(range, at));
    close_ends(); /* with the damage still there */
    if (name)
        mend_and_unlink(at, was);
}

/* Of all cases, or of those of a sample. */
static bool is_a_case(unsigned rarely)
{
    return HOSTILE_PART == 1 || unit_below(HOSTILE_PART * rarely) == 0;
}

static const struct operation *chosen;

static void all_changes(void)
{
    guard_mappings();
    check_without_waiting();
    name = chosen->run == do_open ? unit_name() : NULL;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (unsigned char)(i * 31 + i / 251);
    for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++)
        for (size_t at = ranges[r].start; at < ranges[r].start + ranges[r].bytes; at++)
            for (unsigned way = 0; way < 5; way++)
                if (is_a_case(chosen->rarely))
                    one_case(chosen, &ranges[r], at, way);
}

#define OPERATION(name, number)                                                           \
    TEST(name)                                                                            \
    {                                                                                     \
        _Static_assert(number < OPERATIONS, "there is such an operation");                \
        chosen = &operations[number];                                                     \
        run_cases(all_changes);                                                           \
    }

OPERATION(bytes_changed_under_read, 0)
OPERATION(bytes_changed_under_readv, 1)
OPERATION(bytes_changed_under_write, 2)
OPERATION(bytes_changed_under_a_small_write, 3)
OPERATION(bytes_changed_under_poll, 4)
OPERATION(bytes_changed_under_growth, 5)
OPERATION(bytes_changed_under_shrinking, 6)
OPERATION(bytes_changed_under_FIONREAD, 7)
OPERATION(bytes_changed_under_F_GETPIPE_SZ, 8)
OPERATION(bytes_changed_under_F_SETFL, 9)
OPERATION(bytes_changed_under_inspect, 10)
OPERATION(bytes_changed_under_check, 11)
OPERATION(bytes_changed_under_close, 12)
OPERATION(bytes_changed_under_attach, 13)
OPERATION(bytes_changed_under_fork, 14)
OPERATION(bytes_changed_under_open, 15)

/* ---- Calls that sleep --------------------------------------------------------------------------- */

/* A blocked call on a pipe that is damaged either goes on or sleeps; a signal ends the sleep. */
static void blocked_case(bool write, size_t at, unsigned way)
{
    make(unit_below(2) != 0, 0);
    case_begins("blocked %s: byte %zu, way %u", write ? "write" : "read", at, way);
    if (!write)
        while (shmp_read(ends[0], buffer, 20000) < (ssize_t)(WRITTEN - CONSUMED))
            ;
    *byte_at(at) = changed(*byte_at(at), way);
    errno = 0;
    long result = write ? shmp_write(ends[1], pattern, WRITTEN) : shmp_read(ends[0], buffer, 10);
    CHECK(result >= 0 || is_typed_error(result, errno));
    close_ends();
}

static bool blocks_in_write;

static void blocked_changes(void)
{
    guard_mappings();
    alarms_begin();
    for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++)
        for (size_t at = ranges[r].start; at < ranges[r].start + ranges[r].bytes; at++)
            for (unsigned way = 0; way < 5; way++)
                if (is_a_case(16)) /* it costs the time until the signal */
                    blocked_case(blocks_in_write, at, way);
    alarms_end();
}

/* What no writer makes.  A reader that waits for bytes in it would find it for ever. */
static void an_empty_slot(void)
{
    make(false, 0);
    alarms_begin();
    case_begins("a blocked read of a slot without bytes");
    struct shmp_header *h = ends[0]->pipe->seg.header;
    uint32_t newest = load_relaxed(&h->head) - 1;
    CHECK(shmp_read(ends[0], buffer, 8192 - CONSUMED) > 0);
    store_relaxed(&ends[0]->pipe->seg.read_side.words[newest % SLOTS],
                  SHMP_WORD(0, 0, SHMP_SLOT_CAN_MERGE));
    CHECK_ERRNO(shmp_read(ends[0], buffer, 10), SHMP_ECORRUPT);
    alarms_end();
    close_ends();
}

TEST(a_slot_without_bytes)
{
    run_cases(an_empty_slot);
}

TEST(bytes_changed_under_blocked_reads)
{
    run_cases(blocked_changes);
}

TEST(bytes_changed_under_blocked_writes)
{
    blocks_in_write = true;
    run_cases(blocked_changes);
}
