/* main.c - the command: workers, one per CPU, and the report.
 *
 *   sweep                       each change of the segment in each context, and every 128th instruction
 *   sweep --all                 every instruction; with another death or a meeting before, each 4th
 *   sweep --all --nested-stride 1   each one there, too
 *   sweep --all --every-pass    of a loop, too: each pass
 *   sweep --only WORD           contexts whose description has the word
 *   sweep --number N --state K  one kill, to look at
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arena.h"
#include "sweep.h"
#include "tracer.h"
#include "victim.h"

struct board {
    _Atomic size_t next;
    struct result result[CONTEXTS_MAX];
};

struct options {
    struct extent extent;
    const char *only;
    long number;
    bool all;  /* also the contexts that the sample leaves out */
    bool list;
    bool matrix;
    bool each; /* a line for each context */
    long workers;
    long minutes; /* then it ends, and says what it has not reached; 0: no limit */
};

/* The same addresses in every run. */
static void fix_addresses(char **argv)
{
    int now = personality(0xffffffff);
    if (now < 0 || (now & ADDR_NO_RANDOMIZE) != 0)
        return;
    if (personality((unsigned)now | ADDR_NO_RANDOMIZE) < 0)
        return;
    execv("/proc/self/exe", argv);
}

static long number(const char *text)
{
    return text ? strtol(text, NULL, 10) : 0;
}

static struct options parse(int argc, char **argv)
{
    struct options o = {.extent = {.stride = 128,
                                   .nested_stride = 128,
                                   .nested_points = 8,
                                   .only = -1,
                                   .most = 8},
                        .number = -1};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0)
            o.extent.stride = o.extent.nested_points = 1, o.extent.nested_stride = 4,
            o.extent.nested_pollers = o.all = true;
        else if (strcmp(argv[i], "--each") == 0)
            o.each = true;
        else if (strcmp(argv[i], "--pollers") == 0)
            o.extent.nested_pollers = true;
        else if (strcmp(argv[i], "--every-pass") == 0)
            o.extent.every_pass = true;
        else if (strcmp(argv[i], "--list") == 0)
            o.list = true;
        else if (strcmp(argv[i], "--dry") == 0)
            o.extent.dry = true;
        else if (strcmp(argv[i], "--matrix") == 0)
            o.matrix = true;
        else if (strcmp(argv[i], "--verbose") == 0)
            o.extent.verbose = true;
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            o.only = argv[++i];
        else if (strcmp(argv[i], "--number") == 0 && i + 1 < argc)
            o.number = number(argv[++i]);
        else if (strcmp(argv[i], "--state") == 0 && i + 1 < argc)
            o.extent.only = number(argv[++i]);
        else if (strcmp(argv[i], "--stride") == 0 && i + 1 < argc)
            o.extent.stride = (size_t)number(argv[++i]);
        else if (strcmp(argv[i], "--nested-stride") == 0 && i + 1 < argc)
            o.extent.nested_stride = (size_t)number(argv[++i]);
        else if (strcmp(argv[i], "--points") == 0 && i + 1 < argc)
            o.extent.nested_points = (size_t)number(argv[++i]);
        else if (strcmp(argv[i], "--most") == 0 && i + 1 < argc)
            o.extent.most = (size_t)number(argv[++i]);
        else if (strcmp(argv[i], "--workers") == 0 && i + 1 < argc)
            o.workers = number(argv[++i]);
        else if (strcmp(argv[i], "--minutes") == 0 && i + 1 < argc)
            o.minutes = number(argv[++i]);
        else {
            fprintf(stderr, "sweep: what is %s?\n", argv[i]);
            exit(2);
        }
    }
    if (o.extent.stride == 0 || o.extent.nested_stride == 0 || o.extent.nested_points == 0) {
        fprintf(stderr, "sweep: a stride is at least 1\n");
        exit(2);
    }
    return o;
}

static bool is_wanted(const struct options *o, size_t index)
{
    char text[300];
    context_describe(context_at(index), text, sizeof text);
    if (context_at(index)->only_all && o->number < 0 && o->only == NULL && !o->all)
        return false;
    return (o->number < 0 || (size_t)o->number == index) &&
           (o->only == NULL || strstr(text, o->only) != NULL);
}

static _Noreturn void work(struct board *board, const struct options *o, size_t contexts, int cpu)
{
    char name[64];
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((unsigned)cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* of a victim's fork children */
    signal(SIGPIPE, SIG_IGN);
    snprintf(name, sizeof name, "sweep-%d", (int)getpid());
    tracer_prepare();
    victim_control_fd = control_make();
    arena_mark();
    for (;;) {
        size_t index = atomic_fetch_add(&board->next, 1);
        if (index >= contexts)
            _exit(0);
        board->result[index].cpu = cpu + 1;
        if (is_wanted(o, index))
            sweep_context(context_at(index), name, &o->extent, &board->result[index]);
        if (o->extent.verbose && board->result[index].done)
            fprintf(stderr, "%zu: %.1f s\n", index, board->result[index].seconds);
    }
}

static const char *place_of(uint64_t ip)
{
    static char place[300];
    char command[160];
    char self[80] = "";
    char function[80] = "?";
    char line[200] = "?";
    if (ip == 0)
        return "its end";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return "?";
    snprintf(command, sizeof command, "addr2line -f -s -e %s %#llx 2>/dev/null", self,
             (unsigned long long)ip);
    FILE *out = popen(command, "r");
    if (out) {
        if (fgets(function, sizeof function, out))
            function[strcspn(function, "\n")] = '\0';
        if (fgets(line, sizeof line, out))
            line[strcspn(line, "\n (")] = '\0';
        pclose(out);
    }
    snprintf(place, sizeof place, "%s (%s)", function, line);
    return place;
}

static void print_violation(const struct violation *v, const struct context *context)
{
    printf("      %s\n        killed before instruction %zu of %zu%s: %s\n", v->wrong, v->state,
           v->count, v->variant, place_of(v->ip));
    if (v->other)
        printf("        %s at %zu: %s\n", context->dead ? "the first one" : "the survivor came",
               v->other_state, place_of(v->other_ip));
}

static const char *nth(size_t stride)
{
    static char text[2][40];
    static unsigned turn;
    char *out = text[turn++ % 2];
    snprintf(out, sizeof text[0], stride == 1 ? "instruction" : "%zuth instruction", stride);
    return out;
}

static size_t report(const struct board *board, const struct options *o, size_t contexts,
                     double seconds)
{
    struct result all = {0};
    size_t wanted = 0;
    size_t unfinished = 0;
    char text[300];
    for (size_t i = 0; i < contexts; i++) {
        const struct result *r = &board->result[i];
        if (!is_wanted(o, i))
            continue;
        wanted++;
        unfinished += !r->done;
        all.paths += r->paths;
        all.instructions += r->instructions;
        all.kills += r->kills;
        all.thinned += r->thinned;
        all.again += r->again;
        all.astray += r->astray;
        all.stepped += r->stepped;
        all.violations += r->violations;
        context_describe(context_at(i), text, sizeof text);
        if (o->each || r->violations || (!r->done && (r->kills > 0 || o->minutes == 0)))
            printf("%3zu %s: %zu paths, %zu instructions, at most %zu of them and %zu system calls in "
                   "locks at a stretch, %zu kills, %zu thinned, %zu astray, %zu violations, %.1f s%s\n",
                   i, text, r->paths, r->instructions, r->section, r->section_calls, r->kills,
                   r->thinned, r->astray, r->violations, r->seconds,
                   r->done ? "" : " NOT FINISHED");
        for (size_t n = 0; n < r->violations && n < VIOLATIONS_KEPT; n++)
            print_violation(&r->first[n], context_at(i));
    }
    printf("sweep: %zu contexts, %zu paths, %zu instructions, %zu kills, %zu violations, %.0f s\n",
           wanted, all.paths, all.instructions, all.kills, all.violations, seconds);
    printf("sweep: killed after each change and system call, and before every %s (%s with another "
           "death or a meeting before); %zu passes through loops left out, %zu instants that another "
           "path had in the same state, %zu kills stepped to, %zu runs astray\n",
           nth(o->extent.stride), nth(o->extent.nested_stride), all.thinned, all.again,
           all.stepped, all.astray);
    if (unfinished)
        printf("sweep: %zu contexts were not finished\n", unfinished);
    /* A run that goes another way is no evidence; more than a few would be a hole in it. */
    bool strays = all.astray * 200 > all.kills;
    if (strays)
        printf("sweep: too many runs went astray\n");
    return all.violations + unfinished + strays + (wanted == 0 || all.kills == 0);
}

static double seconds_since(const struct timespec *from)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - from->tv_sec) + (double)(now.tv_nsec - from->tv_nsec) / 1e9;
}

static void print_progress(const struct board *board, const struct options *o, size_t contexts,
                           double seconds)
{
    struct result all = {0};
    size_t wanted = 0;
    size_t done = 0;
    for (size_t i = 0; i < contexts; i++) {
        wanted += is_wanted(o, i);
        done += board->result[i].done;
        all.kills += board->result[i].kills;
        all.violations += board->result[i].violations;
    }
    fprintf(stderr, "sweep: %zu of %zu contexts, %zu kills, %zu violations, %.0f s\n", done, wanted,
            all.kills, all.violations, seconds);
}

/* Until all workers have ended, or the time is up. */
static void supervise(const struct board *board, const struct options *o, size_t contexts,
                      pid_t worker[], long workers, const struct timespec *from)
{
    const struct timespec a_minute = {.tv_sec = 60};
    sigset_t news;
    int status;
    sigemptyset(&news);
    sigaddset(&news, SIGCHLD);
    sigaddset(&news, SIGALRM);
    sigprocmask(SIG_BLOCK, &news, NULL);
    alarm((unsigned)o->minutes * 60);
    for (bool is_late = false; workers > 0;) {
        pid_t ended = waitpid(-1, &status, WNOHANG);
        if (ended > 0) {
            for (long i = 0; i < workers; i++)
                if (worker[i] == ended)
                    worker[i] = worker[--workers];
            if (status != 0 && !is_late)
                printf("sweep: a worker ended with status %#x\n", (unsigned)status);
            continue;
        }
        int heard = sigtimedwait(&news, NULL, &a_minute);
        is_late = is_late || heard == SIGALRM;
        for (long i = 0; is_late && i < workers; i++)
            kill(worker[i], SIGKILL);
        if (heard < 0) /* nothing in a minute */
            print_progress(board, o, contexts, seconds_since(from));
    }
}

int main(int argc, char **argv)
{
    fix_addresses(argv);
    if (argc == 2 + VICTIM_ARGUMENTS && strcmp(argv[1], "--victim") == 0)
        victim_go_on(argv + 2);
    if (argc == 2 && strcmp(argv[1], "--pause") == 0)
        for (;;) /* what a victim executes: it is there, and does nothing */
            pause();
    struct options o = parse(argc, argv);
    size_t contexts = contexts_make();
    char text[300];
    if (o.matrix) {
        contexts_print_matrix(contexts);
        return 0;
    }
    if (o.list) {
        for (size_t i = 0; i < contexts; i++) {
            context_describe(context_at(i), text, sizeof text);
            printf("%3zu %s\n", i, text);
        }
        return 0;
    }
    struct board *board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct timespec from;
    cpu_set_t cpus;
    clock_gettime(CLOCK_MONOTONIC, &from);
    sched_getaffinity(0, sizeof cpus, &cpus);
    long workers = 0;
    pid_t worker[CPU_SETSIZE];
    fflush(stdout);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((unsigned)cpu, &cpus) || (o.workers && workers == o.workers))
            continue;
        worker[workers] = fork();
        if (worker[workers++] == 0)
            work(board, &o, contexts, cpu);
    }
    supervise(board, &o, contexts, worker, workers, &from);
    return report(board, &o, contexts, seconds_since(&from)) ? 1 : 0;
}
