/* unit.c - runs the tests: one process each, a watchdog, and a search for what they left. */
#include "unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define MAX_TESTS 400
#define MAX_JOBS 16
#define EXIT_SKIP 77

#ifndef UNIT_SECONDS
#define UNIT_SECONDS 20
#endif
#ifndef UNIT_SLOWNESS
#define UNIT_SLOWNESS 1u
#endif

struct test {
    const char *file;
    const char *name;
    void (*run)(void);
};

static struct test tests[MAX_TESTS];
static int test_count;
static uint64_t seed;
static uint64_t random_state;
static pid_t runner;
static int current = -1; /* in a test's process: its number */
static pid_t test_pid;

void unit_register(const char *file, const char *name, void (*run)(void))
{
    const char *slash = strrchr(file, '/');
    if (test_count < MAX_TESTS)
        tests[test_count++] = (struct test){slash ? slash + 1 : file, name, run};
}

/* ---- In a test -------------------------------------------------------------------- */

_Noreturn void unit_fail(const char *file, int line, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const char *slash = strrchr(file, '/');
    dprintf(2, "%s:%d: %s%s (UNIT_SEED=%llu)\n", slash ? slash + 1 : file, line,
            getpid() == test_pid ? "" : "[child] ", text, (unsigned long long)seed);
    _exit(1);
}

_Noreturn void unit_skip(const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dprintf(2, "%s\n", text);
    _exit(EXIT_SKIP);
}

pid_t unit_fork(void)
{
    if (UNIT_TSAN)
        SKIP("the thread sanitizer sees nothing between processes");
    pid_t pid = fork();
    CHECK(pid >= 0);
    return pid;
}

int unit_wait(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) != pid)
        CHECK_EQ(errno, EINTR);
    return status;
}

void unit_join(pid_t pid)
{
    int status = unit_wait(pid);
    if (WIFSIGNALED(status))
        unit_fail("child", 0, "was killed by signal %d", WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        unit_fail("child", 0, "exited with %d", WEXITSTATUS(status));
}

void unit_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    unit_wait(pid);
}

_Noreturn void unit_done(void)
{
    _exit(0);
}

void unit_yield(void)
{
    struct timespec moment = {.tv_nsec = 200000};
    nanosleep(&moment, NULL);
}

static bool read_small(const char *path, char *text, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, size - 1);
    close(fd);
    text[n < 0 ? 0 : n] = '\0';
    return n > 0;
}

static char state_of(pid_t task)
{
    char path[64];
    char text[512];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)task);
    if (!read_small(path, text, sizeof text))
        return '?';
    const char *paren = strrchr(text, ')');
    return paren && paren[1] == ' ' ? paren[2] : '?';
}

static bool in_futex(pid_t task)
{
    char path[64];
    char text[256];
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)task);
    if (!read_small(path, text, sizeof text))
        return state_of(task) == 'S'; /* not ours to see: the next best thing */
    long number = strtol(text, NULL, 10); /* "running" reads as 0 */
    return number == 449 || number == SYS_futex;
}

void unit_await_futex(pid_t task)
{
    UNTIL(in_futex(task) && state_of(task) == 'S');
}

void unit_await_futex_or_end(pid_t pid)
{
    UNTIL(state_of(pid) == 'Z' || (in_futex(pid) && state_of(pid) == 'S'));
}

void unit_await_state(pid_t pid, char state)
{
    UNTIL(state_of(pid) == state);
}

int unit_gate(void)
{
    int fd = eventfd(0, EFD_SEMAPHORE | EFD_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

void unit_pass(int gate)
{
    uint64_t one = 1;
    CHECK_EQ(write(gate, &one, sizeof one), sizeof one);
}

void unit_await(int gate)
{
    uint64_t one;
    ssize_t n;
    do
        n = read(gate, &one, sizeof one);
    while (n < 0 && errno == EINTR);
    CHECK_EQ(n, sizeof one);
}

void *unit_shared(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED);
    return p;
}

const char *unit_name(void)
{
    static char name[64];
    snprintf(name, sizeof name, "unit-%d-%d", (int)runner, current);
    return name;
}

/* Counts, and if wanted removes, what carries a test's mark. */
static int look_for_names(int test, bool remove_them)
{
    char mark[80];
    int found = 0;
    snprintf(mark, sizeof mark, ".unit-%d-%d", (int)runner, test);
    size_t length = strlen(mark);
    DIR *directory = opendir("/dev/shm");
    if (directory == NULL)
        return 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        const char *at = strstr(entry->d_name, mark);
        if (at == NULL || (at[length] >= '0' && at[length] <= '9'))
            continue;
        found++;
        if (remove_them)
            (void)unlinkat(dirfd(directory), entry->d_name, 0);
    }
    closedir(directory);
    return found;
}

int unit_names_left(void)
{
    return look_for_names(current, false);
}

static bool is_record(const char *target)
{
    return strstr(target, "memfd:shmpipe-record") != NULL;
}

unsigned unit_descriptors(void)
{
    unsigned found = 0;
    DIR *directory = opendir("/proc/self/fd");
    CHECK(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        char path[PATH_MAX];
        char target[256] = "";
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(directory))
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
        ssize_t n = readlink(path, target, sizeof target - 1);
        found += n >= 0 && !is_record(target); /* the record stays for the process's life */
    }
    closedir(directory);
    return found;
}

unsigned unit_mappings(void)
{
    unsigned found = 0;
    char line[PATH_MAX + 128];
    FILE *maps = fopen("/proc/self/maps", "re");
    CHECK(maps != NULL);
    while (fgets(line, sizeof line, maps))
        found += !is_record(line) && (strstr(line, "memfd:shmpipe") || strstr(line, "/dev/shm/"));
    fclose(maps);
    return found;
}

uint64_t unit_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * UINT64_C(2685821657736338717);
}

uint32_t unit_below(uint32_t limit)
{
    return (uint32_t)((unit_random() >> 32) % limit);
}

uint32_t unit_rounds(uint32_t rounds)
{
    uint32_t less = rounds / UNIT_SLOWNESS;
    return less ? less : 1;
}

static _Noreturn void run_in_child(int number)
{
    current = number;
    test_pid = getpid();
    random_state = seed * UINT64_C(6364136223846793005) + (uint64_t)number * 2 + 1;
    unsigned descriptors = unit_descriptors();
    unsigned mappings = unit_mappings();
    tests[number].run();
    CHECK_EQ(unit_descriptors(), descriptors);
    CHECK_EQ(unit_mappings(), mappings);
    CHECK_EQ(unit_names_left(), 0);
    exit(0); /* and not _exit: the leak sanitizer has its say */
}

/* ---- The runner -------------------------------------------------------------------- */

struct job {
    int test;
    pid_t pid;
    int output;
    bool hung;
    struct timespec start;
};

static double seconds_since(const struct timespec *start)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static void start_job(struct job *job, int test)
{
    fflush(NULL);
    job->test = test;
    job->hung = false;
    clock_gettime(CLOCK_MONOTONIC, &job->start);
    job->output = (int)syscall(SYS_memfd_create, "output", 1u /* MFD_CLOEXEC */);
    job->pid = fork();
    if (job->pid < 0) {
        perror("fork");
        exit(2);
    }
    if (job->pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(job->output, 1);
        dup2(job->output, 2);
        /* The descriptors of the other tests in progress: not of ours. */
        syscall(SYS_close_range, 3u, ~0u, 0u);
        run_in_child(test);
    }
    setpgid(job->pid, job->pid);
}

/* What each task of the test hangs in, before it is killed. */
static void describe_hang(const struct job *job)
{
    DIR *directory = opendir("/proc");
    for (struct dirent *entry; directory && (entry = readdir(directory)) != NULL;) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        char path[64];
        char where[128] = "?";
        char call[256] = "?";
        if (pid <= 0 || getpgid(pid) != job->pid)
            continue;
        snprintf(path, sizeof path, "/proc/%d/wchan", (int)pid);
        read_small(path, where, sizeof where);
        snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
        read_small(path, call, sizeof call);
        dprintf(job->output, "hangs: process %d, state %c, in %s, system call %s\n", (int)pid,
                state_of(pid), where, call);
    }
    if (directory)
        closedir(directory);
}

static void print_output(const struct job *job)
{
    char text[4096];
    ssize_t n;
    off_t at = 0;
    bool fresh = true;
    while ((n = pread(job->output, text, sizeof text, at)) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (fresh)
                fputs("     ", stdout);
            putchar(text[i]);
            fresh = text[i] == '\n';
        }
        at += n;
    }
    if (!fresh)
        putchar('\n');
}

/* 0 passed, 1 failed, 2 skipped. */
static int finish_job(struct job *job, int status, bool verbose)
{
    const struct test *t = &tests[job->test];
    const char *verdict = "ok  ";
    int kind = 0;
    bool strays = kill(-job->pid, SIGKILL) == 0;
    while (strays && waitpid(-job->pid, NULL, 0) > 0)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP) {
        verdict = "skip";
        kind = 2;
    } else if (job->hung || !WIFEXITED(status) || WEXITSTATUS(status) != 0 || strays) {
        verdict = job->hung ? "HANG" : "FAIL";
        kind = 1;
        if (WIFSIGNALED(status) && !job->hung)
            dprintf(job->output, "killed by signal %d\n", WTERMSIG(status));
        if (strays && WIFEXITED(status) && WEXITSTATUS(status) == 0)
            dprintf(job->output, "left processes behind\n");
    }
    if (kind != 0)
        look_for_names(job->test, true);
    if (kind != 0 || verbose) {
        printf("%s %s %s (%.2f s)\n", verdict, t->file, t->name, seconds_since(&job->start));
        if (kind != 0)
            print_output(job);
        fflush(stdout);
    }
    close(job->output);
    job->pid = 0;
    return kind;
}

static bool is_wanted(const struct test *t, int argc, char **argv)
{
    bool named = false;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-')
            continue;
        named = true;
        if (strstr(t->file, argv[i]) || strstr(t->name, argv[i]))
            return true;
    }
    return !named;
}

static int by_place(const void *a, const void *b)
{
    const struct test *left = a;
    const struct test *right = b;
    int order = strcmp(left->file, right->file);
    return order ? order : strcmp(left->name, right->name);
}

int main(int argc, char **argv)
{
    bool verbose = false;
    int counts[3] = {0, 0, 0};
    int next = 0;
    int running = 0;
    struct job jobs[MAX_JOBS] = {{0}};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const char *wanted_seed = getenv("UNIT_SEED");
    const char *wanted_jobs = getenv("UNIT_JOBS");
    struct timespec now;
    sigset_t child;
    for (int i = 1; i < argc; i++)
        verbose = verbose || strcmp(argv[i], "-v") == 0;
    clock_gettime(CLOCK_REALTIME, &now);
    seed = wanted_seed ? strtoull(wanted_seed, NULL, 10)
                       : (uint64_t)now.tv_nsec ^ ((uint64_t)now.tv_sec << 20);
    runner = getpid();
    int most = wanted_jobs ? atoi(wanted_jobs) : (int)(cpus < 2 ? 2 : cpus);
    if (most < 1 || most > MAX_JOBS)
        most = MAX_JOBS;
    qsort(tests, (size_t)test_count, sizeof tests[0], by_place);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, NULL);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what a test left behind comes to us */
    for (;;) {
        int status;
        for (int i = 0; i < most; i++) {
            struct job *job = &jobs[i];
            if (job->pid == 0) {
                while (next < test_count && !is_wanted(&tests[next], argc, argv))
                    next++;
                if (next == test_count)
                    continue;
                start_job(job, next++);
                running++;
            } else if (waitpid(job->pid, &status, WNOHANG) == job->pid) {
                counts[finish_job(job, status, verbose)]++;
                running--;
                i--; /* the place is free for the next */
            } else if (!job->hung && seconds_since(&job->start) > UNIT_SECONDS) {
                job->hung = true;
                describe_hang(job);
                kill(-job->pid, SIGKILL);
            }
        }
        if (running == 0)
            break;
        sigtimedwait(&child, NULL, &(struct timespec){.tv_nsec = 50000000});
    }
    printf("%d passed, %d failed, %d skipped\n", counts[0], counts[1], counts[2]);
    return counts[1] == 0 && counts[0] + counts[2] > 0 ? 0 : 1;
}
