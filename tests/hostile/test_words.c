/* test_words.c - random words of a segment changed by another process, at full speed, while this
 * one works with it.
 *
 * Nothing that is read twice may be believed twice (H40), no loop may go on for as long as
 * somebody feeds it, and two threads that a forged lock word lets in at once must not share what
 * was made for one.  Counts stay in range, and behind what was delivered no byte is touched.
 */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "hostile.h"

#define SLOTS 4u
#define MOST 12000u
#define CANARY 0xa5

static shmp_end *ends[2];
static unsigned char pattern[MOST];
static _Atomic uint64_t *changes; /* shared with the one that makes them */

/* ---- The hostile peer ----------------------------------------------------------------------------- */

#define WORD(member) (uint32_t)(offsetof(struct shmp_header, member) / 4)

/* What decides most: changed more often than the rest of the header. */
static const uint32_t favourites[] = {
    WORD(w.lock),   WORD(w.tail_seen), WORD(head),          WORD(r.lock),
    WORD(r.head_seen), WORD(r.word_seen), WORD(tail),       WORD(tail) + 1,
    WORD(wait.geometry_gen), WORD(wait.holder_limit), WORD(wait.poll_usage),
    WORD(companion.lock), WORD(companion.level), WORD(companion.queued),
    WORD(geometry[0].area_offset), WORD(geometry[0].ring_size), WORD(geometry[0].max_usage),
    WORD(geometry[1].area_offset), WORD(geometry[1].ring_size), WORD(geometry[1].max_usage),
    WORD(wait.readable.word), WORD(wait.readable.word) + 1,
    WORD(notify[0].ops), WORD(notify[0].begun), WORD(notify[0].sleep),
    WORD(notify[1].ops), WORD(notify[1].begun), WORD(notify[1].sleep),
    WORD(w.redo),   WORD(w.redo) + 1,  WORD(r.redo),        WORD(r.redo) + 1,
};

static uint32_t some_value(uint32_t was)
{
    static const uint32_t values[] = {0,    1,     2,      4,    16,  0xfff, 0x1000,
                                      4096, 0xffff, SHMP_FIXED_BYTES, SHMP_FIXED_BYTES + 4096,
                                      0x7fffffff, 0x80000000, 0xffffffff};
    switch (unit_below(5)) {
    case 0:
        return (uint32_t)unit_random();
    case 1:
        return was + unit_below(9) - 4;
    case 2:
        return was ^ (1u << unit_below(32));
    default:
        return values[unit_below(sizeof values / sizeof values[0])];
    }
}

/* Two whole geometries by turns, so that each side moves all the time; and no lock is kept. */
static void move_and_unlock(struct shmp_header *h, uint32_t round)
{
    uint32_t gen = load_relaxed(&h->wait.geometry_gen) + 1;
    struct shmp_geometry *g = &h->geometry[gen & 1];
    store_relaxed(&g->area_offset, SHMP_FIXED_BYTES);
    store_relaxed(&g->ring_size, 1u << round % 3);
    store_relaxed(&g->max_usage, 1u << round % 3);
    store_seq_cst(&h->wait.geometry_gen, gen);
    store_relaxed(&h->w.lock, 0);
    store_relaxed(&h->r.lock, 0);
    store_relaxed(&h->companion.lock, 0);
}

static _Noreturn void scribble(bool moving)
{
    struct shmp_seg *seg = &ends[0]->pipe->seg;
    struct shmp_header *h = seg->header;
    _Atomic uint32_t *all = (_Atomic uint32_t *)(void *)h;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (uint32_t round = 0;; round++) {
        _Atomic uint32_t *word;
        switch (unit_below(8)) {
        case 0:
            word = &all[unit_below(sizeof *h / 4)];
            break;
        case 1:
            word = &all[unit_below((uint32_t)(SHMP_FIXED_BYTES / 4))];
            break;
        case 2:
        case 3:
            word = &seg->read_side.words[unit_below(SLOTS)];
            break;
        default:
            word = &all[favourites[unit_below(sizeof favourites / sizeof favourites[0])]];
        }
        store_relaxed(word, some_value(load_relaxed(word)));
        if (moving || unit_below(16) == 0)
            move_and_unlock(h, round);
        fetch_add_relaxed(changes, 1);
    }
}

/* ---- The victim ------------------------------------------------------------------------------------ */

static void untouched(const unsigned char *bytes, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++)
        CHECK_EQ(bytes[i], CANARY);
}

static void one_read(void)
{
    unsigned char bytes[MOST + 64];
    size_t n = unit_below(MOST) + 1;
    memset(bytes, CANARY, sizeof bytes);
    long r = shmp_read(ends[0], bytes, n);
    CHECK(r <= (long)n && (r >= 0 || is_typed_error(r, errno)));
    untouched(bytes, r > 0 ? (size_t)r : 0, sizeof bytes);
}

/* Its relay sleeps on words that change, and looks whom it can take a lock from. */
static int notifiers[2] = {-1, -1};

static long one_notification(uint32_t i)
{
    uint64_t operations;
    if (notifiers[i] < 0)
        return notifiers[i] = shmp_notifier_open(ends[i]);
    if (unit_below(8) != 0)
        return shmp_notifier_read(notifiers[i], &operations);
    long r = shmp_notifier_close(notifiers[i]);
    notifiers[i] = -1;
    return r;
}

static void one_call(uint32_t which)
{
    struct shmp_pollfd p[2] = {{ends[0], POLLIN, 0}, {ends[1], POLLOUT, 0}};
    struct shmp_snapshot snapshot;
    struct shmp_check report;
    int pending = 0;
    size_t n;
    long r;
    switch (which % 16) {
    case 0:
        r = shmp_poll(p, 2, 0);
        break;
    case 1:
        r = shmp_fcntl(ends[0], F_SETPIPE_SZ, (long)(4096u << unit_below(4)));
        break;
    case 2:
        r = shmp_ioctl(ends[0], FIONREAD, &pending);
        CHECK(r < 0 || pending >= 0);
        break;
    case 3:
        r = shmp_inspect_fd(shmp_segment_fd(ends[0]), &snapshot);
        break;
    case 4:
        r = which % 256 == 4 ? shmp_check_fd(shmp_segment_fd(ends[0]), &report) : 0;
        break;
    case 5:
        r = shmp_fcntl(ends[0], F_GETPIPE_SZ, 0);
        CHECK(r < 0 || (r > 0 && r <= (long)SHMP_CAPACITY_MAX));
        break;
    case 6:
        r = shmp_fcntl(ends[1], F_SETFL, O_NONBLOCK | (unit_below(2) ? O_DIRECT : 0));
        break;
    case 7:
        r = one_notification(which / 16 % 2);
        break;
    case 8:
    case 9:
    case 10:
        one_read();
        return;
    case 11:
        r = shmp_arm(ends[0], POLLIN);
        break;
    case 12:
        r = shmp_arm(ends[1], POLLOUT);
        break;
    default:
        n = unit_below(MOST) + 1;
        r = shmp_write(ends[1], pattern, n);
        CHECK(r <= (long)n);
    }
    if (r < 0 && !is_typed_error(r, errno))
        unit_fail(__FILE__, __LINE__, "call %u: %ld, %s", which % 16, r, strerror(errno));
}

static void make(void)
{
    struct shmp_options options = {.capacity = SLOTS * SHMP_SLOT_SIZE};
    guard_mappings();
    check_without_waiting();
    CHECK_EQ(shmp_pipe2_with(ends, O_NONBLOCK | O_CLOEXEC, &options), 0);
}

/* The peer keeps its hands off from here on, but what it has left stays. */
static void finish(pid_t peer)
{
    unit_kill(peer);
    struct shmp_header *h = ends[0]->pipe->seg.header;
    store_relaxed(&h->w.lock, 0); /* of a process that lives, perhaps: nobody would unlock it */
    store_relaxed(&h->r.lock, 0);
    store_relaxed(&h->companion.lock, 0);
    for (int i = 0; i < 2; i++)
        if (notifiers[i] >= 0)
            CHECK_EQ(shmp_notifier_close(notifiers[i]), 0);
    CHECK_EQ(shmp_close(ends[0]) | shmp_close(ends[1]), 0);
}

static void calls_beside_changes(void)
{
    make();
    pid_t peer = unit_fork();
    if (peer == 0)
        scribble(false);
    alarms_begin(); /* a lock word may name a process that lives and is not in it */
    for (uint32_t i = 0; i < unit_rounds(40000 * HOSTILE_ROUNDS); i++) {
        case_begins("call %u, after %llu changes", i, (unsigned long long)load_relaxed(changes));
        one_call(unit_below(1u << 16));
    }
    alarms_end();
    case_begins("close");
    finish(peer);
}

TEST(words_changed_beside_calls)
{
    changes = unit_shared(sizeof *changes);
    run_cases(calls_beside_changes);
    CHECK(load_relaxed(changes) > 1000);
    munmap(changes, sizeof *changes);
}

/* A forged owner cannot be told from one that is stopped, so it is waited for; a signal ends that. */
static void locks_of_the_living(void)
{
    static const size_t locks[] = {offsetof(struct shmp_header, w.lock),
                                   offsetof(struct shmp_header, r.lock),
                                   offsetof(struct shmp_header, companion.lock)};
    make();
    alarms_begin();
    for (int lock = 0; lock < 3; lock++)
        for (uint32_t call = 0; call < 16; call++)
            for (int watched = 0; watched < 2; watched++) {
                struct shmp_header *h = ends[0]->pipe->seg.header;
                _Atomic uint32_t *word = (_Atomic uint32_t *)(void *)((char *)h + locks[lock]);
                /* A resize is over when it tells the companion, and has nothing to give up
                 * any more: the one call that no signal ends (docs/explanation/death.md). */
                if (lock == 2 && call == 1 && watched)
                    continue;
                case_begins("lock %d forged under call %u%s", lock, call, watched ? ", watched" : "");
                if (watched)
                    while (shmp_fileno(ends[0]) < 0 || shmp_fileno(ends[1]) < 0)
                        CHECK_EQ(errno, EINTR);
                while (shmp_write(ends[1], pattern, 100) < 0)
                    CHECK_EQ(errno, EINTR);
                store_relaxed(word, shmp_live_owner(&ends[0]->pipe->live));
                one_call(call);
                store_relaxed(word, 0);
                CHECK_EQ(shmp_close(ends[0]) | shmp_close(ends[1]), 0);
                struct shmp_options options = {.capacity = SLOTS * SHMP_SLOT_SIZE};
                CHECK_EQ(shmp_pipe2_with(ends, O_NONBLOCK | O_CLOEXEC, &options), 0);
            }
    alarms_end();
    CHECK_EQ(shmp_close(ends[0]) | shmp_close(ends[1]), 0);
}

TEST(a_lock_that_names_a_living_process)
{
    run_cases(locks_of_the_living);
}

/* ---- Several threads on each side ---------------------------------------------------------------------- */

static void *reads(void *rounds)
{
    for (uint32_t i = 0; i < *(const uint32_t *)rounds; i++) {
        case_begins("read %u of a thread", i);
        one_read();
    }
    return NULL;
}

static void *writes(void *rounds)
{
    for (uint32_t i = 0; i < *(const uint32_t *)rounds; i++) {
        case_begins("write %u of a thread", i);
        long r = shmp_write(ends[1], pattern, 1 + i % MOST);
        CHECK(r >= 0 || is_typed_error(r, errno));
    }
    return NULL;
}

static void threads_beside_changes(void)
{
    uint32_t rounds = unit_rounds(10000 * HOSTILE_ROUNDS);
    pthread_t threads[4];
    make();
    pid_t peer = unit_fork();
    if (peer == 0)
        scribble(true);
    alarms_begin();
    for (int i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, i % 2 ? reads : writes, &rounds), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    alarms_end();
    case_begins("close");
    finish(peer);
}

static int gate;

static void *writes_once(void *answer)
{
    unit_await(gate);
    *(long *)answer = shmp_write(ends[1], pattern, 10) < 0 ? -errno : 0;
    return NULL;
}

/* A forged lock word lets two threads of a process in at once. */
TEST(a_lock_that_was_taken_and_is_free)
{
    pthread_t thread;
    long answer = 0;
    make();
    gate = unit_gate();
    CHECK_EQ(pthread_create(&thread, NULL, writes_once, &answer), 0);
    CHECK_EQ(shmp_side_lock(ends[1], SHMP_SIDE_WRITERS, true), 0);
    store_relaxed(&ends[0]->pipe->seg.header->w.lock, 0);
    unit_pass(gate);
    pthread_join(thread, NULL);
    CHECK_EQ(answer, -SHMP_ECORRUPT);
    shmp_side_unlock(ends[1], SHMP_SIDE_WRITERS);
    CHECK_EQ(close(gate), 0);
    CHECK_EQ(shmp_close(ends[0]) | shmp_close(ends[1]), 0);
}

TEST(words_changed_beside_threads)
{
    changes = unit_shared(sizeof *changes);
    run_cases(threads_beside_changes);
    munmap(changes, sizeof *changes);
}

/* Nobody moves, and a note names the head: who counts nothing in slots without bytes says so. */
TEST(a_note_beside_slots_without_bytes)
{
    int pending = -1;
    CHECK_EQ(shmp_pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    CHECK(shmp_fileno(ends[0]) >= 0);
    CHECK_EQ(shmp_write(ends[1], pattern, 1), 1);
    struct shmp_ring *ring = &ends[0]->pipe->seg.read_side;
    uint32_t head = load_relaxed(&ring->header->head);
    store_relaxed(&ring->words[(head - 1) & ring->mask], SHMP_WORD(0, 0, SHMP_SLOT_CAN_MERGE));
    store_relaxed(&ring->header->w.redo, SHMP_REDO(head, 1, 0));
    CHECK_EQ(shmp_ioctl(ends[0], FIONREAD, &pending), 0);
    CHECK_EQ(pending, 0);
    CHECK_EQ(shmp_close(ends[0]), 0);
    CHECK_EQ(shmp_close(ends[1]), 0);
}
