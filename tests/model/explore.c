/* explore.c - every state that a model can reach, shortest way first. */
#include "explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct model *model;
static unsigned char *states; /* in the order in which they were found */
static uint32_t *parents;
static uint32_t *table; /* index + 1, open addressing */
static size_t table_size;
static size_t known;
static size_t room;
static size_t edges;
static size_t beyond;
static uint32_t present;
static bool moved; /* the present state has a step of its own */

static void *need(void *memory)
{
    if (memory == NULL) {
        fputs("model: out of memory\n", stderr);
        exit(2);
    }
    return memory;
}

static unsigned char *state_at(size_t index)
{
    return states + index * model->bytes;
}

static uint64_t hash(const unsigned char *bytes)
{
    uint64_t h = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i + 4 <= model->bytes; i += 4) {
        uint32_t word;
        memcpy(&word, bytes + i, 4);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

static size_t place_of(const unsigned char *state)
{
    size_t at = (size_t)hash(state) & (table_size - 1);
    while (table[at] != 0 && memcmp(state_at(table[at] - 1), state, model->bytes) != 0)
        at = (at + 1) & (table_size - 1);
    return at;
}

static void grow(void)
{
    if (known == room) {
        room = room ? room * 2 : 1024;
        states = need(realloc(states, room * model->bytes));
        parents = need(realloc(parents, room * sizeof *parents));
    }
    if (known * 2 < table_size)
        return;
    free(table);
    table_size = table_size ? table_size * 4 : 4096;
    table = need(calloc(table_size, sizeof *table));
    for (size_t i = 0; i < known; i++)
        table[place_of(state_at(i))] = (uint32_t)i + 1;
}

static void add(const void *state, uint32_t parent)
{
    unsigned char it[STATE_MAX];
    memcpy(it, state, model->bytes);
    if (model->canonical)
        model->canonical(it);
    grow();
    size_t at = place_of(it);
    if (table[at] != 0)
        return;
    memcpy(state_at(known), it, model->bytes);
    parents[known] = parent;
    table[at] = (uint32_t)++known;
}

/* ---- Replay: the same steps once more, now with names ---------------------------- */

static struct {
    const unsigned char *wanted; /* canonical; NULL: searching */
    unsigned char found[STATE_MAX];
    int who;
    const char *what;
    bool done;
} replay;

static void replay_step(const void *next, int who, const char *what)
{
    unsigned char it[STATE_MAX];
    memcpy(it, next, model->bytes);
    if (model->canonical)
        model->canonical(it);
    if (replay.done || memcmp(it, replay.wanted, model->bytes) != 0)
        return;
    memcpy(replay.found, next, model->bytes);
    replay.who = who;
    replay.what = what;
    replay.done = true;
}

static unsigned length_of(uint32_t last)
{
    unsigned length = 0;
    for (; last != 0; last = parents[last])
        length++;
    return length;
}

static void print_way(uint32_t last)
{
    unsigned length = length_of(last);
    uint32_t *way = need(malloc((length + 1) * sizeof *way));
    unsigned char now[STATE_MAX];
    char line[400];
    for (unsigned i = length + 1; i-- > 0; last = parents[last])
        way[i] = last;
    model->first(now);
    for (unsigned i = 1; i <= length; i++) {
        replay.wanted = state_at(way[i]);
        replay.done = false;
        model->successors(now);
        memcpy(now, replay.found, model->bytes);
        model->show(now, line, sizeof line);
        printf("  %3u  %-10s %-58s %s\n", i, model->name(replay.who), replay.what, line);
    }
    replay.wanted = NULL;
    free(way);
}

void step(const void *next, enum kind kind, int who, const char *what)
{
    if (replay.wanted) {
        replay_step(next, who, what);
        return;
    }
    edges++;
    moved = moved || kind == OWN;
    add(next, present);
}

void step_beyond(void)
{
    moved = true;
    beyond++;
}

struct finding explore(const struct model *the_model, size_t most_states, bool print)
{
    struct finding finding = {0};
    unsigned char start[STATE_MAX];
    unsigned char now[STATE_MAX];
    model = the_model;
    known = edges = beyond = 0;
    table_size = 0;
    room = 0;
    states = NULL;
    parents = NULL;
    table = NULL;
    grow();
    model->first(start);
    add(start, 0);
    for (present = 0; present < known && finding.what == NULL; present++) {
        if (known > most_states) {
            finding.cut = true;
            break;
        }
        memcpy(now, state_at(present), model->bytes);
        moved = false;
        finding.what = model->broken(now);
        if (finding.what == NULL) {
            model->successors(now);
            if (!moved)
                finding.what = model->stuck(now);
        }
    }
    finding.states = known;
    finding.edges = edges;
    finding.beyond = beyond;
    finding.depth = length_of(present - 1);
    if (finding.what && print)
        print_way(present - 1);
    free(states);
    free(parents);
    free(table);
    return finding;
}
