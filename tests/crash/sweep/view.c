/* view.c - what a death leaves to others at some instant. */
#include "view.h"

#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "atomic.h"

void view_take(const struct stage *stage, struct view *view)
{
    if (stage->header == NULL)
        return;
    memcpy((void *)&view->header, (const void *)stage->header, sizeof view->header);
    memcpy((void *)view->holders, (const void *)stage->holders, sizeof view->holders);
    memcpy(view->descriptions, (const unsigned char *)stage->header + SHMP_DESCRIPTIONS_OFFSET,
           sizeof view->descriptions);
    uint32_t gen = load_acquire(&stage->header->wait.geometry_gen);
    uint64_t area = load_relaxed(&stage->header->geometry[gen & 1].area_offset);
    if (pread(stage->segment_fd, view->words, sizeof view->words, (off_t)area) < 0)
        memset(view->words, 0, sizeof view->words);
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ at[i]) * UINT64_C(1099511628211);
    return hash;
}

/* A survivor's descriptor, borrowed for a moment. */
static uint64_t mix_companion(uint64_t hash, const struct stage *stage)
{
    enum who who = stage->actor[READER] ? READER : WRITER;
    int facts[2] = {0};
    if (stage->actor[who] == 0)
        return hash;
    int process = (int)syscall(SYS_pidfd_open, stage->actor[who], 0);
    int fd = (int)syscall(SYS_pidfd_getfd, process, control->box[who].companion, 0);
    ioctl(fd, FIONREAD, &facts[0]);
    facts[1] = fcntl(fd, F_GETPIPE_SZ);
    close(fd);
    close(process);
    return mix(hash, facts, sizeof facts);
}

uint64_t view_hash(const struct stage *stage, const struct view *view)
{
    struct view v;
    uint64_t hash = UINT64_C(14695981039346656037);
    memcpy((void *)&v, (const void *)view, sizeof v);
    struct shmp_header *h = &v.header;
    h->instance = h->created_ns = 0;
    h->creator_pid = 0;
    memset((void *)&h->stats, 0, sizeof h->stats);
    store_relaxed(&h->w.cpu, 0);
    store_relaxed(&h->w.bytes, 0);
    store_relaxed(&h->w.calls, 0);
    store_relaxed(&h->w.sleeps, 0);
    store_relaxed(&h->w.again, 0);
    store_relaxed(&h->w.idle_ns, load_relaxed(&h->w.idle_ns) != 0);
    store_relaxed(&h->r.cpu, 0);
    store_relaxed(&h->r.bytes, 0);
    store_relaxed(&h->r.calls, 0);
    store_relaxed(&h->r.sleeps, 0);
    store_relaxed(&h->r.again, 0);
    store_relaxed(&h->r.idle_ns, load_relaxed(&h->r.idle_ns) != 0);
    for (int i = 0; i < HOLDERS_SEEN; i++) {
        struct shmp_holder *holder = &v.holders[i];
        store_relaxed(&holder->pid, 0);
        store_relaxed(&holder->record_fd, 0);
        store_relaxed(&holder->record_ino, 0);
        store_relaxed(&holder->record_dev, 0);
        store_relaxed(&holder->start_ns, 0);
    }
    hash = mix(hash, &v, sizeof v);
    for (enum who who = READER; who <= WRITER; who++) {
        long facts[2] = {has_answered(who), control->box[who].result};
        hash = mix(hash, facts, sizeof facts);
    }
    return mix_companion(hash, stage);
}
