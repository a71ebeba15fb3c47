/* record.c - the process record: sealed pages whose robust futexes say that we live.
 *
 * Each word is the futex word of a robust process-shared mutex that this process
 * locks once and never unlocks.  When the locking thread is gone the kernel sets
 * FUTEX_OWNER_DIED in each and wakes one sleeper per word, if FUTEX_WAITERS is set
 * (m10): so we set that bit ourselves.
 *
 * A place that no pipe has reads 0, which the kernel does not mark, and peers do not believe.
 *
 * The pages are never unmapped while their thread lives: the thread's robust list runs
 * through them (m7).  Peers cannot write to them: F_SEAL_FUTURE_WRITE leaves this
 * process's mapping as the only writable one.
 *
 * Dies here: before the mutexes are locked, peers find no record and look often; after,
 * the kernel marks the words.  There is no state in between that a peer trusts.
 */
#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "atomic.h"
#include "sys.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

#define FUTEX_WAITERS_BIT 0x80000000u
#define FUTEX_OWNER_DIED_BIT 0x40000000u

#define RECORD_WORDS (SHMP_RECORD_PLACES * SHMP_PLACE_WORDS)

static pthread_mutex_t self_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct shmp_record_id self_id;
static struct shmp_record *self; /* NULL: none yet */
static uint32_t self_locked;     /* what a word of ours reads while it is locked */
static bool taken[SHMP_RECORD_PLACES];
static unsigned calls[SHMP_RECORD_PLACES]; /* that sleep, or owe a hand-on */
static bool apart[SHMP_RECORD_PLACES];     /* one of them was in another thread */
static pthread_t self_thread;              /* whom the words name */
static struct shmp_record *retired; /* replaced while the kernel was still marking it */
static uint32_t last_taken; /* in turn: who slept there for another pipe has got up by then */

_Static_assert(sizeof(pthread_mutex_t) <= SHMP_MUTEX_BYTES, "a mutex fits its place in the record");

/* Where a locked mutex keeps its owner's thread id is the C library's secret (glibc: first
 * word, musl: second).  Look for it rather than know it. */
static int find_word(const pthread_mutex_t *before, const pthread_mutex_t *mutex, uint32_t tid)
{
    uint32_t free[sizeof(pthread_mutex_t) / 4];
    uint32_t words[sizeof(pthread_mutex_t) / 4];
    memcpy(free, before, sizeof free);
    memcpy(words, mutex, sizeof words);
    for (unsigned i = 0; i < sizeof words / 4; i++)
        if ((words[i] & 0x3fffffffu) == tid && free[i] != words[i]) /* a constant may look like it */
            return (int)(4 * i);
    return -1;
}

static pthread_mutex_t *mutex_at(struct shmp_record *record, uint32_t place, unsigned word)
{
    return (pthread_mutex_t *)(void *)record->mutexes[place][word];
}

static _Atomic uint32_t *own_word(struct shmp_record *record, uint32_t place,
                                  enum shmp_record_word word)
{
    /* Our own pages, which nobody else can write: the offset is trusted. */
    return (_Atomic uint32_t *)(void *)(record->mutexes[place][word] + record->word_offset);
}

/* The kernel begins with what was locked last, and both ends are common words, which always name the
 * thread.  So who has written to a word and then finds the front unmarked has not written over a mark
 * (is_marked); and when the back is marked, the kernel goes through these pages no more (is_done). */
#define FRONT_WORD SHMP_WORD_LOCK
#define BACK_WORD SHMP_WORD_RELAY
_Static_assert(FRONT_WORD == BACK_WORD + 1, "from the back down, and round to the front");

static int lock_words(struct shmp_record *record, uint32_t *locked)
{
    uint32_t tid = (uint32_t)syscall(SYS_gettid);
    pthread_mutexattr_t robust;
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    int r = 0;
    for (unsigned i = 0; i < RECORD_WORDS && r == 0; i++) {
        unsigned at = (RECORD_WORDS + BACK_WORD - i) % RECORD_WORDS;
        pthread_mutex_t *mutex = mutex_at(record, at / SHMP_PLACE_WORDS, at % SHMP_PLACE_WORDS);
        pthread_mutex_t before;
        r = -pthread_mutex_init(mutex, &robust);
        memcpy(&before, mutex, sizeof before);
        if (r == 0)
            r = -pthread_mutex_lock(mutex);
        if (r < 0)
            break;
        int offset = find_word(&before, mutex, tid);
        if (offset < 0)
            r = -ENOSYS;
        else
            record->word_offset = (uint32_t)offset; /* the same in each */
    }
    pthread_mutexattr_destroy(&robust);
    if (r == 0)
        *locked = load_relaxed(own_word(record, 0, 0)) | FUTEX_WAITERS_BIT;
    return r;
}

/* The robust list goes through all words all the time; the kernel marks only those that name the
 * dying thread. */
static void set_call_word(uint32_t place)
{
    store_seq_cst(own_word(self, place, SHMP_WORD_CALL), calls[place] != 0 ? self_locked : 0);
}

static void set_apart(uint32_t place)
{
    uint64_t bit = UINT64_C(1) << (place % 64);
    if (apart[place])
        fetch_or_seq_cst(&self->apart[place / 64], bit);
    else
        atomic_fetch_and(&self->apart[place / 64], ~bit);
}

static void set_place(uint32_t place)
{
    uint32_t value = taken[place] || place == SHMP_COMMON_PLACE ? self_locked : 0;
    store_seq_cst(own_word(self, place, SHMP_WORD_LIFE), value);
    store_seq_cst(own_word(self, place, SHMP_WORD_RELAY), value);
    store_seq_cst(own_word(self, place, SHMP_WORD_LOCK), value);
    set_call_word(place);
    set_apart(place);
}

static void wake_words(struct shmp_record *record, uint32_t place)
{
    for (unsigned i = 0; i < SHMP_PLACE_WORDS; i++)
        shmp_sys.futex_wake((const void *)own_word(record, place, (enum shmp_record_word)i),
                            INT_MAX);
}

static int make_record(struct shmp_record_id *id, struct shmp_record **out, uint32_t *locked)
{
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    long fd = shmp_sys.memfd_create("shmpipe-record", flags | MFD_NOEXEC_SEAL);
    if (fd == -EINVAL)
        fd = shmp_sys.memfd_create("shmpipe-record", flags);
    if (fd < 0)
        return (int)fd;
    struct stat st;
    void *page = NULL;
    long r = shmp_sys.ftruncate((int)fd, SHMP_RECORD_BYTES);
    if (r == 0)
        r = shmp_sys.fstat((int)fd, &st);
    if (r == 0)
        r = shmp_sys.mmap(&page, NULL, SHMP_RECORD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
                          (int)fd, 0);
    if (r == 0) {
        long sealed = shmp_sys.fcntl((int)fd, F_ADD_SEALS,
                                     F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE |
                                         F_SEAL_SEAL);
        if (sealed == -EINVAL) /* before Linux 5.1 */
            sealed = shmp_sys.fcntl((int)fd, F_ADD_SEALS,
                                    F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        r = sealed;
    }
    if (r == 0) {
        struct shmp_record *record = page;
        record->magic = SHMP_RECORD_MAGIC;
        /* From the first lock on the thread's robust list runs through this page, so a
         * failure below leaves the page mapped. */
        r = lock_words(record, locked);
        if (r == 0) {
            id->fd = (uint32_t)fd;
            id->dev = (uint64_t)st.st_dev;
            id->ino = (uint64_t)st.st_ino;
            *out = record;
            return 0;
        }
        page = NULL;
    }
    if (page)
        shmp_sys.munmap(page, SHMP_RECORD_BYTES);
    shmp_sys.close((int)fd);
    return (int)r;
}

/* Sequentially consistent: behind what the caller has written to other words (lock_words). */
static bool common_is_marked(struct shmp_record *record, enum shmp_record_word word)
{
    return (load_seq_cst(own_word(record, SHMP_COMMON_PLACE, word)) & FUTEX_OWNER_DIED_BIT) != 0;
}

/* Its thread has ended, or is about to. */
static bool is_marked(struct shmp_record *record)
{
    return common_is_marked(record, FRONT_WORD);
}

static bool is_done(struct shmp_record *record)
{
    return common_is_marked(record, BACK_WORD);
}

/* Pages that go under the kernel's walk end it: what is behind them is never marked, and nobody told.
 * One that is replaced in the middle goes with the next; if the walk is not over by then, something
 * else has ended it, and the pages stay. */
static void unmap_when_done(struct shmp_record *record)
{
    if (retired && is_done(retired))
        shmp_sys.munmap(retired, SHMP_RECORD_BYTES);
    retired = is_done(record) ? NULL : record;
    if (retired == NULL)
        shmp_sys.munmap(record, SHMP_RECORD_BYTES);
}

static void discard(struct shmp_record *record, int fd)
{
    /* To those who still look at the old pages: look often.  Those who sleep on a call word there
     * would not hear of our death in this call, and a resizer owes them a wake. */
    for (uint32_t place = 0; place < SHMP_RECORD_PLACES; place++) {
        if (!taken[place] && place != SHMP_COMMON_PLACE)
            continue;
        store_seq_cst(own_word(record, place, SHMP_WORD_CALL), FUTEX_OWNER_DIED_BIT);
        shmp_sys.futex_wake((const void *)own_word(record, place, SHMP_WORD_CALL), INT_MAX);
    }
    unmap_when_done(record);
    shmp_sys.close(fd);
}

int shmp_record_self(struct shmp_record_id *id)
{
    pthread_mutex_lock(&self_mutex);
    int r = 0;
    if (self == NULL || is_marked(self)) {
        struct shmp_record *record = NULL;
        struct shmp_record_id fresh = {0};
        uint32_t locked = 0;
        r = make_record(&fresh, &record, &locked);
        if (r == 0) {
            if (self)
                discard(self, (int)self_id.fd);
            fresh.seq = self_id.seq + 1;
            self_id = fresh;
            self = record;
            self_locked = locked;
            self_thread = pthread_self();
            for (uint32_t place = 0; place < SHMP_RECORD_PLACES; place++)
                set_place(place);
        }
    }
    *id = self_id;
    pthread_mutex_unlock(&self_mutex);
    return r;
}

bool shmp_record_is_fresh(uint32_t seq)
{
    pthread_mutex_lock(&self_mutex);
    bool fresh = self != NULL && seq == self_id.seq && !is_marked(self);
    pthread_mutex_unlock(&self_mutex);
    return fresh;
}

uint32_t shmp_record_take_place(void)
{
    uint32_t place = SHMP_COMMON_PLACE;
    pthread_mutex_lock(&self_mutex);
    for (uint32_t i = 0; i < SHMP_RECORD_PLACES && place == SHMP_COMMON_PLACE && self; i++) {
        last_taken = (last_taken + 1) % SHMP_RECORD_PLACES;
        if (!taken[last_taken])
            place = last_taken;
    }
    if (place != SHMP_COMMON_PLACE) {
        taken[place] = true;
        calls[place] = 0;
        apart[place] = false;
        /* Whoever still sleeps here for the pipe that had it would take the wake of our death. */
        wake_words(self, place);
        set_place(place);
    }
    pthread_mutex_unlock(&self_mutex);
    return place;
}

void shmp_record_give_place(uint32_t place)
{
    if (place == SHMP_COMMON_PLACE)
        return;
    pthread_mutex_lock(&self_mutex);
    taken[place] = apart[place] = false;
    if (self) {
        set_place(place);
        /* A relay that knows us by several pipes sleeps on one word: on another's from now on. */
        shmp_sys.futex_wake((const void *)own_word(self, place, SHMP_WORD_RELAY), INT_MAX);
    }
    pthread_mutex_unlock(&self_mutex);
}

bool shmp_record_enter_call(uint32_t place, bool *first_apart)
{
    pthread_mutex_lock(&self_mutex);
    if (calls[place]++ == 0 && self)
        set_call_word(place);
    bool stale = self != NULL && is_marked(self);
    /* A stale one is renewed by this thread, if it can be. */
    *first_apart = self != NULL && !stale && place != SHMP_COMMON_PLACE && !apart[place] &&
                   !pthread_equal(self_thread, pthread_self());
    if (*first_apart) {
        apart[place] = true;
        set_apart(place);
    }
    /* Nobody would mark it at our death, and the record cannot always be renewed (EMFILE): look often. */
    if (stale && load_seq_cst(own_word(self, place, SHMP_WORD_CALL)) != FUTEX_OWNER_DIED_BIT) {
        store_seq_cst(own_word(self, place, SHMP_WORD_CALL), FUTEX_OWNER_DIED_BIT);
        /* It may have named the thread: then the kernel would have come by, and woken who sleeps there. */
        shmp_sys.futex_wake((const void *)own_word(self, place, SHMP_WORD_CALL), INT_MAX);
    }
    pthread_mutex_unlock(&self_mutex);
    return stale;
}

void shmp_record_leave_call(uint32_t place)
{
    pthread_mutex_lock(&self_mutex);
    if (--calls[place] == 0 && self)
        set_call_word(place);
    pthread_mutex_unlock(&self_mutex);
}

/* The record's descriptor in its process, as a path; O_PATH, because the number may by now be
 * somebody's FIFO, and to open that would make us its reader.  -1: not there, or not it. */
static long find_record(uint32_t pid, const struct shmp_record_id *id)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%u/fd/%u", pid, id->fd);
    long fd = shmp_sys.open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (shmp_sys.fstat((int)fd, &st) == 0 && (uint64_t)st.st_dev == id->dev &&
        (uint64_t)st.st_ino == id->ino && S_ISREG(st.st_mode) && st.st_size == (off_t)SHMP_RECORD_BYTES)
        return fd;
    shmp_sys.close((int)fd);
    return -1;
}

bool shmp_record_is_open(uint32_t pid, const struct shmp_record_id *id)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%u/fd/%u", pid, id->fd);
    /* Not opened: we may have no descriptor left, which says nothing of the other process. */
    long r = shmp_sys.stat(path, &st);
    if (r < 0)
        return r == -ENOMEM || r == -EINTR;
    return (uint64_t)st.st_dev == id->dev && (uint64_t)st.st_ino == id->ino;
}

/* The seal first: what is whole and sealed stays whole, and a touch of it is never SIGBUS.  In
 * the other order its owner could cut it short in between. */
static bool is_whole_for_ever(int fd)
{
    struct stat st;
    long seals = shmp_sys.fcntl(fd, F_GET_SEALS, 0);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && shmp_sys.fstat(fd, &st) == 0 &&
           st.st_size == (off_t)SHMP_RECORD_BYTES;
}

const struct shmp_record *shmp_record_map(uint32_t pid, const struct shmp_record_id *id,
                                          uint32_t *word_offset)
{
    char path[64];
    void *page = NULL;
    long found = find_record(pid, id);
    if (found < 0)
        return NULL;
    snprintf(path, sizeof path, "/proc/self/fd/%ld", found);
    long fd = shmp_sys.open(path, O_RDONLY | O_CLOEXEC);
    shmp_sys.close((int)found);
    if (fd < 0)
        return NULL;
    if (!is_whole_for_ever((int)fd) ||
        shmp_sys.mmap(&page, NULL, SHMP_RECORD_BYTES, PROT_READ, MAP_SHARED, (int)fd, 0) < 0)
        page = NULL;
    shmp_sys.close((int)fd);
    if (page == NULL)
        return NULL;
    const struct shmp_record *record = page;
    *word_offset = *(const volatile uint32_t *)&record->word_offset; /* once (H18) */
    if (record->magic == SHMP_RECORD_MAGIC && *word_offset % 4 == 0 &&
        *word_offset <= SHMP_MUTEX_BYTES - 4)
        return record;
    shmp_record_unmap(record);
    return NULL;
}

void shmp_record_unmap(const struct shmp_record *record)
{
    shmp_sys.munmap((void *)(uintptr_t)record, SHMP_RECORD_BYTES);
}

void shmp_record_fork_prepare(void)
{
    pthread_mutex_lock(&self_mutex);
}

void shmp_record_fork_parent(void)
{
    pthread_mutex_unlock(&self_mutex);
}

void shmp_record_fork_child(void)
{
    pthread_mutex_unlock(&self_mutex);
    /* fork() gave us an empty robust list: the parent's pages can go. */
    if (retired)
        shmp_sys.munmap(retired, SHMP_RECORD_BYTES);
    retired = NULL;
    if (self) {
        shmp_sys.munmap(self, SHMP_RECORD_BYTES);
        shmp_sys.close((int)self_id.fd);
    }
    self = NULL;
    memset(taken, 0, sizeof taken);
    memset(calls, 0, sizeof calls);
    memset(apart, 0, sizeof apart);
}
