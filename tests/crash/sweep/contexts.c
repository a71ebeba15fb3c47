/* contexts.c - the operations, and the table of contexts. */
#include "contexts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pipe.h"

const char *const state_names[] = {"empty", "some", "two", "nearly", "full"};
const char *const stance_names[] = {"absent", "idle", "asleep", "polls", "edge", "looked"};
const char *const command_names[] = {"nothing", "reads",    "writes",     "drains", "fills",
                                     "polls",   "polls",    "edge-polls", "looks",  "levels",
                                     "resizes", "pending?", "closes",     "exits"};
static const char *const first_names[] = {"", ", then write", ", then resize", ", then look",
                                          ", then FIONREAD"};

/* ---- Operations ------------------------------------------------------------------------ */

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

static shmp_end *own(struct victim *v)
{
    return v->reader ? v->reader : v->writer;
}

static long do_close(struct victim *v)
{
    return outcome(shmp_close(own(v)));
}

static long do_fork(struct victim *v)
{
    pid_t child = fork();
    if (child == 0) {
        control->box[CHILD].pid = getpid();
        actor_run(CHILD, own(v));
    }
    return child > 0 ? 0 : -errno;
}

static long do_resize(struct victim *v)
{
    return outcome(shmp_fcntl(own(v), F_SETPIPE_SZ, v->operation->argument));
}

static long do_look(struct victim *v)
{
    return outcome(shmp_fileno(own(v)));
}

static long do_async(struct victim *v)
{
    return outcome(shmp_fcntl(own(v), F_SETFL, O_ASYNC));
}

static long do_pending(struct victim *v)
{
    int bytes = 0;
    long r = outcome(shmp_ioctl(own(v), FIONREAD, &bytes));
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

#define K 1024L
#define W(name, bytes)                                                                    \
    {name, HAS_WRITER, true, false, bytes, do_write, .waker = READER, .wake = DO_READ,           \
     .wake_argument = 4 * K}
#define R(name, bytes)                                                                    \
    {name, HAS_READER, false, true, bytes, do_read, .waker = WRITER, .wake = DO_WRITE,            \
     .wake_argument = 60}

static const struct operation write_small = W("write 100", 100);
static const struct operation write_slot = W("write 4096", 4 * K);
static const struct operation write_merging = W("write 4196", 4 * K + 100);
static const struct operation write_many = W("write 12000", 12000);
static const struct operation write_long = W("write 278628", 272 * K + 100);
static const struct operation write_sleeping = W("write 300 that sleeps", 300);
static const struct operation write_sleeping_long = W("write 10000 that sleeps", 10000);
static const struct operation read_small = R("read 40", 40);
static const struct operation read_slot = R("read 4096", 4 * K);
static const struct operation read_all = R("read 65536", 64 * K);
static const struct operation read_sleeping = R("read 100 that sleeps", 100);
static const struct operation read_halves = {
    "read 4096 in halves", HAS_READER, false, true, 4 * K, do_read_halves, .wake = DO_NOTHING};
static const struct operation close_reader = {"close reader", HAS_READER, .run = do_close};
static const struct operation close_writer = {"close writer", HAS_WRITER, .run = do_close};
static const struct operation fork_reader = {"fork reader", HAS_READER, .run = do_fork,
                                             .forks = true};
static const struct operation fork_writer = {"fork writer", HAS_WRITER, .run = do_fork,
                                             .forks = true};
static const struct operation grow = {"grow to 8 slots", HAS_WRITER, .argument = 32 * K,
                                      .run = do_resize};
static const struct operation grow_reader = {"grow to 8 slots", HAS_READER, .argument = 32 * K,
                                             .run = do_resize};
static const struct operation shrink = {"shrink to 2 slots", HAS_WRITER, .argument = 8 * K,
                                        .run = do_resize};
static const struct operation look_reader = {"fileno reader", HAS_READER, .run = do_look};
static const struct operation look_writer = {"fileno writer", HAS_WRITER, .run = do_look};
static const struct operation async_reader = {"O_ASYNC reader", HAS_READER, .run = do_async};
static const struct operation async_writer = {"O_ASYNC writer", HAS_WRITER, .run = do_async};
static const struct operation pending = {"FIONREAD", HAS_READER, .run = do_pending};
static const struct operation import_reader = {"attach reader", HAS_DESCRIPTORS, .argument = 0,
                                               .run = do_import};
static const struct operation import_writer = {"attach writer", HAS_DESCRIPTORS, .argument = 1,
                                               .run = do_import};
static const struct operation open_reader = {"open reader", HAS_NOTHING, .run = do_open,
                                             .argument = O_RDONLY, .kind = BY_NAME};
static const struct operation open_writer = {"open writer", HAS_NOTHING, .run = do_open,
                                             .argument = O_WRONLY, .kind = BY_NAME};
static const struct operation open_both = {"open both", HAS_NOTHING, .run = do_open,
                                           .argument = O_RDWR, .kind = BY_NAME};
static const struct operation make_name = {"mkfifo", HAS_NOTHING, .run = do_mkfifo,
                                           .kind = MAKES_NAME};
static const struct operation drop_name = {"unlink", HAS_NOTHING, .run = do_unlink,
                                           .kind = BY_NAME};

/* ---- The table ----------------------------------------------------------------------------- */

#define CONTEXTS_MAX 512
static struct context table[CONTEXTS_MAX];
static size_t count;

static struct context *add(const struct operation *operation, enum state state,
                           enum stance reader, enum stance writer)
{
    struct context *context = &table[count++];
    *context = (struct context){.operation = operation,
                                .state = state,
                                .slots = operation == &write_long ? 128 : 4,
                                .reader = reader,
                                .writer = writer};
    return context;
}

static void add_wrapped(const struct operation *operation, enum state state, enum stance reader,
                        enum stance writer)
{
    add(operation, state, reader, writer);
    add(operation, state, reader, writer)->wrapped = true;
}

static void writes(void)
{
    static const struct {
        const struct operation *operation;
        enum state state;
    } into_room[] = {
        {&write_small, EMPTY}, {&write_small, SOME},    {&write_small, NEARLY},
        {&write_slot, SOME},   {&write_merging, EMPTY}, {&write_merging, SOME},
        {&write_many, EMPTY},
    };
    for (size_t i = 0; i < sizeof into_room / sizeof into_room[0]; i++) {
        const struct operation *o = into_room[i].operation;
        enum state s = into_room[i].state;
        add_wrapped(o, s, IDLE, IDLE);
        add(o, s, IDLE, LOOKED);
        add(o, s, LOOKED, IDLE);
        add(o, s, IDLE, ABSENT);
        if (s != EMPTY)
            continue;
        add_wrapped(o, s, ASLEEP, IDLE);
        add_wrapped(o, s, POLLS, IDLE);
        add(o, s, EDGE, IDLE);
        add(o, s, POLLS, LOOKED);
        add(o, s, ASLEEP, ABSENT);
        add(o, s, POLLS, ABSENT);
        add(o, s, ASLEEP, IDLE)->late = true;
    }
    add(&write_sleeping, FULL, IDLE, ASLEEP)->late = true;
    add_wrapped(&write_sleeping, FULL, IDLE, IDLE);
    add(&write_sleeping, FULL, IDLE, ASLEEP);
    add(&write_sleeping, FULL, LOOKED, LOOKED);
    add(&write_sleeping, FULL, LOOKED, POLLS);
    add(&write_sleeping, FULL, IDLE, ABSENT);
    add_wrapped(&write_sleeping_long, FULL, IDLE, IDLE);
    add(&write_sleeping_long, SOME, LOOKED, IDLE);
    add(&write_long, EMPTY, IDLE, IDLE);
    add(&write_long, EMPTY, ASLEEP, IDLE);
    add(&write_long, EMPTY, POLLS, IDLE);
    add(&write_small, EMPTY, ABSENT, IDLE);
    add(&write_small, EMPTY, IDLE, IDLE)->cold = true;
    add(&write_small, EMPTY, ASLEEP, IDLE)->cold = true;
    add(&write_sleeping, FULL, IDLE, IDLE)->cold = true;
}

static void reads(void)
{
    static const struct {
        const struct operation *operation;
        enum state state;
    } of_something[] = {
        {&read_small, SOME}, {&read_small, TWO}, {&read_slot, SOME}, {&read_slot, TWO},
        {&read_all, TWO},    {&read_all, FULL},  {&read_slot, FULL}, {&read_halves, TWO},
        {&read_halves, SOME},
    };
    for (size_t i = 0; i < sizeof of_something / sizeof of_something[0]; i++) {
        const struct operation *o = of_something[i].operation;
        enum state s = of_something[i].state;
        add_wrapped(o, s, IDLE, IDLE);
        add(o, s, LOOKED, IDLE);
        add(o, s, IDLE, LOOKED);
        add(o, s, ABSENT, IDLE);
        if (s != FULL)
            continue;
        add_wrapped(o, s, IDLE, ASLEEP);
        add_wrapped(o, s, IDLE, POLLS);
        add(o, s, LOOKED, POLLS);
        add(o, s, ABSENT, ASLEEP);
        add(o, s, ABSENT, POLLS);
        add(o, s, IDLE, ASLEEP)->late = true;
    }
    add(&read_small, FULL, IDLE, ASLEEP);
    add(&read_small, FULL, IDLE, POLLS);
    add_wrapped(&read_sleeping, EMPTY, IDLE, IDLE);
    add(&read_sleeping, EMPTY, ASLEEP, IDLE);
    add(&read_sleeping, EMPTY, LOOKED, LOOKED);
    add(&read_sleeping, EMPTY, POLLS, IDLE);
    add(&read_sleeping, EMPTY, ABSENT, IDLE);
    add(&read_halves, EMPTY, IDLE, IDLE);
    add(&read_small, EMPTY, IDLE, ABSENT);
    add(&read_sleeping, EMPTY, IDLE, IDLE)->cold = true;
    add(&pending, TWO, IDLE, IDLE);
}

static void lives(void)
{
    static const struct operation *const of_writer[] = {&close_writer, &fork_writer,
                                                        &look_writer, &async_writer};
    static const struct operation *const of_reader[] = {&close_reader, &fork_reader,
                                                        &look_reader, &async_reader};
    for (int i = 0; i < 4; i++) {
        add(of_writer[i], SOME, IDLE, IDLE);
        add(of_writer[i], EMPTY, ASLEEP, IDLE);
        add(of_writer[i], EMPTY, ASLEEP, ABSENT);
        add(of_writer[i], EMPTY, POLLS, IDLE);
        add(of_writer[i], EMPTY, POLLS, ABSENT);
        add(of_writer[i], FULL, IDLE, ASLEEP);
        add(of_writer[i], FULL, LOOKED, POLLS);
        add(of_reader[i], SOME, IDLE, IDLE);
        add(of_reader[i], FULL, IDLE, ASLEEP);
        add(of_reader[i], FULL, ABSENT, ASLEEP);
        add(of_reader[i], FULL, IDLE, POLLS);
        add(of_reader[i], FULL, ABSENT, POLLS);
        add(of_reader[i], EMPTY, ASLEEP, IDLE);
        add(of_reader[i], EMPTY, POLLS, LOOKED);
    }
    static const struct operation *const comes[] = {&import_reader, &import_writer, &open_reader,
                                                    &open_writer, &open_both};
    for (int i = 0; i < 5; i++) {
        add(comes[i], SOME, IDLE, IDLE);
        add(comes[i], EMPTY, ASLEEP, IDLE);
        add(comes[i], EMPTY, POLLS, IDLE);
        add(comes[i], FULL, IDLE, ASLEEP);
        add(comes[i], FULL, IDLE, POLLS);
    }
    add(&drop_name, SOME, IDLE, IDLE);
    /* Nobody is there: a new life of an old name, and a name in the making. */
    add(&open_both, EMPTY, ABSENT, ABSENT);
    add(&open_both, SOME, ABSENT, ABSENT);
    add(&make_name, EMPTY, ABSENT, ABSENT);
}

static void resizes(void)
{
    static const enum state states[] = {EMPTY, SOME, TWO, FULL};
    for (int i = 0; i < 4; i++) {
        add_wrapped(&grow, states[i], IDLE, IDLE);
        if (states[i] != FULL)
            add(&shrink, states[i], LOOKED, LOOKED);
    }
    add(&grow, FULL, IDLE, ASLEEP);
    add(&grow, FULL, IDLE, POLLS);
    add(&grow, EMPTY, ASLEEP, IDLE);
    add(&grow, EMPTY, POLLS, IDLE);
    add(&grow_reader, FULL, IDLE, ASLEEP);
    add(&grow_reader, FULL, IDLE, POLLS);
    add(&shrink, EMPTY, ASLEEP, IDLE);
    add(&shrink, SOME, IDLE, IDLE);
    add(&shrink, FULL, IDLE, IDLE);
}

/* Another survivor is the first to meet what the dead has left. */
static void first_acts(void)
{
    static const enum first firsts[] = {FIRST_WRITE, FIRST_RESIZE, FIRST_LOOK, FIRST_PENDING};
    for (int i = 0; i < 4; i++) {
        add(&write_small, SOME, IDLE, IDLE)->first = firsts[i];
        add(&write_small, SOME, LOOKED, LOOKED)->first = firsts[i];
        add(&write_merging, SOME, IDLE, IDLE)->first = firsts[i];
        add(&read_slot, TWO, IDLE, IDLE)->first = firsts[i];
        add(&read_slot, SOME, LOOKED, LOOKED)->first = firsts[i];
        add(&grow, TWO, IDLE, IDLE)->first = firsts[i];
    }
}

/* P8: the first one to recover dies, too. */
static void recoveries(void)
{
    static const struct {
        const struct operation *dead;
        const struct operation *recovers;
        enum state state;
        enum stance reader;
        enum stance writer;
    } both[] = {
        {&write_small, &write_small, EMPTY, ASLEEP, IDLE},
        {&write_small, &write_small, SOME, IDLE, IDLE},
        {&write_small, &write_small, EMPTY, POLLS, IDLE},
        {&write_merging, &write_small, SOME, LOOKED, LOOKED},
        {&write_small, &grow, SOME, IDLE, IDLE},
        {&read_slot, &read_slot, SOME, IDLE, IDLE},
        {&read_slot, &read_slot, TWO, IDLE, IDLE},
        {&read_slot, &read_slot, FULL, IDLE, ASLEEP},
        {&read_slot, &read_slot, FULL, IDLE, POLLS},
        {&read_slot, &read_small, TWO, LOOKED, LOOKED},
        {&read_slot, &grow_reader, TWO, IDLE, IDLE},
        {&grow, &write_small, TWO, IDLE, IDLE},
        {&grow, &read_slot, TWO, IDLE, IDLE},
        {&grow, &grow, FULL, IDLE, ASLEEP},
        {&look_reader, &look_reader, SOME, IDLE, IDLE},
        {&look_writer, &write_small, SOME, IDLE, IDLE},
    };
    for (size_t i = 0; i < sizeof both / sizeof both[0]; i++)
        add(both[i].recovers, both[i].state, both[i].reader, both[i].writer)->dead =
            both[i].dead;
}

/* While the victim is between two changes somebody else comes. */
static void meetings(void)
{
    static const struct {
        const struct operation *operation;
        enum state state;
        enum stance reader;
        enum stance writer;
        enum who who;
        enum command command;
        long argument;
    } all[] = {
        {&write_small, EMPTY, IDLE, IDLE, READER, DO_READ, 65536},
        {&write_small, EMPTY, IDLE, IDLE, READER, DO_POLL_READ, 0},
        {&write_small, EMPTY, IDLE, IDLE, WRITER, DO_LOOK, 0},
        {&write_merging, SOME, IDLE, IDLE, READER, DO_READ, 65536},
        {&write_merging, SOME, LOOKED, IDLE, READER, DO_POLL_READ, 0},
        {&write_many, EMPTY, IDLE, IDLE, READER, DO_POLL_READ, 0},
        {&read_slot, FULL, IDLE, IDLE, WRITER, DO_WRITE, 100},
        {&read_slot, FULL, IDLE, IDLE, WRITER, DO_POLL_WRITE, 100},
        {&read_all, FULL, IDLE, IDLE, WRITER, DO_POLL_WRITE, 100},
        {&read_slot, SOME, IDLE, IDLE, WRITER, DO_WRITE, 100},
        {&read_slot, SOME, LOOKED, LOOKED, WRITER, DO_WRITE, 100},
        {&close_writer, EMPTY, IDLE, ABSENT, READER, DO_READ, 65536},
        {&close_writer, EMPTY, IDLE, ABSENT, READER, DO_POLL_READ, 0},
        {&close_reader, FULL, ABSENT, IDLE, WRITER, DO_WRITE, 100},
        {&fork_writer, EMPTY, IDLE, IDLE, READER, DO_READ, 65536},
        {&grow, FULL, IDLE, IDLE, WRITER, DO_WRITE, 100},
        {&grow, FULL, IDLE, IDLE, WRITER, DO_POLL_WRITE, 100},
        {&import_writer, EMPTY, IDLE, IDLE, READER, DO_READ, 65536},
        {&write_long, EMPTY, LOOKED, IDLE, READER, DO_DRAIN, 0},
        {&write_long, EMPTY, IDLE, IDLE, READER, DO_POLL_READ, 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct context *c = add(all[i].operation, all[i].state, all[i].reader, all[i].writer);
        c->meanwhile_who = all[i].who;
        c->meanwhile = all[i].command;
        c->meanwhile_argument = all[i].argument;
    }
}

size_t contexts_make(void)
{
    writes();
    reads();
    lives();
    resizes();
    first_acts();
    recoveries();
    meetings();
    return count;
}

const struct context *context_at(size_t index)
{
    return &table[index];
}

void context_describe(const struct context *c, char *text, size_t size)
{
    int n = snprintf(text, size, "%s%s%s, %s%s, reader %s, writer %s%s%s%s",
                     c->dead ? c->dead->name : "", c->dead ? " died; " : "", c->operation->name,
                     state_names[c->state], c->wrapped ? " at the wrap" : "",
                     stance_names[c->reader], stance_names[c->writer], c->late ? ", late" : "",
                     c->cold ? ", cold" : "",
                     first_names[c->first]);
    if (c->meanwhile != DO_NOTHING && n > 0 && (size_t)n < size)
        snprintf(text + n, size - (size_t)n, "; meanwhile the %s %s",
                 c->meanwhile_who == READER ? "reader" : "writer", command_names[c->meanwhile]);
}
