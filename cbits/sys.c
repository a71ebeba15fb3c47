/* sys.c - the kernel, as the table in sys.h sees it. */
#include "sys.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x100
#endif

#ifndef SYS_futex_waitv
#define SYS_futex_waitv 449
#endif

static long result(long r)
{
    return r < 0 ? -(long)errno : r;
}

static long sys_memfd_create(const char *name, unsigned flags)
{
    return result(memfd_create(name, flags));
}

static long sys_shm_open(const char *name, int flags, mode_t mode)
{
    return result(shm_open(name, flags, mode));
}

static long sys_shm_unlink(const char *name)
{
    return result(shm_unlink(name));
}

static long sys_open(const char *path, int flags)
{
    return result(open(path, flags));
}

static long sys_close(int fd)
{
    return result(close(fd));
}

static long sys_unlink(const char *path)
{
    return result(unlink(path));
}

static long sys_mkfifo(const char *path, mode_t mode)
{
    return result(mkfifo(path, mode));
}

static long sys_chmod(const char *path, mode_t mode)
{
    return result(chmod(path, mode));
}

static long sys_pipe2(int fds[2], int flags)
{
    return result(pipe2(fds, flags));
}

static long sys_eventfd(unsigned count, int flags)
{
    return result(eventfd(count, flags));
}

static long sys_fstat(int fd, struct stat *st)
{
    return result(fstat(fd, st));
}

static long sys_lstat(const char *path, struct stat *st)
{
    return result(lstat(path, st));
}

static long sys_ftruncate(int fd, off_t length)
{
    return result(ftruncate(fd, length));
}

static long sys_fallocate(int fd, int mode, off_t offset, off_t length)
{
    return result(fallocate(fd, mode, offset, length));
}

static long sys_pread(int fd, void *buffer, size_t count, off_t offset)
{
    return result(pread(fd, buffer, count, offset));
}

static long sys_stat(const char *path, struct stat *st)
{
    return result(stat(path, st));
}

static long sys_read(int fd, void *buffer, size_t count)
{
    return result(read(fd, buffer, count));
}

static long sys_write(int fd, const void *buffer, size_t count)
{
    return result(write(fd, buffer, count));
}

/* write() to a pipe that raises no SIGPIPE, whatever has become of its readers: the signal
 * belongs to the ring's writers alone. */
static long sys_write_quiet(int fd, const void *buffer, size_t count)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = count};
    long r = result(pwritev2(fd, &iov, 1, -1, RWF_NOSIGNAL));
    if (r != -EOPNOTSUPP && r != -EINVAL)
        return r;
    /* Before Linux 6.18: keep the signal from this thread, and take it away if it came. */
    sigset_t sigpipe;
    sigset_t before;
    sigset_t pending;
    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    sigpending(&pending);
    pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
    r = result(write(fd, buffer, count));
    if (r == -EPIPE && !sigismember(&pending, SIGPIPE))
        sigtimedwait(&sigpipe, NULL, &(struct timespec){0});
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

static long sys_fcntl(int fd, int command, long argument)
{
    return result(fcntl(fd, command, argument));
}

static long sys_lock(int fd, int command, struct flock *lock)
{
    return result(fcntl(fd, command, lock));
}

static long sys_ioctl(int fd, unsigned long request, void *argument)
{
    return result(ioctl(fd, request, argument));
}

static long sys_ppoll(struct pollfd *fds, unsigned long count, const struct timespec *timeout,
                      const sigset_t *mask)
{
    return result(ppoll(fds, count, timeout, mask));
}

static long sys_set_sigmask(const sigset_t *mask, sigset_t *before)
{
    return -(long)pthread_sigmask(SIG_SETMASK, mask, before);
}

static long sys_poll(struct pollfd *fds, unsigned long count, int timeout_ms)
{
    return result(poll(fds, count, timeout_ms));
}

static long sys_mmap(void **out, void *where, size_t length, int protection, int flags, int fd,
                     off_t offset)
{
    void *p = mmap(where, length, protection, flags, fd, offset);
    if (p == MAP_FAILED)
        return -(long)errno;
    *out = p;
    return 0;
}

static long sys_munmap(void *address, size_t length)
{
    return result(munmap(address, length));
}

static long sys_random(void *buffer, size_t count)
{
    return result(getrandom(buffer, count, 0));
}

/* No FUTEX_PRIVATE_FLAG anywhere: with it another process is never woken (H14). */
static long sys_futex_wake(const void *address, int count)
{
    return result(syscall(SYS_futex, address, FUTEX_WAKE, count, NULL, NULL, 0));
}

/* Absolute CLOCK_MONOTONIC deadline, which a signal does not stretch (H13). */
static long sys_futex_wait(const void *address, uint32_t value, const struct timespec *deadline)
{
    return result(syscall(SYS_futex, address, FUTEX_WAIT_BITSET, value, deadline, NULL,
                          FUTEX_BITSET_MATCH_ANY));
}

static long sys_futex_waitv(struct shmp_futex_waitv *words, unsigned count,
                            const struct timespec *deadline)
{
    return result(syscall(SYS_futex_waitv, words, count, 0, deadline, CLOCK_MONOTONIC));
}

#define THREAD_STACK ((size_t)1 << 18) /* thread-local variables of large programs are in it */

/* Every signal is blocked in the thread from its first instruction on. */
static long sys_yield(void)
{
    return sched_yield();
}

static long sys_thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    pthread_attr_t attributes;
    sigset_t all;
    sigset_t before;
    int r = pthread_attr_init(&attributes);
    if (r != 0)
        return -(long)r;
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -(long)r;
}

/* Of this process: 1 or 0.  pthread_join returns a moment before the kernel has forgotten it. */
static long sys_thread_exists(pid_t tid)
{
    return syscall(SYS_tgkill, getpid(), tid, 0) == 0;
}

/* How many signals have a handler with SA_RESTART, after which the kernel restarts a futex wait
 * behind our back.  Without the two that the C library keeps for itself (and hides). */
static long sys_restarting_handlers(void)
{
    long count = 0;
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) == 0 && (action.sa_flags & SA_RESTART) != 0 &&
            action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN)
            count++;
    }
    return count;
}

/* To the writing thread, as the kernel does it (WR-15). */
static long sys_raise_sigpipe(void)
{
    return -(long)pthread_kill(pthread_self(), SIGPIPE);
}

struct shmp_sys_table shmp_sys = {
#define X(name, parameters, arguments) .name = sys_##name,
    SHMP_SYS_CALLS(X)
#undef X
};

uint64_t shmp_clock_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t shmp_now_ns(void)
{
    return shmp_clock_ns(CLOCK_MONOTONIC);
}

struct timespec shmp_timespec(uint64_t ns)
{
    struct timespec ts;
    ts.tv_sec = (time_t)(ns / 1000000000u);
    ts.tv_nsec = (long)(ns % 1000000000u);
    return ts;
}

uint32_t shmp_cpu(void)
{
    int cpu = sched_getcpu();
    return cpu < 0 ? UINT32_MAX : (uint32_t)cpu;
}
