/* explore.c - every state that a model can reach, shortest way first. */
#include "explore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct model *model;
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

/* ---- Sets: of states, and of the parts that they have in common -------------------------- */

/* Things of one size, numbered in the order in which they came. */
struct set {
    size_t bytes;
    unsigned char *things;
    uint32_t *table; /* number + 1, open addressing */
    size_t table_size;
    size_t known;
    size_t room;
};

static struct set states;
static struct set parts;
static uint32_t *parents; /* of each state */

static unsigned char *thing(const struct set *set, size_t number)
{
    return set->things + number * set->bytes;
}

static uint64_t hash(const struct set *set, const unsigned char *bytes)
{
    uint64_t h = 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i + 4 <= set->bytes; i += 4) {
        uint32_t word;
        memcpy(&word, bytes + i, 4);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h;
}

static size_t place_of(const struct set *set, const unsigned char *bytes)
{
    size_t at = (size_t)hash(set, bytes) & (set->table_size - 1);
    while (set->table[at] != 0 &&
           memcmp(thing(set, set->table[at] - 1), bytes, set->bytes) != 0)
        at = (at + 1) & (set->table_size - 1);
    return at;
}

static void grow(struct set *set)
{
    if (set->known == set->room) {
        set->room = set->room ? set->room * 2 : 1024;
        set->things = need(realloc(set->things, set->room * set->bytes));
        if (set == &states)
            parents = need(realloc(parents, set->room * sizeof *parents));
    }
    if (set->known * 4 < set->table_size * 3)
        return;
    free(set->table);
    set->table_size = set->table_size ? set->table_size * 2 : 4096;
    set->table = need(calloc(set->table_size, sizeof *set->table));
    for (size_t i = 0; i < set->known; i++)
        set->table[place_of(set, thing(set, i))] = (uint32_t)i + 1;
}

/* Its number.  fresh: it was not there. */
static uint32_t enter(struct set *set, const unsigned char *bytes, bool *fresh)
{
    grow(set);
    size_t at = place_of(set, bytes);
    *fresh = set->table[at] == 0;
    if (*fresh) {
        memcpy(thing(set, set->known), bytes, set->bytes);
        set->table[at] = (uint32_t)++set->known;
    }
    return set->table[at] - 1;
}

static void empty(struct set *set, size_t bytes)
{
    free(set->things);
    free(set->table);
    *set = (struct set){.bytes = bytes};
}

static size_t head_bytes(void)
{
    return model->bytes - model->parts * model->part_bytes;
}

static void pack(unsigned char *packed, const unsigned char *state)
{
    const unsigned char *part = state + head_bytes();
    bool fresh;
    memcpy(packed, state, head_bytes());
    for (size_t i = 0; i < model->parts; i++) {
        uint32_t number = enter(&parts, part + i * model->part_bytes, &fresh);
        memcpy(packed + head_bytes() + i * sizeof number, &number, sizeof number);
    }
}

static void unpack(unsigned char *state, const unsigned char *packed)
{
    memcpy(state, packed, head_bytes());
    for (size_t i = 0; i < model->parts; i++) {
        uint32_t number;
        memcpy(&number, packed + head_bytes() + i * sizeof number, sizeof number);
        memcpy(state + head_bytes() + i * model->part_bytes, thing(&parts, number),
               model->part_bytes);
    }
}

static void add(const void *state, uint32_t parent)
{
    unsigned char it[STATE_MAX];
    unsigned char packed[STATE_MAX];
    bool fresh;
    memcpy(it, state, model->bytes);
    if (model->canonical)
        model->canonical(it);
    pack(packed, it);
    uint32_t number = enter(&states, packed, &fresh);
    if (fresh)
        parents[number] = parent;
}

/* ---- Replay: the same steps once more, now with names ---------------------------- */

static struct {
    unsigned char wanted[STATE_MAX]; /* canonical */
    unsigned char found[STATE_MAX];
    int who;
    const char *what;
    bool on;
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
        unpack(replay.wanted, thing(&states, way[i]));
        replay.on = true;
        replay.done = false;
        model->successors(now);
        memcpy(now, replay.found, model->bytes);
        model->show(now, line, sizeof line);
        printf("  %3u  %-10s %-58s %s\n", i, model->name(replay.who), replay.what, line);
    }
    replay.on = false;
    free(way);
}

void step(const void *next, enum kind kind, int who, const char *what)
{
    if (replay.on) {
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
    edges = beyond = 0;
    empty(&states, head_bytes() + model->parts * sizeof(uint32_t));
    empty(&parts, model->part_bytes);
    model->first(start);
    add(start, 0);
    for (present = 0; present < states.known && finding.what == NULL; present++) {
        if (states.known > most_states) {
            finding.cut = true;
            break;
        }
        unpack(now, thing(&states, present));
        moved = false;
        finding.what = model->broken(now);
        if (finding.what == NULL) {
            model->successors(now);
            if (!moved)
                finding.what = model->stuck(now);
        }
    }
    finding.states = states.known;
    finding.edges = edges;
    finding.beyond = beyond;
    finding.depth = length_of(present - 1);
    if (finding.what && print)
        print_way(present - 1);
    empty(&states, 0);
    empty(&parts, 0);
    free(parents);
    parents = NULL;
    return finding;
}
