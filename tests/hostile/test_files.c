/* test_files.c - the files of a pipe cut short, punched, replaced and removed.
 *
 * A process that has a named object mapped is killed by SIGBUS when a peer truncates it: that is
 * the one thing that cannot be prevented (docs/decisions/0031).  So here nobody has it mapped who
 * is not prepared to die, but whoever opens it or looks at it must get an answer.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "hostile.h"

static shmp_end *ends[2];
static unsigned char bytes[20000];
static struct shmp_snapshot snapshot;
static struct shmp_check report;

static void close_ends(void)
{
    for (int i = 0; i < 2; i++)
        if (ends[i])
            CHECK_EQ(shmp_close(ends[i]), 0);
    ends[0] = ends[1] = NULL;
}

/* ---- A named pipe, by its files ----------------------------------------------------------------- */

static char object[128];
static char fifo[160];
static _Alignas(struct shmp_header) unsigned char whole[SHMP_FIXED_BYTES + (SHMP_DEFAULT_SLOTS + 1) * SHMP_PAGE];

static int named_pipe(void)
{
    CHECK_EQ(shmp_mkfifo(unit_name(), 0600), 0);
    snprintf(object, sizeof object, "/dev/shm/shmpipe.%s", unit_name());
    int fd = open(object, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(pread(fd, whole, sizeof whole, 0), sizeof whole);
    const struct shmp_header *h = (const void *)whole;
    snprintf(fifo, sizeof fifo, "/dev/shm/shmpipe-%016llx.%s", (unsigned long long)h->instance,
             unit_name());
    return fd;
}

static void restore(int fd)
{
    CHECK_EQ(ftruncate(fd, sizeof whole), 0);
    CHECK_EQ(pwrite(fd, whole, sizeof whole, 0), sizeof whole);
}

static void remove_pipe(int fd)
{
    restore(fd);
    CHECK_EQ(close(fd), 0);
    CHECK_EQ(shmp_unlink(unit_name()), 0);
}

/* Whoever opens it or looks at it now gets a typed error, or what is there. */
static void answers(int fd)
{
    long r = shmp_inspect_fd(fd, &snapshot);
    CHECK(r == 0 || is_typed_error(r, errno));
    r = shmp_check_fd(fd, &report);
    CHECK(r == 0 || is_typed_error(r, errno));
}

TEST(cut_short_before_it_is_opened)
{
    int fd = named_pipe();
    check_without_waiting();
    for (off_t size = 0; size < (off_t)sizeof whole; size += 1 + (off_t)unit_below(512)) {
        CHECK_EQ(ftruncate(fd, size), 0);
        shmp_end *end = shmp_open(unit_name(), O_RDWR | O_NONBLOCK);
        CHECK(end == NULL && (errno == SHMP_ECORRUPT || errno == ENOENT));
        answers(fd);
        CHECK(size == 0 || report.errors > 0);
        restore(fd);
    }
    shmp_end *end = shmp_open(unit_name(), O_RDWR | O_NONBLOCK);
    CHECK(end != NULL);
    CHECK_EQ(shmp_close(end), 0);
    remove_pipe(fd);
}

TEST(looking_at_a_file_that_is_cut_meanwhile)
{
    int fd = named_pipe();
    check_without_waiting();
    pid_t child = unit_fork();
    if (child == 0)
        for (;;) {
            CHECK_EQ(ftruncate(fd, (off_t)unit_below(sizeof whole)), 0);
            if (unit_below(2))
                restore(fd);
        }
    uint32_t pictures = 0;
    uint32_t refusals = 0;
    /* Until it has seen both. */
    for (uint32_t i = 0;
         i < unit_rounds(10000 * HOSTILE_ROUNDS) || pictures == 0 || refusals == 0; i++) {
        long r = shmp_inspect_fd(fd, &snapshot);
        CHECK(r == 0 || is_typed_error(r, errno));
        pictures += r == 0;
        refusals += r < 0;
        if (i % 8 == 0)
            answers(fd);
    }
    unit_kill(child);
    remove_pipe(fd);
}

TEST(a_fifo_that_is_missing_or_another)
{
    int fd = named_pipe();
    check_without_waiting();
    CHECK_EQ(unlink(fifo), 0);
    CHECK(shmp_open(unit_name(), O_RDWR) == NULL && errno == ENOENT);
    CHECK_EQ(shmp_check_fd(fd, &report), 0);
    CHECK_EQ(report.errors, 1);
    CHECK_EQ(mkfifo(fifo, 0600), 0);
    CHECK(shmp_open(unit_name(), O_RDWR) == NULL && errno == SHMP_ECORRUPT);
    CHECK_EQ(shmp_check_fd(fd, &report), 0);
    CHECK(strstr(report.findings[0].text, "not the one") != NULL);
    CHECK_EQ(unlink(fifo), 0);
    int file = open(fifo, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(file >= 0 && close(file) == 0);
    CHECK(shmp_open(unit_name(), O_RDWR) == NULL && errno == SHMP_ECORRUPT);
    CHECK_EQ(unlink(fifo), 0);
    CHECK_EQ(symlink(object, fifo), 0);
    CHECK(shmp_open(unit_name(), O_RDWR) == NULL && errno == ELOOP);
    CHECK_EQ(unlink(fifo), 0);
    CHECK_EQ(mkdir(fifo, 0700), 0);
    CHECK(shmp_open(unit_name(), O_RDWR) == NULL && errno == EISDIR);
    CHECK_EQ(rmdir(fifo), 0);
    remove_pipe(fd);
}

/* A name that is made again while ends of the old pipe are open. */
TEST(a_replaced_name_is_another_pipe)
{
    int fd = named_pipe();
    ends[0] = shmp_open(unit_name(), O_RDWR | O_NONBLOCK);
    CHECK_EQ(shmp_write(ends[0], "old", 3), 3);
    CHECK_EQ(unlink(object), 0); /* behind the library's back: its FIFO stays */
    CHECK_EQ(shmp_mkfifo(unit_name(), 0600), 0);
    ends[1] = shmp_open(unit_name(), O_RDWR | O_NONBLOCK);
    CHECK(ends[1] != NULL);
    CHECK_EQ(shmp_write(ends[1], "new", 3), 3);
    CHECK_EQ(shmp_read(ends[0], bytes, 10), 3);
    CHECK(memcmp(bytes, "old", 3) == 0);
    CHECK_EQ(shmp_read(ends[1], bytes, 10), 3);
    CHECK(memcmp(bytes, "new", 3) == 0);
    close_ends();
    CHECK_EQ(shmp_close_segment(fd), 0);
    CHECK_EQ(shmp_unlink(unit_name()), 0);
    CHECK_EQ(unlink(fifo), 0);
}

/* A copy of a pipe's object under another name leads to the FIFO of the original: one pipe's
 * rendezvous, two rings.  It is another file, so nothing is shared by mistake. */
TEST(a_copy_of_an_object)
{
    char copy[200];
    int fd = named_pipe();
    snprintf(copy, sizeof copy, "%s-copy", object);
    int second = open(copy, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_EQ(write(second, whole, sizeof whole), sizeof whole);
    ends[0] = shmp_open(unit_name(), O_RDWR | O_NONBLOCK);
    ends[1] = shmp_open_fd(second, O_RDWR | O_NONBLOCK);
    CHECK(ends[0] != NULL && ends[1] != NULL);
    CHECK(ends[0]->pipe != ends[1]->pipe);
    CHECK_EQ(shmp_write(ends[0], "one", 3), 3);
    CHECK_ERRNO(shmp_read(ends[1], bytes, 10), EAGAIN);
    CHECK_EQ(shmp_read(ends[0], bytes, 10), 3);
    close_ends();
    CHECK_EQ(close(second), 0);
    CHECK_EQ(unlink(copy), 0);
    remove_pipe(fd);
}

/* ---- Holes: allowed by every seal that leaves the memory writable ---------------------------------- */

static void punched_under_calls(void)
{
    for (uint32_t page = 0; page < SHMP_FIXED_BYTES / SHMP_PAGE + 5; page++)
        for (int then = 0; then < 8; then++) {
            struct shmp_options options = {.capacity = 4 * 4096};
            struct shmp_header *h;
            int pending = 0;
            case_begins("page %u punched, then call %d", page, then);
            CHECK_EQ(shmp_pipe2_with(ends, O_NONBLOCK | O_CLOEXEC, &options), 0);
            h = ends[0]->pipe->seg.header;
            if (then & 1)
                shmp_fileno(ends[0]);
            CHECK_EQ(shmp_write(ends[1], bytes, 9000), 9000);
            CHECK_EQ(fallocate(shmp_segment_fd(ends[0]), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               (off_t)page * SHMP_PAGE, SHMP_PAGE),
                     0);
            CHECK(page != 0 || load_relaxed(&h->magic) == 0);
            long r = then < 2   ? shmp_read(ends[0], bytes, 10000)
                     : then < 4 ? shmp_write(ends[1], bytes, 5000)
                     : then < 5 ? shmp_fcntl(ends[0], F_SETPIPE_SZ, 1 << 16)
                     : then < 6 ? shmp_ioctl(ends[0], FIONREAD, &pending)
                     : then < 7 ? shmp_inspect_fd(shmp_segment_fd(ends[0]), &snapshot)
                                : shmp_check_fd(shmp_segment_fd(ends[0]), &report);
            CHECK(r >= 0 || is_typed_error(r, errno));
            close_ends();
        }
}

TEST(holes_under_use)
{
    check_without_waiting();
    run_cases(punched_under_calls);
}

TEST(an_anonymous_pipe_cannot_be_cut)
{
    CHECK_EQ(shmp_pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    struct stat st;
    CHECK_EQ(fstat(shmp_segment_fd(ends[0]), &st), 0);
    for (off_t size = 0; size < st.st_size; size += 4096)
        CHECK_ERRNO(ftruncate(shmp_segment_fd(ends[0]), size), EPERM);
    CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
    CHECK_EQ(shmp_read(ends[0], bytes, 10), 1);
    close_ends();
}

/* ---- The process record: another file that a peer names for us to map ------------------------------- */

/* Memory that may be cut short is not mapped, whatever the holder entry says. */
static void record_is_refused(int fd, const char *what)
{
    struct stat st;
    uint32_t offset;
    CHECK_EQ(fstat(fd, &st), 0);
    struct shmp_record_id id = {
        .fd = (uint32_t)fd, .dev = (uint64_t)st.st_dev, .ino = (uint64_t)st.st_ino};
    if (shmp_record_map((uint32_t)getpid(), &id, &offset) != NULL)
        unit_fail(__FILE__, __LINE__, "%s is mapped as a record", what);
}

static void forge_record(int fd)
{
    static struct shmp_record record = {.magic = SHMP_RECORD_MAGIC};
    CHECK_EQ(ftruncate(fd, SHMP_RECORD_BYTES), 0);
    CHECK_EQ(pwrite(fd, &record, sizeof record, 0), sizeof record);
}

TEST(a_record_that_could_be_cut_is_not_mapped)
{
    int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    forge_record(fd);
    record_is_refused(fd, "an unsealed memfd");
    CHECK_EQ(close(fd), 0);
    char path[] = "/tmp/shmpipe-unit-XXXXXX"; /* a file system whose files know no seals */
    fd = mkostemp(path, O_CLOEXEC);
    CHECK(fd >= 0 && unlink(path) == 0);
    forge_record(fd);
    record_is_refused(fd, "an ordinary file");
    CHECK_EQ(close(fd), 0);
    snprintf(object, sizeof object, "/dev/shm/shmpipe.%s", unit_name());
    fd = open(object, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && unlink(object) == 0);
    forge_record(fd);
    record_is_refused(fd, "a file of /dev/shm");
    CHECK_EQ(close(fd), 0);
}

static int cut_before_sealing = -1;
static long (*real_fcntl)(int fd, int command, long argument);

/* A peer that waits for the look at the size, and cuts and seals before the look at the seals. */
static long cutting_fcntl(int fd, int command, long argument)
{
    if (command == F_GET_SEALS && cut_before_sealing >= 0) {
        CHECK_EQ(ftruncate(cut_before_sealing, 0), 0);
        CHECK_EQ(fcntl(cut_before_sealing, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
        cut_before_sealing = -1;
    }
    return real_fcntl(fd, command, argument);
}

TEST(a_record_that_is_cut_between_two_looks)
{
    int fd = memfd_create("forged", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    forge_record(fd);
    real_fcntl = shmp_sys.fcntl;
    shmp_sys.fcntl = cutting_fcntl;
    cut_before_sealing = fd;
    record_is_refused(fd, "an empty memfd");
    CHECK_EQ(cut_before_sealing, -1);
    CHECK_EQ(close(fd), 0);
}
