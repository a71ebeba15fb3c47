/* tracer.h - a stopped process: step it, run it to an instruction, kill it there.
 *
 * A path is what one run of an operation did, instruction by instruction.  To get to its step k
 * again nobody steps k times: a breakpoint on an instruction shortly before, which the path has
 * passed a known number of times by then, and steps from there on.  Each is compared with the
 * path on the way.
 */
#ifndef SWEEP_TRACER_H
#define SWEEP_TRACER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum mark {
    MARK_CALL = 1,    /* a system call */
    MARK_SLEEPS = 2,  /* that slept until the director did something */
    MARK_FORK = 4,    /* that made a child */
    MARK_REPEAT = 8,  /* a string instruction with a repeat prefix */
    MARK_CHANGED = 16 /* the segment differs from what it was one step before */
};

struct step {
    uint64_t ip; /* of the instruction that this step executes */
    uint32_t sp; /* low half of the stack pointer before it */
    uint32_t pass; /* the how manyth one at this ip, from 1 */
    uint8_t marks;
    uint8_t inside; /* somebody owns one of the three locks */
    uint8_t kept;   /* not left out as one of many passes through a loop */
    uint64_t state; /* of what others will see (view_hash) before it; 0: unknown */
};

struct path {
    size_t count; /* steps; state k is before step k, state count after the last one */
    size_t room;
    struct step *step;
    bool no_traps; /* int3 would stop a child, or a thread, that nobody traces */
    long result;
};

enum reached {
    REACHED,     /* stopped before that step */
    REACHED_END, /* the operation was over before: this run went another way */
    REACHED_NOT, /* the same, noticed on the way */
    REACHED_DEATH,
};

/* Between these two the victim is inside its operation. */
#define VICTIM_BEGIN() __asm__ volatile("int3" ::: "memory")
#define VICTIM_END() __asm__ volatile(".globl sweep_end\nsweep_end: int3" ::: "memory")

/* Once in each director. */
void tracer_prepare(void);
/* In the child: stops at the first VICTIM_BEGIN. */
void tracer_submit(void);
/* Until a fresh victim stops there.  false: it died. */
bool tracer_attend(pid_t pid);
/* Traces a process that has not asked for it, and runs. */
bool tracer_adopt(pid_t pid);
/* It has stopped, or died, and nobody has been told yet. */
bool tracer_has_news(pid_t pid);
uint64_t tracer_ip(pid_t pid);
uint32_t tracer_sp(pid_t pid);
bool tracer_is_at_end(pid_t pid);
/* What the instruction at ip is: marks. */
uint8_t tracer_classify(pid_t pid, uint64_t ip);

/* One instruction, a whole repeated one at once.  blocked(context) is called as soon as the
 * process sleeps in a system call, and must make somebody wake it.  false: it died. */
typedef void tracer_blocked(void *context);
bool tracer_step(pid_t pid, uint8_t marks, tracer_blocked *blocked, void *context, bool *slept);
/* Whether the system call that was just stepped over has made a child. */
bool tracer_forked(pid_t pid);
/* One iteration of a repeated instruction. */
bool tracer_step_once(pid_t pid);

/* From state `from`, where it is, to state `to` of its path; nothing in between sleeps.  slowly:
 * step by step, as it was recorded, for what depends on how far others get meanwhile. */
enum reached tracer_run(pid_t pid, const struct path *path, size_t from, size_t to, bool slowly);
/* Lets it run until it is over, dies or reaches its end. */
enum reached tracer_finish(pid_t pid);
/* It goes on by itself. */
void tracer_let_go(pid_t pid);
/* SIGKILL, and waits until it is dead. */
void tracer_kill(pid_t pid);

bool path_make(struct path *path, size_t room);
/* false: the path is longer than there is room for. */
bool path_add(struct path *path, struct step step);
void path_free(struct path *path);

#endif
