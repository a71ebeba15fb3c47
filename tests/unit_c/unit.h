/* unit.h - the smallest test harness that does what these tests need.
 *
 * Each TEST runs in a process of its own, with a watchdog that kills and reports a hang.
 * A test passes when it returns, and leaves behind no descriptor, no mapping of a segment, no
 * name and no process.  It fails at the first CHECK that does not hold, in whatever thread
 * or child.  SKIP(reason) is for machines that lack something, and prints the reason.
 *
 * Nobody sleeps to let another get somewhere: gates (eventfds) say "go on", and the await
 * functions look at a condition until it holds or the watchdog ends the test.
 */
#ifndef UNIT_H
#define UNIT_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define UNIT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNIT_TSAN 1
#endif
#endif
#ifndef UNIT_TSAN
#define UNIT_TSAN 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define UNIT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNIT_ASAN 1
#endif
#endif
#ifndef UNIT_ASAN
#define UNIT_ASAN 0
#endif

void unit_register(const char *file, const char *name, void (*run)(void));

#define TEST(name)                                                                        \
    static void test_##name(void);                                                        \
    __attribute__((constructor)) static void register_##name(void)                       \
    {                                                                                     \
        unit_register(__FILE__, #name, test_##name);                                      \
    }                                                                                     \
    static void test_##name(void)

_Noreturn void unit_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void unit_skip(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define CHECK(condition)                                                                  \
    do {                                                                                  \
        if (!(condition))                                                                 \
            unit_fail(__FILE__, __LINE__, "%s", #condition);                              \
    } while (0)

#define CHECK_EQ(a, b)                                                                    \
    do {                                                                                  \
        long long left_ = (long long)(a);                                                 \
        long long right_ = (long long)(b);                                                \
        if (left_ != right_)                                                              \
            unit_fail(__FILE__, __LINE__, "%s is %lld, and %s is %lld", #a, left_, #b,    \
                      right_);                                                            \
    } while (0)

/* The expression fails as a system call does, with this errno. */
#define CHECK_ERRNO(expression, code)                                                     \
    do {                                                                                  \
        errno = 0;                                                                        \
        long long result_ = (long long)(expression);                                      \
        int errno_ = errno;                                                               \
        if (result_ != -1 || errno_ != (code))                                            \
            unit_fail(__FILE__, __LINE__, "%s is %lld with errno %d (%s), not -1 with %d (%s)", \
                      #expression, result_, errno_, strerror(errno_), (code),             \
                      strerror(code));                                                    \
    } while (0)

#define SKIP(...) unit_skip(__VA_ARGS__)

/* ---- Processes ------------------------------------------------------------------ */

/* In the child 0, as fork(). */
pid_t unit_fork(void);
/* Waits; the raw status. */
int unit_wait(pid_t pid);
/* Waits, and fails unless it exited with 0. */
void unit_join(pid_t pid);
/* SIGKILL, and reaps it. */
void unit_kill(pid_t pid);
/* The end of a child that did what it should. */
_Noreturn void unit_done(void);
/* Until the task sleeps in a futex system call. */
void unit_await_futex(pid_t task);
/* The same of a child that may also have ended; it is still to be joined. */
void unit_await_futex_or_end(pid_t pid);
/* Until the process shows this state letter in /proc (T: stopped). */
void unit_await_state(pid_t pid, char state);

/* ---- Gates: counting, over fork and between threads ------------------------------ */

int unit_gate(void);
void unit_pass(int gate);
void unit_await(int gate);

/* Looks until the condition holds; the watchdog is the limit. */
#define UNTIL(condition)                                                                  \
    do {                                                                                  \
        while (!(condition))                                                              \
            unit_yield();                                                                 \
    } while (0)
void unit_yield(void);

/* ---- Odds and ends ---------------------------------------------------------------- */

/* Shared between this process and its later children, zeroed. */
void *unit_shared(size_t bytes);
/* A name for a pipe that only this test of this run has. */
const char *unit_name(void);
/* How many entries of the object directory carry this run's and this test's mark. */
int unit_names_left(void);
unsigned unit_descriptors(void);
/* Mapped pieces of segments; process records do not count. */
unsigned unit_mappings(void);

/* A reproducible sequence: UNIT_SEED=n repeats a run. */
uint64_t unit_random(void);
uint32_t unit_below(uint32_t limit);

/* 1 in an ordinary build; less work where each step is slow (sanitizers). */
uint32_t unit_rounds(uint32_t rounds);

#endif
