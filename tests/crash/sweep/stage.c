/* stage.c - one trial's pipe and processes: made before it, cleared away after it. */
#include "stage.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "arena.h"
#include "ring.h"
#include "victim.h"

/* When the ring is ready for its state the indices are two slots before the wrap. */
#define BEFORE_WRAP (UINT32_MAX - 1)

/* A trial that takes longer is stuck where nothing else looks; its worker ends, and that is
 * reported. */
#define TRIAL_SECONDS 60

static void watch_trial(void)
{
    static timer_t timer;
    static bool made;
    struct sigevent ends = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTERM};
    struct itimerspec until = {.it_value = {.tv_sec = TRIAL_SECONDS}};
    if (!made)
        made = timer_create(CLOCK_MONOTONIC, &ends, &timer) == 0;
    timer_settime(timer, 0, &until, NULL);
}

/* ---- In a child ------------------------------------------------------------------------- */

/* Every child of a trial ends with its director. */
static pid_t fork_child(void)
{
    pid_t pid = fork();
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

void stage_end_parent(struct stage *stage)
{
    if (stage->parent > 0)
        tracer_kill(stage->parent);
    stage->parent = 0;
}

/* ---- Building ------------------------------------------------------------------------------ */

static pid_t fork_victim(struct stage *stage, unsigned which, shmp_end *ends[2])
{
    struct victim v = {.tag = which == VICTIM ? TAG_VICTIM : TAG_SECOND,
                       .name = stage->name,
                       .operation = which == VICTIM ? stage->context->operation
                                                    : stage->context->dead};
    if (v.operation->writes)
        stage->intent[which] =
            ledger_begin(&control->ledger, v.tag, (size_t)v.operation->argument);
    pid_t pid = fork_child();
    if (pid == 0)
        victim_run(&v, stage->context, ends);
    return pid;
}

static pid_t fork_actor(enum who who, bool packets, shmp_end *ends[2])
{
    pid_t pid = fork_child();
    if (pid == 0) {
        shmp_close(ends[who == READER]);
        shmp_end *mine = on_its_own(ends[who == WRITER]);
        if (packets && who == WRITER)
            shmp_fcntl(mine, F_SETFL, O_DIRECT);
        atomic_fetch_add(&control->box[who].answered, 1); /* ready */
        actor_run(who, mine);
    }
    control->box[who].pid = pid;
    return pid;
}

/* A survivor is there when it has counted `answered` up; it begins with its first command. */
static bool await_ready(enum who who)
{
    struct box *box = &control->box[who];
    while (atomic_load(&box->answered) == 0) {
        int status;
        if (waitpid(box->pid, &status, WNOHANG) != 0)
            return false;
        sched_yield();
    }
    atomic_store(&box->answered, 0);
    return true;
}

const char *stage_late_actor(struct stage *stage, enum who who)
{
    pid_t pid = fork_child();
    if (pid == 0) {
        int off = 0;
        shmp_end *end = shmp_open(stage->name, who == READER ? O_RDONLY | O_NONBLOCK : O_WRONLY);
        if (end == NULL)
            _exit(1);
        shmp_ioctl(end, FIONBIO, &off);
        atomic_fetch_add(&control->box[who].answered, 1);
        actor_run(who, end);
    }
    control->box[who].pid = stage->actor[who] = pid;
    return await_ready(who) ? NULL : "a survivor could not open the name";
}

static const char *make_pipe(struct stage *stage, shmp_end *ends[2])
{
    const struct context *c = stage->context;
    struct shmp_options options = {.capacity = (uint64_t)c->slots * SHMP_SLOT_SIZE,
                                   .first_index = c->wrapped ? BEFORE_WRAP - c->slots : 0};
    int off = 0;
    if (c->operation->kind == OF_A_PIPE)
        return shmp_pipe2_with(ends, O_CLOEXEC, &options) == 0 ? NULL : "pipe2";
    if (shmp_mkfifo_with(stage->name, 0600, &options) != 0)
        return "mkfifo";
    ends[0] = shmp_open(stage->name, O_RDONLY | O_NONBLOCK);
    ends[1] = shmp_open(stage->name, O_WRONLY);
    if (ends[0] == NULL || ends[1] == NULL)
        return "open";
    shmp_ioctl(ends[0], FIONBIO, &off);
    return NULL;
}

/* O10: whoever dies at one pipe disturbs nobody at another. */
static bool make_pipe_beside(const struct context *c)
{
    beside[0] = beside[1] = NULL;
    return c->operation->kind != OF_A_PIPE || c->operation->born != NO_CHILD ||
           c->arrival != FORKED || c->reader == ABSENT || c->writer == ABSENT ||
           shmp_pipe2(beside, O_CLOEXEC) == 0;
}

static const char *fill(struct stage *stage, shmp_end *ends[2])
{
    struct ledger *ledger = &control->ledger;
    static unsigned char rubbish[128 * SHMP_SLOT_SIZE];
    ssize_t all = (ssize_t)stage->context->slots * SHMP_SLOT_SIZE;
    long r = 0;
    /* Every slot has been used: what is left in it must never be seen.  And both sides have run
     * on this CPU, so nobody spins, and every path is the same each time. */
    if (shmp_write(ends[1], rubbish, (size_t)all) != all ||
        shmp_read(ends[0], rubbish, (size_t)all) != all)
        return "the first use";
    if (stage->context->packets)
        shmp_fcntl(ends[1], F_SETFL, O_DIRECT);
    ledger->packets = stage->context->packets;
    switch (stage->context->state) {
    case EMPTY:
    case STATES:
        break;
    case SOME:
        r = logged_write(ends[1], TAG_FILL, 100);
        if (!ledger->packets)
            ledger->received = (size_t)shmp_read(ends[0], ledger->stream, 30);
        break;
    case TWO:
        logged_write(ends[1], TAG_FILL, SHMP_SLOT_SIZE);
        r = logged_write(ends[1], TAG_FILL, 100);
        break;
    case NEARLY:
        r = logged_write(ends[1], TAG_FILL, (stage->context->slots - 1) * SHMP_SLOT_SIZE);
        break;
    case FULL:
        r = logged_write(ends[1], TAG_FILL, stage->context->slots * SHMP_SLOT_SIZE);
        break;
    }
    return r < 0 ? "filling" : NULL;
}

bool stage_view(struct stage *stage, int fd)
{
    stage->segment_fd = fd;
    void *at = mmap(NULL, SHMP_FIXED_BYTES, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return false;
    stage->header = at;
    stage->holders = (const void *)((const unsigned char *)at + SHMP_HOLDERS_OFFSET);
    return true;
}

/* Nobody can watch a victim whose life words are marked: then it looks now and then. */
static bool relay_sleeps(const struct context *c, enum who who)
{
    return (who == READER ? c->reader : c->writer) != LISTENS ||
           await_relay(control->box[who].pid, c->arrival != STALE);
}

static bool take_stance(enum who who, enum stance stance)
{
    static const enum command asleep[] = {DO_READ, DO_WRITE};
    static const enum command polls[] = {DO_POLL_READ, DO_POLL_WRITE};
    static const enum command arms[] = {DO_ARM_READ, DO_ARM_WRITE};
    long argument = who == READER ? 65536 : 100;
    bool hung = false;
    switch (stance) {
    case ABSENT:
    case IDLE:
        return true;
    case LOOKED:
        tell(who, DO_LOOK, 0, &hung);
        return !hung;
    case ASLEEP:
        ask(who, asleep[who], argument);
        break;
    case POLLS:
        ask(who, polls[who], argument);
        break;
    case ARMED:
        ask(who, arms[who], argument);
        break;
    case LISTENS:
        return tell(who, DO_LISTEN, 0, &hung) >= 0 && !hung;
    case EDGE:
        ask(who, DO_EDGE_READ, argument);
        break;
    }
    return await_asleep(who) && !has_answered(who);
}

static const char *take_stances(const struct context *c)
{
    static const enum stance order[] = {LOOKED, LISTENS, POLLS, EDGE, ARMED, ASLEEP};
    for (unsigned i = 0; i < sizeof order / sizeof order[0]; i++) {
        if (c->reader == order[i] && !take_stance(READER, c->reader))
            return "the reader does not take its stance";
        if (c->writer == order[i] && !take_stance(WRITER, c->writer))
            return "the writer does not take its stance";
    }
    return NULL;
}

static const char *leave(struct stage *stage, shmp_end *ends[2])
{
    char path[40];
    snprintf(path, sizeof path, "/proc/self/fd/%d", shmp_segment_fd(ends[0]));
    int fd = open(path, O_RDWR | O_CLOEXEC);
    shmp_close(ends[0]);
    shmp_close(ends[1]);
    for (int i = 0; i < 2; i++)
        if (beside[i])
            shmp_close(beside[i]);
    return stage_view(stage, fd) ? NULL : "the view";
}

/* A victim that the one just forked forks in its turn.  false: it came to nothing. */
static bool adopt_child(struct stage *stage)
{
    int status;
    stage->parent = stage->victim[VICTIM];
    stage->victim[VICTIM] = 0;
    bool sleeps = stage->context->operation->born == ORPHAN_OF_A_SLEEPER;
    while (atomic_load(&control->forked) == 0) {
        if (waitpid(stage->parent, &status, WNOHANG) != 0)
            return false;
        if (sleeps && sleeps_in(stage->parent) == SYS_futex_waitv) {
            kill(stage->parent, SIGUSR1);
            sleeps = false;
        }
        sched_yield();
    }
    if (!tracer_adopt(atomic_load(&control->forked)))
        return false;
    stage->victim[VICTIM] = atomic_load(&control->forked);
    atomic_store(&control->forked_goes, 1);
    return true;
}

static const char *start_victims(struct stage *stage, shmp_end *ends[2])
{
    for (unsigned which = 0; which < VICTIMS; which++) {
        if (which == SECOND && stage->context->dead == NULL)
            break;
        stage->victim[which] = fork_victim(stage, which, ends);
        bool born = which == VICTIM && stage->context->operation->born != NO_CHILD;
        if (stage->victim[which] < 0 || (born && !adopt_child(stage)) ||
            !tracer_attend(stage->victim[which]))
            return "a victim died too early";
        if (born && stage->context->operation->born != CHILD_OF_THE_LIVING)
            stage_end_parent(stage);
    }
    return NULL;
}

const char *stage_set(struct stage *stage, const struct context *c)
{
    shmp_end *ends[2] = {NULL, NULL};
    const char *wrong = NULL;
    char name[sizeof stage->name];
    memcpy(name, stage->name, sizeof name);
    *stage = (struct stage){.context = c, .segment_fd = -1};
    memcpy(stage->name, name, sizeof name);
    watch_trial();
    arena_reset();
    control_reset();
    bool cold = c->operation->kind != OF_A_PIPE && c->reader == ABSENT && c->writer == ABSENT;
    if (c->operation->kind == MAKES_NAME)
        return start_victims(stage, ends);
    if ((wrong = make_pipe(stage, ends)) || (wrong = fill(stage, ends)))
        return wrong;
    if (!make_pipe_beside(c))
        return "the pipe beside";
    if (cold) {
        wrong = leave(stage, ends);
        ends[0] = ends[1] = NULL;
        return wrong ? wrong : start_victims(stage, ends);
    }
    for (enum who who = READER; who <= WRITER; who++) {
        if ((who == READER ? c->reader : c->writer) == ABSENT)
            continue;
        stage->actor[who] = fork_actor(who, c->packets, ends);
        if (!await_ready(who))
            return "a survivor died too early";
    }
    stage->reader_left = c->reader != ABSENT;
    stage->writer_left = c->writer != ABSENT;
    if ((c->late && (wrong = take_stances(c))) || (wrong = start_victims(stage, ends)) ||
        (wrong = leave(stage, ends)) || (!c->late && (wrong = take_stances(c))))
        return wrong;
    for (enum who who = READER; who <= WRITER; who++) /* they heard the director leave */
        if (stage->actor[who] && !await_asleep(who))
            return "a survivor does not sleep";
    if (!relay_sleeps(c, READER) || !relay_sleeps(c, WRITER))
        return "a relay does not sleep";
    stage->before = stage_position(stage);
    return NULL;
}

void stage_clear(struct stage *stage)
{
    char path[sizeof stage->name + 60];
    int status;
    uint64_t instance = stage->header ? stage->header->instance : 0;
    for (unsigned which = 0; which < VICTIMS; which++)
        if (stage->victim[which] > 0)
            tracer_kill(stage->victim[which]);
    stage_end_parent(stage);
    stage->actor[CHILD] = control->box[CHILD].pid;
    for (unsigned who = 0; who < ACTORS; who++)
        if (stage->actor[who] > 0) {
            kill(stage->actor[who], SIGKILL);
            waitpid(stage->actor[who], &status, 0);
        }
    if (stage->header)
        munmap(stage->header, SHMP_FIXED_BYTES);
    if (stage->segment_fd >= 0)
        close(stage->segment_fd);
    if (stage->context->operation->kind == OF_A_PIPE)
        return;
    shmp_unlink(stage->name);
    snprintf(path, sizeof path, "/dev/shm/shmpipe-%016llx.%s", (unsigned long long)instance,
             stage->name);
    unlink(path);
}

/* ---- Looking ----------------------------------------------------------------------------- */

uint32_t stage_used(const struct stage *stage)
{
    uint32_t tail = SHMP_TAIL_INDEX(load_seq_cst(&stage->header->tail));
    return shmp_occupancy(load_seq_cst(&stage->header->head), tail);
}

bool stage_is_empty(const struct stage *stage)
{
    return stage_used(stage) == 0;
}

bool stage_is_full(const struct stage *stage)
{
    return stage_used(stage) >= shmp_max_usage(stage->header);
}

struct position stage_position(const struct stage *stage)
{
    const struct shmp_header *h = stage->header;
    const struct shmp_geometry *g = &h->geometry[load_acquire(&h->wait.geometry_gen) & 1];
    struct position at = {.head = load_seq_cst(&h->head), .tail = load_seq_cst(&h->tail)};
    uint32_t slot = (at.head - 1) & (load_relaxed(&g->ring_size) - 1);
    uint32_t word = 0;
    if (pread(stage->segment_fd, &word, sizeof word,
              (off_t)(load_relaxed(&g->area_offset) + slot * sizeof word)) == (ssize_t)sizeof word)
        at.newest_end = shmp_word_end(word);
    return at;
}
