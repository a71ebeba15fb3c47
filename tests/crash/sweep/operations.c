/* operations.c - what victims do. */
#include "operations.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "notify.h"
#include "pipe.h"
#include "victim.h"

static unsigned char received[1 << 20]; /* by a victim: it takes that with it */

static long outcome(long r)
{
    return r < 0 ? -(long)errno : r;
}

static long do_write(struct victim *v)
{
    return outcome(shmp_write(v->writer, bytes_of(v->tag, 0), (size_t)v->operation->argument));
}

static long do_read(struct victim *v)
{
    return outcome(shmp_read(v->reader, received, (size_t)v->operation->argument));
}

static long do_read_halves(struct victim *v)
{
    struct shmp_turn turn;
    shmp_hold(v->reader);
    long r = shmp_read_begin(v->reader, (size_t)v->operation->argument, &turn);
    if (r > 0)
        r = shmp_read_finish(v->reader, received, (size_t)r, &turn);
    shmp_release(v->reader);
    return r;
}

shmp_end *victim_end(const struct victim *v)
{
    return v->reader ? v->reader : v->writer;
}

static long do_close(struct victim *v)
{
    return outcome(shmp_close(victim_end(v)));
}

static long do_fork(struct victim *v)
{
    pid_t child = fork();
    if (child == 0) {
        control->box[CHILD].pid = getpid();
        actor_run(CHILD, victim_end(v));
    }
    return child > 0 ? 0 : -errno;
}

/* ---- What a fork child does before its own code runs -------------------------------------- */

/* The library's hook for children is kept from running in fork(): it is the operation, so it begins
 * where the tracer can stop it.  The Makefile has the linker send pthread_atfork() here. */
static void (*child_hook)(void);
static bool deferred;

static void unless_deferred(void)
{
    if (!deferred)
        child_hook();
}

int __real_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    child_hook = child;
    return __real_pthread_atfork(prepare, parent, unless_deferred);
}

static void stay(int number)
{
    (void)number;
    for (;;)
        pause();
}

/* Only the child returns.  Until the tracer has it, it dies with its parent. */
static void become_a_child(struct victim *v)
{
    (void)v;
    signal(SIGCHLD, SIG_IGN); /* the tracer collects it */
    signal(SIGTRAP, stay);    /* or it is let go at its end */
    deferred = true;
    if (fork() != 0)
        stay(0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    atomic_store(&control->forked, getpid());
    while (atomic_load(&control->forked_goes) == 0)
        sched_yield();
    prctl(PR_SET_PDEATHSIG, 0);
}

static struct victim *sleeper;

static void fork_in_a_handler(int number)
{
    (void)number;
    become_a_child(sleeper);
    victim_perform(sleeper);
}

/* In a call that sleeps, when the director sees that it does: the child is in it, too. */
static void become_a_child_asleep(struct victim *v)
{
    sleeper = v;
    signal(SIGUSR1, fork_in_a_handler);
    shmp_read(v->reader, received, sizeof received);
    _exit(1);
}

static long do_be_born(struct victim *v)
{
    (void)v;
    child_hook();
    return 0;
}

/* Its ends go with it, or the kernel closes them.  In the new program nothing has happened yet. */
static long do_exec(struct victim *v)
{
    struct shmp_token token;
    shmp_export(victim_end(v), &token);
    if (v->operation->argument == KEEPS_ITS_END) {
        fcntl(token.segment_fd, F_SETFD, 0);
        fcntl(token.companion_fd, F_SETFD, 0);
    }
    execv("/proc/self/exe", (char *[]){"sweep", "--pause", NULL});
    return -errno;
}

static long do_dup(struct victim *v)
{
    struct shmp_token token;
    shmp_export(victim_end(v), &token);
    token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
    token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
    return shmp_import(&token) ? 0 : -errno;
}

static long do_arm(struct victim *v)
{
    return outcome(shmp_arm(victim_end(v), v->reader ? POLLIN : POLLOUT));
}

/* ---- Notifiers ------------------------------------------------------------------- */

static int notifier;

static long do_listen(struct victim *v)
{
    return outcome(shmp_notifier_open(victim_end(v)));
}

/* With its relay asleep. */
static void listen_first(struct victim *v)
{
    notifier = shmp_notifier_open(victim_end(v));
    await_relay(getpid(), true);
}

static long do_count(struct victim *v)
{
    uint64_t operations;
    (void)v;
    return outcome(shmp_notifier_read(notifier, &operations));
}

static long do_unlisten(struct victim *v)
{
    (void)v;
    return outcome(shmp_notifier_close(notifier));
}

/* What a relay does before each sleep.  In its thread nobody can stop it at an instruction. */
static long do_rescue(struct victim *v)
{
    int side = v->reader ? SHMP_SIDE_READERS : SHMP_SIDE_WRITERS;
    struct shmp_pipe *pipe = victim_end(v)->pipe;
    shmp_notify_sleep(shmp_notify_line(pipe, side));
    return shmp_notify_rescue(victim_end(v), side, true);
}

/* ---- Lives ----------------------------------------------------------------------- */

static long do_resize(struct victim *v)
{
    return outcome(shmp_fcntl(victim_end(v), F_SETPIPE_SZ, v->operation->argument));
}

static long do_look(struct victim *v)
{
    return outcome(shmp_fileno(victim_end(v)));
}

static long do_async(struct victim *v)
{
    return outcome(shmp_fcntl(victim_end(v), F_SETFL, O_ASYNC));
}

static long do_pending(struct victim *v)
{
    int bytes = 0;
    long r = outcome(shmp_ioctl(victim_end(v), FIONREAD, &bytes));
    return r < 0 ? r : bytes;
}

static long do_import(struct victim *v)
{
    return shmp_import(&v->token[v->operation->argument]) ? 0 : -errno;
}

static long do_open(struct victim *v)
{
    return shmp_open(v->name, (int)v->operation->argument) ? 0 : -errno;
}

static long do_mkfifo(struct victim *v)
{
    return outcome(shmp_mkfifo(v->name, 0600));
}

static long do_unlink(struct victim *v)
{
    return outcome(shmp_unlink(v->name));
}

/* ---- The operations ---------------------------------------------------------------- */

#define K 1024L
#define W(name, bytes)                                                                    \
    {name, HAS_WRITER, true, false, bytes, do_write, .waker = READER, .wake = DO_READ,           \
     .wake_argument = 4 * K}
#define R(name, bytes)                                                                    \
    {name, HAS_READER, false, true, bytes, do_read, .waker = WRITER, .wake = DO_WRITE,            \
     .wake_argument = 60}

const struct operation write_small = W("write 100", 100);
const struct operation write_slot = W("write 4096", 4 * K);
const struct operation write_merging = W("write 4196", 4 * K + 100);
const struct operation write_many = W("write 12000", 12000);
const struct operation write_all = W("write 16384", 16 * K); /* each slot of an empty ring */
const struct operation write_long = W("write 278628", 272 * K + 100);
const struct operation write_sleeping = W("write 300 that sleeps", 300);
const struct operation write_sleeping_long = W("write 10000 that sleeps", 10000);
const struct operation read_small = R("read 40", 40);
const struct operation read_slot = R("read 4096", 4 * K);
const struct operation read_all = R("read 65536", 64 * K);
const struct operation read_sleeping = R("read 100 that sleeps", 100);
const struct operation read_halves = {
    "read 4096 in halves", HAS_READER, false, true, 4 * K, do_read_halves, .wake = DO_NOTHING};
const struct operation close_reader = {"close reader", HAS_READER, .run = do_close};
const struct operation close_writer = {"close writer", HAS_WRITER, .run = do_close};
const struct operation fork_reader = {"fork reader", HAS_READER, .run = do_fork,
                                      .forks = true};
const struct operation fork_writer = {"fork writer", HAS_WRITER, .run = do_fork,
                                      .forks = true};
const struct operation child_reader = {"fork child of reader", HAS_READER, .run = do_be_born,
                                       .argument = KEEPS_ITS_END, .prepare = become_a_child,
                                       .born = CHILD_OF_THE_LIVING};
const struct operation child_writer = {"fork child of writer", HAS_WRITER, .run = do_be_born,
                                       .argument = KEEPS_ITS_END, .prepare = become_a_child,
                                       .born = CHILD_OF_THE_LIVING};
const struct operation orphan_reader = {"orphan of reader", HAS_READER, .run = do_be_born,
                                        .argument = KEEPS_ITS_END, .prepare = become_a_child,
                                        .born = ORPHAN};
const struct operation orphan_writer = {"orphan of writer", HAS_WRITER, .run = do_be_born,
                                        .argument = KEEPS_ITS_END, .prepare = become_a_child,
                                        .born = ORPHAN};
const struct operation orphan_sleeper = {"orphan of sleeping reader", HAS_READER,
                                         .run = do_be_born, .argument = KEEPS_ITS_END,
                                         .prepare = become_a_child_asleep,
                                         .born = ORPHAN_OF_A_SLEEPER};
const struct operation exec_reader = {"execve reader", HAS_READER, .run = do_exec,
                                      .argument = KEEPS_ITS_END, .executes = true};
const struct operation exec_writer = {"execve writer", HAS_WRITER, .run = do_exec,
                                      .argument = KEEPS_ITS_END, .executes = true};
const struct operation exec_closing_reader = {"execve that closes reader", HAS_READER, .run = do_exec,
                                              .executes = true};
const struct operation exec_closing_writer = {"execve that closes writer", HAS_WRITER, .run = do_exec,
                                              .executes = true};
const struct operation dup_reader = {"dup reader", HAS_READER, .run = do_dup};
const struct operation dup_writer = {"dup writer", HAS_WRITER, .run = do_dup};
const struct operation grow = {"grow to 8 slots", HAS_WRITER, .argument = 32 * K,
                               .run = do_resize};
const struct operation grow_reader = {"grow to 8 slots", HAS_READER, .argument = 32 * K,
                                      .run = do_resize};
const struct operation shrink = {"shrink to 2 slots", HAS_WRITER, .argument = 8 * K,
                                 .run = do_resize};
const struct operation look_reader = {"fileno reader", HAS_READER, .run = do_look};
const struct operation look_writer = {"fileno writer", HAS_WRITER, .run = do_look};
const struct operation async_reader = {"O_ASYNC reader", HAS_READER, .run = do_async};
const struct operation async_writer = {"O_ASYNC writer", HAS_WRITER, .run = do_async};
const struct operation arm_reader = {"arm reader", HAS_READER, .run = do_arm};
const struct operation arm_writer = {"arm writer", HAS_WRITER, .run = do_arm};
const struct operation listen_reader = {"open notifier of reader", HAS_READER, .run = do_listen,
                                        .threads = true};
const struct operation listen_writer = {"open notifier of writer", HAS_WRITER, .run = do_listen,
                                        .threads = true};
const struct operation count_reader = {"read notifier of reader", HAS_READER, .run = do_count,
                                       .prepare = listen_first, .threads = true};
const struct operation count_writer = {"read notifier of writer", HAS_WRITER, .run = do_count,
                                       .prepare = listen_first, .threads = true};
const struct operation rescue_reader = {"relay looks of reader", HAS_READER, .run = do_rescue};
const struct operation rescue_writer = {"relay looks of writer", HAS_WRITER, .run = do_rescue};
const struct operation unlisten_reader = {"close notifier of reader", HAS_READER,
                                          .run = do_unlisten, .prepare = listen_first,
                                          .threads = true};
const struct operation unlisten_writer = {"close notifier of writer", HAS_WRITER,
                                          .run = do_unlisten, .prepare = listen_first,
                                          .threads = true};
const struct operation pending = {"FIONREAD", HAS_READER, .run = do_pending};
const struct operation import_reader = {"attach reader", HAS_DESCRIPTORS, .argument = 0,
                                        .run = do_import};
const struct operation import_writer = {"attach writer", HAS_DESCRIPTORS, .argument = 1,
                                        .run = do_import};
const struct operation open_reader = {"open reader", HAS_NOTHING, .run = do_open,
                                      .argument = O_RDONLY, .kind = BY_NAME};
const struct operation open_writer = {"open writer", HAS_NOTHING, .run = do_open,
                                      .argument = O_WRONLY, .kind = BY_NAME};
const struct operation open_both = {"open both", HAS_NOTHING, .run = do_open,
                                    .argument = O_RDWR, .kind = BY_NAME};
const struct operation make_name = {"mkfifo", HAS_NOTHING, .run = do_mkfifo,
                                    .kind = MAKES_NAME};
const struct operation drop_name = {"unlink", HAS_NOTHING, .run = do_unlink,
                                    .kind = BY_NAME};
