/* test_faults.c - each operation with its n-th system call failing, for each n and each errno that
 * the call may give: an error that is clean or a success that is whole, and nothing left behind.
 *
 * Each run is a process of its own, so that each has the first-use paths, too.  close() and munmap()
 * fail as in Linux: the thing is gone all the same.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "companion.h"
#include "pipe.h"
#include "sys.h"
#include "unit.h"

/* ---- The failing table --------------------------------------------------------------------- */

enum {
#define X(name, parameters, arguments) CALL_##name,
    SHMP_SYS_CALLS(X)
#undef X
        CALLS
};

static const char *const call_names[CALLS] = {
#define X(name, parameters, arguments) #name,
    SHMP_SYS_CALLS(X)
#undef X
};

#define ERRNOS 5
/* What each may plausibly say.  Left empty:
 *   yield, set_sigmask, raise_sigpipe   fail on wrong arguments only;
 *   thread_exists, restarting_handlers  give an answer, and no error;
 *   futex_wake                          fails where there is no memory, and then nobody sleeps there;
 *   unlink                              of a FIFO whose object is gone: there is nothing to do but
 *                                       to leave it. */
static const int errnos[CALLS][ERRNOS] = {
    [CALL_memfd_create] = {EMFILE, ENFILE, ENOMEM, EPERM},
    [CALL_shm_open] = {EMFILE, ENFILE, EACCES, ENOSPC, ELOOP},
    [CALL_shm_unlink] = {EACCES, EPERM, ENOMEM},
    [CALL_open] = {EMFILE, ENFILE, EACCES, EINTR, ELOOP},
    [CALL_close] = {EINTR, EIO},
    [CALL_mkfifo] = {ENOSPC, EACCES, EROFS, EDQUOT},
    [CALL_chmod] = {EPERM, EROFS},
    [CALL_pipe2] = {EMFILE, ENFILE},
    [CALL_eventfd] = {EMFILE, ENFILE, ENOMEM, ENODEV},
    [CALL_fstat] = {ENOMEM, EOVERFLOW},
    [CALL_lstat] = {ENOMEM, EACCES, ELOOP},
    [CALL_ftruncate] = {ENOMEM, EFBIG, EINTR, EIO},
    [CALL_fallocate] = {ENOSPC, EINTR, ENOMEM, EFBIG, EOPNOTSUPP},
    [CALL_pread] = {EIO, ENOMEM, EINTR},
    [CALL_read] = {EAGAIN, EINTR},
    [CALL_write] = {EAGAIN, EINTR, ENOMEM},
    [CALL_write_quiet] = {ENOMEM, EINTR, EAGAIN, EPIPE},
    [CALL_fcntl] = {EMFILE, EPERM, ENOMEM, EBUSY},
    [CALL_lock] = {ENOLCK, EAGAIN, EACCES},
    [CALL_ioctl] = {EINTR, ENOMEM},
    [CALL_poll] = {EINTR, ENOMEM},
    [CALL_ppoll] = {EINTR, ENOMEM},
    [CALL_mmap] = {ENOMEM, EAGAIN, ENFILE, EACCES},
    [CALL_munmap] = {ENOMEM},
    [CALL_random] = {EINTR, EAGAIN, ENOSYS},
    [CALL_futex_wait] = {EINTR, EAGAIN, ETIMEDOUT},
    [CALL_futex_waitv] = {EINTR, EAGAIN, ENOSYS, ENOMEM, ETIMEDOUT},
    [CALL_thread_start] = {EAGAIN, EPERM},
};

static struct shmp_sys_table real;
static _Atomic int countdown; /* 0: nothing fails (any more) */
static int which;     /* of the errnos */
static int burst;     /* so many of that call in a row fail */
static int injected;
static int failed_call = -1;
static _Atomic int repeats; /* still to fail */

static int next_failure(int call)
{
    if (errnos[call][which] == 0)
        return 0;
    int again = repeats;
    while (again > 0 && call == failed_call &&
           !atomic_compare_exchange_weak(&repeats, &again, again - 1))
        ;
    if (again > 0 && call == failed_call)
        return injected;
    int before = countdown; /* a relay makes calls, too */
    while (before > 0 && !atomic_compare_exchange_weak(&countdown, &before, before - 1))
        ;
    if (before != 1)
        return 0;
    failed_call = call;
    injected = errnos[call][which];
    repeats = burst - 1;
    return injected;
}

#define X(name, parameters, arguments)                                                    \
    static long failing_##name parameters                                                 \
    {                                                                                     \
        int error = next_failure(CALL_##name);                                            \
        if (error == 0 || CALL_##name == CALL_close || CALL_##name == CALL_munmap) {      \
            long r = real.name arguments;                                                 \
            return error == 0 ? r : -error;                                               \
        }                                                                                 \
        return -error;                                                                    \
    }
SHMP_SYS_CALLS(X)
#undef X

static void install(void)
{
    real = shmp_sys;
#define X(name, parameters, arguments) shmp_sys.name = failing_##name;
    SHMP_SYS_CALLS(X)
#undef X
}

/* ---- A run ------------------------------------------------------------------------------------ */

static shmp_end *ends[2];
static shmp_end *more; /* what the operation made */
static struct shmp_token token;
static const char *name;
static unsigned char bytes[70000];
static pid_t helper;

struct scenario {
    void (*prepare)(void);
    long (*operate)(void);     /* as a system call: -1 and errno */
    void (*check)(long result); /* with everything working again */
    int also;                  /* an errno that an injected one may turn into */
};

/* Of this process: how many there are, and how many places pipes have in them. */
static unsigned records(unsigned *places)
{
    unsigned found = 0;
    DIR *directory = opendir("/proc/self/fd");
    CHECK(directory != NULL);
    *places = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char target[256] = "";
        if (readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1) < 0 ||
            strstr(target, "memfd:shmpipe-record") == NULL)
            continue;
        found++;
        struct shmp_record *record =
            mmap(NULL, SHMP_RECORD_BYTES, PROT_READ, MAP_SHARED, atoi(entry->d_name), 0);
        CHECK(record != MAP_FAILED);
        for (uint32_t place = SHMP_COMMON_PLACE + 1; place < SHMP_RECORD_PLACES; place++)
            *places += load_relaxed(shmp_record_word(record, record->word_offset, place,
                                                     SHMP_WORD_LIFE)) != 0;
        munmap(record, SHMP_RECORD_BYTES);
    }
    closedir(directory);
    return found;
}

/* ---- What is held in the segment, by whom ------------------------------------------------------- */

#define TABLED 16u /* entries of a table that are looked at; the first free ones are taken first */

/* Of another process; 0: nobody has it. */
static pid_t locker_of(int fd, int64_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    CHECK_EQ(real.lock(fd, F_GETLK, &lock), 0);
    return lock.l_type == F_UNLCK ? 0 : lock.l_pid;
}

static bool is_gone(uint32_t pid)
{
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH;
}

/* By a process that holds nothing of it but `own`, its own entry (-1: none): each entry is one process's,
 * that has its lock and no other one.  How many live. */
static unsigned check_entries(int fd, int own)
{
    unsigned char *base = mmap(NULL, SHMP_FIXED_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(base != MAP_FAILED);
    struct shmp_holder *holders = (struct shmp_holder *)(void *)(base + SHMP_HOLDERS_OFFSET);
    unsigned living = 0;
    for (uint32_t i = 0; i < TABLED; i++) {
        if ((int)i == own)
            continue;
        pid_t locker = locker_of(fd, SHMP_HOLDER_LOCK + i);
        uint32_t pid = load_relaxed(&holders[i].pid);
        if (load_relaxed(&holders[i].live) == 0) {
            CHECK_EQ(locker, 0);
        } else if (!is_gone(pid)) { /* the dead are left to the next reaper */
            CHECK_EQ(locker, pid);
            for (uint32_t before = 0; before < i; before++)
                CHECK(load_relaxed(&holders[before].live) == 0 ||
                      load_relaxed(&holders[before].pid) != pid);
            living++;
        }
    }
    munmap(base, SHMP_FIXED_BYTES);
    return living;
}

/* Those that another process has a lock on: without one an entry is as good as free. */
static unsigned descriptions_held(int fd)
{
    unsigned held = 0;
    for (uint32_t i = 0; i < TABLED; i++)
        held += locker_of(fd, SHMP_DESCRIPTION_LOCK + i) != 0;
    return held;
}

/* By our ends, which have one each but where two share it or there was none to be had. */
static unsigned descriptions_used(void)
{
    const shmp_end *all[3] = {ends[0], ends[1], more};
    unsigned used = 0;
    for (int i = 0; i < 3; i++) {
        bool counts = all[i] != NULL && all[i]->shared;
        for (int before = 0; counts && before < i; before++)
            counts = all[before] == NULL || !all[before]->shared ||
                     all[before]->description != all[i]->description;
        used += counts;
    }
    return used;
}

static int any_segment(void)
{
    for (int i = 0; i < 3; i++)
        if (i < 2 ? ends[i] != NULL : more != NULL)
            return shmp_segment_fd(i < 2 ? ends[i] : more);
    return -1;
}

static void close_all(void)
{
    if (more)
        CHECK_EQ(shmp_close(more), 0);
    for (int i = 0; i < 2; i++)
        if (ends[i])
            CHECK_EQ(shmp_close(ends[i]), 0);
    more = ends[0] = ends[1] = NULL;
}

/* While the ends are open only another process sees this one's locks: any close() drops them. */
static void check_tables_from_outside(void)
{
    int fd = any_segment();
    if (fd < 0)
        return;
    unsigned used = descriptions_used();
    pid_t child = unit_fork();
    if (child == 0) {
        struct shmp_pipe *pipe = (more ? more : ends[0] ? ends[0] : ends[1])->pipe;
        CHECK(pipe->live.index >= 0);
        CHECK_EQ(check_entries(fd, pipe->live.index), helper > 0 ? 2 : 1);
        /* An unlock that fails, where it would split a range, leaves a lock until the next close(). */
        unsigned held = descriptions_held(fd);
        CHECK(helper > 0 || held == used || (failed_call == CALL_lock && held == used + 1));
        close_all();
        unit_done();
    }
    unit_join(child);
}

#define HIT 0
#define NOT_HIT 10

static _Noreturn void run(const struct scenario *s, int n)
{
    unsigned descriptors = unit_descriptors();
    unsigned mappings = unit_mappings();
    install();
    if (s->prepare)
        s->prepare();
    countdown = n;
    errno = 0;
    long result = s->operate();
    int error = errno;
    bool hit = countdown == 0;
    countdown = repeats = 0;
    const char *call = hit ? call_names[failed_call] : "nothing";
    dprintf(2, "call %d, %s failing with %s: result %ld, %s\n", n, call,
            hit ? strerror(injected) : "", result, result < 0 ? strerror(error) : "");
    if (!hit)
        CHECK(result >= 0);
    if (result < 0)
        CHECK(error == injected || (s->also != 0 && error == s->also));
    if (s->check)
        s->check(result);
    check_tables_from_outside();
    int segment = any_segment() < 0 ? -1 : fcntl(any_segment(), F_DUPFD_CLOEXEC, 3);
    close_all();
    if (segment >= 0) {
        CHECK_EQ(check_entries(segment, -1), helper > 0 ? 1 : 0);
        CHECK(helper > 0 || descriptions_held(segment) == 0);
        CHECK_EQ(close(segment), 0);
    }
    if (helper > 0)
        unit_kill(helper);
    if (name)
        shmp_unlink(name);
    CHECK_EQ(unit_descriptors(), descriptors);
    CHECK_EQ(unit_mappings(), mappings);
    unsigned places;
    CHECK(records(&places) <= 1);
    CHECK_EQ(places, 0);
    CHECK_EQ(unit_names_left(), 0);
    _exit(hit ? HIT : NOT_HIT);
}

/* The output of the runs that went well is of no interest.  true: there was an n-th call. */
static bool one_fault(const struct scenario *s, int n)
{
    off_t before = lseek(2, 0, SEEK_END);
    pid_t pid = unit_fork();
    if (pid == 0)
        run(s, n);
    int status = unit_wait(pid);
    if (WIFSIGNALED(status))
        unit_fail("run", n, "killed by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) != HIT && WEXITSTATUS(status) != NOT_HIT)
        unit_fail("run", n, "errno number %d, %d in a row, failed as said above", which, burst);
    if (before >= 0 && ftruncate(2, before) == 0)
        lseek(2, before, SEEK_SET);
    return WEXITSTATUS(status) == HIT;
}

/* Once, and as often as what is tried again, or cleaned up by the same call, meets it again. */
static const int bursts[] = {1, 4};

static void all_faults(const struct scenario *s)
{
    for (size_t i = 0; i < sizeof bursts / sizeof bursts[0]; i++)
        for (which = 0; which < ERRNOS; which++) {
            int n = 1;
            for (burst = bursts[i]; one_fault(s, n); n++)
                CHECK(n < 2000);
            CHECK(n > 1 || which > 0); /* otherwise this tests nothing */
        }
}

/* ---- Is the pipe in order? -------------------------------------------------------------------- */

static void exchange(shmp_end *reader, shmp_end *writer)
{
    char back[3];
    CHECK_EQ(shmp_write(writer, "abc", 3), 3);
    CHECK_EQ(shmp_read(reader, back, 3), 3);
    CHECK(memcmp(back, "abc", 3) == 0);
}

static void make_nonblocking(void)
{
    struct shmp_options options = {.capacity = 4 * 4096, .first_index = UINT32_MAX - 1};
    CHECK_EQ(shmp_pipe2_with(ends, O_NONBLOCK | O_CLOEXEC, &options), 0);
}

static void make_watched(void)
{
    make_nonblocking();
    shmp_fileno(ends[0]);
    shmp_fileno(ends[1]);
}

static short polled(shmp_end *end)
{
    struct shmp_pollfd p = {.end = end, .events = POLLIN | POLLOUT};
    CHECK(shmp_poll(&p, 1, 0) >= 0);
    return p.revents;
}

/* ---- The operations ------------------------------------------------------------------------------ */

static long do_pipe2(void)
{
    return shmp_pipe2(ends, O_NONBLOCK);
}

static void check_pipe2(long result)
{
    CHECK(result == 0 || (ends[0] == NULL && ends[1] == NULL));
    if (result == 0) {
        exchange(ends[0], ends[1]);
        /* Also the first look: at an empty ring and at one with data. */
        CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
        CHECK_EQ(polled(ends[0]), POLLIN);
        CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
        CHECK_EQ(polled(ends[0]), 0);
        CHECK_EQ(polled(ends[1]), POLLOUT);
    }
}

TEST(faults_in_pipe2)
{
    all_faults(&(struct scenario){.operate = do_pipe2, .check = check_pipe2, .also = EAGAIN});
}

/* The thread that made the record ends while a pipe gets its place there: the record is made once
 * more, and if that fails the place is free again. */
static int first_is_over;
static pthread_t first;
static long (*plain_futex_wake)(const void *, int);

static void *make_a_record(void *gate)
{
    shmp_end *own[2];
    CHECK_EQ(shmp_pipe2(own, 0), 0);
    CHECK_EQ(shmp_close(own[0]) | shmp_close(own[1]), 0);
    unit_pass(*(int *)gate);
    unit_await(first_is_over);
    return NULL;
}

static long waking_as_the_first_ends(const void *address, int count)
{
    real.futex_wake = plain_futex_wake;
    unit_pass(first_is_over);
    CHECK_EQ(pthread_join(first, NULL), 0);
    close(first_is_over);
    return real.futex_wake(address, count);
}

static void make_record_elsewhere(void)
{
    int made = unit_gate();
    first_is_over = unit_gate();
    CHECK_EQ(pthread_create(&first, NULL, make_a_record, &made), 0);
    unit_await(made);
    close(made);
    plain_futex_wake = real.futex_wake;
    real.futex_wake = waking_as_the_first_ends;
}

static void check_pipe2_at_last(long result)
{
    check_pipe2(result);
    if (result < 0)
        check_pipe2(do_pipe2());
}

TEST(faults_in_pipe2_as_the_records_thread_ends)
{
    all_faults(&(struct scenario){.prepare = make_record_elsewhere,
                                  .operate = do_pipe2,
                                  .check = check_pipe2_at_last,
                                  .also = EAGAIN});
}

static long do_mkfifo(void)
{
    name = unit_name();
    return shmp_mkfifo(name, 0600);
}

static void check_mkfifo(long result)
{
    if (result < 0) {
        /* A lock that says EAGAIN is another creator's, and so is the object. */
        bool anothers = failed_call == CALL_lock && injected != ENOLCK;
        CHECK_EQ(unit_names_left(), anothers ? 1 : 0);
        CHECK_EQ(shmp_mkfifo(name, 0600), 0); /* and it works the next time */
    }
    more = shmp_open(name, O_RDWR | O_NONBLOCK);
    CHECK(more != NULL);
    exchange(more, more);
}

TEST(faults_in_mkfifo)
{
    all_faults(&(struct scenario){.operate = do_mkfifo, .check = check_mkfifo, .also = EEXIST});
}

static void make_fifo(void)
{
    name = unit_name();
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
}

static long do_mkfifo_again(void)
{
    int r = shmp_mkfifo(name, 0600);
    return r < 0 && errno == EEXIST ? 0 : r;
}

static void check_mkfifo_again(long result)
{
    (void)result;
    CHECK_EQ(unit_names_left(), 2);
    more = shmp_open(name, O_RDWR | O_NONBLOCK);
    CHECK(more != NULL);
    exchange(more, more);
}

/* Whatever fails: the pipe is not the caller's to remove. */
TEST(faults_in_mkfifo_of_what_exists)
{
    all_faults(&(struct scenario){.prepare = make_fifo,
                                  .operate = do_mkfifo_again,
                                  .check = check_mkfifo_again});
}

static long do_open(void)
{
    more = shmp_open(name, O_RDWR | O_NONBLOCK);
    return more ? 0 : -1;
}

static void check_open(long result)
{
    if (result < 0)
        more = shmp_open(name, O_RDWR | O_NONBLOCK);
    CHECK(more != NULL);
    exchange(more, more);
}

TEST(faults_in_open)
{
    all_faults(
        &(struct scenario){.prepare = make_fifo, .operate = do_open, .check = check_open});
}

static void make_fifo_and_hold(void)
{
    make_fifo();
    ends[0] = shmp_open(name, O_RDONLY | O_NONBLOCK);
    ends[1] = shmp_open(name, O_WRONLY | O_NONBLOCK);
    CHECK(ends[0] != NULL && ends[1] != NULL);
    CHECK_EQ(shmp_write(ends[1], "kept", 4), 4);
}

static void check_second_open(long result)
{
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = SHMP_HOLDER_LOCK + ends[0]->pipe->live.index,
                         .l_len = 1};
    CHECK_EQ(shmp_read(ends[0], bytes, 10), 4); /* not a new life */
    exchange(ends[0], ends[1]);
    if (result == 0) {
        CHECK(more->pipe == ends[0]->pipe);
        exchange(more, more);
    }
    /* The process still has its lock, though a second descriptor came and went. */
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(real.lock(ends[0]->pipe->seg.fd, F_GETLK, &lock), 0);
        CHECK(failed_call == CALL_lock || lock.l_type == F_WRLCK);
        unit_done();
    }
    unit_join(child);
}

TEST(faults_in_a_second_open)
{
    all_faults(&(struct scenario){
        .prepare = make_fifo_and_hold, .operate = do_open, .check = check_second_open});
}

/* The rendezvous, with a writer in another process. */
static void make_fifo_and_writer(void)
{
    make_fifo();
    helper = unit_fork();
    if (helper == 0) {
        signal(SIGPIPE, SIG_IGN); /* of a reader that came and failed */
        shmp_end *writer = shmp_open(name, O_WRONLY);
        CHECK(writer != NULL);
        UNTIL(shmp_write(writer, "hello", 5) == 5);
        for (;;)
            pause();
    }
}

static long do_blocking_open(void)
{
    more = shmp_open(name, O_RDONLY);
    return more ? 0 : -1;
}

static void check_blocking_open(long result)
{
    CHECK(result == 0 || do_blocking_open() == 0);
    CHECK_EQ(shmp_read(more, bytes, 10), 5);
    CHECK(memcmp(bytes, "hello", 5) == 0);
}

TEST(faults_in_an_open_that_waits)
{
    all_faults(&(struct scenario){.prepare = make_fifo_and_writer,
                                  .operate = do_blocking_open,
                                  .check = check_blocking_open});
}

static long do_write(void)
{
    for (size_t i = 0; i < 5000; i++)
        bytes[i] = (unsigned char)(i * 7);
    return shmp_write(ends[1], bytes, 5000);
}

static void check_write(long result)
{
    ssize_t r = shmp_read(ends[0], bytes, sizeof bytes);
    CHECK_EQ(r, result < 0 ? -1 : result); /* what it said it wrote, and no more */
    for (ssize_t i = 0; i < r; i++)
        CHECK_EQ(bytes[i], (unsigned char)(i * 7));
    exchange(ends[0], ends[1]);
}

static void make_resized(void)
{
    make_watched();
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 65536), 65536); /* both sides must look anew */
}

TEST(faults_in_write)
{
    all_faults(&(struct scenario){
        .prepare = make_resized, .operate = do_write, .check = check_write});
}

static long do_read(void)
{
    return shmp_read(ends[0], bytes, 3000);
}

static void make_filled(void)
{
    make_resized();
    for (size_t i = 0; i < 5000; i++)
        bytes[i] = (unsigned char)(i * 7);
    CHECK_EQ(shmp_write(ends[1], bytes, 5000), 5000);
    memset(bytes, 0, sizeof bytes);
}

static void check_read(long result)
{
    size_t have = result < 0 ? 0 : (size_t)result;
    ssize_t r = shmp_read(ends[0], bytes + have, 60000);
    CHECK_EQ(have + (size_t)r, 5000);
    for (size_t i = 0; i < 5000; i++)
        CHECK_EQ(bytes[i], (unsigned char)(i * 7));
    exchange(ends[0], ends[1]);
}

TEST(faults_in_read)
{
    all_faults(
        &(struct scenario){.prepare = make_filled, .operate = do_read, .check = check_read});
}

/* A blocked read, with a writer in another process. */
static void make_writer_process(void)
{
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC), 0);
    helper = unit_fork();
    if (helper == 0) {
        struct shmp_header *h = ends[1]->pipe->seg.header;
        UNTIL(load_relaxed(&h->r.sleeps) != 0 || load_relaxed(&h->wait.poll_usage) != 0);
        CHECK_EQ(shmp_write(ends[1], "hello", 5), 5);
        for (;;)
            pause();
    }
    CHECK_EQ(shmp_close(ends[1]), 0);
    ends[1] = NULL;
}

static void check_blocked_read(long result)
{
    if (result < 0)
        result = shmp_read(ends[0], bytes, 10);
    CHECK_EQ(result, 5);
    CHECK(memcmp(bytes, "hello", 5) == 0);
}

TEST(faults_in_a_blocked_read)
{
    all_faults(&(struct scenario){
        .prepare = make_writer_process, .operate = do_read, .check = check_blocked_read});
}

static long do_waiting_poll(void)
{
    struct shmp_pollfd p = {.end = ends[0], .events = POLLIN};
    long r = shmp_poll(&p, 1, -1);
    CHECK(r < 0 || (r == 1 && p.revents == POLLIN));
    return r;
}

static void check_waiting_poll(long result)
{
    (void)result;
    check_blocked_read(-1);
    CHECK_EQ(polled(ends[0]), 0);
}

TEST(faults_in_a_waiting_poll)
{
    all_faults(&(struct scenario){
        .prepare = make_writer_process, .operate = do_waiting_poll, .check = check_waiting_poll});
}

/* A write that has begun and has to wait for a reader in another process. */
static struct {
    _Atomic bool go_on; /* though nobody sleeps */
    _Atomic size_t got;
} *reader_state;

#define LEFT_BEFORE 8192u

static void make_reader_process(void)
{
    struct shmp_options options = {.capacity = 4 * 4096};
    CHECK_EQ(shmp_pipe2_with(ends, O_CLOEXEC, &options), 0);
    for (size_t i = 0; i < 20000; i++)
        bytes[i] = (unsigned char)(i * 7);
    CHECK_EQ(shmp_write(ends[1], bytes, LEFT_BEFORE), LEFT_BEFORE);
    reader_state = unit_shared(sizeof *reader_state);
    helper = unit_fork();
    if (helper == 0) {
        struct shmp_header *h = ends[0]->pipe->seg.header;
        unsigned char back[1000];
        UNTIL(load_relaxed(&h->w.sleeps) != 0 || load_seq_cst(&reader_state->go_on));
        for (size_t at = 0;;) {
            ssize_t r = shmp_read(ends[0], back, sizeof back);
            CHECK(r > 0);
            for (ssize_t i = 0; i < r; i++, at++)
                CHECK_EQ(back[i], bytes[at < LEFT_BEFORE ? at : at - LEFT_BEFORE]);
            store_seq_cst(&reader_state->got, at);
        }
    }
    CHECK_EQ(shmp_close(ends[0]), 0);
    ends[0] = NULL;
}

static long do_long_write(void)
{
    return shmp_write(ends[1], bytes, 20000);
}

static void check_blocked_write(long result)
{
    size_t written = LEFT_BEFORE + (result < 0 ? 0 : (size_t)result);
    store_seq_cst(&reader_state->go_on, true);
    UNTIL(load_seq_cst(&reader_state->got) == written);
    CHECK_EQ(shmp_write(ends[1], bytes + (written - LEFT_BEFORE), 10), 10);
    UNTIL(load_seq_cst(&reader_state->got) == written + 10);
    munmap(reader_state, sizeof *reader_state);
}

TEST(faults_in_a_blocked_write)
{
    all_faults(&(struct scenario){
        .prepare = make_reader_process, .operate = do_long_write, .check = check_blocked_write});
}

/* ---- Readiness on demand --------------------------------------------------------------------------- */

static bool shows(shmp_end *end, short event)
{
    struct pollfd p = {.fd = shmp_descriptor(end), .events = event};
    CHECK(real.poll(&p, 1, 0) >= 0);
    return (p.revents & event) != 0;
}

static long do_arm(void)
{
    return shmp_arm(ends[0], POLLIN);
}

/* A level that could not be set errs to the side of trying once more, and the next call sets it. */
static void check_arm(long result)
{
    if (result < 0 || shows(ends[0], POLLIN))
        result = do_arm();
    CHECK_EQ(result, 0);
    CHECK(!shows(ends[0], POLLIN));
    CHECK_EQ(shmp_write(ends[1], "abc", 3), 3);
    CHECK(shows(ends[0], POLLIN));
    CHECK_EQ(shmp_read(ends[0], bytes, 10), 3);
}

TEST(faults_in_arming)
{
    all_faults(&(struct scenario){
        .prepare = make_nonblocking, .operate = do_arm, .check = check_arm});
}

static long do_fill(void);

static void make_full_and_unwatched(void)
{
    make_nonblocking();
    CHECK_EQ(do_fill(), 4 * 4096);
}

static long do_arm_the_writer(void)
{
    return shmp_arm(ends[1], POLLOUT);
}

static void check_armed_writer(long result)
{
    if (result < 0 || shows(ends[1], POLLOUT))
        result = do_arm_the_writer();
    CHECK_EQ(result, 0);
    /* EBUSY says that slots are in use, which is believed: one too many stays. */
    CHECK(!shows(ends[1], POLLOUT) || injected == EBUSY);
    CHECK_EQ(shmp_read(ends[0], bytes, 4 * 4096), 4 * 4096);
    CHECK(shows(ends[1], POLLOUT));
    exchange(ends[0], ends[1]);
}

TEST(faults_in_arming_at_a_full_ring)
{
    all_faults(&(struct scenario){.prepare = make_full_and_unwatched,
                                  .operate = do_arm_the_writer,
                                  .check = check_armed_writer});
}

static long do_fileno(void)
{
    return shmp_fileno(ends[0]);
}

static void make_with_data(void)
{
    make_nonblocking();
    CHECK_EQ(shmp_write(ends[1], "abc", 3), 3);
}

static void check_fileno(long result)
{
    CHECK(result >= 0);
    CHECK_EQ(polled(ends[0]), POLLIN);
    CHECK_EQ(shmp_read(ends[0], bytes, 10), 3);
    CHECK_EQ(polled(ends[0]), 0);
    exchange(ends[0], ends[1]);
}

TEST(faults_in_fileno)
{
    all_faults(
        &(struct scenario){.prepare = make_with_data, .operate = do_fileno, .check = check_fileno});
}

static long do_grow(void)
{
    return shmp_fcntl(ends[1], F_SETPIPE_SZ, 1 << 18);
}

static void check_grow(long result)
{
    long size = shmp_fcntl(ends[0], F_GETPIPE_SZ, 0);
    CHECK_EQ(size, result < 0 ? 65536 : 1 << 18);
    check_read(0);
    CHECK_EQ(shmp_fcntl(ends[0], F_SETPIPE_SZ, 1 << 18), 1 << 18);
    exchange(ends[0], ends[1]);
}

TEST(faults_in_growth)
{
    all_faults(
        &(struct scenario){.prepare = make_filled, .operate = do_grow, .check = check_grow});
}

static void make_named_filled(void)
{
    make_fifo_and_hold();
    CHECK_EQ(shmp_read(ends[0], bytes, 10), 4);
    for (size_t i = 0; i < 5000; i++)
        bytes[i] = (unsigned char)(i * 7);
    CHECK_EQ(shmp_write(ends[1], bytes, 5000), 5000);
}

TEST(faults_in_growth_of_a_named_pipe)
{
    all_faults(
        &(struct scenario){.prepare = make_named_filled, .operate = do_grow, .check = check_grow});
}

static long do_close(void)
{
    int r = shmp_close(ends[0]);
    ends[0] = NULL;
    return r;
}

static void check_close(long result)
{
    CHECK_EQ(result, 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
    ends[1] = NULL;
}

TEST(faults_in_close)
{
    all_faults(
        &(struct scenario){.prepare = make_watched, .operate = do_close, .check = check_close});
}

static long do_last_close(void)
{
    int r = shmp_close(ends[0]);
    ends[0] = NULL;
    r |= shmp_close(ends[1]);
    ends[1] = NULL;
    return r;
}

TEST(faults_in_the_last_close)
{
    all_faults(&(struct scenario){.prepare = make_watched, .operate = do_last_close});
}

static void make_token(void)
{
    make_nonblocking();
    CHECK_EQ(shmp_export(ends[0], &token), 0);
    token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
    token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
}

static long do_import(void)
{
    more = shmp_import(&token);
    if (more)
        return 0;
    if (errno == EINVAL) { /* refused before they were taken */
        CHECK_EQ(shmp_close_segment(token.companion_fd), 0);
        CHECK_EQ(shmp_close_segment(token.segment_fd), 0);
        errno = EINVAL;
    }
    return -1;
}

static void check_import(long result)
{
    exchange(ends[0], ends[1]);
    if (result == 0)
        exchange(more, ends[1]);
}

TEST(faults_in_import)
{
    all_faults(&(struct scenario){
        .prepare = make_token, .operate = do_import, .check = check_import, .also = EINVAL});
}

/* As a process does it that has nothing of the pipe but the two descriptors. */
static void make_token_alone(void)
{
    make_token();
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
    ends[0] = ends[1] = NULL;
}

TEST(faults_in_the_first_import)
{
    all_faults(
        &(struct scenario){.prepare = make_token_alone, .operate = do_import, .also = EINVAL});
}

static long do_unlink(void)
{
    return shmp_unlink(name);
}

/* All of it is gone, or all of it still there. */
static void check_unlink(long result)
{
    CHECK_EQ(unit_names_left(), result < 0 ? 2 : 0);
    if (result < 0)
        check_open(-1);
}

TEST(faults_in_unlink)
{
    all_faults(&(struct scenario){
        .prepare = make_fifo, .operate = do_unlink, .check = check_unlink});
}

static void make_fifo_and_descriptor(void)
{
    char object[128];
    make_fifo();
    snprintf(object, sizeof object, "/shmpipe.%s", name);
    token.segment_fd = shm_open(object, O_RDONLY, 0);
    CHECK(token.segment_fd >= 0);
}

static long do_unlink_fd(void)
{
    return shmp_unlink_fd(token.segment_fd, name);
}

static void check_unlink_fd(long result)
{
    CHECK_EQ(shmp_close_segment(token.segment_fd), 0);
    check_unlink(result);
}

TEST(faults_in_unlink_of_a_descriptor)
{
    all_faults(&(struct scenario){.prepare = make_fifo_and_descriptor,
                                  .operate = do_unlink_fd,
                                  .check = check_unlink_fd});
}

static long do_fork(void)
{
    char back[3];
    int here = unit_gate();
    int go_on = unit_gate();
    pid_t child = unit_fork(); /* the fork hook's calls fail in the child */
    if (child == 0) {
        int before = countdown;
        countdown = repeats = 0;
        unit_pass(here);
        unit_await(go_on);
        CHECK_EQ(shmp_write(ends[1], "abc", 3), 3);
        CHECK_EQ(shmp_read(ends[0], back, 3), 3);
        CHECK_EQ(shmp_fcntl(ends[0], F_GETFL, 0), O_RDONLY | O_NONBLOCK);
        CHECK_EQ(shmp_close(ends[0]), 0);
        CHECK_EQ(shmp_close(ends[1]), 0);
        _exit(before == 0 ? HIT : NOT_HIT);
    }
    /* Whether it has got an entry or not: it has no lock without one. */
    unit_await(here);
    struct shmp_pipe *pipe = ends[0]->pipe;
    CHECK(check_entries(pipe->seg.fd, pipe->live.index) <= 1);
    unit_pass(go_on);
    close(here);
    close(go_on);
    int status = unit_wait(child);
    CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == HIT || WEXITSTATUS(status) == NOT_HIT));
    if (WEXITSTATUS(status) == HIT) {
        failed_call = failed_call < 0 ? CALL_lock : failed_call;
        countdown = 0;
    }
    return 0;
}

static void check_fork(long result)
{
    CHECK_EQ(result, 0);
    exchange(ends[0], ends[1]);
}

TEST(faults_in_a_forked_childs_first_moments)
{
    all_faults(
        &(struct scenario){.prepare = make_nonblocking, .operate = do_fork, .check = check_fork});
}

/* A notifier from its making to its end, and what its relay does meanwhile. */
static int notified; /* of the ends */

static long do_notify(void)
{
    uint64_t sum = 0;
    int fd = shmp_notifier_open(ends[notified]);
    if (fd < 0)
        return fd;
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    if (notified == 1)
        CHECK_EQ(shmp_read(ends[0], bytes, 10), 10);
    while (sum < 1) {
        uint64_t part;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        CHECK_EQ(real.poll(&p, 1, -1), 1); /* it arrives in the eventfd, whatever failed */
        if (shmp_notifier_read(fd, &part) == 0)
            sum += part;
        else
            CHECK_EQ(errno, EINTR);
    }
    CHECK_EQ(sum, 1);
    CHECK(shmp_notifier_close(fd) == 0);
    return 0;
}

static void check_notify(long result)
{
    CHECK_EQ(shmp_read(ends[0], bytes, 10), result < 0 || notified == 1 ? -1 : 10);
    exchange(ends[0], ends[1]);
    int fd = shmp_notifier_open(ends[notified]);
    CHECK(fd >= 0);
    exchange(ends[0], ends[1]);
    uint64_t operations = 0;
    CHECK_EQ(shmp_notifier_read(fd, &operations), 0);
    CHECK_EQ(operations, 1);
    CHECK_EQ(shmp_notifier_close(fd), 0);
}

TEST(faults_in_a_notifiers_life)
{
    all_faults(&(struct scenario){
        .prepare = make_nonblocking, .operate = do_notify, .check = check_notify, .also = EAGAIN});
}

static void make_writers_notifier(void)
{
    make_nonblocking();
    notified = 1;
}

TEST(faults_in_a_write_ends_notifiers_life)
{
    all_faults(&(struct scenario){.prepare = make_writers_notifier,
                                  .operate = do_notify,
                                  .check = check_notify,
                                  .also = EAGAIN});
}

/* ---- Looking -------------------------------------------------------------------------------------- */

static long do_inspect(void)
{
    static struct shmp_snapshot snapshot;
    long r = shmp_inspect_fd(shmp_segment_fd(ends[0]), &snapshot);
    if (r == 0) {
        CHECK_EQ(snapshot.pending, 5000);
        CHECK_EQ(snapshot.holders, 1);
    }
    return r;
}

static void check_unchanged(long result)
{
    (void)result;
    check_read(0);
}

TEST(faults_in_inspect)
{
    all_faults(&(struct scenario){
        .prepare = make_filled, .operate = do_inspect, .check = check_unchanged});
}

TEST(faults_in_inspect_of_a_named_pipe)
{
    all_faults(&(struct scenario){
        .prepare = make_named_filled, .operate = do_inspect, .check = check_unchanged});
}

/* What cannot be looked at is an error, and never damage. */
static long do_check(void)
{
    static struct shmp_check report;
    long r = shmp_check_fd(shmp_segment_fd(ends[0]), &report);
    if (r == 0)
        CHECK_EQ(report.errors, 0);
    return r;
}

TEST(faults_in_check)
{
    all_faults(&(struct scenario){
        .prepare = make_filled, .operate = do_check, .check = check_unchanged});
}

TEST(faults_in_check_of_a_named_pipe)
{
    all_faults(&(struct scenario){
        .prepare = make_named_filled, .operate = do_check, .check = check_unchanged});
}

/* ---- Control --------------------------------------------------------------------------------------- */

static long do_pending(void)
{
    int pending = -1;
    long r = shmp_ioctl(ends[0], FIONREAD, &pending);
    if (r == 0)
        CHECK_EQ(pending, 5000);
    return r;
}

static void make_grown_unseen(void)
{
    make_filled();
    CHECK_EQ(shmp_fcntl(ends[1], F_SETPIPE_SZ, 1 << 18), 1 << 18); /* both sides must map anew */
}

TEST(faults_in_FIONREAD)
{
    all_faults(&(struct scenario){
        .prepare = make_grown_unseen, .operate = do_pending, .check = check_unchanged});
}

static long do_shrink(void)
{
    return shmp_fcntl(ends[0], F_SETPIPE_SZ, 8192);
}

static void check_shrunk(long result)
{
    CHECK_EQ(shmp_fcntl(ends[1], F_GETPIPE_SZ, 0), result < 0 ? 1 << 18 : 8192);
    check_read(0);
    if (result >= 0)
        CHECK_EQ(shmp_write(ends[1], bytes, 20000), 8192);
}

TEST(faults_in_shrinking)
{
    all_faults(&(struct scenario){
        .prepare = make_grown_unseen, .operate = do_shrink, .check = check_shrunk});
}

static long do_async(void)
{
    return shmp_fcntl(ends[1], F_SETFL, O_NONBLOCK | O_ASYNC);
}

static void check_async(long result)
{
    long flags = shmp_fcntl(ends[1], F_GETFL, 0);
    CHECK_EQ((flags & O_ASYNC) != 0, result == 0);
    CHECK_EQ((fcntl(ends[1]->fd, F_GETFL) & O_ASYNC) != 0, result == 0);
    check_read(0);
    CHECK_EQ(shmp_fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    CHECK_EQ(fcntl(ends[1]->fd, F_GETFL) & O_ASYNC, 0);
}

TEST(faults_in_O_ASYNC)
{
    all_faults(&(struct scenario){
        .prepare = make_grown_unseen, .operate = do_async, .check = check_async});
}

static long do_poll(void)
{
    struct shmp_pollfd p[2] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}};
    long r = shmp_poll(p, 2, 0);
    if (r >= 0)
        CHECK_EQ(r, 2);
    return r;
}

static void make_filled_and_not_looked_at(void)
{
    make_nonblocking();
    for (size_t i = 0; i < 5000; i++)
        bytes[i] = (unsigned char)(i * 7);
    CHECK_EQ(shmp_write(ends[1], bytes, 5000), 5000);
    memset(bytes, 0, sizeof bytes);
}

static void check_polled(long result)
{
    (void)result;
    CHECK_EQ(polled(ends[0]), POLLIN);
    CHECK_EQ(polled(ends[1]), POLLOUT);
    check_read(0);
    CHECK_EQ(polled(ends[0]), 0);
}

TEST(faults_in_poll)
{
    all_faults(&(struct scenario){.prepare = make_filled_and_not_looked_at,
                                  .operate = do_poll,
                                  .check = check_polled});
}

/* ---- A full ring, as the companion sees it ------------------------------------------------------------ */

static long do_fill(void)
{
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7);
    return shmp_write(ends[1], bytes, sizeof bytes);
}

static void check_fill(long result)
{
    ssize_t r = shmp_read(ends[0], bytes, sizeof bytes);
    CHECK_EQ(r, result < 0 ? -1 : result);
    for (ssize_t i = 0; i < r; i++)
        CHECK_EQ(bytes[i], (unsigned char)(i * 7));
    exchange(ends[0], ends[1]);
}

TEST(faults_in_a_write_that_fills)
{
    all_faults(&(struct scenario){
        .prepare = make_watched, .operate = do_fill, .check = check_fill});
}

static void make_full(void)
{
    make_watched();
    CHECK_EQ(do_fill(), 4 * 4096);
    memset(bytes, 0, sizeof bytes);
}

static long do_empty(void)
{
    return shmp_read(ends[0], bytes, sizeof bytes);
}

static void check_empty(long result)
{
    if (result < 0)
        result = shmp_read(ends[0], bytes, sizeof bytes);
    CHECK_EQ(result, 4 * 4096);
    for (ssize_t i = 0; i < result; i++)
        CHECK_EQ(bytes[i], (unsigned char)(i * 7));
    exchange(ends[0], ends[1]);
}

TEST(faults_in_a_read_that_empties)
{
    all_faults(
        &(struct scenario){.prepare = make_full, .operate = do_empty, .check = check_empty});
}

/* ---- Passing on, and a name of one's own --------------------------------------------------------------- */

static long do_export(void)
{
    return shmp_export(ends[0], &token);
}

TEST(export_makes_no_call_that_could_fail)
{
    install();
    make_nonblocking();
    countdown = 1;
    CHECK_EQ(do_export(), 0);
    CHECK_EQ(countdown, 1);
    countdown = 0;
    close_all();
}

static void make_object(void)
{
    char object[128];
    name = unit_name();
    snprintf(object, sizeof object, "/shmpipe.%s", name);
    token.segment_fd = shm_open(object, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(token.segment_fd >= 0);
}

static long do_format(void)
{
    return shmp_format(token.segment_fd, name, NULL);
}

static void check_format(long result)
{
    if (result < 0 && shmp_format(token.segment_fd, name, NULL) < 0) {
        CHECK_EQ(errno, ESTALE); /* it is not left half made: the name is gone */
        CHECK_EQ(unit_names_left(), 0);
        CHECK_EQ(shmp_close_segment(token.segment_fd), 0);
        make_object();
        CHECK_EQ(shmp_format(token.segment_fd, name, NULL), 0);
    }
    more = shmp_open_fd(token.segment_fd, O_RDWR | O_NONBLOCK);
    CHECK(more != NULL);
    CHECK_EQ(shmp_close_segment(token.segment_fd), 0);
    exchange(more, more);
}

TEST(faults_in_format)
{
    all_faults(&(struct scenario){.prepare = make_object,
                                  .operate = do_format,
                                  .check = check_format,
                                  .also = EEXIST});
}

/* ---- A lock of the dead ---------------------------------------------------------------------------------- */

static void die_with(int side)
{
    pid_t child = unit_fork();
    if (child == 0) {
        if (side < 0)
            CHECK(shmp_companion_lock(&ends[0]->pipe->live, SHMP_LOCK_SIGNALS));
        else
            CHECK_EQ(shmp_side_lock(ends[side], side, true), 0);
        _exit(0); /* without its unlock */
    }
    unit_join(child);
}

static void make_dead_owner(void)
{
    make_filled();
    die_with(SHMP_SIDE_READERS);
}

static void check_repaired(void)
{
    struct shmp_check report;
    CHECK_EQ(shmp_check_fd(shmp_segment_fd(ends[0]), &report), 0);
    CHECK_EQ(report.errors, 0);
    CHECK(load_relaxed(&ends[0]->pipe->seg.header->stats.recoveries) > 0);
}

static void check_taken_over(long result)
{
    check_read(result);
    check_repaired();
}

TEST(faults_in_a_read_that_takes_over_a_lock)
{
    all_faults(&(struct scenario){
        .prepare = make_dead_owner, .operate = do_read, .check = check_taken_over});
}

static void make_dead_writer(void)
{
    make_resized();
    die_with(SHMP_SIDE_WRITERS);
}

static void check_written_after_the_dead(long result)
{
    check_write(result);
    check_repaired();
}

TEST(faults_in_a_write_that_takes_over_a_lock)
{
    all_faults(&(struct scenario){.prepare = make_dead_writer,
                                  .operate = do_write,
                                  .check = check_written_after_the_dead});
}

static void make_dead_writer_beside_data(void)
{
    make_filled();
    die_with(SHMP_SIDE_WRITERS);
}

static void check_grown_after_the_dead(long result)
{
    check_grow(result);
    check_repaired();
}

TEST(faults_in_growth_that_takes_over_a_lock)
{
    all_faults(&(struct scenario){.prepare = make_dead_writer_beside_data,
                                  .operate = do_grow,
                                  .check = check_grown_after_the_dead});
}

static void make_dead_synchroniser(void)
{
    make_full();
    die_with(-1);
}

static void check_emptied_after_the_dead(long result)
{
    check_empty(result);
    check_repaired();
}

TEST(faults_in_a_read_that_takes_over_the_companions_lock)
{
    all_faults(&(struct scenario){.prepare = make_dead_synchroniser,
                                  .operate = do_empty,
                                  .check = check_emptied_after_the_dead});
}
