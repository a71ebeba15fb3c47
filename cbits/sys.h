/* sys.h - every system call of the library, in one table that tests can replace.
 *
 * Each entry returns the call's result, or -errno.  Nothing else in the core enters
 * the kernel (but mutexes when they are contended, and pthread_join), so a test that fails
 * the n-th call reaches every failure path.
 */
#ifndef SHMP_SYS_H
#define SHMP_SYS_H

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

/* struct futex_waitv of <linux/futex.h>, which old distributions lack. */
struct shmp_futex_waitv {
    uint64_t value;
    uint64_t address;
    uint32_t flags;
    uint32_t reserved;
};
#define SHMP_FUTEX_32 2u

/* X(name, parameters, arguments) */
#define SHMP_SYS_CALLS(X)                                                                 \
    X(memfd_create, (const char *name, unsigned flags), (name, flags))                    \
    X(shm_open, (const char *name, int flags, mode_t mode), (name, flags, mode))          \
    X(shm_unlink, (const char *name), (name))                                             \
    X(open, (const char *path, int flags), (path, flags))                                 \
    X(close, (int fd), (fd))                                                              \
    X(unlink, (const char *path), (path))                                                 \
    X(mkfifo, (const char *path, mode_t mode), (path, mode))                              \
    X(chmod, (const char *path, mode_t mode), (path, mode))                               \
    X(pipe2, (int fds[2], int flags), (fds, flags))                                       \
    X(eventfd, (unsigned count, int flags), (count, flags))                               \
    X(stat, (const char *path, struct stat *st), (path, st))                              \
    X(fstat, (int fd, struct stat *st), (fd, st))                                         \
    X(lstat, (const char *path, struct stat *st), (path, st))                             \
    X(ftruncate, (int fd, off_t length), (fd, length))                                    \
    X(fallocate, (int fd, int mode, off_t offset, off_t length), (fd, mode, offset, length)) \
    X(pread, (int fd, void *buffer, size_t count, off_t offset), (fd, buffer, count, offset)) \
    X(read, (int fd, void *buffer, size_t count), (fd, buffer, count))                    \
    X(write, (int fd, const void *buffer, size_t count), (fd, buffer, count))             \
    X(write_quiet, (int fd, const void *buffer, size_t count), (fd, buffer, count))       \
    X(fcntl, (int fd, int command, long argument), (fd, command, argument))               \
    X(lock, (int fd, int command, struct flock *lock), (fd, command, lock))               \
    X(ioctl, (int fd, unsigned long request, void *argument), (fd, request, argument))    \
    X(poll, (struct pollfd *fds, unsigned long count, int timeout_ms), (fds, count, timeout_ms)) \
    X(ppoll, (struct pollfd *fds, unsigned long count, const struct timespec *timeout, const sigset_t *mask), \
      (fds, count, timeout, mask))                                                        \
    X(set_sigmask, (const sigset_t *mask, sigset_t *before), (mask, before))                  \
    X(mmap, (void **out, void *where, size_t length, int protection, int flags, int fd, off_t offset), \
      (out, where, length, protection, flags, fd, offset))                                \
    X(munmap, (void *address, size_t length), (address, length))                          \
    X(random, (void *buffer, size_t count), (buffer, count))                              \
    X(futex_wake, (const void *address, int count), (address, count))                     \
    X(futex_wait, (const void *address, uint32_t value, const struct timespec *deadline), \
      (address, value, deadline))                                                         \
    X(futex_waitv, (struct shmp_futex_waitv *words, unsigned count, const struct timespec *deadline), \
      (words, count, deadline))                                                           \
    X(yield, (void), ())                                                                  \
    X(thread_start, (pthread_t *thread, void *(*run)(void *), void *argument), (thread, run, argument)) \
    X(thread_exists, (pid_t tid), (tid))                                                  \
    X(restarting_handlers, (void), ())                                                    \
    X(raise_sigpipe, (void), ())

struct shmp_sys_table {
#define X(name, parameters, arguments) long (*name) parameters;
    SHMP_SYS_CALLS(X)
#undef X
};

/* Tests swap single entries and put them back; the library never writes here. */
extern struct shmp_sys_table shmp_sys;

/* Nanoseconds of CLOCK_MONOTONIC (no kernel entry) and of the others, for people. */
uint64_t shmp_now_ns(void);
uint64_t shmp_clock_ns(clockid_t clock);
struct timespec shmp_timespec(uint64_t ns);

/* The CPU this thread runs on.  A hint: it may have moved before the call returns. */
uint32_t shmp_cpu(void);

#endif
