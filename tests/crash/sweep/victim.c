/* victim.c - the process that dies. */
#include "victim.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>
#include <unistd.h>

#include "pipe.h"
#include "tracer.h"
#include "watch.h"

int victim_control_fd = -1;

shmp_end *on_its_own(shmp_end *end)
{
    struct shmp_token token;
    shmp_export(end, &token);
    token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
    token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
    token.description = UINT32_MAX;
    shmp_end *other = shmp_import(&token);
    shmp_close(end);
    return other;
}

static bool transfers(const struct operation *operation)
{
    return operation->reads || operation->writes;
}

static void take_ends(struct victim *v, shmp_end *ends[2])
{
    enum ends has = v->operation->ends;
    for (unsigned i = 0; i < 2 && ends[i]; i++) {
        bool kept = (has == HAS_READER && i == 0) || (has == HAS_WRITER && i == 1);
        if (has == HAS_DESCRIPTORS) {
            shmp_export(ends[i], &v->token[i]);
            v->token[i].segment_fd = fcntl(v->token[i].segment_fd, F_DUPFD_CLOEXEC, 3);
            v->token[i].companion_fd = fcntl(v->token[i].companion_fd, F_DUPFD_CLOEXEC, 3);
        }
        if (!kept)
            shmp_close(ends[i]);
        else if (transfers(v->operation))
            *(i == 0 ? &v->reader : &v->writer) = on_its_own(ends[i]);
        else
            *(i == 0 ? &v->reader : &v->writer) = ends[i];
    }
    /* An attachment keeps the process's locks only while no other descriptor is closed. */
    if (has == HAS_DESCRIPTORS)
        close(v->token[v->operation->argument == 0].companion_fd);
}

/* Looks for the other side and for all whom a sleeper watches, as an earlier call would have:
 * that is thousands of instructions, the same in each context. */
static void get_to_know(struct victim *v)
{
    shmp_end *end = victim_end(v);
    int side = v->reader ? SHMP_SIDE_READERS : SHMP_SIDE_WRITERS;
    struct shmp_live *live = &end->pipe->live;
    static struct shmp_watch watch;
    shmp_side_lock(end, side, true);
    shmp_side_is_present(end, side == SHMP_SIDE_READERS ? SHMP_SIDE_WRITERS : SHMP_SIDE_READERS);
    shmp_side_unlock(end, side);
    shmp_watch_others(&watch, live, side);
    shmp_watch_own(&watch, live);
    shmp_watch_release(&watch);
}

static struct victim *performing;

/* Its own function: it has the label at which an operation ends. */
static void on_its_stack(void)
{
    struct victim *v = performing;
    tracer_submit();
    VICTIM_BEGIN();
    control->victim_result = v->operation->run(v);
    atomic_store(&control->victim_done, 1);
    VICTIM_END();
    for (;;) /* whoever is let go is there, and does nothing */
        pause();
}

/* On a stack of its own, so that every address is the same in each run. */
_Noreturn void victim_perform(struct victim *v)
{
    static unsigned char stack[1 << 18] __attribute__((aligned(4096)));
    static ucontext_t there;
    performing = v;
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    makecontext(&there, on_its_stack, 0);
    setcontext(&there);
    _exit(1);
}

/* What only it needs, and how it stands: not part of the operation. */
static _Noreturn void prepare_and_perform(struct victim *v, const struct context *context)
{
    if (v->writer && context->packets)
        shmp_fcntl(v->writer, F_SETFL, O_DIRECT);
    if (transfers(v->operation) && !context->cold)
        get_to_know(v);
    if (v->operation->prepare)
        v->operation->prepare(v);
    victim_perform(v);
}

/* ---- In a program of its own -------------------------------------------------------------- */

enum { CONTROL, CONTEXT, SEGMENT, COMPANION, MODE, ARGUMENTS };
_Static_assert(ARGUMENTS == VICTIM_ARGUMENTS, "as many as main() looks for");

/* A process that has attached nothing before. */
static void execute(const struct victim *v, const struct context *context)
{
    const struct operation *o = v->operation;
    shmp_end *end = victim_end(v);
    struct shmp_token token;
    static char text[ARGUMENTS][16];
    if (end) {
        shmp_export(end, &token);
        token.segment_fd = fcntl(token.segment_fd, F_DUPFD_CLOEXEC, 3);
        token.companion_fd = fcntl(token.companion_fd, F_DUPFD_CLOEXEC, 3);
        shmp_close(end);
    } else {
        token = v->token[o->argument];
    }
    long numbers[ARGUMENTS] = {[CONTROL] = victim_control_fd,
                               [CONTEXT] = context_number(context),
                               [SEGMENT] = token.segment_fd,
                               [COMPANION] = token.companion_fd,
                               [MODE] = (long)token.mode};
    for (int i = 0; i < ARGUMENTS; i++)
        snprintf(text[i], sizeof text[i], "%ld", numbers[i]);
    fcntl(victim_control_fd, F_SETFD, 0);
    fcntl(token.segment_fd, F_SETFD, 0);
    fcntl(token.companion_fd, F_SETFD, 0);
    execv("/proc/self/exe", (char *[]){"sweep", "--victim", text[CONTROL], text[CONTEXT],
                                       text[SEGMENT], text[COMPANION], text[MODE], NULL});
    _exit(1);
}

static void *attach(void *token)
{
    return shmp_import(token);
}

static void take_end(struct victim *v, const struct context *context, struct shmp_token *token)
{
    pthread_t thread;
    void *end = NULL;
    if (v->operation->ends == HAS_DESCRIPTORS) {
        v->token[v->operation->argument] = *token;
        return;
    }
    if (context->arrival == EXECUTED)
        end = attach(token);
    else if (pthread_create(&thread, NULL, attach, token) == 0)
        pthread_join(thread, &end); /* and the kernel has marked the words that it locked */
    if (end == NULL)
        _exit(1);
    *(token->mode == O_RDONLY ? &v->reader : &v->writer) = end;
}

void victim_go_on(char **arguments)
{
    long numbers[ARGUMENTS];
    for (int i = 0; i < ARGUMENTS; i++)
        numbers[i] = strtol(arguments[i], NULL, 10);
    control_adopt((int)numbers[CONTROL]);
    contexts_make();
    const struct context *context = context_at((size_t)numbers[CONTEXT]);
    struct victim v = {.tag = TAG_VICTIM, .operation = context->operation};
    struct shmp_token token = {.segment_fd = (int)numbers[SEGMENT],
                               .companion_fd = (int)numbers[COMPANION],
                               .description = UINT32_MAX,
                               .mode = (uint32_t)numbers[MODE]};
    fcntl(token.segment_fd, F_SETFD, FD_CLOEXEC);
    fcntl(token.companion_fd, F_SETFD, FD_CLOEXEC);
    take_end(&v, context, &token);
    prepare_and_perform(&v, context);
}

void victim_run(const struct victim *victim, const struct context *context, shmp_end *ends[2])
{
    struct victim v = *victim;
    take_ends(&v, ends);
    if (context->arrival != FORKED && v.operation == context->operation)
        execute(&v, context);
    prepare_and_perform(&v, context);
}
