/* hostile.c - guard pages, the watchdog for each case, verdicts. */
#include "hostile.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

#ifndef UNIT_SLOWNESS
#define UNIT_SLOWNESS 1
#endif
#define CASE_SECONDS (2 * UNIT_SLOWNESS)

/* ---- Guard pages ------------------------------------------------------------------------------ */

#define GUARD ((size_t)1 << 16)
#define MOST_MAPPINGS 256

static struct shmp_sys_table real;
static void *guarded[MOST_MAPPINGS];
static pthread_mutex_t guard_mutex = PTHREAD_MUTEX_INITIALIZER;

static void **place_of(const void *address)
{
    for (int i = 0; i < MOST_MAPPINGS; i++)
        if (guarded[i] == address)
            return &guarded[i];
    return NULL;
}

static long guarded_mmap(void **out, void *where, size_t length, int protection, int flags, int fd,
                         off_t offset)
{
    if (where != NULL) /* into a span that has its guards already */
        return real.mmap(out, where, length, protection, flags, fd, offset);
    void *span;
    void *inner;
    size_t whole = (length + SHMP_PAGE - 1) / SHMP_PAGE * SHMP_PAGE;
    long r = real.mmap(&span, NULL, whole + 2 * GUARD, PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (r < 0)
        return r;
    r = real.mmap(&inner, (char *)span + GUARD, length, protection, flags | MAP_FIXED, fd, offset);
    if (r < 0) {
        real.munmap(span, whole + 2 * GUARD);
        return r;
    }
    pthread_mutex_lock(&guard_mutex);
    void **place = place_of(NULL);
    if (place)
        *place = inner;
    pthread_mutex_unlock(&guard_mutex);
    CHECK(place != NULL);
    *out = inner;
    return 0;
}

static long guarded_munmap(void *address, size_t length)
{
    size_t whole = (length + SHMP_PAGE - 1) / SHMP_PAGE * SHMP_PAGE;
    pthread_mutex_lock(&guard_mutex);
    void **place = address ? place_of(address) : NULL;
    if (place)
        *place = NULL;
    pthread_mutex_unlock(&guard_mutex);
    return place ? real.munmap((char *)address - GUARD, whole + 2 * GUARD)
                 : real.munmap(address, length);
}

void guard_mappings(void)
{
    real = shmp_sys;
    shmp_sys.mmap = guarded_mmap;
    shmp_sys.munmap = guarded_munmap;
}

static long poll_at_once(struct pollfd *fds, unsigned long count, int timeout_ms)
{
    int r = poll(fds, count, fds ? timeout_ms : 0);
    return r < 0 ? -errno : r;
}

void check_without_waiting(void)
{
    shmp_sys.poll = poll_at_once;
}

/* ---- Cases -------------------------------------------------------------------------------------- */

static struct {
    _Atomic uint64_t number;
    char text[200];
} *progress;

void case_begins(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(progress->text, sizeof progress->text, format, arguments);
    va_end(arguments);
    fetch_add_seq_cst(&progress->number, 1);
}

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

void run_cases(void (*cases)(void))
{
    progress = unit_shared(sizeof *progress);
    pid_t child = unit_fork();
    if (child == 0) {
        signal(SIGPIPE, SIG_IGN);
        cases();
        unit_done();
    }
    uint64_t seen = 0;
    double since = now();
    int status = 0;
    while (waitpid(child, &status, WNOHANG) != child) {
        uint64_t number = load_seq_cst(&progress->number);
        if (number != seen)
            since = now();
        seen = number;
        if (now() - since > CASE_SECONDS) {
            unit_kill(child);
            unit_fail("hangs", (int)seen, "%s", progress->text);
        }
        unit_yield();
    }
    if (WIFSIGNALED(status))
        unit_fail("killed by signal", WTERMSIG(status), "%s", progress->text);
    if (WEXITSTATUS(status) != 0)
        unit_fail("failed", (int)seen, "%s", progress->text);
    munmap(progress, sizeof *progress);
}

/* ---- Verdicts ------------------------------------------------------------------------------------ */

bool is_typed_error(long result, int error)
{
    return result == -1 && (error == SHMP_ECORRUPT || error == SHMP_EINCOMPATIBLE ||
                            error == EAGAIN || error == EINTR || error == EBUSY ||
                            error == ENFILE || error == ENOENT || error == EPIPE);
}

static void on_alarm(int number)
{
    (void)number;
}

static void set_timer(suseconds_t every)
{
    struct itimerval timer = {.it_interval.tv_usec = every, .it_value.tv_usec = every};
    CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

void alarms_begin(void)
{
    struct sigaction action = {.sa_handler = on_alarm}; /* without SA_RESTART */
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    set_timer(2000);
}

void alarms_end(void)
{
    set_timer(0);
}
