/* contexts.c - the table of contexts. */
#include "contexts.h"

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

static bool is_there(const struct operation *operation, enum state state, bool wrapped,
                     bool packets)
{
    for (size_t i = 0; i < count; i++)
        if (table[i].operation == operation && table[i].state == state &&
            table[i].wrapped == wrapped && table[i].packets == packets && table[i].dead == NULL &&
            table[i].arrival == FORKED && table[i].meanwhile == DO_NOTHING)
            return true;
    return false;
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
    static const struct operation *const of_writer[] = {
        &close_writer, &fork_writer, &look_writer, &async_writer, &child_writer, &orphan_writer};
    static const struct operation *const of_reader[] = {
        &close_reader, &fork_reader, &look_reader, &async_reader, &child_reader, &orphan_reader};
    for (int i = 0; i < 6; i++) {
        size_t from = count;
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
        if (of_reader[i]->born == NO_CHILD)
            continue;
        add(of_writer[i], EMPTY, ASLEEP, IDLE)->late = true;
        add(of_reader[i], FULL, IDLE, ASLEEP)->late = true;
        /* The path is long (it looks at every holder that it may know): the sample has two. */
        for (struct context *c = &table[from]; c < &table[count]; c++)
            c->only_all = i == 5 || (c->reader != ABSENT && c->writer != ABSENT) ||
                          c->reader == POLLS || c->writer == POLLS;
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
    add(&orphan_sleeper, EMPTY, IDLE, IDLE)->only_all = true;
    add(&orphan_sleeper, EMPTY, ASLEEP, IDLE)->only_all = true;
    add(&orphan_sleeper, EMPTY, ABSENT, IDLE)->only_all = true;
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
struct recovery {
    const struct operation *dead;
    const struct operation *recovers;
    enum state state;
    enum stance reader;
    enum stance writer;
};

static struct context *add_recovery(const struct recovery *recovery)
{
    struct context *c =
        add(recovery->recovers, recovery->state, recovery->reader, recovery->writer);
    c->dead = recovery->dead;
    return c;
}

static void recoveries(void)
{
    static const struct recovery both[] = {
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
        {&write_small, &rescue_reader, EMPTY, IDLE, IDLE},
        {&write_small, &arm_reader, EMPTY, IDLE, IDLE},
        {&write_many, &write_small, EMPTY, IDLE, IDLE},
        {&write_all, &look_reader, EMPTY, IDLE, IDLE},
    };
    static const struct recovery also[] = {
        {&read_slot, &rescue_writer, TWO, IDLE, IDLE},
        {&write_small, &listen_reader, EMPTY, IDLE, IDLE},
        {&write_small, &write_small, EMPTY, LISTENS, IDLE},
        {&write_merging, &write_small, SOME, LISTENS, IDLE},
        {&read_slot, &read_slot, TWO, IDLE, LISTENS},
        {&write_small, &write_small, EMPTY, ARMED, IDLE},
        {&read_slot, &read_slot, FULL, IDLE, ARMED},
        {&write_all, &write_small, EMPTY, IDLE, IDLE},
        {&write_all, &write_all, EMPTY, ASLEEP, IDLE},
        {&write_many, &grow, EMPTY, POLLS, IDLE},
        {&shrink, &write_small, SOME, IDLE, IDLE},
        {&shrink, &read_slot, SOME, LOOKED, LOOKED},
        {&shrink, &shrink, EMPTY, ASLEEP, IDLE},
        {&arm_reader, &arm_reader, EMPTY, IDLE, IDLE},
        {&arm_writer, &write_small, SOME, IDLE, IDLE},
        {&arm_writer, &arm_writer, FULL, IDLE, IDLE},
    };
    /* At the wrap, and where no write may merge with another. */
    static const struct recovery elsewhere[] = {
        {&write_small, &write_small, SOME, IDLE, IDLE},
        {&write_many, &write_small, EMPTY, IDLE, IDLE},
        {&read_slot, &read_slot, FULL, IDLE, IDLE},
    };
    for (size_t i = 0; i < sizeof both / sizeof both[0]; i++)
        add_recovery(&both[i]);
    for (size_t i = 0; i < sizeof also / sizeof also[0]; i++)
        add_recovery(&also[i])->only_all = true;
    for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++) {
        struct context *wrapped = add_recovery(&elsewhere[i]);
        struct context *packets = add_recovery(&elsewhere[i]);
        wrapped->wrapped = wrapped->only_all = true;
        packets->packets = packets->only_all = true;
    }
}

/* While the victim is between two changes somebody else comes. */
struct meeting {
    const struct operation *operation;
    enum state state;
    enum stance reader;
    enum stance writer;
    enum who who;
    enum command command;
    long argument;
};

static struct context *add_meeting(const struct meeting *meeting)
{
    struct context *c =
        add(meeting->operation, meeting->state, meeting->reader, meeting->writer);
    c->meanwhile_who = meeting->who;
    c->meanwhile = meeting->command;
    c->meanwhile_argument = meeting->argument;
    return c;
}

static void meetings(void)
{
    static const struct meeting all[] = {
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
        {&arm_reader, EMPTY, IDLE, IDLE, WRITER, DO_WRITE, 100},
        {&arm_writer, FULL, IDLE, IDLE, READER, DO_READ, 4096},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        add_meeting(&all[i]);
    /* What an operation has looked at and not yet changed: whoever begins to look, to sleep or to
     * listen just then must not be forgotten. */
    static const struct meeting dense[] = {
        {&write_small, EMPTY, IDLE, IDLE, READER, DO_ARM_READ, 0},
        {&write_small, EMPTY, IDLE, IDLE, READER, DO_POLL_READ, 0},
        {&write_small, EMPTY, IDLE, IDLE, READER, DO_READ, 65536},
        {&read_slot, FULL, IDLE, IDLE, WRITER, DO_ARM_WRITE, 100},
        {&read_slot, FULL, IDLE, IDLE, WRITER, DO_POLL_WRITE, 100},
        {&read_slot, FULL, IDLE, IDLE, WRITER, DO_WRITE, 100},
    };
    for (size_t i = 0; i < sizeof dense / sizeof dense[0]; i++) {
        struct context *c = add_meeting(&dense[i]);
        c->dense = c->only_all = true;
    }
}

/* Notifiers: of survivors, whose count must be exact, and of victims. */
static void notifiers(void)
{
    static const struct {
        const struct operation *operation;
        enum state state;
    } counted[] = {
        {&write_small, EMPTY},    {&write_small, SOME}, {&write_small, NEARLY},
        {&write_merging, EMPTY},  {&write_merging, SOME}, {&write_many, EMPTY},
        {&write_sleeping, FULL},  {&read_small, SOME},  {&read_slot, SOME},
        {&read_slot, TWO},        {&read_slot, FULL},   {&read_all, TWO},
        {&read_all, FULL},        {&read_sleeping, EMPTY},
    };
    for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++) {
        const struct operation *o = counted[i].operation;
        add_wrapped(o, counted[i].state, o->writes ? LISTENS : IDLE, o->writes ? IDLE : LISTENS);
    }
    add(&write_small, EMPTY, LISTENS, LISTENS);
    add(&write_small, EMPTY, LISTENS, LOOKED);
    add(&write_small, EMPTY, LISTENS, ABSENT);
    add(&write_small, EMPTY, LISTENS, IDLE)->cold = true;
    add(&write_small, EMPTY, LISTENS, IDLE)->packets = true;
    add(&write_many, EMPTY, LISTENS, IDLE)->packets = true;
    add(&read_slot, FULL, LOOKED, LISTENS);
    add(&read_slot, FULL, ABSENT, LISTENS);
    add(&read_slot, FULL, IDLE, LISTENS)->packets = true;
    add(&read_halves, TWO, IDLE, LISTENS);
    /* Nothing of these counts. */
    static const struct operation *const silent[] = {&close_writer, &fork_writer, &grow,
                                                     &look_writer,  &arm_writer,  &import_writer};
    for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++)
        add(silent[i], SOME, LISTENS, IDLE);
    add(&close_writer, SOME, LISTENS, ABSENT);
    add(&close_reader, SOME, ABSENT, LISTENS);

    static const struct operation *const of_reader[] = {&listen_reader, &count_reader,
                                                        &rescue_reader, &unlisten_reader};
    static const struct operation *const of_writer[] = {&listen_writer, &count_writer,
                                                        &rescue_writer, &unlisten_writer};
    for (size_t i = 0; i < 4; i++) {
        add_wrapped(of_reader[i], EMPTY, IDLE, IDLE);
        add(of_reader[i], SOME, LISTENS, IDLE);
        add(of_reader[i], EMPTY, ASLEEP, IDLE);
        add(of_reader[i], EMPTY, POLLS, LOOKED);
        add(of_reader[i], FULL, IDLE, ASLEEP);
        add_wrapped(of_writer[i], FULL, IDLE, IDLE);
        add(of_writer[i], SOME, IDLE, LISTENS);
        add(of_writer[i], EMPTY, ASLEEP, IDLE);
        add(of_writer[i], FULL, LOOKED, POLLS);
    }
}

/* One-shot readiness: of survivors, and of victims that arm. */
static void armed(void)
{
    static const struct operation *const writes[] = {&write_small, &write_merging, &write_many,
                                                     &close_writer, &fork_writer, &arm_writer,
                                                     &import_writer, &grow};
    static const struct operation *const reads[] = {&read_slot, &read_all, &read_halves,
                                                    &close_reader, &fork_reader, &arm_reader,
                                                    &import_reader, &grow_reader};
    for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++) {
        add_wrapped(writes[i], EMPTY, ARMED, IDLE);
        add(writes[i], EMPTY, ARMED, LOOKED);
        if (i < 5)
            add(writes[i], EMPTY, ARMED, ABSENT);
    }
    for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++) {
        add_wrapped(reads[i], FULL, IDLE, ARMED);
        add(reads[i], FULL, LOOKED, ARMED);
        if (i < 5)
            add(reads[i], FULL, ABSENT, ARMED);
    }
    add(&write_sleeping, FULL, IDLE, ARMED)->late = true;
    add(&read_sleeping, EMPTY, ARMED, IDLE);
    static const enum state states[] = {EMPTY, SOME, FULL};
    for (int i = 0; i < 3; i++) {
        add_wrapped(&arm_reader, states[i], IDLE, IDLE);
        add_wrapped(&arm_writer, states[i], IDLE, IDLE);
        add(&arm_reader, states[i], LOOKED, LOOKED);
        add(&arm_writer, states[i], LOOKED, LOOKED);
    }
    add(&arm_reader, EMPTY, ASLEEP, IDLE);
    add(&arm_reader, EMPTY, POLLS, IDLE);
    add(&arm_reader, EMPTY, ARMED, IDLE);
    add(&arm_writer, FULL, IDLE, ASLEEP);
    add(&arm_writer, FULL, IDLE, POLLS);
    add(&arm_writer, FULL, IDLE, ARMED);
}

/* O_DIRECT: no packet is torn, none merges with another. */
static void packets(void)
{
    static const struct {
        const struct operation *operation;
        enum state state;
    } all[] = {
        {&write_small, EMPTY}, {&write_small, SOME},        {&write_small, NEARLY},
        {&write_slot, SOME},   {&write_merging, EMPTY},     {&write_merging, SOME},
        {&write_many, EMPTY},  {&write_sleeping, FULL},     {&write_sleeping_long, FULL},
        {&read_small, SOME},   {&read_small, TWO},          {&read_small, FULL},
        {&read_slot, SOME},    {&read_slot, FULL},          {&read_all, TWO},
        {&read_halves, TWO},   {&read_sleeping, EMPTY},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        const struct operation *o = all[i].operation;
        enum state s = all[i].state;
        add(o, s, IDLE, IDLE)->packets = true;
        struct context *wrapped = add(o, s, IDLE, IDLE);
        wrapped->packets = wrapped->wrapped = true;
        add(o, s, LOOKED, LOOKED)->packets = true;
        if (s == EMPTY && o->writes) {
            add(o, s, ASLEEP, IDLE)->packets = true;
            add(o, s, POLLS, IDLE)->packets = true;
        }
        if (s == FULL && o->reads) {
            add(o, s, IDLE, ASLEEP)->packets = true;
            add(o, s, IDLE, POLLS)->packets = true;
        }
    }
}

/* execve(), and threads that end while their process goes on. */
static void other_lives(void)
{
    static const struct operation *const of_writer[] = {&exec_writer, &exec_closing_writer,
                                                        &dup_writer};
    static const struct operation *const of_reader[] = {&exec_reader, &exec_closing_reader,
                                                        &dup_reader};
    for (int i = 0; i < 3; i++) {
        add_wrapped(of_writer[i], SOME, IDLE, IDLE);
        add(of_writer[i], SOME, IDLE, ABSENT);
        add(of_writer[i], EMPTY, ASLEEP, IDLE);
        add(of_writer[i], EMPTY, ASLEEP, ABSENT);
        add(of_writer[i], EMPTY, POLLS, ABSENT);
        add(of_writer[i], FULL, IDLE, ASLEEP);
        add_wrapped(of_reader[i], SOME, IDLE, IDLE);
        add(of_reader[i], FULL, ABSENT, IDLE);
        add(of_reader[i], FULL, IDLE, ASLEEP);
        add(of_reader[i], FULL, ABSENT, ASLEEP);
        add(of_reader[i], FULL, ABSENT, POLLS);
        add(of_reader[i], EMPTY, ASLEEP, IDLE);
    }
    static const struct operation *const comes[] = {&import_reader, &import_writer};
    for (int i = 0; i < 2; i++) {
        add(comes[i], SOME, IDLE, IDLE)->arrival = EXECUTED;
        add(comes[i], EMPTY, ASLEEP, i == 0 ? IDLE : ABSENT)->arrival = EXECUTED;
        add(comes[i], FULL, i == 0 ? ABSENT : IDLE, ASLEEP)->arrival = EXECUTED;
    }
    static const struct {
        const struct operation *operation;
        enum state state;
        enum stance reader;
        enum stance writer;
    } goes_on[] = {
        {&write_small, SOME, IDLE, IDLE},       {&write_small, EMPTY, ASLEEP, IDLE},
        {&write_small, EMPTY, ASLEEP, ABSENT},  {&write_small, EMPTY, POLLS, IDLE},
        {&write_small, EMPTY, LISTENS, IDLE},   {&write_sleeping, FULL, IDLE, IDLE},
        {&write_sleeping, FULL, IDLE, ASLEEP},  {&read_slot, FULL, IDLE, ASLEEP},
        {&read_slot, FULL, ABSENT, ASLEEP},     {&read_slot, FULL, IDLE, POLLS},
        {&read_sleeping, EMPTY, IDLE, IDLE},    {&read_sleeping, EMPTY, ASLEEP, IDLE},
        {&close_writer, EMPTY, ASLEEP, ABSENT}, {&close_reader, FULL, ABSENT, ASLEEP},
        {&fork_writer, EMPTY, ASLEEP, IDLE},    {&look_reader, EMPTY, ASLEEP, IDLE},
        {&child_writer, EMPTY, ASLEEP, IDLE},   {&child_reader, FULL, IDLE, ASLEEP},
        {&grow, FULL, IDLE, ASLEEP},            {&dup_writer, SOME, IDLE, IDLE},
    };
    for (size_t i = 0; i < sizeof goes_on / sizeof goes_on[0]; i++) {
        struct context *c = add(goes_on[i].operation, goes_on[i].state, goes_on[i].reader,
                                goes_on[i].writer);
        c->arrival = STALE;
        c->only_all = goes_on[i].operation != &write_small && goes_on[i].operation != &grow;
    }
}

static void add_missing(const struct operation *operation, bool packets)
{
    static const enum state states[] = {EMPTY, SOME, FULL};
    for (unsigned s = 0; s < 3; s++)
        for (unsigned wrapped = 0; wrapped < 2; wrapped++)
            if (!is_there(operation, states[s], wrapped != 0, packets)) {
                struct context *c = add(operation, states[s], IDLE, IDLE);
                c->wrapped = wrapped != 0;
                c->packets = packets;
                c->only_all = true;
            }
}

/* P7: every operation in every state, at the wrap and elsewhere, beside survivors that do nothing. */
static void every_state(void)
{
    static const struct operation *const in_each[] = {
        &write_small,  &write_slot,   &write_merging, &write_many,   &read_small,  &read_slot,
        &read_all,     &read_halves,  &close_reader,  &close_writer, &fork_reader, &fork_writer,
        &child_reader, &child_writer, &orphan_reader, &orphan_writer,
        &exec_reader,  &exec_writer,  &exec_closing_reader, &exec_closing_writer,
        &dup_reader,   &dup_writer,   &import_reader, &import_writer, &open_reader, &open_writer,
        &open_both,    &drop_name,    &grow,          &grow_reader,  &shrink,      &look_reader,
        &look_writer,  &async_reader, &async_writer,  &arm_reader,   &arm_writer,  &pending,
        &listen_reader, &listen_writer, &count_reader, &count_writer, &rescue_reader,
        &rescue_writer, &unlisten_reader, &unlisten_writer,
    };
    for (size_t i = 0; i < sizeof in_each / sizeof in_each[0]; i++) {
        add_missing(in_each[i], false);
        if (in_each[i]->reads || in_each[i]->writes)
            add_missing(in_each[i], true);
    }
}

/* The sample has one context of each family with each operation. */
static void sample(size_t from)
{
    for (size_t i = from; i < count; i++)
        for (size_t k = from; k < i && !table[i].only_all; k++) {
            const struct context *a = &table[i];
            const struct context *b = &table[k];
            table[i].only_all = a->operation == b->operation && a->packets == b->packets &&
                                a->arrival == b->arrival && a->dead == b->dead;
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
    size_t families = count;
    notifiers();
    sample(families);
    families = count;
    armed();
    sample(families);
    families = count;
    packets();
    other_lives();
    sample(families);
    every_state();
    return count;
}

const struct context *context_at(size_t index)
{
    return &table[index];
}

long context_number(const struct context *context)
{
    return context - table;
}
