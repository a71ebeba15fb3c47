/* arena.c - malloc, calloc, realloc and free for a process that never runs long. */
#include "arena.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BYTES ((size_t)4 << 20)

static unsigned char arena[ARENA_BYTES] __attribute__((aligned(4096)));
static _Atomic size_t used; /* survivors and victims with notifiers have a second thread */
static size_t marked;

void arena_mark(void)
{
    marked = used;
}

void arena_reset(void)
{
    used = marked;
}

/* Not malloc itself: of that and a memset in calloc the compiler makes a call of calloc. */
static void *take(size_t size)
{
    size_t taken = (size + 31) & ~(size_t)15; /* the size itself goes in front */
    if (size > ARENA_BYTES || taken > ARENA_BYTES - used) {
        errno = ENOMEM;
        return NULL;
    }
    size_t from = (used += taken) - taken;
    unsigned char *at = arena + from + 16;
    memcpy(at - 16, &size, sizeof size);
    return at;
}

void *malloc(size_t size)
{
    return take(size);
}

void *calloc(size_t count, size_t size)
{
    if (size != 0 && count > ARENA_BYTES / size) {
        errno = ENOMEM;
        return NULL;
    }
    void *at = take(count * size);
    return at ? memset(at, 0, count * size) : NULL;
}

void *realloc(void *old, size_t size)
{
    size_t before = 0;
    void *at = take(size);
    if (old && at) {
        memcpy(&before, (unsigned char *)old - 16, sizeof before);
        memcpy(at, old, before < size ? before : size);
    }
    return at;
}

void free(void *at)
{
    (void)at;
}
