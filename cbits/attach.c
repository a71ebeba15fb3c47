/* attach.c - the registry of this process's attachments, their ends, and fork.
 *
 * There is one attachment per process and segment.  Everything in it that is not atomic is
 * guarded by the registry's mutex, or by the ring lock of a side where pipe.h says so.
 *
 * fork(): the child inherits handles, mappings and descriptors, and nothing that names the
 * parent.  The hook claims an entry in every holder table before the child's code runs, so
 * a child that is killed later is noticed at once, also if it never used the pipe.  A child
 * made without hooks (vfork) execs and comes back, if at all, through shmp_import; until
 * then the companion counts it, and sleepers look for it every few milliseconds.
 */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "companion.h"
#include "pipe.h"
#include "record.h"
#include "relay.h"
#include "sys.h"
#include "wait.h"

static pthread_mutex_t registry_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t hooks_once = PTHREAD_ONCE_INIT;
static struct shmp_pipe *registry;

/* Calls in progress on this thread, so that a fork child knows which holds are its own: the
 * others belong to threads that it does not have.  More than a few at a time come from shmp_poll and
 * shmp_hold; the table grows then, and is given back when it is empty. */
#define HELD_FEW 8u
struct held {
    struct shmp_end *end;
    unsigned count; /* 0: unused */
};
static _Thread_local struct held held_few[HELD_FEW];
static _Thread_local struct held *held_many; /* NULL: those are enough */
static _Thread_local unsigned held_size = HELD_FEW;
static _Thread_local unsigned held_used; /* entries that may have a count */
static _Thread_local unsigned held_unknown; /* there was no memory to note them */

static struct held *held_here(void)
{
    return held_many ? held_many : held_few;
}

/* How often this thread holds it. */
static unsigned held_times(const struct shmp_end *end)
{
    unsigned times = 0;
    for (unsigned i = 0; i < held_used; i++)
        times += held_here()[i].end == end ? held_here()[i].count : 0;
    return times;
}

static bool reserve_holds(unsigned long more)
{
    unsigned long size = held_used + more;
    if (size <= held_size)
        return true;
    size *= 2;
    if (size > UINT_MAX)
        return false;
    struct held *many = calloc(size, sizeof *many);
    if (many == NULL)
        return false;
    memcpy(many, held_here(), held_used * sizeof *many);
    free(held_many);
    held_many = many;
    held_size = (unsigned)size;
    return true;
}

static void note_hold(struct shmp_end *end)
{
    struct held *unused = NULL;
    for (unsigned i = held_used; i-- > 0;) {
        struct held *entry = &held_here()[i];
        if (entry->count == 0) {
            unused = entry;
        } else if (entry->end == end) {
            entry->count++;
            return;
        }
    }
    if (unused == NULL && !reserve_holds(1)) {
        held_unknown++;
        return;
    }
    if (unused == NULL)
        unused = &held_here()[held_used++];
    *unused = (struct held){.end = end, .count = 1};
}

static void note_release(const struct shmp_end *end)
{
    unsigned i = held_used;
    while (i > 0 && (held_here()[i - 1].end != end || held_here()[i - 1].count == 0))
        i--;
    if (i > 0)
        held_here()[i - 1].count--;
    else if (held_unknown > 0)
        held_unknown--;
    while (held_used > 0 && held_here()[held_used - 1].count == 0)
        held_used--;
    if (held_used == 0 && held_many) {
        free(held_many);
        held_many = NULL;
        held_size = HELD_FEW;
    }
}

static void publish_counts(struct shmp_pipe *pipe)
{
    shmp_live_set_counts(&pipe->live, load_relaxed(&pipe->held[SHMP_SIDE_READERS]),
                         load_relaxed(&pipe->held[SHMP_SIDE_WRITERS]));
}

static void count_end(struct shmp_end *end, uint32_t change)
{
    if (shmp_can_read(end))
        fetch_add_seq_cst(&end->pipe->held[SHMP_SIDE_READERS], change);
    if (shmp_can_write(end))
        fetch_add_seq_cst(&end->pipe->held[SHMP_SIDE_WRITERS], change);
    publish_counts(end->pipe);
}

/* A new holder: those who sleep already do not watch it, so it owes them an introduction
 * before it owes them anything else.  If nobody sleeps that is done. */
static void announce(struct shmp_pipe *pipe)
{
    struct shmp_header *h = pipe->seg.header;
    uint32_t gains = load_seq_cst(&pipe->live.gains);
    if (!shmp_queue_has_waiters(&h->wait.readable))
        shmp_live_set_introduced(&pipe->live, SHMP_SIDE_READERS, gains);
    if (!shmp_queue_has_waiters(&h->wait.writable))
        shmp_live_set_introduced(&pipe->live, SHMP_SIDE_WRITERS, gains);
}

/* The first end of a side that this process had not: those who sleep for that side's sake may know it
 * as one of their own, whose calls alone they watch, and are owed another introduction. */
static void gain_end(struct shmp_end *end)
{
    struct shmp_pipe *pipe = end->pipe;
    uint32_t others = 0;
    if (shmp_can_read(end) && load_relaxed(&pipe->held[SHMP_SIDE_READERS]) == 0)
        others |= SHMP_INTRODUCED(SHMP_SIDE_WRITERS);
    if (shmp_can_write(end) && load_relaxed(&pipe->held[SHMP_SIDE_WRITERS]) == 0)
        others |= SHMP_INTRODUCED(SHMP_SIDE_READERS);
    shmp_live_begin_gain(&pipe->live, others);
    count_end(end, 1);
    shmp_live_end_gain(&pipe->live);
    announce(pipe);
}

static void renew_all(void)
{
    for (struct shmp_pipe *p = registry; p; p = p->next)
        shmp_live_renew(&p->live);
}

int shmp_end_claim_slow(struct shmp_end *end)
{
    /* As each change of the record or of what entries say of it (shmp_holder_is_dead). */
    pthread_mutex_lock(&registry_mutex);
    int r = shmp_live_claim(&end->pipe->live);
    if (r == 0) {
        publish_counts(end->pipe);
        renew_all(); /* the record may be a new one */
    }
    pthread_mutex_unlock(&registry_mutex);
    return r;
}

/* ---- fork ---------------------------------------------------------------------- */

static void fork_prepare(void)
{
    /* Lock order: registry, notifiers, live, seg, record. */
    pthread_mutex_lock(&registry_mutex);
    shmp_relay_fork_prepare();
    for (struct shmp_pipe *p = registry; p; p = p->next) {
        pthread_mutex_lock(&p->live.mutex);
        pthread_mutex_lock(&p->seg.mutex);
        /* The parent may close its end before the child has joined the description. */
        for (struct shmp_end *end = p->ends; end; end = end->next) {
            store_relaxed(&end->private_flags, shmp_flags(end) & ~SHMP_DESCRIPTION_USED);
            end->forked = true;
        }
    }
    shmp_record_fork_prepare();
}

static void unlock_all(void)
{
    for (struct shmp_pipe *p = registry; p; p = p->next) {
        pthread_mutex_unlock(&p->seg.mutex);
        pthread_mutex_unlock(&p->live.mutex);
    }
}

static void fork_parent(void)
{
    shmp_record_fork_parent();
    unlock_all();
    shmp_relay_fork_parent();
    pthread_mutex_unlock(&registry_mutex);
}

/* A handler may fork in a sleep that the kernel then restarts in the child, too: there nobody is
 * registered for it, and the words are those that the parent watched.  So it finds the epoch changed. */
static void sleep_anew(const struct shmp_pipe *pipe)
{
    for (struct shmp_call *call = shmp_live_calls(); call; call = call->outer)
        if (call->live == &pipe->live && call->queue) {
            shmp_queue_register(call->queue);
            shmp_queue_step_epoch(call->queue);
        }
}

static void end_free(struct shmp_end *end);
static void pipe_put(struct shmp_pipe *pipe);

static void fork_child(void)
{
    shmp_record_fork_child();
    unlock_all();
    shmp_relay_fork_child();
    for (struct shmp_pipe *p = registry, *next; p; p = next) {
        next = p->next;
        /* Without an entry the child still holds its ends; its calls try again and say
         * ENFILE if the table stays full. */
        memset(p->seen, 0, sizeof p->seen);
        for (int side = 0; side < 2; side++) /* other threads' */
            store_relaxed(&p->inside[side], false);
        memset(p->notifiers, 0, sizeof p->notifiers);
        shmp_live_fork_child(&p->live);
        p->refs++; /* through the loop below */
        for (struct shmp_end *end = p->ends, *after; end; end = after) {
            after = end->next;
            shmp_description_inherit(end);
            uint32_t kept = held_times(end) + (load_relaxed(&end->open) ? 1 : 0);
            if (held_unknown > 0) /* rather an end that stays than one that goes under a call */
                kept = load_relaxed(&end->refs);
            store_relaxed(&end->refs, kept);
            if (kept == 0) {
                pthread_mutex_unlock(&registry_mutex);
                end_free(end);
                pthread_mutex_lock(&registry_mutex);
            }
        }
        publish_counts(p);
        announce(p);
        sleep_anew(p);
        pipe_put(p);
    }
    pthread_mutex_unlock(&registry_mutex);
}

static void install_hooks(void)
{
    pthread_atfork(fork_prepare, fork_parent, fork_child);
}

void shmp_registry_lock(void)
{
    pthread_once(&hooks_once, install_hooks);
    pthread_mutex_lock(&registry_mutex);
}

void shmp_registry_unlock(void)
{
    pthread_mutex_unlock(&registry_mutex);
}

void shmp_renew(void)
{
    pthread_mutex_lock(&registry_mutex);
    renew_all();
    pthread_mutex_unlock(&registry_mutex);
}

/* ---- Attachments --------------------------------------------------------------- */

static void relock(struct shmp_pipe *pipe)
{
    shmp_live_relock(&pipe->live);
    shmp_description_relock(pipe);
}

/* The attachment to this file, or NULL.  0 or -errno: then it is not known, and a second
 * attachment must not be made. */
static int find(int fd, struct shmp_pipe **found)
{
    struct stat st;
    *found = NULL;
    long r = shmp_sys.fstat(fd, &st);
    for (struct shmp_pipe *p = registry; r == 0 && p; p = p->next)
        if (p->seg.ino == st.st_ino && p->seg.dev == st.st_dev)
            *found = p;
    return (int)r;
}

/* Closes a descriptor that is no attachment's own, and takes again the locks that go with it;
 * if it cannot be known whose, everybody's. */
static int close_locked(int fd)
{
    struct shmp_pipe *pipe;
    bool known = find(fd, &pipe) == 0;
    bool own = false;
    for (struct shmp_pipe *p = registry; p; p = p->next)
        own = own || p->seg.fd == fd;
    long r = own ? 0 : shmp_sys.close(fd);
    for (struct shmp_pipe *p = registry; p; p = p->next)
        if (p == pipe || !known)
            relock(p);
    return (int)r;
}

/* Takes the descriptor, also when it fails. */
static int pipe_get(struct shmp_pipe **out, int fd, const struct shmp_header *judged)
{
    struct shmp_pipe *pipe;
    int r = find(fd, &pipe);
    if (r < 0) {
        close_locked(fd);
        return r;
    }
    if (pipe) {
        if (fd != pipe->seg.fd) {
            shmp_sys.close(fd);
            relock(pipe);
        }
        pipe->refs++;
        *out = pipe;
        return 0;
    }
    pipe = calloc(1, sizeof *pipe);
    r = pipe ? shmp_seg_map(&pipe->seg, fd, judged) : -ENOMEM;
    if (r < 0) {
        shmp_sys.close(fd);
        free(pipe);
        return r;
    }
    r = shmp_live_open(&pipe->live, &pipe->seg);
    if (r < 0) {
        shmp_seg_unmap(&pipe->seg);
        free(pipe);
        return r;
    }
    pipe->refs = 1;
    pipe->next = registry;
    registry = pipe;
    /* The claim has made the record anew: the other entries name one that is closed. */
    if (pipe->next && load_relaxed(&pipe->next->live.record_seq) != load_relaxed(&pipe->live.record_seq))
        renew_all();
    *out = pipe;
    return 0;
}

static void pipe_put(struct shmp_pipe *pipe)
{
    if (--pipe->refs != 0)
        return;
    struct shmp_pipe **link = &registry;
    while (*link != pipe)
        link = &(*link)->next;
    *link = pipe->next;
    shmp_seen_forget(pipe);
    shmp_live_close(&pipe->live);
    shmp_seg_unmap(&pipe->seg);
    free(pipe);
}

int shmp_segment_close(int fd)
{
    pthread_mutex_lock(&registry_mutex);
    int r = close_locked(fd);
    pthread_mutex_unlock(&registry_mutex);
    return r;
}

/* ---- Ends ---------------------------------------------------------------------- */

int shmp_end_new(struct shmp_end **out, int segment_fd, const struct shmp_header *judged,
                 int companion_fd, int mode, uint32_t flags, const struct shmp_token *token)
{
    pthread_once(&hooks_once, install_hooks);
    struct shmp_end *end = calloc(1, sizeof *end);
    if (end == NULL) {
        shmp_segment_close(segment_fd);
        shmp_sys.close(companion_fd);
        return -ENOMEM;
    }
    end->fd = companion_fd;
    end->mode = mode;
    store_relaxed(&end->refs, 1);
    store_relaxed(&end->open, true);
    pthread_mutex_lock(&registry_mutex);
    int r = pipe_get(&end->pipe, segment_fd, judged);
    if (r == 0) {
        if (token == NULL ||
            !shmp_description_join(end, token->description, token->generation))
            shmp_description_new(end, flags);
        end->next = end->pipe->ends;
        end->pipe->ends = end;
        gain_end(end);
    }
    pthread_mutex_unlock(&registry_mutex);
    if (r < 0) {
        shmp_sys.close(companion_fd);
        free(end);
        return r;
    }
    *out = end;
    return 0;
}

/* The last reference is gone: now the end closes, as a file does in the kernel. */
static void end_free(struct shmp_end *end)
{
    struct shmp_pipe *pipe = end->pipe;
    pthread_mutex_lock(&registry_mutex);
    struct shmp_end **link = &pipe->ends;
    while (*link != end)
        link = &(*link)->next;
    *link = end->next;
    shmp_relay_end_closed(end);
    shmp_side_closing(pipe, end->mode);
    /* The count first, the companion next, the sleepers last: whoever is woken finds both
     * gone.  Dies in between: the kernel closes the companion, and our life word wakes. */
    count_end(end, (uint32_t)-1);
    shmp_description_drop(end);
    shmp_sys.close(end->fd);
    shmp_side_closed(pipe, end->mode);
    pipe_put(pipe);
    pthread_mutex_unlock(&registry_mutex);
    free(end);
}

void shmp_end_hold(struct shmp_end *end)
{
    note_hold(end);
    fetch_add_relaxed(&end->refs, 1);
}

bool shmp_end_hold_anew(struct shmp_end *end)
{
    if (!reserve_holds(1))
        return false;
    held_here()[held_used++] = (struct held){.end = end, .count = 1};
    fetch_add_relaxed(&end->refs, 1);
    return true;
}

void shmp_end_release(struct shmp_end *end)
{
    note_release(end);
    if (atomic_fetch_sub_explicit(&end->refs, 1, memory_order_acq_rel) == 1)
        end_free(end);
}

int shmp_end_close(struct shmp_end *end)
{
    if (!atomic_exchange_explicit(&end->open, false, memory_order_acq_rel))
        return -EBADF;
    if (atomic_fetch_sub_explicit(&end->refs, 1, memory_order_acq_rel) == 1)
        end_free(end);
    return 0;
}
