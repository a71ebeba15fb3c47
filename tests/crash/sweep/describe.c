/* describe.c - contexts in words, and the table of them. */
#include <stdio.h>
#include <string.h>

#include "contexts.h"

const char *const state_names[] = {"empty", "some", "two", "nearly", "full"};
const char *const stance_names[] = {"absent", "idle", "asleep", "polls", "edge",
                                    "armed",  "looked", "listens"};
static const char *const arrival_names[] = {"", " after execve", " after its thread's end"};
const char *const command_names[] = {
    "nothing", "reads", "writes",  "drains",   "fills",  "polls",   "polls", "edge-polls", "arms",
    "arms",    "looks", "levels",  "resizes",  "pending?", "listens", "counts", "reads beside",
    "writes beside", "closes", "exits"};
static const char *const first_names[] = {"", ", then write", ", then resize", ", then look",
                                          ", then FIONREAD"};

void context_describe(const struct context *c, char *text, size_t size)
{
    int n = snprintf(text, size, "%s%s%s%s%s, %s%s, reader %s, writer %s%s%s%s",
                     c->dead ? c->dead->name : "", c->dead ? " died; " : "", c->operation->name,
                     c->packets ? " in packets" : "", arrival_names[c->arrival],
                     state_names[c->state], c->wrapped ? " at the wrap" : "",
                     stance_names[c->reader], stance_names[c->writer], c->late ? ", late" : "",
                     c->cold ? ", cold" : "",
                     first_names[c->first]);
    if (c->meanwhile != DO_NOTHING && n > 0 && (size_t)n < size)
        snprintf(text + n, size - (size_t)n, "; meanwhile the %s %s%s",
                 c->meanwhile_who == READER ? "reader" : "writer", command_names[c->meanwhile],
                 c->dense ? ", anywhere" : "");
}

/* ---- What there is ------------------------------------------------------------------------- */

static void put_row(const char *name, const size_t cells[STATES + 1])
{
    printf("| %s |", name);
    for (int i = 0; i <= STATES; i++)
        if (cells[i])
            printf(" %zu |", cells[i]);
        else
            printf("  |");
    putchar('\n');
}

/* Those that differ in their state alone, or in who looks on. */
static void describe_row(const struct context *c, char *text, size_t size)
{
    if (c->dead)
        snprintf(text, size, "*a death before:* %s", c->operation->name);
    else if (c->meanwhile != DO_NOTHING)
        snprintf(text, size, "*a meeting:* %s", c->operation->name);
    else
        snprintf(text, size, "%s%s%s", c->operation->name, c->packets ? " in packets" : "",
                 arrival_names[c->arrival]);
}

void contexts_print_matrix(size_t count)
{
    char row[100];
    char other[100];
    printf("| Operation | empty | some | two | nearly | full | of them at the wrap |\n"
           "|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++) {
        size_t cells[STATES + 1] = {0};
        bool first = true;
        describe_row(context_at(i), row, sizeof row);
        for (size_t k = 0; k < count; k++) {
            describe_row(context_at(k), other, sizeof other);
            if (strcmp(row, other) != 0)
                continue;
            first = first && k >= i;
            cells[context_at(k)->state]++;
            cells[STATES] += context_at(k)->wrapped;
        }
        if (first)
            put_row(row, cells);
    }
}
