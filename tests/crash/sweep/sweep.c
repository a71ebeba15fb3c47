/* sweep.c - records what an operation does, then kills a fresh victim at each instant of it. */
#include "sweep.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "atomic.h"
#include "oracle.h"
#include "view.h"

/* Longer paths are an error of the sweep, not of the library. */
#define STEPS_MAX ((size_t)2000000)

enum variant { PLAIN, IN_THE_CALL, ONE_ITERATION, SOME_ITERATIONS, LEFT_ALIVE };
static const char *const variant_names[] = {"", ", asleep in it", ", after one iteration",
                                            ", after 64 iterations", ", let go"};

/* One instant at which the victim can be killed. */
struct instant {
    size_t state;
    enum variant variant;
};

/* What precedes the kill. */
struct course {
    const struct context *context;
    const struct path *dead_path; /* of the one that died before, or NULL */
    size_t dead_state;
    bool meets;
    size_t meeting; /* the state in which the survivor comes */
};

struct sweep {
    const struct extent *extent;
    struct result *result;
    struct stage stage;
};

/* ---- Looking ------------------------------------------------------------------------------------- */

static bool is_locked(const struct stage *stage)
{
    return stage->header &&
           (load_relaxed(&stage->header->w.lock) | load_relaxed(&stage->header->r.lock) |
            load_relaxed(&stage->header->companion.lock)) != 0;
}

/* ---- Waking a victim that sleeps ----------------------------------------------------------------- */

static bool settle_actors(const struct stage *stage)
{
    for (enum who who = READER; who <= WRITER; who++)
        if (stage->actor[who] && !has_answered(who) && !await_asleep(who))
            return false;
    return true;
}

/* And nobody waits for a lock: whoever does goes on by itself. */
static bool calm_actors(const struct stage *stage)
{
    const struct shmp_header *h = stage->header;
    for (int looks = 0; looks < 2000; looks++) {
        uint32_t locks = 0;
        if (h)
            locks = load_relaxed(&h->w.lock) | load_relaxed(&h->r.lock) |
                    load_relaxed(&h->companion.lock);
        if (settle_actors(stage) && (locks & SHMP_LOCK_WAITERS) == 0)
            return true;
        usleep(200);
    }
    return false;
}

struct sleeper {
    struct stage *stage;
    pid_t pid;
    bool kill;
    bool failed;
};

static void wake_sleeper(void *context)
{
    struct sleeper *sleeper = context;
    const struct operation *o = sleeper->stage->context->operation;
    if (sleeper->kill) {
        kill(sleeper->pid, SIGKILL);
        return;
    }
    for (int tries = 0; tries < 8; tries++) {
        bool hung = false;
        if (o->wake != DO_NOTHING && has_answered(o->waker))
            tell(o->waker, o->wake, o->wake_argument, &hung);
        if (hung || !settle_actors(sleeper->stage))
            break;
        for (int looks = 0; looks < 20; looks++) {
            if (tracer_has_news(sleeper->pid))
                return;
            if (o->wake != DO_NOTHING && looks > 4 && sleeps_for_others(sleeper->pid))
                break; /* another sleeper was in front of it */
            usleep(o->wake != DO_NOTHING ? 100 : 2000);
        }
    }
    sleeper->failed = true;
    kill(sleeper->pid, SIGKILL);
}

/* ---- How often an instruction comes by ------------------------------------------------------------ */

/* Of an instruction in a loop: the first passes, the last ones, some between. */
#define PASSES_KEPT 6u
#define PASSES_MAX 65536u /* different instructions in a path, at the very most */

struct passes {
    uint64_t ip;
    size_t total;
};

static struct passes passes[PASSES_MAX];

static struct passes *passes_of(uint64_t ip)
{
    size_t i = (size_t)((ip * UINT64_C(0x9e3779b97f4a7c15)) >> 40) % PASSES_MAX;
    while (passes[i].ip != 0 && passes[i].ip != ip)
        i = (i + 1) % PASSES_MAX;
    passes[i].ip = ip;
    return &passes[i];
}

static void count_passes(struct path *path)
{
    memset(passes, 0, sizeof passes);
    for (size_t i = 0; i < path->count; i++)
        path->step[i].pass = (uint32_t)++passes_of(path->step[i].ip)->total;
    for (size_t i = 0; i < path->count; i++) {
        size_t pass = path->step[i].pass;
        size_t total = passes_of(path->step[i].ip)->total;
        path->step[i].kept = pass <= PASSES_KEPT || pass + 2 > total ||
                             pass % (total / PASSES_KEPT) == 0;
    }
}

/* ---- Recording ------------------------------------------------------------------------------------ */

static void meet(const struct course *course)
{
    ask(course->context->meanwhile_who, course->context->meanwhile,
        course->context->meanwhile_argument);
    await_asleep(course->context->meanwhile_who);
}

static const char *record(struct stage *stage, const struct course *course, pid_t pid,
                          struct path *path)
{
    static struct view views[2];
    unsigned turn = 0;
    path->count = 0;
    path->no_traps = stage->context->operation->threads;
    bool forked = false;
    uint64_t state = 0;
    view_take(stage, &views[0]);
    while (!tracer_is_at_end(pid)) {
        if (course->meets && course->meeting == path->count)
            meet(course);
        struct step step = {.ip = tracer_ip(pid), .sp = tracer_sp(pid)};
        step.marks = tracer_classify(pid, step.ip);
        struct sleeper sleeper = {.stage = stage, .pid = pid};
        bool slept;
        if (!tracer_step(pid, step.marks, wake_sleeper, &sleeper, &slept))
            return sleeper.failed ? "the victim sleeps and nobody wakes it" : "it died";
        if (slept)
            step.marks |= MARK_SLEEPS;
        if ((step.marks & MARK_CALL) != 0 && stage->context->operation->forks && !forked &&
            tracer_forked(pid)) {
            step.marks |= MARK_FORK;
            forked = path->no_traps = true;
        }
        view_take(stage, &views[!turn]);
        if (memcmp((const void *)&views[0], (const void *)&views[1], sizeof views[0]) != 0)
            step.marks |= MARK_CHANGED;
        turn = !turn;
        if (course->dead_path || course->meets) {
            step.state = state;
            if ((step.marks & (MARK_CHANGED | MARK_CALL)) != 0 || state == 0)
                state = view_hash(stage, &views[turn]);
        }
        step.inside = is_locked(stage);
        if (!path_add(path, step))
            return "the path does not end";
    }
    path->result = control->victim_result;
    count_passes(path);
    return NULL;
}

/* From its beginning to `to`, through sleeps and the meeting. */
static enum reached run(struct stage *stage, const struct course *course, pid_t pid,
                        const struct path *path, const struct instant *instant, bool slowly)
{
    size_t at = 0;
    for (size_t i = 0; i < instant->state; i++) {
        bool sleeps = (path->step[i].marks & MARK_SLEEPS) != 0;
        bool meets = course->meets && course->meeting == i;
        if (!sleeps && !meets)
            continue;
        enum reached r = tracer_run(pid, path, at, i, slowly);
        if (r != REACHED)
            return r;
        at = i;
        if (meets)
            meet(course);
        if (sleeps) {
            struct sleeper sleeper = {.stage = stage, .pid = pid};
            bool slept;
            if (!tracer_step(pid, path->step[i].marks, wake_sleeper, &sleeper, &slept))
                return REACHED_DEATH;
            if (!slept)
                return REACHED_NOT;
            at = i + 1;
        }
    }
    enum reached r = tracer_run(pid, path, at, instant->state, slowly);
    if (r == REACHED && course->meets && course->meeting == instant->state)
        meet(course);
    return r;
}

/* ---- One kill ------------------------------------------------------------------------------------------ */

static void note(struct sweep *sweep, const struct course *course, const struct path *path,
                 const struct instant *instant, const char *wrong)
{
    struct result *result = sweep->result;
    if (result->violations++ >= VIOLATIONS_KEPT)
        return;
    struct violation *v = &result->first[result->violations - 1];
    *v = (struct violation){.state = instant->state,
                            .count = path->count,
                            .variant = variant_names[instant->variant]};
    snprintf(v->wrong, sizeof v->wrong, "%s", wrong);
    if (instant->state < path->count)
        v->ip = path->step[instant->state].ip;
    const struct path *other = course->dead_path ? course->dead_path : path;
    v->other = course->dead_path || course->meets;
    v->other_state = course->dead_path ? course->dead_state : course->meeting;
    if (v->other && v->other_state < other->count)
        v->other_ip = other->step[v->other_state].ip;
}

/* The one that dies first (P8). */
static enum reached kill_first(struct stage *stage, const struct course *course, bool slowly)
{
    if (course->dead_path == NULL)
        return REACHED;
    enum reached r =
        tracer_run(stage->victim[SECOND], course->dead_path, 0, course->dead_state,
                   slowly);
    tracer_kill(stage->victim[SECOND]);
    stage->victim[SECOND] = 0;
    /* Whom its death woke is asleep again, so that the next victim meets the same each time. */
    return calm_actors(stage) ? r : REACHED_NOT;
}

/* PK-3: what a read leaves of a packet is gone with it. */
static long taken(const struct context *c, long result)
{
    if (!c->packets || result <= 0)
        return result;
    return c->state == EMPTY ? c->operation->wake_argument
           : c->state == SOME ? 100
                              : (long)SHMP_PIPE_BUF;
}

static void fill_expected(const struct stage *stage, const struct course *course,
                          const struct path *path, const struct instant *instant,
                          struct expected *expected)
{
    const struct context *c = stage->context;
    *expected = (struct expected){.returned = atomic_load(&control->victim_done) != 0};
    expected->lives = instant->variant == LEFT_ALIVE || stage->parent > 0;
    if (c->operation->reads)
        expected->read[VICTIM] =
            taken(c, expected->returned ? control->victim_result : path->result);
    if (course->dead_path && c->dead->reads)
        expected->read[SECOND] = taken(c, course->dead_path->result);
    for (size_t i = 0; i < instant->state; i++)
        expected->child = expected->child || (path->step[i].marks & MARK_FORK) != 0;
    if (expected->returned && stage->intent[VICTIM])
        ledger_end(&control->ledger, stage->intent[VICTIM], control->victim_result);
}

/* false: this run went another way. */
static bool kill_once(struct sweep *sweep, const struct course *course, const struct path *path,
                      const struct instant *instant, bool slowly)
{
    struct stage *stage = &sweep->stage;
    const char *wrong = stage_set(stage, course->context);
    if (wrong || kill_first(stage, course, slowly) != REACHED) {
        if (wrong)
            note(sweep, course, path, instant, wrong);
        stage_clear(stage);
        return wrong != NULL;
    }
    pid_t pid = stage->victim[VICTIM];
    enum reached r = run(stage, course, pid, path, instant, slowly);
    bool slept;
    struct sleeper dies = {.stage = stage, .pid = pid, .kill = true};
    if (r == REACHED && instant->variant == IN_THE_CALL)
        tracer_step(pid, MARK_CALL, wake_sleeper, &dies, &slept);
    for (int i = 0; r == REACHED && i < (instant->variant == ONE_ITERATION     ? 1
                                         : instant->variant == SOME_ITERATIONS ? 64
                                                                               : 0);
         i++)
        tracer_step_once(pid);
    if (r == REACHED && instant->variant == LEFT_ALIVE) {
        tracer_let_go(pid);
        stage_end_parent(stage);
    } else {
        tracer_kill(pid);
        stage->victim[VICTIM] = 0;
    }
    if (r != REACHED) {
        stage_clear(stage);
        return false;
    }
    sweep->result->kills += instant->variant != LEFT_ALIVE;
    struct expected expected;
    fill_expected(stage, course, path, instant, &expected);
    wrong = oracle_check(stage, &expected);
    if (wrong)
        note(sweep, course, path, instant, wrong);
    stage_clear(stage);
    return true;
}

static void kill_at(struct sweep *sweep, const struct course *course, const struct path *path,
                    const struct instant *instant)
{
    if (sweep->extent->dry) {
        sweep->result->kills++;
        return;
    }
    if (kill_once(sweep, course, path, instant, false))
        return;
    sweep->result->stepped++;
    if (kill_once(sweep, course, path, instant, true))
        return;
    sweep->result->astray++;
    if (sweep->extent->verbose)
        fprintf(stderr, "astray: state %zu of %zu\n", instant->state, path->count);
}

/* ---- What other paths of this context had --------------------------------------------------------------- */

/* An instruction, and the state in which it finds everything that is shared.  What else the process
 * has dies with it, so the second death there would be the first one again. */
#define SEEN_MAX ((size_t)1 << 20)
static uint64_t *seen;

static void forget_seen(void)
{
    if (seen == NULL)
        seen = mmap(NULL, SEEN_MAX * sizeof *seen, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    else
        madvise(seen, SEEN_MAX * sizeof *seen, MADV_REMOVE);
}

/* And notes it. */
static bool was_seen(const struct step *step, enum variant variant)
{
    uint64_t key = ((step->ip ^ (uint64_t)step->sp << 24) * UINT64_C(0x9e3779b97f4a7c15) ^
                    step->state) * UINT64_C(0xff51afd7ed558ccd) + variant + 1;
    size_t i = (size_t)(key >> 32) % SEEN_MAX;
    while (seen[i] != 0 && seen[i] != key)
        i = (i + 1) % SEEN_MAX;
    bool was = seen[i] == key;
    seen[i] = key;
    return was;
}

/* ---- Which instants --------------------------------------------------------------------------------------- */

static void kill_along(struct sweep *sweep, const struct course *course, const struct path *path,
                       size_t stride, size_t shift)
{
    const struct extent *extent = sweep->extent;
    struct result *result = sweep->result;
    size_t begin = course->meets ? course->meeting : 0;
    result->paths++;
    result->instructions += path->count - begin;
    for (size_t k = begin; k <= path->count && result->violations < extent->most; k++) {
        uint8_t before = k > 0 ? path->step[k - 1].marks : 0;
        uint8_t marks = k < path->count ? path->step[k].marks : 0;
        bool always = k == path->count || k == begin ||
                      (before & (MARK_CHANGED | MARK_CALL | MARK_SLEEPS)) != 0;
        bool chosen = always || k % stride == shift % stride;
        if (extent->only >= 0 && (size_t)extent->only != k)
            continue;
        if (extent->only < 0 && !always && !extent->every_pass && !path->step[k].kept) {
            result->thinned++;
            continue;
        }
        if (extent->only < 0 && chosen && k < path->count && path->step[k].state != 0 &&
            was_seen(&path->step[k], PLAIN)) {
            result->again++;
            continue;
        }
        if (chosen || extent->only >= 0)
            kill_at(sweep, course, path, &(struct instant){.state = k});
        if (k == path->count && (course->context->operation->executes ||
                                 course->context->operation->born != NO_CHILD))
            kill_at(sweep, course, path, &(struct instant){k, LEFT_ALIVE});
        if ((marks & MARK_SLEEPS) != 0)
            kill_at(sweep, course, path, &(struct instant){k, IN_THE_CALL});
        if ((marks & MARK_REPEAT) != 0 && chosen) {
            kill_at(sweep, course, path, &(struct instant){k, ONE_ITERATION});
            kill_at(sweep, course, path, &(struct instant){k, SOME_ITERATIONS});
        }
    }
}

/* ---- How long others are kept out --------------------------------------------------------------------- */

/* The longest stay in locks, from the first one that is taken to the last one that is free again. */
static void measure_sections(const struct path *path, struct result *result)
{
    size_t length = 0;
    size_t calls = 0;
    for (size_t i = 0; i < path->count; i++) {
        const struct step *step = &path->step[i];
        length = step->inside ? length + 1 : 0;
        calls = step->inside ? calls + ((step->marks & MARK_CALL) != 0) : 0;
        if (length > result->section) {
            result->section = length;
            result->section_calls = calls;
        }
    }
}

/* ---- A context ------------------------------------------------------------------------------------------------ */

static bool record_course(struct sweep *sweep, const struct course *course, unsigned which,
                          struct path *path)
{
    struct stage *stage = &sweep->stage;
    const char *wrong = stage_set(stage, course->context);
    bool astray = wrong == NULL && which == VICTIM && kill_first(stage, course, true) != REACHED;
    if (wrong == NULL && !astray)
        wrong = record(stage, course, stage->victim[which], path);
    stage_clear(stage);
    if (wrong)
        note(sweep, course, path, &(struct instant){.state = path->count}, wrong);
    sweep->result->astray += astray;
    return wrong == NULL && !astray;
}

/* After each change of the segment, in a lock or anywhere. */
static bool is_turning_point(const struct context *context, const struct step *step)
{
    if (context->dense)
        return step->inside && step->kept;
    return (step->marks & MARK_CHANGED) != 0 && (context->dead == NULL || step->inside);
}

void sweep_context(const struct context *context, const char *name, const struct extent *extent,
                   struct result *result)
{
    struct sweep sweep = {.extent = extent, .result = result};
    struct course course = {.context = context};
    struct path path;
    struct path outer;
    size_t points = 0;
    struct timespec from;
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &from);
    snprintf(sweep.stage.name, sizeof sweep.stage.name, "%s", name);
    if (!path_make(&path, STEPS_MAX) || !path_make(&outer, STEPS_MAX))
        return;
    forget_seen();
    bool nested = context->dead != NULL || context->meanwhile != DO_NOTHING;
    /* Once without looking: pages are touched for the first time only once. */
    stage_set(&sweep.stage, context);
    stage_clear(&sweep.stage);
    if (!record_course(&sweep, &course, context->dead ? SECOND : VICTIM, nested ? &outer : &path))
        goto over;
    measure_sections(nested ? &outer : &path, result);
    if (!nested)
        kill_along(&sweep, &course, &path, extent->stride, 0);
    if (context->dead && !extent->nested_pollers &&
        (context->reader == POLLS || context->writer == POLLS))
        goto over;
    for (size_t i = 0; i < outer.count && result->violations < extent->most; i++) {
        if (!is_turning_point(context, &outer.step[i]) ||
            points++ % extent->nested_points != extent->nested_points / 2)
            continue;
        course = (struct course){.context = context};
        if (context->dead) {
            course.dead_path = &outer;
            course.dead_state = i + 1;
        } else {
            course.meets = true;
            course.meeting = i + 1;
        }
        if (record_course(&sweep, &course, VICTIM, &path))
            kill_along(&sweep, &course, &path, context->dense ? STEPS_MAX : extent->nested_stride,
                       points);
    }
over:
    path_free(&path);
    path_free(&outer);
    clock_gettime(CLOCK_MONOTONIC, &until);
    result->seconds = (double)(until.tv_sec - from.tv_sec) +
                      (double)(until.tv_nsec - from.tv_nsec) / 1e9;
    result->done = true;
}
