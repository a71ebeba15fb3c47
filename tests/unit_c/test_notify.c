/* test_notify.c - notifiers: exact counts, also of operations whose process dies at any instruction,
 * and the relay threads that carry them.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "companion.h"
#include "lock.h"
#include "notify.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];
static unsigned char bytes[140000];

static int count_threads(void)
{
    int found = 0;
    DIR *directory = opendir("/proc/self/task");
    CHECK(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        found += entry->d_name[0] != '.';
    closedir(directory);
    return found;
}

/* Of a process with one thread of its own.  The thread sanitizer has some, too. */
#define CHECK_RELAYS(count)                                                               \
    do {                                                                                  \
        if (!UNIT_TSAN)                                                                   \
            CHECK_EQ(count_threads(), 1 + (count));                                       \
    } while (0)

/* The address sanitizer's runtime is not safe to fork while a thread starts: that one holds the lock
 * of its allocator then, and the child would wait for it for ever.  So there a relay is started only
 * when its own code runs. */
struct start {
    void *(*run)(void *);
    void *argument;
    _Atomic bool begun;
};
static long (*start_at_once)(pthread_t *thread, void *(*run)(void *), void *argument);

static void *begin(void *argument)
{
    struct start *start = argument;
    struct start copy = {.run = start->run, .argument = start->argument};
    store_seq_cst(&start->begun, true);
    return copy.run(copy.argument);
}

static long start_and_await(pthread_t *thread, void *(*run)(void *), void *argument)
{
    struct start start = {.run = run, .argument = argument};
    long r = start_at_once(thread, begin, &start);
    UNTIL(r < 0 || load_seq_cst(&start.begun));
    return r;
}

__attribute__((constructor)) static void start_threads_wholly(void)
{
    start_at_once = shmp_sys.thread_start;
    if (UNIT_ASAN)
        shmp_sys.thread_start = start_and_await;
}

static void make(int flags, uint32_t slots)
{
    struct shmp_options options = {.capacity = (uint64_t)slots * SHMP_SLOT_SIZE,
                                   .first_index = UINT32_MAX - 2};
    CHECK_EQ(shmp_pipe2_with(ends, flags | O_CLOEXEC, &options), 0);
}

static void close_ends(void)
{
    for (int i = 0; i < 2; i++)
        if (ends[i])
            CHECK_EQ(shmp_close(ends[i]), 0);
    ends[0] = ends[1] = NULL;
}

static struct shmp_header *header(void)
{
    return ends[0]->pipe->seg.header;
}

static int open_notifier(int i)
{
    int fd = shmp_notifier_open(ends[i]);
    CHECK(fd >= 0);
    return fd;
}

static uint64_t taken(int fd)
{
    uint64_t operations = 0;
    CHECK_EQ(shmp_notifier_read(fd, &operations), 0);
    return operations;
}

/* What the eventfd itself has, if anything arrives there without further ado. */
static uint64_t delivered(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    uint64_t operations = 0;
    CHECK_EQ(poll(&p, 1, -1), 1);
    CHECK_EQ(read(fd, &operations, sizeof operations), sizeof operations);
    return operations;
}

static void deliver_until(int fd, uint64_t expected)
{
    uint64_t sum = 0;
    while (sum < expected)
        sum += delivered(fd);
    CHECK_EQ(sum, expected);
    CHECK_EQ(taken(fd), 0);
}

static size_t drain(void)
{
    size_t sum = 0;
    for (ssize_t r; (r = shmp_read(ends[0], bytes, sizeof bytes)) > 0;)
        sum += (size_t)r;
    return sum;
}

/* ---- What counts ------------------------------------------------------------------------- */

TEST(each_operation_that_moved_data_counts_one)
{
    make(O_NONBLOCK, 4);
    int writes = open_notifier(0);
    int reads = open_notifier(1);
    CHECK_EQ(shmp_read(ends[0], bytes, 10), -1);
    CHECK_EQ(shmp_write(ends[1], bytes, 0), 0);
    CHECK_EQ(taken(writes), 0);
    CHECK_EQ(taken(reads), 0);
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10); /* merges */
    CHECK_EQ(shmp_write(ends[1], bytes, 9000), 9000);
    CHECK_EQ(taken(writes), 3);
    CHECK_EQ(taken(writes), 0);
    CHECK_EQ(shmp_write(ends[1], bytes, 9000), 4096); /* fills what is left */
    CHECK_EQ(shmp_write(ends[1], bytes, 9000), -1);
    CHECK_EQ(taken(writes), 1);
    CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
    CHECK_EQ(shmp_read(ends[0], bytes, 100), 100);
    CHECK_EQ(taken(reads), 2);
    drain();
    CHECK_EQ(taken(reads), 1);
    CHECK_EQ(shmp_close(ends[1]), 0);
    ends[1] = NULL;
    CHECK_EQ(shmp_read(ends[0], bytes, 10), 0); /* end of file */
    CHECK_EQ(taken(writes), 0);
    CHECK_EQ(shmp_notifier_close(reads), 0);
    CHECK_EQ(shmp_notifier_close(writes), 0);
    close_ends();
}

TEST(counts_begin_with_the_notifier_and_end_with_its_end)
{
    make(O_NONBLOCK, 16);
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    int first = open_notifier(0);
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    int second = open_notifier(0);
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    CHECK_EQ(taken(first), 2);
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    CHECK_EQ(shmp_close(ends[0]), 0);
    ends[0] = NULL;
    CHECK_RELAYS(0);
    deliver_until(first, 1);
    deliver_until(second, 2);
    CHECK_EQ(shmp_notifier_close(first), 0);
    CHECK_EQ(shmp_notifier_close(second), 0);
    CHECK_ERRNO(shmp_notifier_close(second), EBADF);
    CHECK_ERRNO(shmp_notifier_read(first, &(uint64_t){0}), EBADF);
    close_ends();
}

TEST(both_accounts_are_one)
{
    make(O_NONBLOCK, 16);
    int fd = open_notifier(0);
    uint64_t sum = 0;
    uint32_t rounds = unit_rounds(3000);
    for (uint32_t i = 1; i <= rounds; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
        switch (unit_below(4)) {
        case 0:
            sum += taken(fd);
            CHECK_EQ(sum, i);
            break;
        case 1:
            for (uint64_t part; read(fd, &part, sizeof part) > 0;)
                sum += part;
            CHECK(sum <= i);
            break;
        default:
            CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
        }
    }
    sum += taken(fd);
    CHECK_EQ(sum, rounds);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    close_ends();
}

TEST(an_end_for_both_counts_both)
{
    const char *name = unit_name();
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    shmp_end *end = shmp_open(name, O_RDWR | O_NONBLOCK);
    CHECK(end != NULL);
    int fd = shmp_notifier_open(end);
    CHECK(fd >= 0);
    CHECK_EQ(shmp_write(end, bytes, 10), 10);
    CHECK_EQ(shmp_read(end, bytes, 3), 3);
    CHECK_EQ(shmp_read(end, bytes, 3), 3);
    CHECK_EQ(taken(fd), 3);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    CHECK_EQ(shmp_close(end), 0);
    CHECK_EQ(shmp_unlink(name), 0);
}

/* IO-4: five pages through one slot. */
TEST(a_write_that_waits_counts_each_part)
{
    make(0, 1);
    int fd = open_notifier(0);
    pid_t writer = unit_fork();
    if (writer == 0) {
        CHECK_EQ(shmp_close(ends[0]), 0);
        CHECK_EQ(shmp_write(ends[1], bytes, 5 * SHMP_SLOT_SIZE), 5 * SHMP_SLOT_SIZE);
        CHECK_EQ(shmp_close(ends[1]), 0);
        unit_done();
    }
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(delivered(fd), 1);
        CHECK_EQ(shmp_read(ends[0], bytes, sizeof bytes), SHMP_SLOT_SIZE);
    }
    unit_join(writer);
    CHECK_EQ(taken(fd), 0);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    close_ends();
}

/* ---- Many at once ----------------------------------------------------------------------------- */

static _Atomic uint64_t *sums; /* writes and reads that have moved data */

/* unit_random is one sequence, and not for threads. */
static uint32_t below(uint64_t *state, uint32_t limit)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33) % limit;
}

static void operate(uint64_t seed)
{
    unsigned char own[9000];
    memset(own, 1, sizeof own);
    for (uint32_t i = 0; i < unit_rounds(20000); i++) {
        size_t n = 1 + below(&seed, below(&seed, 8) ? 200 : sizeof own);
        if (below(&seed, 2)) {
            if (shmp_write(ends[1], own, n) > 0)
                fetch_add_relaxed(&sums[0], 1);
        } else if (shmp_read(ends[0], own, n) > 0) {
            fetch_add_relaxed(&sums[1], 1);
        }
    }
}

static void *operate_in_thread(void *argument)
{
    operate(*(uint64_t *)argument);
    return NULL;
}

static void exact(bool processes, int flags)
{
    pthread_t thread[3];
    pid_t child[3];
    uint64_t seed[3];
    make(flags | O_NONBLOCK, 16);
    sums = unit_shared(2 * sizeof *sums);
    int writes = open_notifier(0);
    int reads = open_notifier(1);
    for (int i = 0; i < 3; i++) {
        seed[i] = unit_random();
        if (!processes) {
            CHECK_EQ(pthread_create(&thread[i], NULL, operate_in_thread, &seed[i]), 0);
            continue;
        }
        child[i] = unit_fork();
        if (child[i] == 0) {
            operate(seed[i]);
            CHECK_EQ(shmp_close(ends[0]), 0);
            CHECK_EQ(shmp_close(ends[1]), 0);
            unit_done();
        }
    }
    operate(unit_random());
    for (int i = 0; i < 3; i++)
        if (processes)
            unit_join(child[i]);
        else
            CHECK_EQ(pthread_join(thread[i], NULL), 0);
    CHECK(sums[0] > 10 && sums[1] > 10);
    deliver_until(writes, sums[0]);
    deliver_until(reads, sums[1]);
    CHECK_EQ(shmp_notifier_close(writes), 0);
    CHECK_EQ(shmp_notifier_close(reads), 0);
    close_ends();
}

TEST(exact_over_threads)
{
    exact(false, 0);
}

TEST(exact_over_processes)
{
    exact(true, 0);
}

TEST(exact_over_processes_with_packets)
{
    exact(true, O_DIRECT);
}

/* A looker as well: turns with the companion's lock. */
TEST(exact_beside_pollers)
{
    make(O_NONBLOCK, 16);
    int writes = open_notifier(0);
    shmp_fileno(ends[0]);
    shmp_fileno(ends[1]);
    sums = unit_shared(2 * sizeof *sums);
    operate(unit_random());
    deliver_until(writes, sums[0]);
    CHECK_EQ(shmp_notifier_close(writes), 0);
    close_ends();
}

/* ---- Arming ------------------------------------------------------------------------------------ */

static _Atomic bool enough;

static void *write_on(void *argument)
{
    (void)argument;
    while (!load_acquire(&enough))
        shmp_write(ends[1], "12345678", 8);
    return NULL;
}

/* Who makes a notifier, and then takes what is there, misses nothing: whatever came later is
 * counted, and nothing is that has not come. */
TEST(arming_in_the_middle_of_writes)
{
    make(O_NONBLOCK, 64);
    for (uint32_t i = 0; i < unit_rounds(300); i++) {
        pthread_t thread;
        store_release(&enough, false);
        CHECK_EQ(pthread_create(&thread, NULL, write_on, NULL), 0);
        uint64_t start = load_relaxed(&header()->w.calls) + load_relaxed(&header()->w.again);
        uint64_t some = 1 + unit_below(60);
        UNTIL(load_relaxed(&header()->w.calls) + load_relaxed(&header()->w.again) - start > some);
        int fd = open_notifier(0);
        size_t then = drain() / 8;
        store_release(&enough, true);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        size_t later = drain() / 8;
        uint64_t counted = taken(fd);
        CHECK(counted >= later);
        CHECK(counted <= then + later);
        CHECK_EQ(shmp_notifier_close(fd), 0);
    }
    close_ends();
}

TEST(nobody_is_left_armed)
{
    make(O_NONBLOCK, 16);
    int fd = open_notifier(0);
    int other = open_notifier(0);
    CHECK_EQ(load_relaxed(&header()->wait.poll_usage), SHMP_NOTIFY_READERS);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    CHECK_EQ(load_relaxed(&header()->wait.poll_usage), SHMP_NOTIFY_READERS);
    CHECK_EQ(shmp_notifier_close(other), 0);
    CHECK_EQ(load_relaxed(&header()->wait.poll_usage), 0);
    close_ends();
}

TEST(a_listener_that_was_killed_disarms_in_the_end)
{
    make(O_NONBLOCK, 16);
    int ready = unit_gate();
    pid_t child = unit_fork();
    if (child == 0) {
        open_notifier(0);
        unit_pass(ready);
        pause();
    }
    unit_await(ready);
    CHECK_EQ(load_relaxed(&header()->wait.poll_usage), SHMP_NOTIFY_READERS);
    for (int i = 0; i < 9000; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
        CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
    }
    /* It lives: armed. */
    CHECK_EQ(load_relaxed(&header()->wait.poll_usage), SHMP_NOTIFY_READERS);
    unit_kill(child);
    for (int i = 0; i < 4096; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
        CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
    }
    CHECK_EQ(load_relaxed(&header()->wait.poll_usage), 0);
    close(ready);
    close_ends();
}

/* ---- Deaths at chosen instants ------------------------------------------------------------------ */

/* What the victim does between two SIGSTOPs of its own. */
struct operation {
    void (*prepare)(void);
    void (*operate)(void);
    int listener;         /* the end with the notifier */
    uint64_t (*done)(void); /* how many operations of the kind have left their traces */
    uint32_t slots;       /* of the ring; 0: 16 */
    void (*meddle)(void); /* what another process does once, somewhere in the middle */
};

static void nothing(void)
{
}

static void write_one(void)
{
    shmp_write(ends[1], "12345678", 8);
}

/* Publishes twice: 8 bytes merge, the others get a slot. */
static void write_twice(void)
{
    shmp_write(ends[1], bytes, SHMP_SLOT_SIZE + 8);
}

static void read_one(void)
{
    shmp_read(ends[0], bytes, 8);
}

static uint64_t records(void)
{
    int pending;
    CHECK_EQ(shmp_pending(ends[0], &pending), 0);
    CHECK_EQ(pending % 8, 0);
    return (uint64_t)pending / 8;
}

static uint64_t more_than_one_record(void)
{
    return records() > 1;
}

static uint64_t room(void)
{
    int pending;
    CHECK_EQ(shmp_pending(ends[0], &pending), 0);
    return 3 - (uint64_t)pending / 8;
}

static void write_three(void)
{
    for (int i = 0; i < 3; i++)
        write_one();
}

/* Into a ring of one slot: the new slot's word is that of the slot before head. */
static uint32_t first_head;

static void note_head(void)
{
    first_head = load_relaxed(&header()->head);
}

static uint64_t slots_written(void)
{
    CHECK_EQ(shmp_ioctl(ends[0], FIONREAD, &(int){0}), 0);
    return load_relaxed(&header()->head) != first_head;
}

/* What is there does not merge with what comes, and both new slots are needed. */
static void fill_one_of_two(void)
{
    shmp_write(ends[1], bytes, SHMP_SLOT_SIZE - 1);
    note_head();
}

static void write_two_slots(void)
{
    shmp_write(ends[1], bytes, SHMP_SLOT_SIZE + 10);
}

static void read_all(void)
{
    drain();
}

/* The shared memory that an operation with notifiers changes, as one number. */
static uint64_t shared_state(int listener)
{
    struct shmp_header *h = header();
    const struct shmp_notify_line *line = &h->notify[listener];
    const struct shmp_ring *ring = &ends[0]->pipe->seg.read_side;
    uint64_t parts[] = {load_relaxed(&h->head),     load_relaxed(&h->tail),
                        load_relaxed(&h->w.lock),   load_relaxed(&h->r.lock),
                        load_relaxed(&line->ops),   load_relaxed(&line->begun),
                        load_relaxed(&line->before), load_relaxed(&line->sleep)};
    uint64_t sum = 0;
    for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++)
        sum = (sum ^ parts[i]) * UINT64_C(1099511628211);
    for (uint32_t i = 0; i < ring->ring_size; i++)
        sum = (sum ^ load_relaxed(&ring->words[i])) * UINT64_C(1099511628211);
    return sum;
}

/* So many instructions after the change with this number; changes of shared memory are counted, not
 * instructions, because those are different ones each time. */
struct instant {
    uint32_t change;
    uint32_t instructions;
};

struct run {
    uint32_t changes;      /* there were */
    uint32_t instructions;
};

/* Runs the victim up to that instant, and kills it. */
static struct run run_victim(const struct operation *op, struct instant last)
{
    pid_t victim = unit_fork();
    if (victim == 0) {
        CHECK_EQ(ptrace(PTRACE_TRACEME, 0, NULL, NULL), 0);
        raise(SIGSTOP);
        op->operate();
        raise(SIGSTOP);
        unit_done();
    }
    int status;
    CHECK_EQ(waitpid(victim, &status, __WALL), victim);
    CHECK(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
    struct run run = {0};
    uint64_t state = shared_state(op->listener);
    uint32_t since = 0;
    uint32_t meddle_at = op->meddle ? unit_below(1500) : UINT32_MAX;
    while (run.changes < last.change || since < last.instructions) {
        CHECK_EQ(ptrace(PTRACE_SINGLESTEP, victim, NULL, NULL), 0);
        CHECK_EQ(waitpid(victim, &status, __WALL), victim);
        CHECK(WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP)
            break; /* it has done it */
        CHECK_EQ(WSTOPSIG(status), SIGTRAP);
        if (run.instructions++ == meddle_at)
            op->meddle();
        bool changed = shared_state(op->listener) != state;
        state = shared_state(op->listener);
        run.changes += changed;
        since = changed ? 0 : since + 1;
    }
    unit_kill(victim);
    return run;
}

/* The victim dies at this instant.  Then the count must become what the ring says, although nobody
 * else does anything; and the next operation finds all in order. */
static struct run die_at(const struct operation *op, struct instant instant)
{
    make(O_NONBLOCK, op->slots ? op->slots : 16);
    op->prepare();
    int fd = open_notifier(op->listener);
    uint64_t before = op->done();
    struct run run = run_victim(op, instant);
    uint64_t counted = 0;
    /* done() takes the read lock only: the count of a writer comes from the relay's rescue. */
    UNTIL((counted += taken(fd)) >= op->done() - before);
    CHECK_EQ(counted, op->done() - before);
    if (op->listener == 0)
        drain(); /* there must be room */
    write_one();
    read_one();
    CHECK_EQ(taken(fd), 1);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    close_ends();
    return run;
}

static void die_everywhere(const struct operation *op)
{
    if (UNIT_TSAN)
        SKIP("the thread sanitizer does not see other processes");
    pid_t probe = unit_fork();
    if (probe == 0)
        _exit(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1);
    if (unit_wait(probe) != 0)
        SKIP("ptrace() is not allowed here");
    struct run all = die_at(op, (struct instant){UINT32_MAX, 0});
    CHECK(all.changes >= 6); /* the lock, before, begun, the publish, the count, the unlock */
    for (uint32_t change = 0; change <= all.changes; change++)
        for (uint32_t more = 0; more < 2; more++)
            die_at(op, (struct instant){change, more});
    for (uint32_t i = 0; i < unit_rounds(op->meddle ? 20 : 6); i++)
        die_at(op, (struct instant){unit_below(all.changes), unit_below(60)});
}

TEST(a_writer_that_dies_at_any_instruction)
{
    die_everywhere(&(struct operation){
        .prepare = nothing, .operate = write_one, .listener = 0, .done = records});
}

TEST(a_merging_writer_that_dies_at_any_instruction)
{
    die_everywhere(&(struct operation){
        .prepare = write_one, .operate = write_one, .listener = 0, .done = records});
}

TEST(a_writer_that_publishes_twice_and_dies_at_any_instruction)
{
    die_everywhere(&(struct operation){
        .prepare = write_one, .operate = write_twice, .listener = 0, .done = more_than_one_record});
}

TEST(a_writer_that_fills_an_empty_ring_and_dies_at_any_instruction)
{
    die_everywhere(&(struct operation){
        .prepare = note_head, .operate = write_one, .done = slots_written, .slots = 1});
}

TEST(a_writer_that_dies_after_the_ring_was_emptied_under_its_hands)
{
    die_everywhere(&(struct operation){
        .prepare = fill_one_of_two,
        .operate = write_two_slots,
        .done = slots_written,
        .slots = 2,
        .meddle = read_all});
}

TEST(a_reader_that_dies_at_any_instruction)
{
    die_everywhere(&(struct operation){
        .prepare = write_three, .operate = read_one, .listener = 1, .done = room});
}

/* ---- Those whose lives cannot be watched -------------------------------------------------------- */

static struct shmp_sys_table real_calls;
static _Atomic bool asleep_without_a_timer;

/* As for another user's process. */
static long no_record(const char *path, int flags)
{
    return strncmp(path, "/proc/", 6) == 0 ? -EACCES : real_calls.open(path, flags);
}

static long note_timer(struct shmp_futex_waitv *words, unsigned count, const struct timespec *until)
{
    store_release(&asleep_without_a_timer, until == NULL);
    return real_calls.futex_waitv(words, count, until);
}

static void hide_records(void)
{
    real_calls = shmp_sys;
    shmp_sys.open = no_record;
    shmp_sys.futex_waitv = note_timer;
}

/* The first one introduces the victim, and then the relay dismisses it. */
static void write_two(void)
{
    write_one();
    write_one();
}

TEST(a_writer_that_nobody_can_watch_dies_at_any_instruction)
{
    hide_records();
    die_everywhere(&(struct operation){
        .prepare = nothing, .operate = write_two, .listener = 0, .done = records});
    shmp_sys = real_calls;
}

TEST(nobody_can_watch_it_and_the_relay_sleeps_without_a_timer)
{
    int ready = unit_gate();
    int go = unit_gate();
    make(O_NONBLOCK, 16);
    pid_t child = unit_fork();
    if (child == 0) {
        for (int i = 0; i < 4; i++) {
            unit_pass(ready);
            unit_await(go);
            write_one();
        }
        pause();
    }
    unit_await(ready);
    hide_records();
    int fd = open_notifier(0);
    for (int i = 0; i < 4; i++) {
        UNTIL(load_acquire(&asleep_without_a_timer));
        store_release(&asleep_without_a_timer, false);
        unit_pass(go);
        CHECK_EQ(delivered(fd), 1);
        if (i < 3)
            unit_await(ready);
    }
    UNTIL(load_acquire(&asleep_without_a_timer));
    unit_kill(child);
    CHECK_EQ(taken(fd), 0);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    shmp_sys = real_calls;
    close(ready);
    close(go);
    close_ends();
}

/* ---- A dead owner of the ring's lock beside a stopped one of the companion's --------------------- */

/* To repair takes both.  The relay waits for nobody who lives, and tries again. */
TEST(a_stopped_poller_does_not_hold_up_a_listener)
{
    make(O_NONBLOCK, 16);
    CHECK(shmp_fileno(ends[0]) >= 0);
    int fd = open_notifier(0);
    int wrote = unit_gate();
    int die_now = unit_gate();
    pid_t victim = unit_fork();
    if (victim == 0) {
        CHECK_EQ(shmp_write(ends[1], bytes, 1), 1); /* from now on the relay watches it */
        unit_pass(wrote);
        unit_await(die_now);
        CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0);
        raise(SIGKILL);
    }
    unit_await(wrote);
    pid_t poller = unit_fork();
    if (poller == 0) {
        shmp_companion_lock_now(&ends[0]->pipe->live);
        raise(SIGSTOP);
        shmp_companion_unlock(&ends[0]->pipe->live);
        unit_done();
    }
    unit_await_state(poller, 'T');
    unit_pass(die_now);
    CHECK_EQ(unit_wait(victim), SIGKILL);
    UNTIL(load_relaxed(&header()->stats.recoveries) != 0);
    CHECK_EQ(taken(fd), 1);
    kill(poller, SIGCONT);
    unit_join(poller);
    UNTIL(load_relaxed(&header()->w.lock) == 0);
    close(wrote);
    close(die_now);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    close_ends();
}

/* A newcomer that has just got the lock, perhaps from a dead one whose operation is not counted yet, can
 * die without a word: no relay watches it.  So the relay comes back. */
TEST(a_relay_does_not_rely_on_a_newcomer)
{
    make(O_NONBLOCK, 16);
    int locked = unit_gate();
    int write_now = unit_gate();
    int wrote = unit_gate();
    pid_t newcomer = unit_fork();
    if (newcomer == 0) {
        CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0);
        unit_pass(locked);
        unit_await(write_now);
        shmp_side_unlock(ends[1], SHMP_SIDE_WRITERS);
        CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
        CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0);
        unit_pass(wrote);
        pause();
    }
    unit_await(locked);
    CHECK(!shmp_notify_rescue(ends[0], SHMP_SIDE_READERS, false));
    CHECK(!shmp_notify_rescue(ends[0], SHMP_SIDE_READERS, true));
    fetch_or_seq_cst(&header()->wait.poll_usage, SHMP_NOTIFY_READERS);
    unit_pass(write_now);
    unit_await(wrote);
    /* Its first counted operation has introduced it. */
    CHECK(shmp_notify_rescue(ends[0], SHMP_SIDE_READERS, false));
    CHECK(shmp_notify_rescue(ends[0], SHMP_SIDE_READERS, true));
    unit_kill(newcomer);
    CHECK(shmp_notify_rescue(ends[0], SHMP_SIDE_READERS, true));
    CHECK_EQ(load_relaxed(&header()->w.lock), 0);
    close(locked);
    close(write_now);
    close(wrote);
    close_ends();
}

/* ---- The relay -------------------------------------------------------------------------------------- */

TEST(one_thread_for_many_notifiers_and_none_after_the_last)
{
    enum { MANY = 200 };
    static int fds[2 * MANY];
    make(O_NONBLOCK, 16);
    CHECK_RELAYS(0);
    for (int i = 0; i < 2 * MANY; i++) {
        fds[i] = open_notifier(i % 2);
        CHECK_RELAYS(1);
    }
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
        CHECK_EQ(shmp_read(ends[0], bytes, 5), 5);
    }
    for (int i = 0; i < 2 * MANY; i++) {
        deliver_until(fds[i], 10);
        CHECK_RELAYS(1);
        CHECK_EQ(shmp_notifier_close(fds[i]), 0);
    }
    CHECK_RELAYS(0);
    close_ends();
}

TEST(more_pipes_than_one_futex_waitv_takes)
{
    enum { PIPES = 150 };
    static shmp_end *all[PIPES][2];
    static int fds[PIPES];
    for (int i = 0; i < PIPES; i++) {
        CHECK_EQ(shmp_pipe2(all[i], O_CLOEXEC | O_NONBLOCK), 0);
        fds[i] = shmp_notifier_open(all[i][0]);
        CHECK(fds[i] >= 0);
    }
    CHECK_RELAYS(3); /* one for 64 pipes */
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < PIPES; i++) {
            int at = round == 1 ? PIPES - 1 - i : i;
            CHECK_EQ(shmp_write(all[at][1], bytes, 10), 10);
            CHECK_EQ(delivered(fds[at]), 1);
        }
    for (int i = 0; i < PIPES; i++) {
        CHECK_EQ(shmp_notifier_close(fds[i]), 0);
        CHECK_EQ(shmp_close(all[i][0]), 0);
        CHECK_EQ(shmp_close(all[i][1]), 0);
    }
    CHECK_RELAYS(0);
}

static uint64_t lingers_until;
static bool lingers;

static long thread_that_lingers(pid_t tid)
{
    (void)tid;
    lingers = shmp_now_ns() < lingers_until;
    return lingers;
}

/* The end of a thread that has been joined waits for a CPU: for 20 ms, or for ever. */
TEST(a_relay_that_is_over_vanishes_late)
{
    make(O_NONBLOCK, 16);
    shmp_sys.thread_exists = thread_that_lingers;
    int fd = open_notifier(0);
    lingers = true;
    uint64_t begin = shmp_now_ns();
    lingers_until = begin + 20000000;
    CHECK_EQ(shmp_notifier_close(fd), 0);
    CHECK(!lingers);
    fd = open_notifier(0);
    lingers_until = UINT64_MAX;
    begin = shmp_now_ns();
    CHECK_EQ(shmp_notifier_close(fd), 0);
    CHECK(shmp_now_ns() - begin >= 1000000000);
    close_ends();
}

TEST(a_fork_childs_copy_is_closed)
{
    make(O_NONBLOCK, 16);
    int fd = open_notifier(0);
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_RELAYS(0);
        CHECK_ERRNO(shmp_notifier_read(fd, &(uint64_t){0}), EBADF);
        CHECK_ERRNO(shmp_notifier_close(fd), EBADF);
        int own = open_notifier(0);
        CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
        CHECK_EQ(delivered(own), 1);
        CHECK_EQ(shmp_notifier_close(own), 0);
        CHECK_RELAYS(0);
        close_ends();
        unit_done();
    }
    unit_join(child);
    CHECK_EQ(delivered(fd), 1);
    CHECK_EQ(load_relaxed(&header()->wait.poll_usage), SHMP_NOTIFY_READERS);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    close_ends();
}

static void *open_in_thread(void *tid)
{
    store_seq_cst((_Atomic pid_t *)tid, (pid_t)syscall(SYS_gettid));
    return (void *)(intptr_t)open_notifier(0);
}

TEST(a_notifier_that_is_being_made_is_closed_in_a_fork_child)
{
    static _Atomic pid_t tid;
    pthread_t thread;
    void *fd;
    make(O_NONBLOCK, 16);
    unsigned before = unit_descriptors();
    CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0); /* for which arming waits */
    CHECK_EQ(pthread_create(&thread, NULL, open_in_thread, &tid), 0);
    UNTIL(load_seq_cst(&tid) != 0);
    unit_await_futex(tid);
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK_EQ(unit_descriptors(), before);
        close_ends();
        unit_done();
    }
    unit_join(child);
    shmp_side_unlock(ends[1], SHMP_SIDE_WRITERS);
    pthread_join(thread, &fd);
    CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    CHECK_EQ(delivered((int)(intptr_t)fd), 1);
    CHECK_EQ(shmp_notifier_close((int)(intptr_t)fd), 0);
    close_ends();
}

/* Forks at any moment of the relay's cycle, while operations go on. */
TEST(forks_while_the_relay_works)
{
    make(O_NONBLOCK, 16);
    int fd = open_notifier(0);
    for (uint32_t i = 0; i < unit_rounds(200); i++) {
        for (uint32_t n = unit_below(20); n > 0; n--) {
            CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
            CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
        }
        pid_t child = unit_fork();
        if (child == 0) {
            if (i % 2 == 0) {
                int own = open_notifier(0);
                CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
                CHECK_EQ(delivered(own), 1);
                CHECK_EQ(shmp_notifier_close(own), 0);
            }
            close_ends();
            unit_done();
        }
        unit_join(child);
        CHECK_EQ(shmp_read(ends[0], bytes, 1), i % 2 == 0 ? 1 : -1);
    }
    CHECK(taken(fd) >= unit_rounds(200) / 2);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    close_ends();
}

TEST(listeners_in_several_processes)
{
    enum { LISTENERS = 4, WRITES = 500 };
    pid_t child[LISTENERS];
    int ready = unit_gate();
    make(0, 1024);
    for (int i = 0; i < LISTENERS; i++) {
        child[i] = unit_fork();
        if (child[i] == 0) {
            int fd = open_notifier(0);
            unit_pass(ready);
            deliver_until(fd, WRITES);
            CHECK_EQ(shmp_notifier_close(fd), 0);
            close_ends();
            unit_done();
        }
    }
    for (int i = 0; i < LISTENERS; i++)
        unit_await(ready);
    for (int i = 0; i < WRITES; i++)
        CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
    for (int i = 0; i < LISTENERS; i++)
        unit_join(child[i]);
    close(ready);
    close_ends();
}

/* Nobody but the relay sleeps there, so that each operation of a slow sequence needs a wake, and
 * one of a quick one needs none. */
static _Atomic unsigned wakes;
static _Atomic unsigned sleeps;

static long counting_wake(const void *address, int count)
{
    fetch_add_relaxed(&wakes, 1);
    return real_calls.futex_wake(address, count);
}

static long counting_waitv(struct shmp_futex_waitv *words, unsigned count,
                           const struct timespec *until)
{
    fetch_add_relaxed(&sleeps, 1);
    return real_calls.futex_waitv(words, count, until);
}

TEST(a_storm_needs_few_wakes)
{
    make(O_NONBLOCK, 16);
    real_calls = shmp_sys;
    shmp_sys.futex_wake = counting_wake; /* before there are threads, and again after */
    shmp_sys.futex_waitv = counting_waitv;
    int fd = open_notifier(0);
    for (int i = 0; i < 100000; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 1), 1);
        CHECK_EQ(shmp_read(ends[0], bytes, 1), 1);
    }
    unsigned count = load_relaxed(&wakes);
    unsigned slept = load_relaxed(&sleeps);
    deliver_until(fd, 100000);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    shmp_sys = real_calls;
    close_ends();
    /* One for each time that the relay said that it sleeps, perhaps once more than it got there yet;
     * and one that made it look at its first source. */
    CHECK(count <= slept + 2);
    /* And it seldom says so: more than 16 writes since its last look are a storm, in which it stays
     * away for 50 us.  Under the thread sanitizer not so many get done in that time. */
    if (!UNIT_TSAN)
        CHECK(count < 10000);
}

static shmp_end *stormy[2];
static _Atomic uint32_t pauses;

static void count_a_hundred(void)
{
    fetch_add_seq_cst(&stormy[0]->pipe->seg.header->notify[0].ops, 100);
}

/* The relay's pause. */
static long storming_wait(const void *address, uint32_t value, const struct timespec *until)
{
    long r = real_calls.futex_wait(address, value, until);
    count_a_hundred();
    fetch_add_seq_cst(&pauses, 1);
    return r;
}

/* At one pipe the relay finds a storm after each pause; at another one somebody dies. */
TEST(a_storm_does_not_hide_a_death)
{
    int ready = unit_gate();
    int die_now = unit_gate();
    make(O_NONBLOCK, 16);
    int fd = open_notifier(0);
    pid_t victim = unit_fork();
    if (victim == 0) {
        write_one();
        unit_pass(ready);
        unit_await(die_now);
        CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0);
        CHECK(shmp_notify_begin(ends[1]->pipe, SHMP_SIDE_WRITERS, false));
        fetch_add_seq_cst(&header()->head, 1); /* P1 of a packet, as it were */
        raise(SIGKILL);
    }
    unit_await(ready);
    CHECK_EQ(delivered(fd), 1);
    CHECK_EQ(shmp_pipe2(stormy, O_CLOEXEC | O_NONBLOCK), 0);
    int other = shmp_notifier_open(stormy[0]);
    CHECK(other >= 0);
    CHECK_EQ(shmp_write(stormy[1], bytes, 1), 1); /* which counts with a load and a store */
    real_calls = shmp_sys;
    shmp_sys.futex_wait = storming_wait;
    count_a_hundred();
    shmp_notify_wake(stormy[1]->pipe, SHMP_SIDE_WRITERS);
    /* Nobody reads meanwhile: that takes from the relay what it has not seen yet. */
    UNTIL(load_seq_cst(&pauses) > 5);
    unit_pass(die_now);
    CHECK_EQ(unit_wait(victim), SIGKILL);
    CHECK_EQ(delivered(fd), 1);
    shmp_sys.futex_wait = real_calls.futex_wait;
    CHECK_EQ(shmp_notifier_close(other), 0);
    CHECK_EQ(shmp_notifier_close(fd), 0);
    CHECK_EQ(shmp_close(stormy[0]), 0);
    CHECK_EQ(shmp_close(stormy[1]), 0);
    close(ready);
    close(die_now);
    close_ends();
}

static long no_write(int fd, const void *buffer, size_t count)
{
    (void)fd, (void)buffer, (void)count;
    unit_fail(__FILE__, __LINE__, "the companion is written to, though nobody looks at it");
}

TEST(a_notifier_alone_leaves_the_companion_in_peace)
{
    make(O_NONBLOCK, 16);
    real_calls = shmp_sys;
    shmp_sys.write_quiet = no_write;
    int writes = open_notifier(0);
    int reads = open_notifier(1);
    /* Somebody is in it, or was stopped there: nobody who only counts waits for that. */
    CHECK_EQ(shmp_lock(&ends[0]->pipe->live, &header()->companion.lock, SHMP_LOCK_TRY), SHMP_LOCKED);
    for (int i = 0; i < 100; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 5000), 5000);
        CHECK_EQ(shmp_read(ends[0], bytes, 5000), 5000);
    }
    shmp_unlock(&header()->companion.lock);
    deliver_until(writes, 100);
    deliver_until(reads, 100);
    CHECK_EQ(shmp_notifier_close(reads), 0);
    CHECK_EQ(shmp_notifier_close(writes), 0);
    shmp_sys = real_calls;
    close_ends();
}

/* The kernel wakes one sleeper for each death, and the relay may be that one for two of them: it names
 * one, and others may sleep on the other. */
static _Atomic bool go_on;
static _Atomic bool passed_on[2];
static _Atomic pid_t relay_task;
static struct shmp_futex_waitv lives[2]; /* the last words */

static long wait_for_two_deaths(struct shmp_futex_waitv *words, unsigned count,
                                const struct timespec *until)
{
    store_release(&relay_task, (pid_t)syscall(SYS_gettid));
    long r = real_calls.futex_waitv(words, count, until);
    if (r < (long)count - 2 || lives[0].address != 0)
        return r;
    memcpy(lives, words + count - 2, sizeof lives);
    UNTIL(load_acquire(&go_on));
    return r;
}

static long note_wake(const void *address, int count)
{
    long r = real_calls.futex_wake(address, count);
    for (int i = 0; i < 2; i++)
        if (lives[i].address == (uintptr_t)address && count == INT_MAX && r >= 0)
            store_release(&passed_on[i], true);
    return r;
}

static void two_deaths(bool closing)
{
    pid_t child[2];
    shmp_end *other[2];
    int ready = unit_gate();
    make(O_NONBLOCK, 16);
    for (int i = 0; i < 2; i++) {
        child[i] = unit_fork();
        if (child[i] == 0) {
            unit_pass(ready);
            pause();
        }
    }
    unit_await(ready);
    unit_await(ready);
    CHECK_EQ(shmp_pipe2(other, O_CLOEXEC), 0);
    int fd = open_notifier(0);
    int kept = shmp_notifier_open(other[0]); /* the relay goes on */
    CHECK(kept >= 0);
    real_calls = shmp_sys;
    shmp_sys.futex_wake = note_wake;
    shmp_sys.futex_waitv = wait_for_two_deaths;
    CHECK_EQ(shmp_write(ends[1], bytes, 1), 1); /* from now on it sleeps there */
    CHECK_EQ(delivered(fd), 1);
    UNTIL(load_relaxed(&header()->notify[0].sleep) % 2 == 1 && load_acquire(&relay_task) != 0);
    unit_await_futex(relay_task);
    unit_kill(child[0]);
    unit_kill(child[1]);
    UNTIL(load_relaxed((_Atomic uint64_t *)(void *)&lives[0].address) != 0);
    if (closing) {
        CHECK_EQ(shmp_notifier_close(fd), 0);
        close_ends();
    }
    store_release(&go_on, true);
    UNTIL(load_acquire(&passed_on[0]) && load_acquire(&passed_on[1]));
    if (!closing) {
        CHECK_EQ(shmp_notifier_close(fd), 0);
        close_ends();
    }
    CHECK_EQ(shmp_notifier_close(kept), 0);
    shmp_sys = real_calls;
    CHECK_EQ(shmp_close(other[0]), 0);
    CHECK_EQ(shmp_close(other[1]), 0);
    close(ready);
}

TEST(the_relay_passes_each_death_on)
{
    two_deaths(false);
}

/* Who closes an end here is not who sleeps elsewhere on what was learnt through it. */
TEST(the_relay_passes_deaths_on_after_its_end_was_closed)
{
    two_deaths(true);
}

static long note_relay(struct shmp_futex_waitv *words, unsigned count, const struct timespec *until)
{
    store_release(&relay_task, (pid_t)syscall(SYS_gettid));
    return real_calls.futex_waitv(words, count, until);
}

/* A relay sleeps on one word of each process, also if that holds several of its pipes.  When the word's pipe
 * is closed there, the others are still held. */
static void die_in_the_pipe_that_is_left(int left)
{
    shmp_end *pipes[2][2];
    int fd[2];
    int ready = unit_gate();
    int go = unit_gate();
    for (int i = 0; i < 2; i++)
        CHECK_EQ(shmp_pipe2(pipes[i], O_CLOEXEC | O_NONBLOCK), 0);
    pid_t victim = unit_fork();
    if (victim == 0) {
        shmp_end *end = pipes[left][1];
        unit_await(go);
        for (int i = 0; i < 2; i++) /* from now on the relay watches it */
            CHECK_EQ(shmp_write(pipes[i][1], bytes, 1), 1);
        unit_pass(ready);
        unit_await(go);
        for (int i = 0; i < 2; i++)
            CHECK_EQ(shmp_close(pipes[1 - left][i]), 0);
        CHECK_EQ(shmp_side_lock(end, SHMP_SIDE_WRITERS, true), 0);
        CHECK(shmp_notify_begin(end->pipe, SHMP_SIDE_WRITERS, false));
        fetch_add_seq_cst(&end->pipe->seg.header->head, 1); /* P1 of a packet, as it were */
        raise(SIGKILL);
    }
    real_calls = shmp_sys;
    shmp_sys.futex_waitv = note_relay;
    for (int i = 0; i < 2; i++) {
        fd[i] = shmp_notifier_open(pipes[i][0]);
        CHECK(fd[i] >= 0);
    }
    unit_pass(go);
    unit_await(ready);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(delivered(fd[i]), 1);
    for (int i = 0; i < 2; i++)
        UNTIL(load_relaxed(&pipes[i][0]->pipe->seg.header->notify[0].sleep) % 2 == 1);
    UNTIL(load_acquire(&relay_task) != 0);
    unit_await_futex(load_acquire(&relay_task));
    unit_pass(go);
    CHECK_EQ(unit_wait(victim), SIGKILL);
    CHECK_EQ(delivered(fd[left]), 1);
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(shmp_notifier_close(fd[i]), 0);
        CHECK_EQ(shmp_close(pipes[i][0]), 0);
        CHECK_EQ(shmp_close(pipes[i][1]), 0);
    }
    shmp_sys = real_calls;
    close(ready);
    close(go);
}

TEST(the_relay_watches_a_process_that_closes_one_of_two_pipes)
{
    die_in_the_pipe_that_is_left(0);
}

TEST(the_relay_watches_a_process_that_closes_the_other_of_two_pipes)
{
    die_in_the_pipe_that_is_left(1);
}

static long no_waitv(struct shmp_futex_waitv *words, unsigned count, const struct timespec *until)
{
    (void)words, (void)count, (void)until;
    return -ENOSYS;
}

TEST(without_futex_waitv)
{
    real_calls = shmp_sys;
    shmp_sys.futex_waitv = no_waitv;
    make(O_NONBLOCK, 16);
    int fd = open_notifier(0);
    for (int i = 0; i < 20; i++) {
        CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
        CHECK_EQ(delivered(fd), 1);
    }
    CHECK_EQ(shmp_notifier_close(fd), 0);
    shmp_sys = real_calls;
    close_ends();
}

/* ---- Damage ------------------------------------------------------------------------------------------ */

TEST(a_counter_that_somebody_scribbled_on_hurts_nobody)
{
    make(O_NONBLOCK, 16);
    int fd = open_notifier(0);
    static const uint64_t rubbish[] = {UINT64_MAX, 0, UINT64_C(1) << 63, 5};
    for (int i = 0; i < 4; i++) {
        store_seq_cst(&header()->notify[0].ops, rubbish[i]);
        store_seq_cst(&header()->notify[0].sleep, (uint32_t)rubbish[i] ^ 0x55555555u);
        CHECK_EQ(shmp_write(ends[1], bytes, 10), 10);
        taken(fd);
    }
    CHECK_EQ(shmp_notifier_close(fd), 0);
    close_ends();
    CHECK_RELAYS(0);
}
