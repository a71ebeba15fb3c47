/* test_live.c - process records and the holder table: who holds the pipe, and who is dead for sure. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "pipe.h"
#include "record.h"
#include "sys.h"
#include "unit.h"

static shmp_end *ends[2];

static void make_pipe(int flags)
{
    CHECK_EQ(shmp_pipe2(ends, flags), 0);
}

static void close_pipe(void)
{
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}

static struct shmp_live *live(void)
{
    return &ends[0]->pipe->live;
}

static struct shmp_holder *holder(uint32_t index)
{
    return &ends[0]->pipe->seg.holders[index];
}

static uint32_t generation(uint32_t index)
{
    return SHMP_STATE_GEN(load_acquire(&holder(index)->state));
}

static bool is_dead(uint32_t index)
{
    return shmp_holder_is_dead(live(), index, generation(index));
}

static bool life_is_marked(uint32_t index)
{
    struct shmp_peer *peer = shmp_peer_get(live(), index);
    CHECK(peer != NULL);
    const _Atomic uint32_t *word = shmp_peer_word(peer, SHMP_WORD_LIFE);
    bool marked = word == NULL || shmp_life_is_marked(load_acquire(word));
    shmp_peer_put(peer);
    return marked;
}

static bool index_is_locked(uint32_t index)
{
    struct flock lock = {.l_type = F_WRLCK,
                         .l_whence = SEEK_SET,
                         .l_start = SHMP_HOLDER_LOCK + index,
                         .l_len = 1};
    CHECK_EQ(fcntl(ends[0]->pipe->seg.fd, F_GETLK, &lock), 0);
    return lock.l_type != F_UNLCK;
}

/* A child that holds the pipe and waits to be killed or told to do something.  Its index. */
static uint32_t spawn_holder(pid_t *pid, void (*work)(int gate), int gate)
{
    uint32_t *index = unit_shared(sizeof *index);
    int ready = unit_gate();
    *pid = unit_fork();
    if (*pid == 0) {
        *index = (uint32_t)live()->index;
        unit_pass(ready);
        if (work)
            work(gate);
        for (;;)
            pause();
    }
    unit_await(ready);
    close(ready);
    uint32_t found = *index;
    munmap(index, sizeof *index);
    return found;
}

TEST(a_fork_child_has_an_entry_of_its_own)
{
    pid_t child;
    make_pipe(O_CLOEXEC);
    CHECK_EQ(live()->index, 0);
    CHECK_EQ(load_relaxed(&holder(0)->pid), getpid());
    CHECK_EQ(load_relaxed(&holder(0)->state) & 0xffffffffu, 0x10001u);
    uint32_t index = spawn_holder(&child, NULL, 0);
    CHECK_EQ(index, 1);
    CHECK_EQ(load_relaxed(&holder(1)->pid), child);
    CHECK_EQ(load_relaxed(&holder(1)->state) & 0xffffffffu, 0x10001u);
    CHECK_EQ(load_relaxed(&ends[0]->pipe->seg.header->wait.holder_limit), 2);
    CHECK(load_relaxed(&holder(0)->record_ino) != load_relaxed(&holder(1)->record_ino));
    CHECK(!life_is_marked(1));
    CHECK(!is_dead(1));
    CHECK(!shmp_holder_reap(live(), 1));
    unit_kill(child);
    CHECK(shmp_holder_reap(live(), 1));
    close_pipe();
}

TEST(a_killed_holder_is_dead_and_is_reaped_once)
{
    pid_t child;
    make_pipe(O_CLOEXEC);
    uint32_t index = spawn_holder(&child, NULL, 0);
    uint32_t gen = generation(index);
    CHECK(!life_is_marked(index)); /* and so its page is mapped, before it dies */
    unit_kill(child);
    CHECK(life_is_marked(index));
    CHECK(!index_is_locked(index));
    CHECK(is_dead(index));
    CHECK(shmp_holder_reap(live(), index));
    CHECK(!shmp_holder_reap(live(), index));
    CHECK_EQ(load_relaxed(&ends[0]->pipe->seg.header->stats.reaped), 1);
    CHECK_EQ(load_relaxed(&holder(index)->live), 0);
    /* The next one there is another generation: proof against the first is no proof. */
    CHECK_EQ(spawn_holder(&child, NULL, 0), index);
    CHECK_EQ(generation(index), gen + 1);
    CHECK(shmp_holder_is_dead(live(), index, gen));
    CHECK(!shmp_holder_is_dead(live(), index, gen + 1));
    unit_kill(child);
    CHECK(shmp_holder_reap(live(), index));
    close_pipe();
}

TEST(a_stopped_holder_is_alive)
{
    pid_t child;
    make_pipe(O_CLOEXEC);
    uint32_t index = spawn_holder(&child, NULL, 0);
    kill(child, SIGSTOP);
    unit_await_state(child, 'T');
    CHECK(!life_is_marked(index));
    CHECK(!is_dead(index));
    CHECK(!shmp_holder_reap(live(), index));
    unit_kill(child);
    CHECK(is_dead(index));
    CHECK(shmp_holder_reap(live(), index));
    close_pipe();
}

/* ---- A thread that registered, and ended ------------------------------------------------ */

static void *make_in_thread(void *argument)
{
    (void)argument;
    make_pipe(O_CLOEXEC);
    return NULL;
}

TEST(a_thread_that_ended_marks_the_word_and_proves_nothing)
{
    pthread_t thread;
    int done = unit_gate();
    int renewed = unit_gate();
    int looked = unit_gate();
    CHECK_EQ(pthread_create(&thread, NULL, make_in_thread, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    uint32_t seq = live()->record_seq;
    CHECK(!shmp_record_is_fresh(seq));
    pid_t child = unit_fork();
    if (child == 0) {
        CHECK(life_is_marked(0));
        CHECK(!is_dead(0)); /* the record lock says that the process lives */
        uint32_t pid = load_relaxed(&holder(0)->pid);
        store_relaxed(&holder(0)->pid, 0x7fffffff); /* and that alone, from another PID namespace */
        CHECK(!is_dead(0));
        store_relaxed(&holder(0)->pid, pid);
        CHECK(!shmp_holder_reap(live(), 0));
        unit_pass(looked);
        unit_await(renewed);
        CHECK(!life_is_marked(0)); /* its fresh record */
        CHECK(!is_dead(0));
        unit_pass(looked);
        unit_await(done);
        unit_done();
    }
    unit_await(looked);
    shmp_live_renew(live());
    CHECK(live()->record_seq != seq);
    CHECK(shmp_record_is_fresh(live()->record_seq));
    unit_pass(renewed);
    unit_await(looked);
    seq = live()->record_seq;
    shmp_live_renew(live()); /* nothing to do */
    CHECK_EQ(live()->record_seq, seq);
    unit_pass(done);
    unit_join(child);
    CHECK(shmp_holder_reap(live(), 1));
    close_pipe();
    close(done);
    close(renewed);
    close(looked);
}

/* ---- Places ------------------------------------------------------------------------------- */

static shmp_end *pipes[SHMP_RECORD_PLACES + 3][2];

TEST(each_pipe_has_words_of_its_own_while_there_are_any)
{
    bool seen[SHMP_RECORD_PLACES] = {false};
    unsigned common = 0;
    for (unsigned i = 0; i < SHMP_RECORD_PLACES + 3; i++) {
        CHECK_EQ(shmp_pipe2(pipes[i], O_CLOEXEC), 0);
        uint32_t place = pipes[i][0]->pipe->live.place;
        CHECK(place < SHMP_RECORD_PLACES);
        CHECK(place == SHMP_COMMON_PLACE || !seen[place]);
        common += place == SHMP_COMMON_PLACE;
        seen[place] = true;
    }
    CHECK_EQ(common, 4);
    uint32_t left = pipes[7][0]->pipe->live.place;
    for (int round = 0; round < 3; round++) {
        CHECK_EQ(shmp_close(pipes[7][0]), 0);
        CHECK_EQ(shmp_close(pipes[7][1]), 0);
        CHECK_EQ(shmp_pipe2(pipes[7], O_CLOEXEC), 0);
        CHECK_EQ(pipes[7][0]->pipe->live.place, left);
    }
    for (unsigned i = 0; i < SHMP_RECORD_PLACES + 3; i++)
        for (int j = 0; j < 2; j++)
            CHECK_EQ(shmp_close(pipes[i][j]), 0);
}

static bool call_is_watched(uint32_t index)
{
    struct shmp_peer *peer = shmp_peer_get(live(), index);
    CHECK(peer != NULL);
    bool watched = load_seq_cst(shmp_peer_word(peer, SHMP_WORD_CALL)) != 0;
    shmp_peer_put(peer);
    return watched;
}

/* Its words are among the first that the kernel comes to, and the common ones are far away from there. */
#define OTHERS 60

static void *make_others(void *argument)
{
    for (int i = 0; i < OTHERS; i++)
        CHECK_EQ(shmp_pipe2(pipes[i], O_CLOEXEC), 0);
    return argument;
}

static void *make_after_others(void *argument)
{
    return make_in_thread(make_others(argument));
}

static void close_others(void)
{
    for (int i = 0; i < OTHERS; i++)
        for (int j = 0; j < 2; j++)
            CHECK_EQ(shmp_close(pipes[i][j]), 0);
}

static _Atomic(struct shmp_peer *) renewed;

static void *renew_and_end(void *argument)
{
    shmp_live_renew(live());
    store_seq_cst(&renewed, shmp_peer_get(live(), (uint32_t)live()->index));
    return argument;
}

/* Where threads wait for the CPU each round takes some of its slices. */
#define ROUNDS_NS UINT64_C(5000000000)

/* The kernel marks word by word.  Either a call that begins meanwhile is told that the record is stale,
 * or its word is marked: it never looks alive for ever. */
TEST(no_mark_is_written_over)
{
    pthread_t thread;
    unsigned early = 0;
    unsigned stale = 0;
    unsigned rounds = unit_rounds(1000);
    uint64_t end = shmp_now_ns() + ROUNDS_NS;
    CHECK_EQ(pthread_create(&thread, NULL, make_after_others, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    for (unsigned i = 0; (i < rounds && shmp_now_ns() < end) || stale == 0 || early == 0; i++) {
        struct shmp_call call;
        uint32_t moment = unit_below(2000 + 20 * i);
        struct shmp_peer *peer;
        CHECK_EQ(pthread_create(&thread, NULL, renew_and_end, NULL), 0);
        while ((peer = load_seq_cst(&renewed)) == NULL)
            cpu_relax();
        while (moment-- > 0)
            cpu_relax();
        bool told = shmp_live_enter_call(live(), &call);
        CHECK_EQ(pthread_join(thread, NULL), 0);
        CHECK(told || shmp_life_is_marked(load_seq_cst(shmp_peer_word(peer, SHMP_WORD_CALL))));
        shmp_live_leave_call(&call);
        shmp_peer_put(peer);
        store_seq_cst(&renewed, NULL);
        stale += told;
        early += !told;
    }
    close_pipe();
    close_others();
}

/* ---- Renewals beside other threads and other pipes ------------------------------------------ */

static struct shmp_record_id walked;
static _Atomic bool is_made;
static _Atomic bool is_awaited;
static pthread_mutex_t *behind; /* the words, in the list that the kernel goes through */

/* On the same CPU as the other one, and only when that one sleeps: so the kernel's walk, which wakes it
 * with the first word, stands still until it has renewed the record. */
static void *record_and_end(void *cpu)
{
    const struct sched_param none = {0};
    CHECK_EQ(sched_setaffinity(0, sizeof(cpu_set_t), cpu), 0);
    CHECK_EQ(pthread_mutex_lock(behind), 0);
    CHECK_EQ(shmp_record_self(&walked), 0);
    store_seq_cst(&is_made, true);
    CHECK_EQ(sched_setscheduler(0, SCHED_IDLE, &none), 0);
    UNTIL(load_seq_cst(&is_awaited));
    return NULL;
}

static void *renew_at_the_first_word(void *cpu)
{
    struct shmp_record_id id;
    uint32_t offset;
    CHECK_EQ(sched_setaffinity(0, sizeof(cpu_set_t), cpu), 0);
    const struct shmp_record *record = shmp_record_map((uint32_t)getpid(), &walked, &offset);
    CHECK(record != NULL);
    const _Atomic uint32_t *first = (const _Atomic uint32_t *)(const void *)(
        record->mutexes[SHMP_COMMON_PLACE][SHMP_WORD_LOCK] + offset);
    uint32_t value = load_seq_cst(first);
    store_seq_cst(&is_awaited, true);
    shmp_sys.futex_wait((const void *)first, value, NULL);
    CHECK(!shmp_record_is_fresh(walked.seq));
    CHECK_EQ(shmp_record_self(&id), 0);
    munmap((void *)(uintptr_t)record, SHMP_RECORD_BYTES);
    return NULL;
}

/* Whoever finds the first word marked makes the record anew while the kernel is still at the others. */
TEST(the_kernel_goes_through_all_words_of_a_record_that_is_renewed)
{
    pthread_t ends_now;
    pthread_t renews;
    pthread_mutexattr_t robust;
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    unsigned rounds = unit_rounds(50);
    uint64_t end = shmp_now_ns() + ROUNDS_NS;
    cpu_set_t cpu;
    CPU_ZERO(&cpu);
    CPU_SET((unsigned)sched_getcpu(), &cpu);
    behind = unit_shared(sizeof *behind);
    /* Words that name the thread take the kernel longer. */
    CHECK_EQ(pthread_create(&ends_now, NULL, make_others, NULL), 0);
    CHECK_EQ(pthread_join(ends_now, NULL), 0);
    for (unsigned i = 0; i < rounds && shmp_now_ns() < end; i++) {
        pthread_mutex_init(behind, &robust);
        store_seq_cst(&is_made, false);
        store_seq_cst(&is_awaited, false);
        CHECK_EQ(pthread_create(&ends_now, NULL, record_and_end, &cpu), 0);
        UNTIL(load_seq_cst(&is_made));
        CHECK_EQ(pthread_create(&renews, NULL, renew_at_the_first_word, &cpu), 0);
        CHECK_EQ(pthread_join(ends_now, NULL), 0);
        CHECK_EQ(pthread_join(renews, NULL), 0);
        CHECK_EQ(pthread_mutex_trylock(behind), EOWNERDEAD);
        pthread_mutex_consistent(behind);
        pthread_mutex_unlock(behind);
    }
    munmap(behind, sizeof *behind);
    close_others();
}

static void *sleep_on_the_call(void *argument)
{
    struct shmp_peer *peer = argument;
    const _Atomic uint32_t *word = shmp_peer_word(peer, SHMP_WORD_CALL);
    uint32_t value = load_seq_cst(word);
    struct timespec until = shmp_timespec(shmp_now_ns() + 5 * ROUNDS_NS);
    if (value != 0 && !shmp_life_is_marked(value))
        CHECK(shmp_sys.futex_wait((const void *)word, value, &until) != -ETIMEDOUT);
    return argument;
}

static void *renew_when_stale(void *argument)
{
    uint32_t seq = load_relaxed(&live()->record_seq);
    while (shmp_record_is_fresh(seq))
        cpu_relax();
    shmp_live_renew(live());
    return argument;
}

/* A call word that a renewal marks before the kernel comes to it: the kernel wakes nobody then. */
TEST(a_renewal_tells_who_sleeps_on_a_call_that_the_kernel_has_not_come_to)
{
    pthread_t ends_now;
    pthread_t renews;
    pthread_t sleeper;
    struct shmp_call call;
    struct shmp_peer *peer;
    unsigned rounds = unit_rounds(1000);
    uint64_t end = shmp_now_ns() + ROUNDS_NS;
    CHECK_EQ(pthread_create(&ends_now, NULL, make_after_others, NULL), 0);
    CHECK_EQ(pthread_join(ends_now, NULL), 0);
    shmp_live_enter_call(live(), &call);
    for (unsigned i = 0; i < rounds && shmp_now_ns() < end; i++) {
        CHECK_EQ(pthread_create(&ends_now, NULL, renew_and_end, NULL), 0);
        UNTIL((peer = load_seq_cst(&renewed)) != NULL);
        CHECK_EQ(pthread_create(&sleeper, NULL, sleep_on_the_call, peer), 0);
        CHECK_EQ(pthread_create(&renews, NULL, renew_when_stale, NULL), 0);
        CHECK_EQ(pthread_join(ends_now, NULL), 0);
        CHECK_EQ(pthread_join(renews, NULL), 0);
        CHECK_EQ(pthread_join(sleeper, NULL), 0);
        shmp_peer_put(peer);
        store_seq_cst(&renewed, NULL);
    }
    shmp_live_leave_call(&call);
    close_pipe();
    close_others();
}

TEST(a_new_attachment_renews_the_record_for_all_pipes)
{
    shmp_end *others[2];
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, make_in_thread, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(shmp_pipe2(others, O_CLOEXEC), 0);
    CHECK(shmp_record_is_fresh(others[0]->pipe->live.record_seq));
    CHECK(shmp_record_is_fresh(live()->record_seq)); /* else the old one, closed, proves us dead */
    CHECK_EQ(shmp_close(others[0]), 0);
    CHECK_EQ(shmp_close(others[1]), 0);
    close_pipe();
}

static int are_made;
static int may_end;
static _Atomic pid_t reader_task;

static void *fill_the_places(void *argument)
{
    for (unsigned i = 0; i < SHMP_RECORD_PLACES; i++)
        CHECK_EQ(shmp_pipe2(pipes[i], O_CLOEXEC), 0);
    make_pipe(O_CLOEXEC);
    unit_pass(are_made);
    unit_await(may_end);
    return argument;
}

static void *read_a_byte(void *argument)
{
    char byte;
    store_release(&reader_task, (pid_t)syscall(SYS_gettid));
    CHECK_EQ(shmp_read(ends[0], &byte, 1), 1);
    return argument;
}

static void begin_to_read(pthread_t *reader)
{
    store_release(&reader_task, 0);
    CHECK_EQ(pthread_create(reader, NULL, read_a_byte, NULL), 0);
    UNTIL(load_acquire(&reader_task) != 0);
    unit_await_futex(load_acquire(&reader_task));
}

static void end_to_read(pthread_t reader)
{
    CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
    CHECK_EQ(pthread_join(reader, NULL), 0);
}

/* A pipe without a place of its own stays where it is, also if there is one for it by then. */
TEST(a_renewal_beside_another_threads_call_loses_none)
{
    pthread_t maker;
    pthread_t reader;
    are_made = unit_gate();
    may_end = unit_gate();
    CHECK_EQ(pthread_create(&maker, NULL, fill_the_places, NULL), 0);
    unit_await(are_made);
    begin_to_read(&reader);
    CHECK_EQ(shmp_close(pipes[3][0]), 0);
    CHECK_EQ(shmp_close(pipes[3][1]), 0);
    unit_pass(may_end);
    CHECK_EQ(pthread_join(maker, NULL), 0);
    shmp_renew();
    CHECK(call_is_watched(0));
    end_to_read(reader);
    CHECK(!call_is_watched(0));
    begin_to_read(&reader);
    CHECK(call_is_watched(0));
    end_to_read(reader);
    close_pipe();
    for (unsigned i = 0; i < SHMP_RECORD_PLACES; i++)
        for (int j = 0; j < 2 && i != 3; j++)
            CHECK_EQ(shmp_close(pipes[i][j]), 0);
    close(are_made);
    close(may_end);
}

/* ---- A handler that forks in a sleep ---------------------------------------------------------- */

static long (*real_munmap)(void *address, size_t length);

/* Not of a peer that is still in the table. */
static long unmap_unused(void *address, size_t length)
{
    for (uint32_t i = 0; i < SHMP_HOLDERS && live()->peers; i++)
        CHECK(live()->peers[i] == NULL || live()->peers[i]->record != address);
    return real_munmap(address, length);
}

static int forked_in_call;
static int go_on;
static _Atomic pid_t *child_in_call;

static void fork_in_handler(int signal)
{
    (void)signal;
    pid_t child = unit_fork();
    if (child == 0) {
        real_munmap = shmp_sys.munmap;
        shmp_sys.munmap = unmap_unused;
        unit_pass(forked_in_call);
        unit_await(go_on);
    } else {
        store_release(child_in_call, child);
    }
}

static long (*real_waitv)(struct shmp_futex_waitv *words, unsigned count,
                          const struct timespec *until);
static pid_t chosen_dies;

static long wait_and_die(struct shmp_futex_waitv *words, unsigned count, const struct timespec *until)
{
    long r = real_waitv(words, count, until);
    if (r == 0 && getpid() == chosen_dies)
        raise(SIGKILL);
    return r;
}

/* A reader sleeps (entry 1), and then its child (entry 2) behind it, in the call that the handler
 * interrupted and the kernel restarts. */
static pid_t fork_in_a_call(bool dies)
{
    CHECK_EQ(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0); /* of a grandchild */
    child_in_call = unit_shared(sizeof *child_in_call);
    forked_in_call = unit_gate();
    go_on = unit_gate();
    int done = unit_gate();
    make_pipe(O_CLOEXEC);
    pid_t reader = unit_fork();
    if (reader == 0) {
        struct sigaction action = {.sa_handler = fork_in_handler, .sa_flags = SA_RESTART};
        char byte;
        real_waitv = shmp_sys.futex_waitv;
        shmp_sys.futex_waitv = wait_and_die;
        chosen_dies = dies ? getpid() : 0;
        CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
        CHECK_EQ(shmp_read(ends[0], &byte, 1), 1);
        unit_pass(done);
        for (;;)
            pause();
    }
    unit_await_futex(reader);
    CHECK(call_is_watched(1));
    CHECK_EQ(kill(reader, SIGUSR1), 0);
    unit_await(forked_in_call);
    UNTIL(load_acquire(child_in_call) != 0);
    unit_await_futex(reader);
    unit_pass(go_on);
    unit_await_futex(load_acquire(child_in_call));
    CHECK(call_is_watched(1));
    CHECK(call_is_watched(2));
    CHECK_EQ(shmp_write(ends[1], "ab", 2), 2);
    if (!dies)
        unit_await(done);
    unit_await(done);
    close(done);
    close(go_on);
    close(forked_in_call);
    return reader;
}

static void end_both(pid_t reader)
{
    unit_kill(reader);
    unit_kill(load_acquire(child_in_call)); /* ours now */
    close_pipe();
}

TEST(a_fork_child_goes_on_with_a_call)
{
    pid_t reader = fork_in_a_call(false);
    CHECK(!call_is_watched(1));
    CHECK(!call_is_watched(2));
    end_both(reader);
}

TEST(a_fork_child_that_goes_on_with_a_call_hears_of_its_parents_death)
{
    end_both(fork_in_a_call(true));
}

/* ---- exec ---------------------------------------------------------------------------------- */

static int exec_told[2]; /* its write end is closed by the exec */

static void become_cat(int gate)
{
    (void)gate;
    execlp("cat", "cat", (char *)NULL);
    _exit(127);
}

TEST(a_process_that_became_another_program_is_dead)
{
    int input[2];
    pid_t child;
    char byte;
    make_pipe(O_CLOEXEC);
    CHECK_EQ(pipe2(exec_told, O_CLOEXEC), 0);
    CHECK_EQ(pipe2(input, O_CLOEXEC), 0);
    int kept = dup(0);
    dup2(input[0], 0);
    uint32_t index = spawn_holder(&child, become_cat, 0);
    dup2(kept, 0);
    close(kept);
    close(exec_told[1]);
    struct shmp_peer *peer = shmp_peer_get(live(), index); /* perhaps before, perhaps after */
    CHECK_EQ(read(exec_told[0], &byte, 1), 0);             /* it has happened */
    CHECK(life_is_marked(index));
    CHECK(is_dead(index));
    CHECK_EQ(kill(child, 0), 0); /* though the process lives */
    CHECK(shmp_holder_reap(live(), index));
    shmp_peer_put(peer);
    close(input[1]);
    unit_join(child);
    close(input[0]);
    close(exec_told[0]);
    close_pipe();
}

/* ---- Both witnesses ------------------------------------------------------------------------- */

static void stray_close(int gate)
{
    /* What a library in the same process may do: open the file again, and close that. */
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", ends[0]->pipe->seg.fd);
    unit_await(gate);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    close(fd);
    unit_pass(gate + 1);
    unit_await(gate);
    shmp_live_relock(live());
    unit_pass(gate + 1);
}

TEST(a_lost_lock_alone_is_no_death)
{
    pid_t child;
    int gate = unit_gate();
    int back = unit_gate();
    CHECK_EQ(back, gate + 1);
    make_pipe(O_CLOEXEC);
    uint32_t index = spawn_holder(&child, stray_close, gate);
    CHECK(index_is_locked(index));
    unit_pass(gate);
    unit_await(back);
    CHECK(!index_is_locked(index));
    CHECK(!life_is_marked(index));
    CHECK(!is_dead(index));
    CHECK(!shmp_holder_reap(live(), index));
    /* Nor does somebody else get its place. */
    pid_t other;
    CHECK(spawn_holder(&other, NULL, 0) != index);
    unit_kill(other);
    unit_pass(gate);
    unit_await(back);
    CHECK(index_is_locked(index));
    unit_kill(child);
    CHECK(is_dead(index));
    CHECK(shmp_holder_reap(live(), index));
    close(gate);
    close(back);
    close_pipe();
}

/* Each close() of a descriptor of the file drops the process's locks on it (POSIX): whatever the
 * library itself opens and closes, they must be there again when the call returns. */
static void check_locked_for_others(void)
{
    pid_t child = unit_fork();
    if (child == 0) {
        struct flock read_lock = {.l_type = F_WRLCK,
                                  .l_whence = SEEK_SET,
                                  .l_start = SHMP_DESCRIPTION_LOCK + ends[1]->description,
                                  .l_len = 1};
        CHECK(index_is_locked(0));
        CHECK_EQ(fcntl(ends[0]->pipe->seg.fd, F_GETLK, &read_lock), 0);
        CHECK(read_lock.l_type != F_UNLCK);
        unit_done();
    }
    unit_join(child);
}

TEST(the_librarys_own_closes_keep_the_locks)
{
    struct shmp_token token;
    make_pipe(O_CLOEXEC); /* two descriptors, of which one is closed */
    check_locked_for_others();
    CHECK_EQ(shmp_export(ends[0], &token), 0);
    token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
    token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
    shmp_end *copy = shmp_import(&token);
    CHECK(copy != NULL);
    check_locked_for_others();
    CHECK_EQ(shmp_close(copy), 0);
    check_locked_for_others();
    CHECK_EQ(shmp_close_segment(fcntl(ends[0]->pipe->seg.fd, F_DUPFD_CLOEXEC, 3)), 0);
    check_locked_for_others();
    close_pipe();
}

/* Nobody takes a descriptor of ours for more than it is: an entry that says "look there". */
TEST(an_entry_that_points_to_something_else_is_unreachable)
{
    pid_t child;
    make_pipe(O_CLOEXEC);
    uint32_t index = spawn_holder(&child, NULL, 0);
    struct shmp_holder *h = holder(index);
    uint64_t ino = load_relaxed(&h->record_ino);
    CHECK(!life_is_marked(index));
    store_relaxed(&h->record_ino, ino + 1);
    store_release(&h->record_seq, load_relaxed(&h->record_seq) + 1);
    struct shmp_peer *peer = shmp_peer_get(live(), index);
    CHECK(peer != NULL && peer->record == NULL);
    CHECK(shmp_peer_word(peer, SHMP_WORD_LIFE) == NULL);
    shmp_peer_put(peer);
    CHECK(!is_dead(index)); /* the lock is held */
    store_relaxed(&h->record_ino, ino);
    store_release(&h->record_seq, load_relaxed(&h->record_seq) + 1);
    CHECK(!life_is_marked(index));
    unit_kill(child);
    CHECK(shmp_holder_reap(live(), index));
    close_pipe();
}

/* ---- The record's page ------------------------------------------------------------------------ */

static void with_record_path(pid_t pid, uint32_t index, int mode, int *fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%u", (int)pid, load_relaxed(&holder(index)->record_fd));
    *fd = open(path, mode | O_CLOEXEC);
}

TEST(peers_cannot_write_a_record)
{
    pid_t child;
    int fd;
    make_pipe(O_CLOEXEC);
    uint32_t index = spawn_holder(&child, NULL, 0);
    with_record_path(child, index, O_RDWR, &fd);
    if (fd >= 0) { /* opening is allowed; writing is not, in any way */
        void *p = mmap(NULL, SHMP_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(p == MAP_FAILED);
        CHECK_ERRNO(pwrite(fd, "x", 1, 0), EPERM);
        CHECK_ERRNO(ftruncate(fd, 0), EPERM);
        CHECK_ERRNO(ftruncate(fd, 2 * SHMP_PAGE), EPERM);
        CHECK_ERRNO(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, SHMP_PAGE), EPERM);
        CHECK_ERRNO(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
        close(fd);
    }
    with_record_path(child, index, O_RDONLY, &fd);
    CHECK(fd >= 0);
    void *p = mmap(NULL, SHMP_PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(p != MAP_FAILED);
    /* A read-only mapping cannot be turned into a writable one. */
    CHECK_ERRNO(mprotect(p, SHMP_PAGE, PROT_READ | PROT_WRITE), EACCES);
    munmap(p, SHMP_PAGE);
    close(fd);
    unit_kill(child);
    CHECK(shmp_holder_reap(live(), index));
    close_pipe();
}

/* ---- A full table --------------------------------------------------------------------------------- */

static void occupy_the_rest(int gate)
{
    struct flock all = {.l_type = F_WRLCK,
                        .l_whence = SEEK_SET,
                        .l_start = SHMP_HOLDER_LOCK + 2,
                        .l_len = SHMP_HOLDERS - 2};
    CHECK_EQ(fcntl(ends[0]->pipe->seg.fd, F_SETLK, &all), 0);
    for (uint32_t i = 2; i < SHMP_HOLDERS; i++)
        store_seq_cst(&holder(i)->live, 1);
    store_seq_cst(&ends[0]->pipe->seg.header->wait.holder_limit, SHMP_HOLDERS);
    unit_pass(gate);
}

TEST(a_full_table_is_enfile_until_the_dead_are_cleared_away)
{
    pid_t crowd;
    int gate = unit_gate();
    int tried = unit_gate();
    int go_on = unit_gate();
    make_pipe(O_CLOEXEC);
    CHECK_EQ(spawn_holder(&crowd, occupy_the_rest, gate), 1);
    unit_await(gate);
    pid_t late = unit_fork();
    if (late == 0) {
        char byte;
        CHECK_EQ(live()->index, -1);
        CHECK_ERRNO(shmp_write(ends[1], "x", 1), ENFILE);
        CHECK_ERRNO(shmp_read(ends[0], &byte, 1), ENFILE);
        CHECK_ERRNO(shmp_fcntl(ends[0], F_GETPIPE_SZ, 0), ENFILE);
        unit_pass(tried);
        unit_await(go_on);
        CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
        CHECK(live()->index > 0);
        CHECK_EQ(shmp_read(ends[0], &byte, 1), 1);
        unit_done();
    }
    unit_await(tried);
    unit_kill(crowd);
    unit_pass(go_on);
    unit_join(late);
    close(gate);
    close(tried);
    close(go_on);
    close_pipe();
}

/* As in a fork child of which two threads go on at once.  The thread sanitizer sees who races. */
TEST(two_threads_claim_one_entry)
{
    for (int i = 0; i < 100; i++) {
        pthread_t reader;
        make_pipe(O_CLOEXEC);
        store_release(&holder(0)->live, 0);
        store_relaxed(&live()->index, -1);
        CHECK_EQ(pthread_create(&reader, NULL, read_a_byte, NULL), 0);
        CHECK_EQ(shmp_write(ends[1], "x", 1), 1);
        CHECK_EQ(pthread_join(reader, NULL), 0);
        CHECK_EQ(live()->index, 0);
        CHECK_EQ(load_relaxed(&holder(1)->live), 0);
        close_pipe();
    }
}

TEST(a_lost_race_for_an_entry_takes_the_next)
{
    pid_t child;
    make_pipe(O_CLOEXEC);
    /* Entry 1 looks free, but somebody is just claiming it: its lock is taken. */
    int taken = unit_gate();
    pid_t claimer = unit_fork();
    if (claimer == 0) {
        struct flock one = {.l_type = F_WRLCK,
                            .l_whence = SEEK_SET,
                            .l_start = SHMP_HOLDER_LOCK + 2,
                            .l_len = 1};
        CHECK_EQ(fcntl(ends[0]->pipe->seg.fd, F_SETLK, &one), 0);
        unit_pass(taken);
        for (;;)
            pause();
    }
    unit_await(taken);
    CHECK_EQ(spawn_holder(&child, NULL, 0), 3);
    unit_kill(child);
    unit_kill(claimer);
    close(taken);
    close_pipe();
}
