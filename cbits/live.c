/* live.c - who holds the pipe, and who of them is alive. */
#include "live.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "atomic.h"
#include "record.h"
#include "sys.h"
#include "wait.h"

static long byte_lock(int fd, int command, short type, int64_t byte, short *found)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    long r = shmp_sys.lock(fd, command, &lock);
    if (found)
        *found = lock.l_type;
    return r;
}

static int take_index(struct shmp_live *live, uint32_t index)
{
    return (int)byte_lock(live->seg->fd, F_SETLK, F_WRLCK, SHMP_HOLDER_LOCK + index, NULL);
}

static void drop_index(struct shmp_live *live, uint32_t index)
{
    byte_lock(live->seg->fd, F_SETLK, F_UNLCK, SHMP_HOLDER_LOCK + index, NULL);
}

static void raise_limit(struct shmp_header *h, uint32_t limit)
{
    uint32_t seen = load_relaxed(&h->wait.holder_limit);
    while (seen < limit && !cas_seq_cst32(&h->wait.holder_limit, &seen, limit))
        ;
}

static uint32_t holder_limit(const struct shmp_live *live)
{
    uint32_t limit = load_seq_cst(&live->seg->header->wait.holder_limit);
    return limit < SHMP_HOLDERS ? limit : SHMP_HOLDERS;
}

static _Thread_local struct shmp_call *calls;

struct shmp_call *shmp_live_calls(void)
{
    return calls;
}

bool shmp_live_enter_call(struct shmp_live *live, struct shmp_call *call)
{
    *call = (struct shmp_call){.outer = calls, .live = live, .place = live->place};
    calls = call;
    bool first_apart;
    bool stale = shmp_record_enter_call(call->place, &first_apart);
    /* Who registered before it was said sleeps for good, and may be told by nobody (watch.h). */
    if (first_apart)
        shmp_broadcast(live->seg->header);
    return stale;
}

void shmp_live_leave_call(struct shmp_call *call)
{
    struct shmp_call **link = &calls;
    shmp_record_leave_call(call->place);
    /* A handler that forks here: the child counts it once more, and is watched for longer. */
    while (*link != call)
        link = &(*link)->outer;
    *link = call->outer;
    call->live = NULL;
}

/* With the calls that a fork child goes on with.  Nobody else has any before there is an entry. */
static void take_place(struct shmp_live *live)
{
    live->place = shmp_record_take_place();
    for (struct shmp_call *call = calls; call; call = call->outer)
        if (call->live == live) {
            shmp_record_leave_call(call->place);
            call->place = live->place;
            bool first_apart; /* nobody watches us yet */
            shmp_record_enter_call(call->place, &first_apart);
        }
}

/* NULL: we have none. */
static struct shmp_holder *own_entry(const struct shmp_live *live)
{
    int index = shmp_live_index(live);
    return index < 0 ? NULL : &live->seg->holders[index];
}

static int publish_record(struct shmp_live *live, struct shmp_holder *h)
{
    struct shmp_record_id id = {0};
    int r;
    do { /* again, if its thread ended while we took our place there */
        r = shmp_record_self(&id);
        /* No descriptor or no memory: say so now.  Where the C library hides its mutexes we go
         * on, merely noticed later; the record lock still proves us. */
        if (r < 0 && r != -ENOSYS)
            return r;
        if (r == 0 && shmp_live_index(live) < 0 && live->place == SHMP_COMMON_PLACE)
            take_place(live);
    } while (r == 0 && !shmp_record_is_fresh(id.seq));
    store_relaxed(&h->pid, (uint32_t)getpid());
    store_relaxed(&h->record_place, live->place);
    store_relaxed(&h->record_fd, id.fd);
    store_relaxed(&h->record_dev, id.dev);
    store_relaxed(&h->record_ino, id.ino);
    store_relaxed(&live->record_seq, id.seq);
    /* Release: a peer that sees the new sequence sees the fields (shmp_peer_get). */
    store_release(&h->record_seq, load_relaxed(&h->record_seq) + 1);
    return 0;
}

/* Dies here: the record lock falls, the entry is as free (live 0) or as dead (live 1)
 * as before. */
static int fill_entry(struct shmp_live *live, uint32_t index)
{
    struct shmp_holder *h = &live->seg->holders[index];
    uint32_t gen = SHMP_STATE_GEN(load_relaxed(&h->state)) + 1;
    store_relaxed(&h->state, (uint64_t)gen << 32);
    store_relaxed(&h->introduced, 0);
    store_relaxed(&h->notifiers, 0);
    store_relaxed(&live->introduced, 0);
    live->debts[SHMP_SIDE_READERS] = live->debts[SHMP_SIDE_WRITERS] = 0;
    store_relaxed(&h->start_ns, shmp_clock_ns(CLOCK_BOOTTIME));
    int r = publish_record(live, h);
    if (r < 0)
        return r;
    live->gen = gen;
    store_seq_cst(&h->live, 1);
    /* Last, and release: another thread that sees it locks in our name (shmp_live_owner). */
    store_release(&live->index, (int)index);
    return 0;
}

/* -ENFILE: no entry is free. */
static int claim_free(struct shmp_live *live)
{
    struct shmp_holder *holders = live->seg->holders;
    pthread_mutex_lock(&live->mutex);
    int r = shmp_live_index(live) >= 0 ? 0 : -ENFILE;
    for (uint32_t i = 0; i < SHMP_HOLDERS && r == -ENFILE; i++) {
        if (load_acquire(&holders[i].live) != 0 || take_index(live, i) != 0)
            continue;
        if (load_acquire(&holders[i].live) != 0) {
            /* Its owner claimed and died between our look and our lock: a matter for
             * the reaper, who checks the life word too. */
            drop_index(live, i);
            continue;
        }
        raise_limit(live->seg->header, i + 1);
        r = fill_entry(live, i);
        if (r < 0)
            drop_index(live, i);
    }
    pthread_mutex_unlock(&live->mutex);
    return r;
}

/* Others may take what was freed before we do; but not for ever, as a peer that fills the table
 * with what looks like the dead would have it. */
#define CLAIMS 4

int shmp_live_claim(struct shmp_live *live)
{
    int r = shmp_live_index(live) >= 0 ? 0 : -ENFILE;
    bool freed = true;
    for (int tries = 0; tries < CLAIMS && r == -ENFILE && freed; tries++) {
        r = claim_free(live);
        freed = false;
        for (uint32_t i = 0; r == -ENFILE && i < holder_limit(live); i++)
            freed = shmp_holder_reap(live, i) || freed;
    }
    return r;
}

int shmp_live_open(struct shmp_live *live, struct shmp_seg *seg)
{
    memset(live, 0, sizeof *live);
    live->seg = seg;
    store_relaxed(&live->index, -1);
    pthread_mutex_init(&live->mutex, NULL);
    int r = shmp_live_claim(live);
    if (r < 0) {
        shmp_record_give_place(live->place);
        pthread_mutex_destroy(&live->mutex);
    }
    return r;
}

static void forget_peers(struct shmp_live *live)
{
    if (live->peers)
        for (uint32_t i = 0; i < SHMP_HOLDERS; i++)
            if (live->peers[i])
                shmp_peer_put(live->peers[i]);
    free(live->peers);
    live->peers = NULL;
}

void shmp_live_close(struct shmp_live *live)
{
    forget_peers(live);
    struct shmp_holder *h = own_entry(live);
    if (h) {
        store_relaxed(&h->state, (uint64_t)live->gen << 32);
        store_release(&h->live, 0);
        drop_index(live, (uint32_t)shmp_live_index(live));
        store_relaxed(&live->index, -1);
    }
    shmp_record_give_place(live->place);
    pthread_mutex_destroy(&live->mutex);
}

int shmp_live_fork_child(struct shmp_live *live)
{
    /* References of the parent's other threads are void here.  But if a handler has forked in a sleep
     * there are our own among them: then each stays for as long as anybody has it, perhaps for ever. */
    for (uint32_t i = 0; i < SHMP_HOLDERS && live->peers; i++)
        if (live->peers[i] && shmp_peer_lists != 0) {
            shmp_peer_put(live->peers[i]);
            live->peers[i] = NULL;
        } else if (live->peers[i]) {
            store_relaxed(&live->peers[i]->refs, 1);
        }
    store_relaxed(&live->index, -1);
    live->place = SHMP_COMMON_PLACE; /* of a record that is not there yet */
    for (struct shmp_call *call = calls; call; call = call->outer)
        if (call->live == live) {
            call->place = live->place;
            bool first_apart; /* there is no record yet */
            shmp_record_enter_call(call->place, &first_apart);
        }
    return shmp_live_claim(live);
}

void shmp_live_relock(struct shmp_live *live)
{
    /* Somebody may be trying the lock this very moment, and gives it back at once. */
    for (int tries = 0; tries < 1000 && shmp_live_index(live) >= 0; tries++) {
        if (take_index(live, (uint32_t)shmp_live_index(live)) == 0)
            return;
        cpu_relax();
    }
}

void shmp_live_set_counts(struct shmp_live *live, uint32_t readers, uint32_t writers)
{
    struct shmp_holder *h = own_entry(live);
    if (h == NULL)
        return;
    uint64_t state = ((uint64_t)live->gen << 32) |
                     ((uint64_t)(readers < 0xffffu ? readers : 0xffffu) << 16) |
                     (writers < 0xffffu ? writers : 0xffffu);
    /* Before the epochs are bumped (attach) or the companion is closed (release): a
     * sleeper that gathers its watch list after that sees it. */
    store_seq_cst(&h->state, state);
}

static bool is_still(const struct shmp_live *live, uint32_t gains)
{
    return load_relaxed(&live->gains) == gains && gains % 2 == 0;
}

static void introduce(struct shmp_live *live, int side)
{
    struct shmp_holder *h = own_entry(live);
    fetch_or_seq_cst(&live->introduced, SHMP_INTRODUCED(side));
    if (h)
        fetch_or_seq_cst(&h->introduced, SHMP_INTRODUCED(side));
}

void shmp_live_set_introduced(struct shmp_live *live, int side, uint32_t gains)
{
    pthread_mutex_lock(&live->mutex);
    if (is_still(live, gains))
        introduce(live, side);
    pthread_mutex_unlock(&live->mutex);
}

void shmp_live_owe(struct shmp_live *live, int side, uint32_t gains, uint32_t asleep)
{
    pthread_mutex_lock(&live->mutex);
    if (is_still(live, gains) && live->debts[side] == 0)
        live->debts[side] = asleep;
    pthread_mutex_unlock(&live->mutex);
}

void shmp_live_pay(struct shmp_live *live, int side, uint32_t gains, bool woken)
{
    pthread_mutex_lock(&live->mutex);
    if (is_still(live, gains) &&
        (!woken || (live->debts[side] > 0 && --live->debts[side] == 0)))
        introduce(live, side);
    pthread_mutex_unlock(&live->mutex);
}

void shmp_live_begin_gain(struct shmp_live *live, uint32_t others)
{
    pthread_mutex_lock(&live->mutex);
    struct shmp_holder *h = own_entry(live);
    fetch_add_seq_cst(&live->gains, 1);
    atomic_fetch_and(&live->introduced, ~others);
    for (int side = 0; side < 2; side++)
        if ((others & SHMP_INTRODUCED(side)) != 0)
            live->debts[side] = 0;
    /* Before the count: a closer that sees that does not rely on us (is_held_elsewhere). */
    if (h)
        atomic_fetch_and(&h->introduced, ~others);
    pthread_mutex_unlock(&live->mutex);
}

void shmp_live_end_gain(struct shmp_live *live)
{
    fetch_add_seq_cst(&live->gains, 1);
}

bool shmp_live_introduce(struct shmp_live *live, int side)
{
    /* Both in one, and the same in dismiss: of two changes of a word the later one sees what came
     * before the earlier one. */
    uint32_t bit = SHMP_INTRODUCED(side);
    return (fetch_or_seq_cst(&own_entry(live)->introduced, bit) & bit) != 0;
}

void shmp_holder_dismiss(struct shmp_live *live, uint32_t index, int side)
{
    atomic_fetch_and(&live->seg->holders[index].introduced, ~SHMP_INTRODUCED(side));
}

bool shmp_holder_is_introduced(struct shmp_live *live, uint32_t index, int side)
{
    return (load_seq_cst(&live->seg->holders[index].introduced) & SHMP_INTRODUCED(side)) != 0;
}

void shmp_live_renew(struct shmp_live *live)
{
    struct shmp_holder *h = own_entry(live);
    if (h == NULL || shmp_record_is_fresh(load_relaxed(&live->record_seq)))
        return;
    pthread_mutex_lock(&live->mutex);
    publish_record(live, h);
    pthread_mutex_unlock(&live->mutex);
}

/* ---- Peers -------------------------------------------------------------------- */

_Thread_local unsigned shmp_peer_lists;

void shmp_peer_put(struct shmp_peer *peer)
{
    /* Both: what others did with the page is over when the last one unmaps it. */
    if (atomic_fetch_sub_explicit(&peer->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (peer->record)
        shmp_record_unmap(peer->record);
    free(peer);
}

static struct shmp_peer *peer_new(const struct shmp_holder *h, uint32_t gen, uint32_t seq)
{
    struct shmp_peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL)
        return NULL;
    struct shmp_record_id id = {.fd = load_relaxed(&h->record_fd),
                                .dev = load_relaxed(&h->record_dev),
                                .ino = load_relaxed(&h->record_ino)};
    store_relaxed(&peer->refs, 1);
    peer->gen = gen;
    peer->record_seq = seq;
    peer->id = id;
    peer->place = load_relaxed(&h->record_place);
    if (id.ino && peer->place < SHMP_RECORD_PLACES)
        peer->record = shmp_record_map(load_relaxed(&h->pid), &id, &peer->word_offset);
    return peer;
}

struct shmp_peer *shmp_peer_get(struct shmp_live *live, uint32_t index)
{
    const struct shmp_holder *h = &live->seg->holders[index];
    struct shmp_peer *peer = NULL;
    pthread_mutex_lock(&live->mutex);
    if (live->peers == NULL)
        live->peers = calloc(SHMP_HOLDERS, sizeof *live->peers);
    if (live->peers) {
        uint32_t seq = load_acquire(&h->record_seq);
        uint32_t gen = SHMP_STATE_GEN(load_relaxed(&h->state));
        peer = live->peers[index];
        if (peer == NULL || peer->gen != gen || peer->record_seq != seq) {
            if (peer)
                shmp_peer_put(peer);
            peer = live->peers[index] = peer_new(h, gen, seq);
        }
        if (peer)
            fetch_add_relaxed(&peer->refs, 1);
    }
    pthread_mutex_unlock(&live->mutex);
    return peer;
}

bool shmp_holder_is_dead(struct shmp_live *live, uint32_t index, uint32_t gen)
{
    const struct shmp_holder *h = &live->seg->holders[index];
    uint32_t now = SHMP_STATE_GEN(load_acquire(&h->state));
    if (load_acquire(&h->live) == 0 || ((now ^ gen) & SHMP_LOCK_GEN_MASK) != 0)
        return true; /* reaped, and perhaps somebody else's by now */
    if ((int)index == shmp_live_index(live))
        return false;
    short found = F_UNLCK;
    if (byte_lock(live->seg->fd, F_GETLK, F_WRLCK, SHMP_HOLDER_LOCK + index, &found) < 0 ||
        found != F_UNLCK)
        return false;
    struct shmp_peer *peer = shmp_peer_get(live, index);
    if (peer == NULL)
        return false; /* out of memory: no proof */
    const _Atomic uint32_t *word = shmp_peer_word(peer, SHMP_WORD_LIFE);
    bool dead = word == NULL || shmp_life_is_marked(load_acquire(word));
    /* The thread of its words may have ended, and its record locks be gone for the moment of a
     * close() (m14): but its record is open as long as any of its threads runs. */
    dead = dead && !shmp_record_is_open(load_relaxed(&h->pid), &peer->id);
    /* That were three looks, at three moments of one who may live: it may have locked and renewed its record
     * in between.  But a living one without the lock is in the registry's mutex and in no renewal, and then
     * its entry names its present record: if that is still the one that is not open, it is dead. */
    dead = dead &&
           byte_lock(live->seg->fd, F_GETLK, F_WRLCK, SHMP_HOLDER_LOCK + index, &found) >= 0 &&
           found == F_UNLCK && load_acquire(&h->record_seq) == peer->record_seq;
    shmp_peer_put(peer);
    return dead;
}

bool shmp_holder_reap(struct shmp_live *live, uint32_t index)
{
    struct shmp_holder *h = &live->seg->holders[index];
    uint32_t gen = SHMP_STATE_GEN(load_acquire(&h->state));
    if (load_acquire(&h->live) == 0 || (int)index == shmp_live_index(live) ||
        !shmp_holder_is_dead(live, index, gen))
        return false;
    bool reaped = false;
    pthread_mutex_lock(&live->mutex);
    if ((int)index != shmp_live_index(live) && take_index(live, index) == 0) {
        /* The lock is ours, so nobody alive has this entry: but is it the one we judged? */
        if (load_acquire(&h->live) != 0 && SHMP_STATE_GEN(load_acquire(&h->state)) == gen) {
            store_relaxed(&h->state, (uint64_t)gen << 32);
            store_release(&h->live, 0);
            fetch_add_relaxed(&live->seg->header->stats.reaped, 1);
            reaped = true;
        }
        drop_index(live, index);
    }
    pthread_mutex_unlock(&live->mutex);
    return reaped;
}
