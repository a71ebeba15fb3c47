/* record.c - the process record: one sealed page whose robust futexes say that we live.
 *
 * Each life word is the futex word of a robust process-shared mutex that this process
 * locks once and never unlocks.  When the locking thread is gone the kernel sets
 * FUTEX_OWNER_DIED in each and wakes one sleeper per word, if FUTEX_WAITERS is set
 * (m10): so we set that bit ourselves.
 *
 * The page is never unmapped while its thread lives: the thread's robust list runs
 * through it (m7).  Peers cannot write to it: F_SEAL_FUTURE_WRITE leaves this
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

static pthread_mutex_t self_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct shmp_record_id self_id;
static struct shmp_record *self; /* NULL: none yet */
static uint32_t self_locked;     /* what a word of ours reads while it is locked */
static unsigned calls;           /* that sleep, or owe a hand-on */
static _Thread_local unsigned calls_here; /* of this thread: a fork child goes on with them */

_Static_assert(sizeof(pthread_mutex_t) <= 48, "a mutex fits its place in the record");

/* Where a locked mutex keeps its owner's thread id is the C library's secret (glibc: first
 * word, musl: second).  Look for it rather than know it. */
static int find_word(const pthread_mutex_t *mutex, uint32_t tid)
{
    uint32_t words[sizeof(pthread_mutex_t) / 4];
    memcpy(words, mutex, sizeof words);
    for (unsigned i = 0; i < sizeof words / 4; i++)
        if ((words[i] & 0x3fffffffu) == tid)
            return (int)(4 * i);
    return -1;
}

static int lock_words(struct shmp_record *record, uint32_t *locked)
{
    uint32_t tid = (uint32_t)syscall(SYS_gettid);
    pthread_mutexattr_t robust;
    pthread_mutexattr_init(&robust);
    pthread_mutexattr_setpshared(&robust, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&robust, PTHREAD_MUTEX_ROBUST);
    int r = 0;
    for (unsigned i = 0; i < SHMP_RECORD_WORDS && r == 0; i++) {
        pthread_mutex_t *mutex = (pthread_mutex_t *)(void *)(record->mutexes + 48 * i);
        r = -pthread_mutex_init(mutex, &robust);
        if (r == 0)
            r = -pthread_mutex_lock(mutex);
        if (r < 0)
            break;
        int offset = find_word(mutex, tid);
        if (offset < 0) {
            r = -ENOSYS;
            break;
        }
        _Atomic uint32_t *word =
            (_Atomic uint32_t *)(void *)(record->mutexes + 48 * i + (unsigned)offset);
        fetch_or_seq_cst(word, FUTEX_WAITERS_BIT);
        *locked = load_relaxed(word);
        record->word_offset[i] = (uint32_t)((unsigned char *)word - (unsigned char *)record);
    }
    pthread_mutexattr_destroy(&robust);
    return r;
}

/* Our own page, which nobody else can write: its offsets are trusted. */
static _Atomic uint32_t *own_word(struct shmp_record *record, unsigned i)
{
    return (_Atomic uint32_t *)(void *)((unsigned char *)record + record->word_offset[i]);
}

/* The robust list goes through the mutexes of the call words all the time; the kernel marks
 * only those whose word names the dying thread. */
static void set_call_words(struct shmp_record *record, uint32_t value)
{
    for (unsigned i = SHMP_LIFE_WORDS; i < SHMP_RECORD_WORDS; i++)
        store_seq_cst(own_word(record, i), value);
}

static void wake_call_words(struct shmp_record *record)
{
    for (unsigned i = SHMP_LIFE_WORDS; i < SHMP_RECORD_WORDS; i++)
        shmp_sys.futex_wake((const void *)own_word(record, i), INT_MAX);
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
    long r = shmp_sys.ftruncate((int)fd, SHMP_PAGE);
    if (r == 0)
        r = shmp_sys.fstat((int)fd, &st);
    if (r == 0)
        r = shmp_sys.mmap(&page, NULL, SHMP_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, (int)fd, 0);
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
        shmp_sys.munmap(page, SHMP_PAGE);
    shmp_sys.close((int)fd);
    return (int)r;
}

static bool is_marked(struct shmp_record *record)
{
    return (load_relaxed(own_word(record, 0)) & FUTEX_OWNER_DIED_BIT) != 0;
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
            /* The marked page's thread has ended: no list runs through it any more. */
            if (self) {
                /* To those who still look at the old page: look often.  Those who sleep on it
                 * now would not hear of our death in this call, and a resizer owes them a wake. */
                set_call_words(self, FUTEX_OWNER_DIED_BIT);
                wake_call_words(self);
                shmp_sys.munmap(self, SHMP_PAGE);
                shmp_sys.close((int)self_id.fd);
            }
            fresh.seq = self_id.seq + 1;
            self_id = fresh;
            self = record;
            self_locked = locked;
            if (calls == 0)
                set_call_words(self, 0);
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

bool shmp_record_enter_call(void)
{
    calls_here++;
    pthread_mutex_lock(&self_mutex);
    bool stale = self != NULL && is_marked(self);
    if (calls++ == 0 && self && !stale)
        set_call_words(self, self_locked);
    pthread_mutex_unlock(&self_mutex);
    return stale;
}

void shmp_record_leave_call(void)
{
    calls_here--;
    pthread_mutex_lock(&self_mutex);
    if (--calls == 0 && self)
        set_call_words(self, 0);
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
        (uint64_t)st.st_ino == id->ino && S_ISREG(st.st_mode) && st.st_size == SHMP_PAGE)
        return fd;
    shmp_sys.close((int)fd);
    return -1;
}

bool shmp_record_is_open(uint32_t pid, const struct shmp_record_id *id)
{
    long fd = find_record(pid, id);
    if (fd >= 0)
        shmp_sys.close((int)fd);
    return fd >= 0;
}

/* The seal first: what is whole and sealed stays whole, and a touch of it is never SIGBUS.  In
 * the other order its owner could cut it short in between. */
static bool is_whole_for_ever(int fd)
{
    struct stat st;
    long seals = shmp_sys.fcntl(fd, F_GET_SEALS, 0);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && shmp_sys.fstat(fd, &st) == 0 &&
           st.st_size == SHMP_PAGE;
}

const unsigned char *shmp_record_map(uint32_t pid, const struct shmp_record_id *id,
                                     uint32_t word_offset[SHMP_RECORD_WORDS])
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
        shmp_sys.mmap(&page, NULL, SHMP_PAGE, PROT_READ, MAP_SHARED, (int)fd, 0) < 0)
        page = NULL;
    shmp_sys.close((int)fd);
    if (page == NULL)
        return NULL;
    const struct shmp_record *record = page;
    bool good = record->magic == SHMP_RECORD_MAGIC;
    for (unsigned i = 0; i < SHMP_RECORD_WORDS; i++) {
        word_offset[i] = *(const volatile uint32_t *)&record->word_offset[i]; /* once (H18) */
        good = good && word_offset[i] % 4 == 0 && word_offset[i] <= SHMP_PAGE - 4;
    }
    if (!good) {
        shmp_sys.munmap(page, SHMP_PAGE);
        return NULL;
    }
    return page;
}

void shmp_record_unmap(const unsigned char *page)
{
    shmp_sys.munmap((void *)(uintptr_t)page, SHMP_PAGE);
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
    /* fork() gave us an empty robust list: the parent's page can go. */
    if (self) {
        shmp_sys.munmap(self, SHMP_PAGE);
        shmp_sys.close((int)self_id.fd);
    }
    self = NULL;
    calls = calls_here;
}
