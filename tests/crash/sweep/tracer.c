/* tracer.c - ptrace on x86-64: single steps, breakpoints by int3 and by debug register. */
#include "tracer.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/time.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors.h"

extern const unsigned char sweep_end[];
extern const unsigned char _start[];
extern const unsigned char __executable_start[];
extern const unsigned char etext[];

/* Not from the heap: its state is part of what the victims inherit, and their paths depend on
 * it. */
bool path_make(struct path *path, size_t room)
{
    void *at = mmap(NULL, room * sizeof *path->step, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    *path = (struct path){.room = room, .step = at};
    return at != MAP_FAILED;
}

bool path_add(struct path *path, struct step step)
{
    if (path->count == path->room)
        return false;
    path->step[path->count++] = step;
    return true;
}

void path_free(struct path *path)
{
    munmap(path->step, path->room * sizeof *path->step);
}

void tracer_submit(void)
{
    ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static void wake_up(int number)
{
    (void)number;
}

/* A victim that sleeps where it did not when it was recorded sleeps for ever: it has gone
 * another way. */
#define STUCK_US 300000

static void watch_for_sleep(bool on)
{
    struct itimerval timer = {.it_value = {.tv_usec = on ? STUCK_US : 0}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

void tracer_prepare(void)
{
    struct sigaction interrupts = {.sa_handler = wake_up}; /* no SA_RESTART: it ends a wait */
    sigaction(SIGALRM, &interrupts, NULL);
}

bool tracer_has_news(pid_t pid)
{
    siginfo_t info = {0};
    waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOHANG | WNOWAIT);
    return info.si_pid != 0;
}

/* Until it stops with SIGTRAP; other signals are passed on.  false: it is dead. */
static bool await_stop(pid_t pid)
{
    int status = 0;
    for (;;) {
        watch_for_sleep(true);
        pid_t r = waitpid(pid, &status, __WALL);
        watch_for_sleep(false);
        if (r == pid && !WIFSTOPPED(status))
            return false;
        if (r == pid && WSTOPSIG(status) == SIGTRAP)
            return true;
        if (r == pid)
            ptrace(PTRACE_CONT, pid, NULL, (void *)(uintptr_t)WSTOPSIG(status));
        else if (errno != EINTR)
            return false;
        else if (sleeps_in(pid) >= 0 && !tracer_has_news(pid))
            kill(pid, SIGKILL);
    }
}

uint64_t tracer_ip(pid_t pid)
{
    return (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rip), NULL);
}

uint32_t tracer_sp(pid_t pid)
{
    return (uint32_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rsp), NULL);
}

bool tracer_attend(pid_t pid)
{
    if (!await_stop(pid))
        return false;
    ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(uintptr_t)PTRACE_O_EXITKILL);
    return true;
}

bool tracer_adopt(pid_t pid)
{
    int status;
    return ptrace(PTRACE_ATTACH, pid, NULL, NULL) == 0 && waitpid(pid, &status, __WALL) == pid &&
           WIFSTOPPED(status) && ptrace(PTRACE_CONT, pid, NULL, NULL) == 0;
}

bool tracer_is_at_end(pid_t pid)
{
    uint64_t ip = tracer_ip(pid);
    uint64_t past = ip - (uint64_t)(uintptr_t)sweep_end;
    /* Before the trap, or after it; or it has executed a program. */
    return past <= 1 || ip == (uint64_t)(uintptr_t)_start;
}

static bool is_own_text(uint64_t ip)
{
    return ip >= (uintptr_t)__executable_start && ip < (uintptr_t)etext;
}

static uint64_t text_at(pid_t pid, uint64_t ip)
{
    return (uint64_t)ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)ip, NULL);
}

/* Length of a string instruction with a repeat prefix, else 0. */
static unsigned repeat_length(uint64_t code)
{
    unsigned length = 1;
    unsigned char byte[8];
    for (unsigned i = 0; i < 8; i++)
        byte[i] = (unsigned char)(code >> 8 * i);
    if (byte[0] != 0xf3 && byte[0] != 0xf2)
        return 0;
    if ((byte[1] & 0xf0) == 0x40)
        length++;
    switch (byte[length]) {
    case 0xa4: /* movs */
    case 0xa5:
    case 0xa6: /* cmps */
    case 0xa7:
    case 0xaa: /* stos */
    case 0xab:
    case 0xae: /* scas */
    case 0xaf:
        return length + 1;
    default:
        return 0;
    }
}

uint8_t tracer_classify(pid_t pid, uint64_t ip)
{
    uint64_t code = text_at(pid, ip);
    if ((code & 0xffff) == 0x050f)
        return MARK_CALL;
    return repeat_length(code) ? MARK_REPEAT : 0;
}

/* ---- Breakpoints ------------------------------------------------------------------- */

/* int3 is the cheaper one, for a single hit in our own text. */
static enum reached run_to_trap(pid_t pid, uint64_t ip)
{
    uint64_t code = text_at(pid, ip);
    ptrace(PTRACE_POKETEXT, pid, (void *)(uintptr_t)ip,
           (void *)(uintptr_t)((code & ~UINT64_C(0xff)) | 0xcc));
    ptrace(PTRACE_CONT, pid, NULL, NULL);
    if (!await_stop(pid))
        return REACHED_DEATH;
    ptrace(PTRACE_POKETEXT, pid, (void *)(uintptr_t)ip, (void *)(uintptr_t)code);
    if (tracer_ip(pid) != ip + 1)
        return REACHED_END;
    ptrace(PTRACE_POKEUSER, pid, offsetof(struct user, regs.rip), (void *)(uintptr_t)ip);
    return REACHED;
}

static void set_debug(pid_t pid, unsigned which, uint64_t value)
{
    ptrace(PTRACE_POKEUSER, pid,
           offsetof(struct user, u_debugreg) + which * sizeof(((struct user *)0)->u_debugreg[0]),
           (void *)(uintptr_t)value);
}

/* A debug register counts hits without being taken out, works anywhere, and no fork child
 * inherits it. */
static enum reached run_to_hit(pid_t pid, uint64_t ip, size_t hits)
{
    enum reached reached = REACHED;
    set_debug(pid, 0, ip);
    set_debug(pid, 7, 1);
    for (size_t i = 0; i < hits && reached == REACHED; i++) {
        ptrace(PTRACE_CONT, pid, NULL, NULL);
        if (!await_stop(pid))
            return REACHED_DEATH;
        if (tracer_ip(pid) != ip)
            reached = REACHED_END;
    }
    set_debug(pid, 7, 0);
    return reached;
}

/* ---- Steps --------------------------------------------------------------------------- */

bool tracer_forked(pid_t pid)
{
    char path[64];
    char text[16] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text);
    close(fd);
    return n > 0;
}

bool tracer_step_once(pid_t pid)
{
    ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
    return await_stop(pid);
}

/* The clock is read in the kernel's own page of code, whose path depends on the time: a call of
 * it is one step.  It reads, and nothing of ours is there. */
static bool leave_foreign_code(pid_t pid)
{
    if (is_own_text(tracer_ip(pid)))
        return true;
    uint64_t sp = (uint64_t)ptrace(PTRACE_PEEKUSER, pid, offsetof(struct user, regs.rsp), NULL);
    return run_to_trap(pid, text_at(pid, sp)) == REACHED;
}

static bool step(pid_t pid, uint8_t marks, tracer_blocked *blocked, void *context, bool *slept)
{
    int status;
    *slept = false;
    if ((marks & MARK_REPEAT) != 0) {
        uint64_t ip = tracer_ip(pid);
        return run_to_hit(pid, ip + repeat_length(text_at(pid, ip)), 1) == REACHED;
    }
    ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL);
    if ((marks & MARK_CALL) == 0 || blocked == NULL)
        return await_stop(pid);
    for (;;) {
        /* First the look, then whether it has stopped: a stopped one seems to sleep, too. */
        bool sleeps = sleeps_for_others(pid);
        pid_t r = waitpid(pid, &status, __WALL | WNOHANG);
        if (r != 0)
            return r == pid && WIFSTOPPED(status);
        if (sleeps) {
            *slept = true;
            blocked(context);
            return await_stop(pid);
        }
        sched_yield();
    }
}

bool tracer_step(pid_t pid, uint8_t marks, tracer_blocked *blocked, void *context, bool *slept)
{
    return step(pid, marks, blocked, context, slept) && leave_foreign_code(pid);
}

/* ---- Along a path ---------------------------------------------------------------------- */

/* Microseconds, measured: a stop by int3, by debug register, by a step. */
#define TRAP_COST 20u
#define DEBUG_COST 45u
#define HIT_COST 21u
#define STEP_COST 20u
#define LOOK_BACK 24u

static size_t hits_between(const struct path *path, size_t from, size_t to)
{
    size_t hits = 0;
    if (from == 0)
        return path->step[to].pass;
    for (size_t i = from + 1; i <= to; i++)
        hits += path->step[i].ip == path->step[to].ip;
    return hits;
}

static bool may_trap(const struct path *path, size_t at, size_t hits)
{
    return hits == 1 && !path->no_traps && is_own_text(path->step[at].ip);
}

enum reached tracer_run(pid_t pid, const struct path *path, size_t from, size_t to, bool slowly)
{
    size_t anchor = from;
    size_t anchor_hits = 0;
    size_t cost = (to - from) * STEP_COST;
    if (!slowly && to == path->count && cost > TRAP_COST && tracer_finish(pid) == REACHED_END)
        return tracer_is_at_end(pid) ? REACHED : REACHED_NOT;
    for (size_t at = to; !slowly && at > from && to - at < LOOK_BACK; at--) {
        if (at == path->count || path->step[at].ip == path->step[from].ip ||
            (at > 0 && (path->step[at - 1].marks & MARK_REPEAT) != 0 &&
             path->step[at - 1].ip == path->step[at].ip))
            continue;
        size_t hits = hits_between(path, from, at);
        size_t here = (to - at) * STEP_COST +
                      (may_trap(path, at, hits) ? TRAP_COST : DEBUG_COST + hits * HIT_COST);
        if (here < cost) {
            cost = here;
            anchor = at;
            anchor_hits = hits;
        }
    }
    if (anchor != from) {
        uint64_t ip = path->step[anchor].ip;
        enum reached r = may_trap(path, anchor, anchor_hits)
                             ? run_to_trap(pid, ip)
                             : run_to_hit(pid, ip, anchor_hits);
        if (r != REACHED)
            return r;
    }
    for (size_t at = anchor;; at++) {
        if (at == path->count)
            return tracer_is_at_end(pid) ? REACHED : REACHED_NOT;
        if (tracer_ip(pid) != path->step[at].ip || tracer_sp(pid) != path->step[at].sp)
            return tracer_is_at_end(pid) ? REACHED_END : REACHED_NOT;
        if (at == to)
            return REACHED;
        bool slept;
        if (!tracer_step(pid, path->step[at].marks, NULL, NULL, &slept))
            return REACHED_DEATH;
    }
}

enum reached tracer_finish(pid_t pid)
{
    ptrace(PTRACE_CONT, pid, NULL, NULL);
    return await_stop(pid) ? REACHED_END : REACHED_DEATH;
}

void tracer_let_go(pid_t pid)
{
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
}

void tracer_kill(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status))
        ;
}
