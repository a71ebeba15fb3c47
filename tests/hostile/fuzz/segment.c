/* segment.c - one run of the fuzzer: an image of a segment is damaged, judged, attached to, and
 * used while it is damaged further.
 *
 * The input is a program, so that mutations stay meaningful: each step is a byte that says what to
 * do, and a few bytes of arguments.  Steps before the attach also cut the file and go through the
 * calls that only look; steps after it change shared words between the calls of this process.
 */
#include "segment.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pipe.h"
#include "sys.h"

#define SLOTS 4u
#define MOST_STEPS 64

static unsigned char bytes[20000];

/* ---- The input ---------------------------------------------------------------------------------- */

struct program {
    const uint8_t *at;
    size_t left;
};

static uint64_t take(struct program *p, size_t n)
{
    uint64_t value = 0;
    n = n < p->left ? n : p->left;
    memcpy(&value, p->at, n);
    p->at += n;
    p->left -= n;
    return value;
}

/* ---- What is changed ------------------------------------------------------------------------------ */

#define FIELD(member) {offsetof(struct shmp_header, member), sizeof((struct shmp_header *)0)->member}
static const struct {
    size_t offset;
    size_t size;
} fields[] = {
    FIELD(magic), FIELD(version), FIELD(fingerprint), FIELD(byte_order), FIELD(word_bits),
    FIELD(kind), FIELD(page_size), FIELD(header_bytes), FIELD(instance), FIELD(default_usage),
    FIELD(fifo_dev), FIELD(fifo_ino), FIELD(name[0]), FIELD(name[SHMP_NAME_MAX]),
    FIELD(geometry[0].area_offset), FIELD(geometry[0].ring_size), FIELD(geometry[0].max_usage),
    FIELD(geometry[1].area_offset), FIELD(geometry[1].ring_size), FIELD(geometry[1].max_usage),
    FIELD(w.lock), FIELD(w.cpu), FIELD(w.tail_seen), FIELD(w.bytes), FIELD(head), FIELD(r.lock),
    FIELD(r.head_seen), FIELD(r.word_seen), FIELD(r.bytes), FIELD(tail), FIELD(wait.readable),
    FIELD(wait.writable), FIELD(wait.poll_usage), FIELD(wait.geometry_gen),
    FIELD(wait.holder_limit), FIELD(companion.lock), FIELD(companion.level),
    FIELD(companion.queued), FIELD(companion.in_step), FIELD(companion.most_edges),
    FIELD(stats.recoveries), FIELD(w.redo), FIELD(r.redo), FIELD(w.idle_tail), FIELD(w.idle_ns),
    FIELD(r.idle_head), FIELD(r.idle_ns), FIELD(notify[0].ops), FIELD(notify[0].before),
    FIELD(notify[0].begun), FIELD(notify[0].sleep), FIELD(notify[1].ops), FIELD(notify[1].before),
    FIELD(notify[1].begun), FIELD(notify[1].sleep),
};
#define FIELDS (sizeof fields / sizeof fields[0])

static void put(int fd, size_t offset, const void *value, size_t size)
{
    if (pwrite(fd, value, size, (off_t)offset) != (ssize_t)size)
        abort();
}

/* Through the file, so that it works before the attach and after it. */
static void change(int fd, struct program *p)
{
    uint8_t what = (uint8_t)take(p, 1);
    uint64_t value;
    switch (what % 4) {
    case 0:
    case 1: {
        size_t i = take(p, 1) % FIELDS;
        value = take(p, what % 8 < 4 ? 2 : fields[i].size);
        put(fd, fields[i].offset, &value, fields[i].size);
        return;
    }
    case 2: { /* a slot word */
        size_t i = take(p, 1) % SLOTS;
        value = take(p, 4);
        put(fd, SHMP_FIXED_BYTES + 4 * i, &value, 4);
        return;
    }
    default: { /* a word of a holder entry or a description */
        size_t word = take(p, 1);
        value = take(p, 4);
        size_t table = what & 4 ? SHMP_HOLDERS_OFFSET : SHMP_DESCRIPTIONS_OFFSET;
        put(fd, table + 4 * word, &value, 4);
    }
    }
}

/* ---- The kernel, for this purpose ------------------------------------------------------------------ */

static struct shmp_sys_table real;
static pid_t caller;
static struct shmp_header *shared; /* of the pipe in use */
static unsigned waits;

/* A lock word may name a process that lives.  Whoever waits for it meets a signal each time, and
 * after some of them the lock is free. */
static long no_futex_wait(const void *address, uint32_t value, const struct timespec *deadline)
{
    if (gettid() != caller) /* a relay: it is woken, and has nobody to wait for */
        return real.futex_wait(address, value, deadline);
    if (++waits % 16 == 0 && shared) {
        store_relaxed(&shared->w.lock, 0);
        store_relaxed(&shared->r.lock, 0);
        store_relaxed(&shared->companion.lock, 0);
    }
    return -EINTR;
}

static long no_futex_waitv(struct shmp_futex_waitv *words, unsigned count,
                           const struct timespec *deadline)
{
    return gettid() == caller ? no_futex_wait(words, count, deadline)
                              : real.futex_waitv(words, count, deadline);
}

static long poll_at_once(struct pollfd *fds, unsigned long count, int timeout_ms)
{
    (void)timeout_ms;
    int r = poll(fds, fds ? count : 0, 0);
    return r < 0 ? -errno : r;
}

/* ---- Calls ------------------------------------------------------------------------------------------- */

static void expect(long r, long most)
{
    if (r > most || r < -1)
        abort();
}

static void look(int fd)
{
    struct shmp_snapshot snapshot;
    struct shmp_check check;
    if (shmp_inspect_fd(fd, &snapshot) == 0 &&
        (snapshot.slot_count > SHMP_SNAPSHOT_SLOTS || snapshot.occupancy > snapshot.ring_size ||
         strnlen(snapshot.name, sizeof snapshot.name) > SHMP_NAME_MAX))
        abort();
    if (shmp_check_fd(fd, &check) == 0 &&
        (check.count > SHMP_CHECK_FINDINGS || check.count > check.errors + check.notes))
        abort();
}

/* A notifier's life, with an operation that it may count. */
static void notify(shmp_end *reader, shmp_end *writer, bool of_reader)
{
    uint64_t operations;
    int fd = shmp_notifier_open(of_reader ? reader : writer);
    if (fd < 0)
        return;
    if (of_reader)
        expect(shmp_write(writer, bytes, 10), 10);
    else
        expect(shmp_read(reader, bytes, 10), 10);
    expect(shmp_notifier_read(fd, &operations), 0);
    expect(shmp_notifier_close(fd), 0);
}

static void call(shmp_end *reader, shmp_end *writer, struct program *p)
{
    struct shmp_pollfd polled[2] = {{reader, POLLIN, 0}, {writer, POLLOUT, 0}};
    uint8_t which = (uint8_t)take(p, 1);
    size_t n = take(p, 2) % sizeof bytes;
    int pending = 0;
    switch (which % 8) {
    case 0:
        expect(shmp_read(reader, bytes, n), (long)n);
        return;
    case 1:
        expect(shmp_write(writer, bytes, n), (long)n);
        return;
    case 2:
        expect(shmp_poll(polled, 2, 0), 2);
        return;
    case 3:
        expect(shmp_fcntl(writer, F_SETPIPE_SZ, (long)(4096u << n % 5)), 1 << 16);
        return;
    case 4:
        expect(shmp_ioctl(reader, FIONREAD, &pending), 0);
        return;
    case 5:
        expect(shmp_fcntl(reader, F_GETPIPE_SZ, 0), SHMP_CAPACITY_MAX);
        return;
    case 6:
        expect(shmp_fcntl(writer, F_SETFL, O_NONBLOCK | (n & 1 ? O_DIRECT : 0)), 0);
        return;
    default: /* by n: what needs no length */
        if (n % 8 == 5)
            expect(shmp_arm(reader, POLLIN), 1);
        else if (n % 8 == 6)
            expect(shmp_arm(writer, POLLOUT), 1);
        else if (n % 8 == 7)
            notify(reader, writer, (n & 8) != 0);
        else
            look(shmp_segment_fd(reader));
    }
}

/* Both ends by their descriptors, as in a process that has nothing else of the pipe. */
static shmp_end *attach(int segment, int companion, int mode)
{
    struct shmp_token token = {.segment_fd = fcntl(segment, F_DUPFD_CLOEXEC, 3),
                               .companion_fd = fcntl(companion, F_DUPFD_CLOEXEC, 3),
                               .description = UINT32_MAX,
                               .mode = (uint32_t)mode,
                               .flags = O_NONBLOCK};
    shmp_end *end = shmp_import(&token);
    if (end == NULL && (errno == EBADF || errno == EINVAL || errno == SHMP_EINCOMPATIBLE ||
                        errno == SHMP_ECORRUPT)) {
        shmp_close_segment(token.segment_fd);
        shmp_close_segment(token.companion_fd);
    }
    return end;
}

/* ---- A run ------------------------------------------------------------------------------------------- */

static void use(int segment, const int companion[2], struct program *p)
{
    shmp_end *reader = attach(segment, companion[0], O_RDONLY);
    shmp_end *writer = attach(segment, companion[1], O_WRONLY);
    if (reader && writer) {
        shared = reader->pipe->seg.header;
        for (int steps = 0; p->left > 0 && steps < MOST_STEPS; steps++) {
            if (take(p, 1) & 1)
                change(segment, p);
            else
                call(reader, writer, p);
        }
    }
    if (reader)
        shmp_close(reader);
    if (writer)
        shmp_close(writer);
    shared = NULL;
}

static int image(void)
{
    struct shmp_options options = {.capacity = SLOTS * 4096, .first_index = UINT32_MAX - 1};
    int fd = memfd_create("image", MFD_CLOEXEC);
    if (fd < 0 || shmp_seg_format(fd, SHMP_KIND_ANONYMOUS, NULL, 1, &options) < 0 ||
        shmp_seg_publish(fd, 0, 0) < 0)
        abort();
    return fd;
}

static void fuzz(struct program *p)
{
    int companion[2];
    int segment = image();
    if (shmp_companion_create(companion) < 0)
        abort();
    uint8_t first = (uint8_t)take(p, 1);
    for (uint8_t i = 0; i < first % 4; i++)
        change(segment, p);
    if (first & 0x80) {
        size_t size = take(p, 3) % (SHMP_FIXED_BYTES + 6 * SHMP_PAGE);
        if (ftruncate(segment, (off_t)size) < 0)
            abort();
    }
    look(segment);
    use(segment, companion, p);
    close(companion[0]);
    close(companion[1]);
    close(segment);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (real.poll == NULL) {
        real = shmp_sys;
        caller = gettid();
        signal(SIGPIPE, SIG_IGN);
        shmp_sys.futex_wait = no_futex_wait;
        shmp_sys.futex_waitv = no_futex_waitv;
        shmp_sys.poll = poll_at_once;
    }
    fuzz(&(struct program){.at = data, .left = size});
    return 0;
}
