/* description.c - open file descriptions: flags that fork and descriptor passing share (LF-9).
 *
 * A description is a u64 in the segment's table: {generation, used, flags}.  Who holds it is
 * the kernel's knowledge: each process has a read lock on its byte of the segment file.  A
 * process that dies drops it; an entry that is used but unlocked is free.  When the table
 * is full, the flags live in the process and a fork copies them.
 */
#include <errno.h>

#include "pipe.h"
#include "sys.h"

static long lock_byte(struct shmp_seg *seg, uint32_t index, short type)
{
    struct flock lock = {.l_type = type,
                         .l_whence = SEEK_SET,
                         .l_start = SHMP_DESCRIPTION_LOCK + index,
                         .l_len = 1};
    return shmp_sys.lock(seg->fd, F_SETLK, &lock);
}

static void use(struct shmp_end *end, uint32_t index, uint64_t entry)
{
    end->description = index;
    end->description_gen = (uint32_t)(entry >> 32);
    end->flags = (_Atomic uint32_t *)(void *)&end->pipe->seg.descriptions[index] +
                 SHMP_EPOCH_INDEX;
    end->shared = true;
    end->pipe->description_refs[index]++;
}

static bool take(struct shmp_end *end, uint32_t index, uint32_t flags)
{
    struct shmp_pipe *pipe = end->pipe;
    _Atomic uint64_t *entry = &pipe->seg.descriptions[index];
    uint64_t seen;
    if (pipe->description_refs[index] != 0)
        return false;
    /* A write lock: nobody holds the description, and while we look nobody can join it. */
    if (lock_byte(&pipe->seg, index, F_WRLCK) != 0)
        return false;
    seen = load_acquire(entry);
    uint64_t fresh = ((seen >> 32) + 1) << 32 | SHMP_DESCRIPTION_USED | flags;
    store_seq_cst(entry, fresh);
    lock_byte(&pipe->seg, index, F_RDLCK);
    use(end, index, fresh);
    return true;
}

void shmp_description_new(struct shmp_end *end, uint32_t flags)
{
    store_relaxed(&end->private_flags, flags);
    end->flags = &end->private_flags;
    end->shared = false;
    /* Unused entries first: they need no look at locks. */
    for (uint32_t i = 0; i < SHMP_DESCRIPTIONS; i++)
        if (((uint32_t)load_relaxed(&end->pipe->seg.descriptions[i]) & SHMP_DESCRIPTION_USED) ==
                0 &&
            take(end, i, flags))
            return;
    for (uint32_t i = 0; i < SHMP_DESCRIPTIONS; i++)
        if (take(end, i, flags))
            return;
}

bool shmp_description_join(struct shmp_end *end, uint32_t index, uint32_t gen)
{
    struct shmp_seg *seg = &end->pipe->seg;
    if (index >= SHMP_DESCRIPTIONS || lock_byte(seg, index, F_RDLCK) != 0)
        return false;
    /* Lock first, then look: nobody reuses an entry that is locked. */
    uint64_t entry = load_acquire(&seg->descriptions[index]);
    if ((uint32_t)(entry >> 32) != gen || ((uint32_t)entry & SHMP_DESCRIPTION_USED) == 0) {
        if (end->pipe->description_refs[index] == 0)
            lock_byte(seg, index, F_UNLCK);
        return false;
    }
    use(end, index, entry);
    return true;
}

void shmp_description_drop(struct shmp_end *end)
{
    struct shmp_pipe *pipe = end->pipe;
    uint32_t index = end->description;
    store_relaxed(&end->private_flags, load_relaxed(end->flags));
    end->flags = &end->private_flags;
    if (!end->shared || --pipe->description_refs[index] != 0)
        return;
    end->shared = false;
    /* A child that joins late finds the flags as they were last, if the entry stays as it is:
     * without a lock it is as good as free, but the last to be taken.  Else it is freed under a
     * write lock, which we get only as the last and which keeps joiners away. */
    if (!end->forked && lock_byte(&pipe->seg, index, F_WRLCK) == 0) {
        uint64_t seen = load_acquire(&pipe->seg.descriptions[index]);
        if ((uint32_t)(seen >> 32) == end->description_gen)
            store_release(&pipe->seg.descriptions[index], seen >> 32 << 32);
    }
    lock_byte(&pipe->seg, index, F_UNLCK);
}

void shmp_description_relock(struct shmp_pipe *pipe)
{
    for (uint32_t i = 0; i < SHMP_DESCRIPTIONS; i++)
        for (int tries = 0; tries < 1000 && pipe->description_refs[i] != 0; tries++)
            if (lock_byte(&pipe->seg, i, F_RDLCK) == 0)
                break; /* else somebody is trying it, and gives it back at once */
}

void shmp_description_inherit(struct shmp_end *end)
{
    if (!end->shared)
        return;
    uint32_t flags = load_relaxed(&end->private_flags); /* as they were at the fork */
    end->pipe->description_refs[end->description]--;
    end->forked = false;
    if (!shmp_description_join(end, end->description, end->description_gen))
        shmp_description_new(end, flags);
}
