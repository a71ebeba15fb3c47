/* oracle.c - survivors go on after a death, and what they see is held against the oracles. */
#include "oracle.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ring.h"

static char text[300];

#define WRONG(...) (snprintf(text, sizeof text, __VA_ARGS__), text)
#define TRY(expression)                                                                   \
    do {                                                                                  \
        const char *wrong_ = (expression);                                                \
        if (wrong_)                                                                       \
            return wrong_;                                                                \
    } while (0)

static const char *const who_names[] = {"reader", "writer", "child"};

/* One command that must be answered; its result must be one of two. */
static const char *expect(enum who who, enum command command, long argument, long one, long other)
{
    bool hung = false;
    long r = tell(who, command, argument, &hung);
    if (hung)
        return WRONG("hang: the %s %s", who_names[who], command_names[command]);
    if (r != one && r != other)
        return WRONG("the %s %s: %ld, not %ld", who_names[who], command_names[command], r, one);
    return NULL;
}

/* ---- Who slept when it happened ------------------------------------------------------------- */

/* What the survivor's call waits for is there. */
static bool may_go_on(const struct stage *stage, enum who who)
{
    return who == READER ? !stage_is_empty(stage) || !stage->writer_left
                         : !stage_is_full(stage) || !stage->reader_left;
}

static const char *judge_call(const struct stage *stage, enum who who)
{
    const struct box *box = &control->box[who];
    switch (box->command) {
    case DO_READ:
    case DO_POLL_READ:
    case DO_EDGE_READ:
    case DO_ARM_READ:
        if (box->result > 0 || (box->result == 0 && !stage->writer_left))
            return NULL;
        break;
    case DO_WRITE:
    case DO_POLL_WRITE:
    case DO_ARM_WRITE:
        if (box->result == box->argument || (box->result == -EPIPE && !stage->reader_left))
            return NULL;
        break;
    default:
        return NULL;
    }
    return WRONG("the %s that %s got %ld (%u wakes in vain)", who_names[who],
                 command_names[box->command], box->result, box->vain);
}

/* O5: whoever sleeps beside what it waits for gets up, without anybody's help. */
static const char *settle(struct stage *stage)
{
    for (int rounds = 0; rounds < 8; rounds++) {
        bool changed = false;
        for (enum who who = READER; who <= WRITER; who++) {
            if (stage->actor[who] == 0 || has_answered(who) || !may_go_on(stage, who))
                continue;
            changed = true;
            if (!await_answer(who) && may_go_on(stage, who))
                return WRONG("hang: the %s that %s sleeps beside %u of %u slots",
                             who_names[who], command_names[control->box[who].command],
                             stage_used(stage), shmp_max_usage(stage->header));
        }
        if (!changed)
            break;
    }
    for (enum who who = READER; who <= WRITER; who++)
        if (stage->actor[who] && has_answered(who) && control->box[who].command != DO_NOTHING)
            TRY(judge_call(stage, who));
    return NULL;
}

static bool is_pending(const struct stage *stage, enum who who)
{
    return stage->actor[who] && !has_answered(who);
}

static bool has_looked(const struct stage *stage, enum who who)
{
    uint32_t side = who == READER ? SHMP_POLL_READERS : SHMP_POLL_WRITERS;
    return (load_relaxed(&stage->header->wait.poll_usage) & side) != 0;
}

/* What poll() shows.  exact: after an operation of this end it is the truth; before, it may err
 * towards getting up. */
static const char *check_level(const struct stage *stage, enum who who, bool exact)
{
    bool hung = false;
    if (stage->actor[who] == 0 || is_pending(stage, who) || !has_looked(stage, who))
        return NULL;
    bool ready = may_go_on(stage, who);
    long revents = tell(who, DO_LEVELS, 0, &hung);
    bool shown = (revents & (POLLIN | POLLOUT | POLLHUP | POLLERR)) != 0;
    if (hung)
        return WRONG("hang: the %s looks at levels", who_names[who]);
    if (ready && !shown)
        return WRONG("poll shows the %s nothing beside %u of %u slots", who_names[who],
                     stage_used(stage), shmp_max_usage(stage->header));
    if (exact && !ready && shown)
        return WRONG("poll shows the %s %#lx beside %u of %u slots", who_names[who], revents,
                     stage_used(stage), shmp_max_usage(stage->header));
    return NULL;
}

static const char *check_levels(const struct stage *stage, bool exact)
{
    TRY(check_level(stage, READER, exact));
    return check_level(stage, WRITER, exact);
}

/* ---- Who listens ------------------------------------------------------------------------------- */

/* In milliseconds.  A relay that watches the dead is there at once; one that cannot looks every
 * tenth of a second. */
#define COUNT_MS 5000

/* The operations of dead victims that have left their traces in the ring: at least. */
static long traces(const struct stage *stage, enum who listener)
{
    const struct operation *o = stage->context->operation;
    struct position now = stage_position(stage);
    if (listener == WRITER)
        return o->reads && now.tail != stage->before.tail;
    return o->writes && (now.head != stage->before.head ||
                         now.newest_end != stage->before.newest_end);
}

static const char *count(enum who listener, long *counted)
{
    bool hung = false;
    *counted = tell(listener, DO_COUNT, 0, &hung);
    return hung ? WRONG("hang: the %s's notifier is read", who_names[listener]) : NULL;
}

/* The count becomes what the ring says, although nobody does anything. */
static const char *await_count(const struct stage *stage, enum who listener)
{
    enum stance stance = listener == READER ? stage->context->reader : stage->context->writer;
    enum who other = listener == READER ? WRITER : READER;
    long counted = 0;
    if (stance != LISTENS)
        return NULL;
    for (int looks = 0; looks < COUNT_MS; looks++) {
        TRY(count(listener, &counted));
        if (counted >= control->box[other].moved + traces(stage, listener))
            return NULL;
        usleep(1000);
    }
    return WRONG("the %s's notifier has counted %ld, but %ld operations", who_names[listener],
                 counted, control->box[other].moved + traces(stage, listener));
}

/* At the end it is exact: one for each operation that has moved data.  What was received, and what
 * was not, says which of the dead's have. */
static const char *check_count(const struct stage *stage, const struct expected *expected,
                               enum who listener, size_t lost)
{
    enum stance stance = listener == READER ? stage->context->reader : stage->context->writer;
    long counted = 0;
    long all = control->box[listener == READER ? WRITER : READER].moved;
    if (stance != LISTENS)
        return NULL;
    if (listener == READER)
        all += ledger_has(&control->ledger, TAG_VICTIM) + ledger_has(&control->ledger, TAG_SECOND);
    else if (!stage->actor[READER])
        all += traces(stage, listener);
    else if (lost > 0)
        all += 1 + (expected->read[VICTIM] > 0 && expected->read[SECOND] > 0 &&
                    lost == (size_t)(expected->read[VICTIM] + expected->read[SECOND]));
    TRY(count(listener, &counted));
    return counted == all ? NULL
                          : WRONG("the %s's notifier has counted %ld operations of %ld",
                                  who_names[listener], counted, all);
}

/* ---- Going on ---------------------------------------------------------------------------------- */

static const char *first_act(struct stage *stage)
{
    long bytes = (long)shmp_max_usage(stage->header) * (long)SHMP_SLOT_SIZE;
    enum who who = stage->actor[WRITER] ? WRITER : READER;
    switch (stage->context->first) {
    case FIRST_READ:
        return NULL;
    case FIRST_WRITE:
        return expect(WRITER, DO_WRITE, 10, 10, 10);
    case FIRST_RESIZE:
        return expect(who, DO_RESIZE, 2 * bytes, 2 * bytes, 2 * bytes);
    case FIRST_LOOK:
        for (who = READER; who <= WRITER; who++) {
            bool hung = false;
            if (stage->actor[who] && (tell(who, DO_LOOK, 0, &hung) < 0 || hung))
                return WRONG("the %s cannot look", who_names[who]);
        }
        return check_levels(stage, false); /* who had looked before changes nothing */
    case FIRST_PENDING: {
        bool hung = false;
        long r = tell(READER, DO_PENDING, 0, &hung);
        bool empty = stage_is_empty(stage);
        return hung || r < 0 || (r == 0) != empty ? WRONG("FIONREAD: %ld", r) : NULL;
    }
    }
    return NULL;
}

/* A sleeper whose condition does not hold yet: the other survivor makes it hold. */
static const char *wake_sleepers(struct stage *stage)
{
    if (is_pending(stage, READER) && !may_go_on(stage, READER)) {
        TRY(expect(WRITER, DO_WRITE, 10, 10, 10));
        TRY(settle(stage));
    }
    for (unsigned i = 0; is_pending(stage, WRITER) && i <= 2 * stage->context->slots; i++) {
        bool hung = false;
        if (!may_go_on(stage, WRITER) &&
            (tell(READER, DO_READ, SHMP_SLOT_SIZE, &hung) <= 0 || hung))
            return WRONG("the reader cannot make room");
        TRY(settle(stage));
    }
    for (enum who who = READER; who <= WRITER; who++)
        if (is_pending(stage, who) && !await_answer(who))
            return WRONG("hang: the %s that %s is not woken", who_names[who],
                         command_names[control->box[who].command]);
    return NULL;
}

/* O1 to O4. */
static const char *check_bytes(const struct stage *stage, const struct expected *expected)
{
    size_t lost;
    TRY(ledger_check(&control->ledger, &lost));
    size_t first = (size_t)(expected->read[VICTIM] > 0 ? expected->read[VICTIM] : 0);
    size_t second = (size_t)(expected->read[SECOND] > 0 ? expected->read[SECOND] : 0);
    bool allowed = expected->returned ? lost == first || lost == first + second
                                      : lost == 0 || lost == first || lost == second ||
                                            lost == first + second;
    if (!allowed)
        return WRONG("%zu bytes are lost; the dead may have taken %zu or %zu", lost, first, second);
    for (enum who who = READER; who <= WRITER; who++)
        if (stage->actor[who])
            TRY(check_count(stage, expected, who, lost));
    return NULL;
}

/* ---- As good as new ------------------------------------------------------------------------------ */

static const char *sleep_and_wake(void)
{
    ask(READER, DO_READ, 100);
    if (!await_asleep(READER) || has_answered(READER))
        return WRONG("the reader does not sleep: %ld", control->box[READER].result);
    TRY(expect(WRITER, DO_WRITE, 10, 10, 10));
    if (!await_answer(READER))
        return WRONG("hang: the last reader is not woken");
    return control->box[READER].result == 10
               ? NULL
               : WRONG("the last read: %ld", control->box[READER].result);
}

/* A ring of more slots is not filled more often than it must. */
#define SMALL 16

/* O7: every slot can be used, and comes back. */
static const char *use_all_slots(struct stage *stage)
{
    long slots = (long)shmp_max_usage(stage->header);
    TRY(expect(WRITER, DO_FILL, 0, slots, slots));
    TRY(check_levels(stage, true));
    ask(WRITER, DO_WRITE, 10);
    if (!await_asleep(WRITER) || has_answered(WRITER))
        return WRONG("the writer does not sleep: %ld", control->box[WRITER].result);
    TRY(expect(READER, DO_READ, SHMP_SLOT_SIZE, SHMP_SLOT_SIZE, SHMP_SLOT_SIZE));
    if (!await_answer(WRITER))
        return WRONG("hang: the last writer is not woken");
    if (control->box[WRITER].result != 10)
        return WRONG("the last write: %ld", control->box[WRITER].result);
    TRY(expect(READER, DO_DRAIN, 0, -EAGAIN, -EAGAIN));
    TRY(check_levels(stage, true));
    if (slots > SMALL)
        return NULL;
    TRY(expect(WRITER, DO_FILL, 0, slots, slots)); /* a wake too many puts the count right */
    return expect(READER, DO_DRAIN, 0, -EAGAIN, -EAGAIN);
}

static const char *resize_and_back(struct stage *stage)
{
    long slots = (long)shmp_max_usage(stage->header);
    long bytes = slots * (long)SHMP_SLOT_SIZE;
    bool hung = false;
    /* Both look now, if they had not before: the companion's lock is met, too. */
    if (tell(READER, DO_LOOK, 0, &hung) < 0 || tell(WRITER, DO_LOOK, 0, &hung) < 0 || hung)
        return WRONG("the survivors cannot look");
    TRY(check_levels(stage, true));
    if (slots > SMALL)
        return NULL;
    TRY(expect(WRITER, DO_RESIZE, 2 * bytes, 2 * bytes, 2 * bytes));
    TRY(expect(WRITER, DO_FILL, 0, 2 * slots, 2 * slots));
    TRY(expect(READER, DO_DRAIN, 0, -EAGAIN, -EAGAIN));
    return expect(READER, DO_RESIZE, bytes, bytes, bytes);
}

/* O8: what `shmpipe check` says.  What the dead leave is a note, never an error. */
static const char *check_invariants(const struct stage *stage)
{
    static struct shmp_check check;
    if (shmp_check_fd(stage->segment_fd, &check) != 0)
        return WRONG("check: errno %d, %s", errno, shmp_reason());
    if (check.errors)
        return WRONG("check: %s", check.findings[0].text);
    return check.moving ? WRONG("check: the ring does not stand still") : NULL;
}

/* O7 to O9: the segment at rest. */
static const char *check_segment(const struct stage *stage, unsigned readers, unsigned writers)
{
    static struct shmp_snapshot s;
    TRY(check_invariants(stage));
    if (shmp_inspect_fd(stage->segment_fd, &s) != 0)
        return WRONG("inspect: errno %d, %s", errno, shmp_reason());
    if (s.torn || s.occupancy > s.ring_size || s.max_usage > s.ring_size)
        return WRONG("the ring: %u slots used of %u of %u", s.occupancy, s.max_usage,
                     s.ring_size);
    if (s.readers != readers || s.writers != writers || s.holders != readers + writers)
        return WRONG("%u readers, %u writers, %u holders; not %u, %u", s.readers, s.writers,
                     s.holders, readers, writers);
    if (s.slice_found_work)
        return WRONG("the safety slice found %llu lost wakes",
                     (unsigned long long)s.slice_found_work);
    if (readers == 0 || writers == 0)
        return NULL;
    if (s.write_lock_owner || s.read_lock_owner || s.companion_lock_owner)
        return WRONG("a lock is still held: %u %u %u", s.write_lock_owner, s.read_lock_owner,
                     s.companion_lock_owner);
    /* Both have slept since the death, so its entry is gone, and no count is too high. */
    if (s.holder_count != readers + writers)
        return WRONG("%u holder entries for %u holders", s.holder_count, readers + writers);
    if (s.max_usage <= SMALL && (s.read_waiters || s.write_waiters))
        return WRONG("waiters are left: %u %u", s.read_waiters, s.write_waiters);
    /* I5: while the ring is empty the slot before head takes no merges. */
    if (s.occupancy != 0 || s.pending != 0)
        return WRONG("%llu bytes are left in %u slots", (unsigned long long)s.pending,
                     s.occupancy);
    return NULL;
}

static const char *dismiss(struct stage *stage, enum who who)
{
    int status;
    TRY(expect(who, DO_CLOSE, 0, 0, 0));
    TRY(expect(who, DO_EXIT, 0, 0, 0));
    pid_t pid = who == CHILD ? control->box[CHILD].pid : stage->actor[who];
    waitpid(pid, &status, 0);
    stage->actor[who] = 0;
    if (who == CHILD)
        control->box[CHILD].pid = 0;
    return NULL;
}

/* O10: the victim had both ends of the pipe beside, and what is asleep there is none of its business. */
static const char *use_pipe_beside(void)
{
    if (beside[0] == NULL)
        return NULL;
    ask(READER, DO_READ_BESIDE, 0);
    if (!await_asleep(READER) || has_answered(READER))
        return WRONG("beside, the reader does not sleep: %ld", control->box[READER].result);
    TRY(expect(WRITER, DO_WRITE_BESIDE, 0, 1, 1));
    if (!await_answer(READER))
        return WRONG("hang: beside, the reader is not woken");
    return control->box[READER].result == 1
               ? NULL
               : WRONG("beside, a byte is read: %ld", control->box[READER].result);
}

/* O6: end of file for the last reader, at once, when the last writer closes. */
static const char *close_all(struct stage *stage)
{
    ask(READER, DO_READ, 100);
    if (!await_asleep(READER) || has_answered(READER))
        return WRONG("the reader does not sleep before the end: %ld",
                     control->box[READER].result);
    TRY(dismiss(stage, WRITER));
    if (!await_answer(READER))
        return WRONG("hang: end of file is not told");
    if (control->box[READER].result != 0)
        return WRONG("end of file is %ld", control->box[READER].result);
    TRY(dismiss(stage, READER));
    return check_segment(stage, 0, 0);
}

/* ---- The whole of it ------------------------------------------------------------------------------ */

static const char *let_child_go(struct stage *stage, const struct expected *expected)
{
    struct box *box = &control->box[CHILD];
    if (!expected->child)
        return NULL;
    while (*(volatile pid_t *)&box->pid == 0)
        sched_yield(); /* it runs by itself now */
    bool reads = stage->context->operation->ends == HAS_READER;
    bool *left = reads ? &stage->reader_left : &stage->writer_left;
    bool before = *left;
    *left = true;
    TRY(settle(stage));
    *left = before;
    return dismiss(stage, CHILD);
}

/* A sleeper that cannot watch who has executed a program looks every few milliseconds: twice now.  A
 * poller does not, and the time passes. */
static void await_looks(const struct stage *stage)
{
    const struct shmp_header *h = stage->header;
    for (enum who who = READER; who <= WRITER; who++) {
        const _Atomic uint64_t *sleeps = who == READER ? &h->r.sleeps : &h->w.sleeps;
        uint64_t before = load_relaxed(sleeps);
        for (int ms = 0; ms < 200 && is_pending(stage, who) && load_relaxed(sleeps) < before + 3; ms++)
            usleep(1000);
    }
}

/* Before a fork child's own code runs it has an entry that says what it has. */
static const char *check_entry(const struct stage *stage)
{
    uint32_t ends = stage->context->operation->ends == HAS_READER ? 1u << 16 : 1u;
    for (unsigned i = 0; i < SHMP_HOLDERS; i++)
        if (load_relaxed(&stage->holders[i].pid) == (uint32_t)stage->victim[VICTIM] &&
            (uint32_t)load_relaxed(&stage->holders[i].state) == ends)
            return NULL;
    return WRONG("the fork child has no entry that says which end it has");
}

/* LF-3: an end that went through execve() is held as long as that process has its descriptors; one
 * that a fork child had, by its parent. */
static const char *look_for_the_living(struct stage *stage, const struct expected *expected)
{
    const struct operation *o = stage->context->operation;
    if (!expected->lives || o->argument != KEEPS_ITS_END)
        return NULL;
    bool *left = o->ends == HAS_READER ? &stage->reader_left : &stage->writer_left;
    bool before = *left;
    *left = true;
    if (o->executes)
        await_looks(stage);
    else if (stage->victim[VICTIM] > 0)
        TRY(check_entry(stage));
    TRY(settle(stage));
    if (stage->actor[READER] && !is_pending(stage, READER))
        TRY(expect(READER, DO_DRAIN, 0, stage->writer_left ? -EAGAIN : 0,
                   stage->writer_left ? -EAGAIN : 0));
    if (stage->actor[WRITER] && !is_pending(stage, WRITER) && !stage_is_full(stage))
        TRY(expect(WRITER, DO_WRITE, 10, 10, 10));
    *left = before;
    if (stage->victim[VICTIM] > 0)
        tracer_kill(stage->victim[VICTIM]);
    stage->victim[VICTIM] = 0;
    stage_end_parent(stage);
    return NULL;
}

/* A name that is in the making, or in nobody's hands: survivors come by name. */
static const char *come_by_name(struct stage *stage)
{
    char path[sizeof stage->name + 30];
    if (stage->context->operation->kind == MAKES_NAME && shmp_mkfifo(stage->name, 0600) != 0 &&
        errno != EEXIST)
        return WRONG("mkfifo after a dead creator: errno %d, %s", errno, shmp_reason());
    if (stage->header == NULL) {
        snprintf(path, sizeof path, "/dev/shm/shmpipe.%s", stage->name);
        if (!stage_view(stage, open(path, O_RDWR | O_CLOEXEC)))
            return WRONG("the object is not there");
    }
    ledger_reset(&control->ledger); /* a new life: nothing of the last one may be seen (FO-1) */
    TRY(stage_late_actor(stage, READER));
    TRY(stage_late_actor(stage, WRITER));
    stage->reader_left = stage->writer_left = true;
    return NULL;
}

static const char *check_name(struct stage *stage)
{
    char path[sizeof stage->name + 30];
    struct stat st;
    if (stage->context->operation->kind == OF_A_PIPE)
        return NULL;
    if (shmp_unlink(stage->name) != 0 && errno != ENOENT)
        return WRONG("unlink: errno %d", errno);
    snprintf(path, sizeof path, "/dev/shm/shmpipe.%s", stage->name);
    return stat(path, &st) == 0 ? WRONG("the name is still there") : NULL;
}

const char *oracle_check(struct stage *stage, const struct expected *expected)
{
    const struct context *c = stage->context;
    bool cold = c->operation->kind != OF_A_PIPE && c->reader == ABSENT && c->writer == ABSENT;
    if (cold) {
        TRY(come_by_name(stage));
    } else {
        TRY(let_child_go(stage, expected));
        TRY(look_for_the_living(stage, expected));
        TRY(settle(stage));
        TRY(check_invariants(stage));
        TRY(await_count(stage, READER));
        TRY(await_count(stage, WRITER));
        TRY(check_levels(stage, false));
        TRY(wake_sleepers(stage));
        TRY(first_act(stage));
    }
    if (stage->actor[READER]) {
        long end = stage->writer_left ? -EAGAIN : 0;
        TRY(expect(READER, DO_DRAIN, 0, end, end));
        TRY(check_levels(stage, true));
        if (!stage->actor[WRITER])
            TRY(check_bytes(stage, expected));
    } else {
        TRY(expect(WRITER, DO_WRITE, 10, -EPIPE, -EPIPE));
        TRY(check_count(stage, expected, WRITER, 0));
    }
    if (stage->actor[READER] && stage->actor[WRITER]) {
        TRY(use_pipe_beside());
        TRY(sleep_and_wake());
        TRY(use_all_slots(stage));
        TRY(resize_and_back(stage));
        TRY(check_bytes(stage, expected));
        TRY(check_segment(stage, 1, 1));
        TRY(close_all(stage));
    } else {
        TRY(dismiss(stage, stage->actor[READER] ? READER : WRITER));
        TRY(check_segment(stage, 0, 0));
    }
    return check_name(stage);
}
