/* actors.c - the survivors, and how the director talks to them. */
#include "actors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control *control;
shmp_end *beside[2];

/* Shared, so that fork() does not copy its page tables thousands of times a minute. */
void control_adopt(int fd)
{
    control = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    bytes_use(control->pattern);
}

int control_make(void)
{
    int fd = memfd_create("sweep", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof *control) != 0)
        return -1;
    control_adopt(fd);
    bytes_prepare();
    return fd;
}

void control_reset(void)
{
    memset(control, 0, offsetof(struct control, ledger));
    ledger_reset(&control->ledger);
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value, const struct timespec *timeout)
{
    syscall(SYS_futex, word, FUTEX_WAIT, value, timeout, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* ---- In the actor ---------------------------------------------------------------- */

static long outcome(long r)
{
    return r < 0 ? -(long)errno : r;
}

long logged_write(shmp_end *end, enum tag tag, size_t bytes)
{
    struct intent *intent = ledger_begin(&control->ledger, tag, bytes);
    long r = outcome(shmp_write(end, bytes_of(tag, intent->offset), bytes));
    ledger_end(&control->ledger, intent, r);
    control->box[WRITER].moved += tag == TAG_WRITER && r > 0;
    return r;
}

static long logged_read(shmp_end *end, size_t bytes)
{
    struct ledger *ledger = &control->ledger;
    if (bytes > STREAM_MAX - ledger->received)
        return -EFBIG;
    long r = outcome(shmp_read(end, ledger->stream + ledger->received, bytes));
    if (r > 0) {
        ledger_receive(ledger, (size_t)r);
        control->box[READER].moved++;
    }
    return r;
}

static void set_nonblocking(shmp_end *end, bool on)
{
    int value = on;
    shmp_ioctl(end, FIONBIO, &value);
}

static long drain(shmp_end *end)
{
    long r;
    set_nonblocking(end, true);
    while ((r = logged_read(end, 65536)) > 0)
        ;
    set_nonblocking(end, false);
    return r;
}

static long fill(shmp_end *end)
{
    long count = 0;
    set_nonblocking(end, true);
    while (logged_write(end, TAG_WRITER, SHMP_PIPE_BUF) == (long)SHMP_PIPE_BUF)
        count++;
    set_nonblocking(end, false);
    return count;
}

/* A poller that is woken in vain puts the level right with its operation, and sleeps again: once
 * for a death, not for ever. */
#define MOST_VAIN 4

static long poll_and(shmp_end *end, struct box *box, short events, bool edge)
{
    int epoll = -1;
    int fd = shmp_fileno(end);
    long r;
    if (edge) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLET};
        epoll = epoll_create1(EPOLL_CLOEXEC);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
    set_nonblocking(end, true);
    do {
        struct pollfd look = {.fd = fd, .events = events};
        struct epoll_event event;
        if (edge)
            epoll_wait(epoll, &event, 1, -1);
        else
            poll(&look, 1, -1);
        r = (events & POLLOUT) != 0 ? logged_write(end, TAG_WRITER, (size_t)box->argument)
                                    : logged_read(end, 65536);
    } while (r == -EAGAIN && ++box->vain < MOST_VAIN);
    set_nonblocking(end, false);
    if (edge)
        close(epoll);
    return r;
}

static long arm_and(shmp_end *end, struct box *box, short event)
{
    long r;
    set_nonblocking(end, true);
    do {
        r = event == POLLOUT ? logged_write(end, TAG_WRITER, (size_t)box->argument)
                             : logged_read(end, 65536);
        if (r != -EAGAIN)
            break;
        int again = shmp_arm(end, event);
        if (again < 0)
            r = -errno;
        if (again == 0)
            poll(&(struct pollfd){.fd = shmp_descriptor(end), .events = event}, 1, -1);
    } while (r == -EAGAIN && box->vain++ <= MOST_VAIN);
    set_nonblocking(end, false);
    return r;
}

static int notifier = -1;

static long count(struct box *box)
{
    uint64_t operations = 0;
    if (shmp_notifier_read(notifier, &operations) != 0)
        return -errno;
    return box->counted += (long)operations;
}

static long finish(shmp_end *end)
{
    if (notifier >= 0 && shmp_notifier_close(notifier) != 0)
        return -errno;
    for (int i = 0; i < 2; i++)
        if (beside[i] && shmp_close(beside[i]) != 0)
            return -errno;
    return outcome(shmp_close(end));
}

static long levels(shmp_end *end)
{
    struct pollfd look = {.fd = shmp_fileno(end), .events = POLLIN | POLLOUT};
    return poll(&look, 1, 0) < 0 ? -(long)errno : look.revents;
}

static long carry_out(shmp_end *end, struct box *box)
{
    int bytes = 0;
    char byte = 0;
    switch (box->command) {
    case DO_READ:
        return logged_read(end, (size_t)box->argument);
    case DO_WRITE:
        return logged_write(end, TAG_WRITER, (size_t)box->argument);
    case DO_DRAIN:
        return drain(end);
    case DO_FILL:
        return fill(end);
    case DO_POLL_READ:
        return poll_and(end, box, POLLIN, false);
    case DO_POLL_WRITE:
        return poll_and(end, box, POLLOUT, false);
    case DO_EDGE_READ:
        return poll_and(end, box, POLLIN, true);
    case DO_ARM_READ:
        return arm_and(end, box, POLLIN);
    case DO_ARM_WRITE:
        return arm_and(end, box, POLLOUT);
    case DO_LISTEN:
        return notifier = (int)outcome(shmp_notifier_open(end));
    case DO_COUNT:
        return count(box);
    case DO_LOOK:
        return outcome(shmp_fileno(end));
    case DO_LEVELS:
        return levels(end);
    case DO_RESIZE:
        return outcome(shmp_fcntl(end, F_SETPIPE_SZ, box->argument));
    case DO_PENDING:
        return shmp_ioctl(end, FIONREAD, &bytes) < 0 ? -(long)errno : bytes;
    case DO_READ_BESIDE:
        return outcome(shmp_read(beside[0], &byte, 1));
    case DO_WRITE_BESIDE:
        return outcome(shmp_write(beside[1], &byte, 1));
    case DO_CLOSE:
        return finish(end);
    case DO_NOTHING:
    case DO_EXIT:
        break;
    }
    return 0;
}

_Noreturn void actor_run(enum who who, shmp_end *end)
{
    struct box *box = &control->box[who];
    uint32_t done = 0;
    box->companion = shmp_descriptor(end);
    for (;;) {
        uint32_t asked;
        while ((asked = atomic_load(&box->asked)) == done)
            futex_wait(&box->asked, done, NULL);
        atomic_store(&box->in_call, 1);
        box->result = carry_out(end, box);
        atomic_store(&box->in_call, 0);
        enum command command = box->command;
        done = asked;
        atomic_store(&box->answered, done);
        futex_wake(&box->answered);
        if (command == DO_EXIT)
            _exit(0);
    }
}

/* ---- In the director --------------------------------------------------------------- */

void ask(enum who who, enum command command, long argument)
{
    struct box *box = &control->box[who];
    box->command = command;
    box->argument = argument;
    atomic_fetch_add(&box->asked, 1);
    futex_wake(&box->asked);
}

bool has_answered(enum who who)
{
    struct box *box = &control->box[who];
    return atomic_load(&box->answered) == atomic_load(&box->asked);
}

/* The system call that the thread sleeps in, with its arguments.  false: it runs. */
static bool read_call(pid_t pid, pid_t thread, unsigned long call[7])
{
    char path[60];
    char text[200];
    snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", (int)pid, (int)thread);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0 || text[0] == 'r' || text[0] == '-')
        return false;
    text[n] = '\0';
    char *at = text;
    for (int i = 0; i < 7; i++)
        call[i] = strtoul(at, &at, 0);
    return true;
}

long sleeps_in(pid_t pid)
{
    unsigned long call[7];
    return read_call(pid, pid, call) ? (long)call[0] : -1;
}

bool sleeps_for_others(pid_t pid)
{
    unsigned long call[7];
    struct timespec until;
    struct timespec now;
    if (!read_call(pid, pid, call))
        return false;
    /* The fourth argument of both is an absolute time, or nothing. */
    if ((call[0] != SYS_futex && call[0] != SYS_futex_waitv) || call[4] == 0)
        return true;
    struct iovec to = {.iov_base = &until, .iov_len = sizeof until};
    struct iovec from = {.iov_base = (void *)(uintptr_t)call[4], .iov_len = sizeof until};
    if (process_vm_readv(pid, &to, 1, &from, 1, 0) != (ssize_t)sizeof until)
        return false;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (until.tv_sec - now.tv_sec) * 1000 + (until.tv_nsec - now.tv_nsec) / 1000000 > 100;
}

/* The only other thread of that process; 0: there is none. */
static pid_t other_thread(pid_t pid)
{
    char path[40];
    struct dirent *entry;
    pid_t found = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *directory = opendir(path);
    while (directory && (entry = readdir(directory)))
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != pid)
            found = atoi(entry->d_name);
    if (directory)
        closedir(directory);
    return found;
}

static uint64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* Below the library's safety slice of a second, which would hide a lost wake; above every other
 * timer of a sleeper (40 ms).  A process that does not sleep at that moment is merely slow, or the
 * machine is: it gets more time. */
#define HANG_MS 400
#define SLOW_MS 20000

bool await_answer(enum who who)
{
    struct box *box = &control->box[who];
    uint64_t start = now_ms();
    uint64_t asleep = 0; /* since when it was seen asleep at every look */
    while (!has_answered(who)) {
        struct timespec slice = {.tv_nsec = 20000000};
        uint32_t seen = atomic_load(&box->answered);
        if (seen == atomic_load(&box->asked))
            break;
        futex_wait(&box->answered, seen, &slice);
        uint64_t now = now_ms();
        if (has_answered(who))
            break;
        if (sleeps_in(box->pid) < 0)
            asleep = 0;
        else if (asleep == 0)
            asleep = now;
        if ((asleep != 0 && now - asleep > HANG_MS) || now - start > SLOW_MS)
            return false;
    }
    return true;
}

bool await_asleep(enum who who)
{
    struct box *box = &control->box[who];
    uint64_t start = now_ms();
    for (;;) {
        if (has_answered(who) ||
            (atomic_load(&box->in_call) != 0 && sleeps_in(box->pid) >= 0))
            return true;
        if (now_ms() - start > SLOW_MS)
            return false;
        sched_yield();
    }
}

bool await_relay(pid_t pid, bool for_ever)
{
    pid_t relay = other_thread(pid);
    uint64_t start = now_ms();
    unsigned long call[7];
    while (relay == 0 || !read_call(pid, relay, call) || call[0] != SYS_futex_waitv ||
           (for_ever && call[4] != 0)) {
        if (now_ms() - start > SLOW_MS)
            return false;
        sched_yield();
        relay = other_thread(pid);
    }
    return true;
}

long tell(enum who who, enum command command, long argument, bool *hung)
{
    ask(who, command, argument);
    if (!await_answer(who))
        *hung = true;
    return control->box[who].result;
}
