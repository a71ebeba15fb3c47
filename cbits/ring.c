/* ring.c - the slot ring.  Pure: no system call.  The protocol is told in ring.h. */
#include "ring.h"

#include <errno.h>

static void advance(struct shmp_cursor *c)
{
    while (c->left > 0 && c->offset == c->iov->iov_len) {
        c->iov++;
        c->left--;
        c->offset = 0;
    }
}

static void copy_in(unsigned char *to, struct shmp_cursor *from, size_t n)
{
    while (n > 0) {
        advance(from);
        size_t part = from->iov->iov_len - from->offset;
        if (part > n)
            part = n;
        memcpy(to, (const unsigned char *)from->iov->iov_base + from->offset, part);
        from->offset += part;
        to += part;
        n -= part;
    }
}

static void copy_out(struct shmp_cursor *to, const unsigned char *from, size_t n)
{
    while (n > 0) {
        advance(to);
        size_t part = to->iov->iov_len - to->offset;
        if (part > n)
            part = n;
        memcpy((unsigned char *)to->iov->iov_base + to->offset, from, part);
        to->offset += part;
        from += part;
        n -= part;
    }
}

static unsigned char *page_of(const struct shmp_ring *ring, uint32_t index)
{
    return ring->data + (size_t)(index & ring->mask) * SHMP_SLOT_SIZE;
}

static _Atomic uint32_t *word_of(const struct shmp_ring *ring, uint32_t index)
{
    return &ring->words[index & ring->mask];
}

/* ---- Write side ---------------------------------------------------------------- */

bool shmp_ring_merge(struct shmp_ring *ring, struct shmp_cursor *from, uint32_t n)
{
    uint32_t newest = load_relaxed(&ring->header->head) - 1;
    _Atomic uint32_t *slot = word_of(ring, newest);
    uint32_t word = load_relaxed(slot);
    uint32_t end = shmp_word_end(word);
    if ((word & SHMP_WORD_CAN_MERGE) == 0 || (word & SHMP_WORD_SEALED) != 0 ||
        end + n > SHMP_SLOT_SIZE)
        return false;
    struct shmp_cursor at = *from;
    copy_in(page_of(ring, newest) + end, &at, n);
    /* P2: publishes the bytes behind the old end; partner T2 (acquire load of the word) and
     * T3.  Fails if a reader has sealed the slot: it saw the old end and is leaving.  Dies
     * before: the bytes lie beyond end, where nobody looks. */
    if (!cas_seq_cst32(slot, &word, word + n))
        return false;
    *from = at;
    return true;
}

static uint32_t room(struct shmp_ring *ring, uint32_t head, uint32_t wanted, bool *corrupt)
{
    struct shmp_header *h = ring->header;
    uint32_t tail = load_relaxed(&h->w.tail_seen);
    uint32_t space = shmp_space_for_user(head, tail, ring->max_usage);
    if (space < wanted || shmp_occupancy(head, tail) > ring->ring_size) {
        /* P0: acquire, partner T4: the reader is done with the slots before this tail. */
        tail = SHMP_TAIL_INDEX(load_acquire(&h->tail));
        *corrupt = shmp_occupancy(head, tail) > ring->ring_size;
        store_relaxed(&h->w.tail_seen, tail);
        space = shmp_space_for_user(head, tail, ring->max_usage);
    }
    return space;
}

int shmp_ring_fill(struct shmp_ring *ring, struct shmp_cursor *from, size_t n, bool packet,
                   struct shmp_put *put)
{
    struct shmp_header *h = ring->header;
    uint32_t head = load_relaxed(&h->head);
    uint32_t wanted = n >= (size_t)SHMP_STEP_SLOTS * SHMP_SLOT_SIZE
                          ? SHMP_STEP_SLOTS
                          : (uint32_t)((n + SHMP_SLOT_SIZE - 1) / SHMP_SLOT_SIZE);
    bool corrupt = false;
    uint32_t slots = room(ring, head, wanted, &corrupt);
    if (corrupt)
        return -SHMP_ECORRUPT;
    if (slots > wanted)
        slots = wanted;
    size_t bytes = (size_t)slots * SHMP_SLOT_SIZE < n ? (size_t)slots * SHMP_SLOT_SIZE : n;
    put->bytes = bytes;
    put->old_head = head;
    put->head = head + slots;
    if (slots == 0)
        return 0;
    copy_in(page_of(ring, head), from, bytes);
    uint32_t flags = packet ? SHMP_SLOT_PACKET : SHMP_SLOT_CAN_MERGE;
    for (uint32_t i = 0; i + 1 < slots; i++)
        store_relaxed(word_of(ring, head + i), SHMP_WORD(0, SHMP_SLOT_SIZE, flags));
    uint32_t last = (uint32_t)(bytes - (size_t)(slots - 1) * SHMP_SLOT_SIZE);
    store_relaxed(word_of(ring, head + slots - 1), SHMP_WORD(0, last, flags));
    return 0;
}

void shmp_ring_note_put(struct shmp_ring *ring, const struct shmp_put *put)
{
    /* Release: the note of a dead process comes with the bytes and words before it. */
    store_release(&ring->header->w.redo,
                  SHMP_REDO(put->old_head, put->head - put->old_head, 0));
}

void shmp_ring_commit(struct shmp_ring *ring, const struct shmp_put *put)
{
    /* P1: publishes bytes and words; partner T1.  Sequentially consistent, because the look
     * for sleepers that follows must not pass it (W1 of wait.h).  Dies before: what was noted is
     * committed by the next one in here; what was not is free and will be overwritten. */
    store_seq_cst(&ring->header->head, put->head);
    /* Dies before: the note names an old head, and is none. */
    store_relaxed(&ring->header->w.redo, 0);
}

/* ---- Read side ----------------------------------------------------------------- */

/* Where the reader stands: tail, and what it knows of head and of the tail slot. */
struct position {
    uint32_t tail;
    uint32_t offset;
    uint32_t head;
    uint32_t word; /* loaded after head; 0: not yet */
};

static struct position where(struct shmp_ring *ring)
{
    struct shmp_header *h = ring->header;
    uint64_t tail = load_relaxed(&h->tail);
    struct position p = {.tail = SHMP_TAIL_INDEX(tail),
                         .offset = SHMP_TAIL_OFFSET(tail),
                         .head = load_relaxed(&h->r.head_seen),
                         .word = load_relaxed(&h->r.word_seen)};
    /* What is remembered lies in shared memory, too: rubbish is not believed but looked up,
     * with find_bytes's checks (D12). */
    if (shmp_word_end(p.word) > SHMP_SLOT_SIZE || p.offset > SHMP_SLOT_SIZE)
        p.word = 0;
    return p;
}

/* Ensures that p->word has bytes beyond p->offset.  1: it has; 0: the ring is empty. */
static int find_bytes(struct shmp_ring *ring, struct position *p)
{
    struct shmp_header *h = ring->header;
    if (p->tail == p->head || shmp_occupancy(p->head, p->tail) > ring->ring_size) {
        /* T1: head before the slot's word (D2): in the other order we could hold an old
         * end, see the new head, and step over what was merged in between. */
        p->head = load_acquire(&h->head);
        p->word = 0;
        if (shmp_occupancy(p->head, p->tail) > ring->ring_size)
            return -SHMP_ECORRUPT;
        if (p->tail == p->head)
            return 0;
    }
    if (p->word == 0 || shmp_word_start(p->word) + p->offset >= shmp_word_end(p->word)) {
        /* T2: acquire, partner P2. */
        p->word = load_acquire(word_of(ring, p->tail));
        if (shmp_word_end(p->word) > SHMP_SLOT_SIZE || p->offset > SHMP_SLOT_SIZE)
            return -SHMP_ECORRUPT;
    }
    /* No writer makes a slot without bytes, and no reader leaves one behind.  To step over it would
     * leave an open slot before tail (I5). */
    return shmp_word_start(p->word) + p->offset < shmp_word_end(p->word) ? 1 : -SHMP_ECORRUPT;
}

/* The reader has taken all it knows of the tail slot.  true: the slot is done.  false: it
 * has grown, p->word is the new word. */
static bool leave_slot(struct shmp_ring *ring, struct position *p)
{
    bool may_grow = p->tail + 1 == p->head && (p->word & SHMP_WORD_CAN_MERGE) != 0 &&
                    (p->word & SHMP_WORD_SEALED) == 0 &&
                    shmp_word_end(p->word) < SHMP_SLOT_SIZE;
    if (may_grow) {
        /* T3: partner P2.  Dies after it, before T4: sealed, not consumed. */
        uint32_t expected = p->word;
        if (!cas_seq_cst32(word_of(ring, p->tail), &expected, p->word | SHMP_WORD_SEALED)) {
            p->word = 0; /* look at it again, with all checks */
            return false;
        }
    }
    p->tail++;
    p->offset = 0;
    p->word = 0;
    return true;
}

void shmp_ring_look(struct shmp_ring *ring, size_t n)
{
    struct shmp_header *h = ring->header;
    struct position p = where(ring);
    if (p.word != 0 && shmp_word_end(p.word) >= shmp_word_start(p.word) + p.offset + n)
        return;
    /* What we remember is not enough for n: the slot may have grown since, and others have come.
     * T1 before T2, as in find_bytes. */
    store_relaxed(&h->r.word_seen, 0);
    store_relaxed(&h->r.head_seen, load_acquire(&h->head));
}

ssize_t shmp_ring_available(struct shmp_ring *ring, size_t n)
{
    shmp_ring_look(ring, n);
    struct position p = where(ring);
    size_t sum = 0;
    bool packet = false;
    /* Counted, too: a peer may feed us one slot after the other. */
    for (uint32_t slots = 0; sum < n && !packet && slots < ring->ring_size; slots++) {
        int r = find_bytes(ring, &p);
        if (r < 0)
            return r;
        if (r == 0)
            break;
        sum += shmp_word_end(p.word) - shmp_word_start(p.word) - p.offset;
        packet = (p.word & SHMP_WORD_PACKET) != 0;
        p.tail++;
        p.offset = 0;
        p.word = 0;
    }
    return (ssize_t)(sum < n ? sum : n);
}

int shmp_ring_copy(struct shmp_ring *ring, struct shmp_cursor *to, size_t n,
                   struct shmp_taken *taken)
{
    struct shmp_header *h = ring->header;
    struct position p = where(ring);
    const unsigned char *run = NULL; /* adjacent slots are copied in one go */
    size_t run_bytes = 0;
    size_t got = 0;
    int r = 0;
    *taken = (struct shmp_taken){.old_tail = p.tail};
    while (got < n && p.tail - taken->old_tail < SHMP_STEP_SLOTS && !taken->packet_end) {
        r = find_bytes(ring, &p);
        if (r <= 0)
            break;
        uint32_t at = shmp_word_start(p.word) + p.offset;
        uint32_t avail = shmp_word_end(p.word) - at;
        uint32_t part = avail < n - got ? avail : (uint32_t)(n - got);
        const unsigned char *bytes = page_of(ring, p.tail) + at;
        /* The second mapping of the data makes slot 0 follow the last one. */
        if (run && bytes != run + run_bytes && (p.tail & ring->mask) == 0)
            bytes += (size_t)ring->ring_size * SHMP_SLOT_SIZE;
        if (run == NULL || bytes != run + run_bytes) {
            copy_out(to, run, run_bytes);
            run = bytes;
            run_bytes = 0;
        }
        run_bytes += part;
        got += part;
        p.offset += part;
        taken->packet_end = (p.word & SHMP_WORD_PACKET) != 0;
        if (taken->packet_end || part == avail)
            leave_slot(ring, &p);
    }
    copy_out(to, run, run_bytes);
    store_relaxed(&h->r.head_seen, p.head);
    store_relaxed(&h->r.word_seen, p.word);
    taken->bytes = got;
    taken->tail = p.tail;
    taken->offset = p.offset;
    return r < 0 && got == 0 ? r : 0;
}

void shmp_ring_note_take(struct shmp_ring *ring, const struct shmp_taken *taken)
{
    store_release(&ring->header->r.redo,
                  SHMP_REDO(taken->old_tail, taken->tail - taken->old_tail, taken->offset));
}

void shmp_ring_consume(struct shmp_ring *ring, const struct shmp_taken *taken)
{
    struct shmp_header *h = ring->header;
    uint64_t tail = SHMP_TAIL(taken->tail, taken->offset);
    if (taken->tail != taken->old_tail) {
        /* T4: partner P0; and sequentially consistent for the look for sleepers that
         * follows.  Dies before: what was noted is consumed by the next one in here; else nothing
         * was, and the bytes are read again. */
        store_seq_cst(&h->tail, tail);
        store_relaxed(&h->r.redo, 0);
    } else {
        store_release(&h->tail, tail);
    }
}

/* ---- Anybody ------------------------------------------------------------------- */

ssize_t shmp_ring_pending(struct shmp_ring *ring)
{
    struct position p = where(ring);
    size_t sum = 0;
    p.head = load_acquire(&ring->header->head);
    p.word = 0;
    if (shmp_occupancy(p.head, p.tail) > ring->ring_size)
        return -SHMP_ECORRUPT;
    for (; p.tail != p.head; p.tail++, p.offset = 0) {
        uint32_t word = load_acquire(word_of(ring, p.tail));
        uint32_t from = shmp_word_start(word) + p.offset;
        uint32_t end = shmp_word_end(word);
        if (end > SHMP_SLOT_SIZE)
            return -SHMP_ECORRUPT;
        sum += end > from ? end - from : 0;
    }
    return (ssize_t)sum;
}

bool shmp_ring_looks_empty(struct shmp_header *header)
{
    uint32_t tail = SHMP_TAIL_INDEX(load_seq_cst(&header->tail));
    uint32_t head = load_seq_cst(&header->head);
    return shmp_empty(head, tail);
}

bool shmp_ring_looks_full(struct shmp_header *header, uint32_t max_usage)
{
    uint32_t head = load_seq_cst(&header->head);
    uint32_t tail = SHMP_TAIL_INDEX(load_seq_cst(&header->tail));
    return (int32_t)shmp_occupancy(head, tail) >= 0 && shmp_full(head, tail, max_usage);
}

void shmp_ring_forget(struct shmp_header *h, bool read_side)
{
    uint32_t tail = SHMP_TAIL_INDEX(load_acquire(&h->tail));
    if (!read_side) {
        store_relaxed(&h->w.tail_seen, tail);
        return;
    }
    store_relaxed(&h->r.head_seen, tail); /* "empty as far as I know": forces a fresh look */
    store_relaxed(&h->r.word_seen, 0);
}

bool shmp_ring_put_is_noted(struct shmp_header *h)
{
    uint64_t redo = load_acquire(&h->w.redo);
    return SHMP_REDO_SLOTS(redo) != 0 && SHMP_REDO_INDEX(redo) == load_relaxed(&h->head);
}

bool shmp_ring_take_is_noted(struct shmp_header *h)
{
    uint64_t redo = load_acquire(&h->r.redo);
    return SHMP_REDO_SLOTS(redo) != 0 &&
           SHMP_REDO_INDEX(redo) == SHMP_TAIL_INDEX(load_relaxed(&h->tail));
}

void shmp_ring_redo_put(struct shmp_ring *ring, bool make_it)
{
    struct shmp_header *h = ring->header;
    uint32_t slots = SHMP_REDO_SLOTS(load_relaxed(&h->w.redo));
    uint32_t head = load_relaxed(&h->head);
    uint32_t used = shmp_occupancy(head, SHMP_TAIL_INDEX(load_acquire(&h->tail)));
    if (make_it && used <= ring->max_usage && slots <= ring->max_usage - used)
        store_seq_cst(&h->head, head + slots); /* P1 */
    store_relaxed(&h->w.redo, 0);
}

void shmp_ring_redo_take(struct shmp_ring *ring, bool make_it)
{
    struct shmp_header *h = ring->header;
    uint64_t redo = load_relaxed(&h->r.redo);
    uint32_t slots = SHMP_REDO_SLOTS(redo);
    uint32_t tail = SHMP_TAIL_INDEX(load_relaxed(&h->tail));
    uint32_t used = shmp_occupancy(load_acquire(&h->head), tail);
    if (make_it && slots <= used && used <= ring->ring_size &&
        (slots < used || SHMP_REDO_OFFSET(redo) == 0))
        store_seq_cst(&h->tail, SHMP_TAIL(tail + slots, SHMP_REDO_OFFSET(redo))); /* T4 */
    store_relaxed(&h->r.redo, 0);
}

void shmp_ring_unseal(struct shmp_ring *ring)
{
    struct shmp_header *h = ring->header;
    uint32_t head = load_acquire(&h->head);
    if (SHMP_TAIL_INDEX(load_relaxed(&h->tail)) == head)
        return; /* consumed and sealed: I5 wants the seal */
    /* T3 without T4: take the seal off, so that the kernel's merge rule holds again.  It is on
     * the newest slot, which need not be the tail's: a step may take several.  A
     * compare-and-swap, as a writer may be merging; and if the slot is not the newest any
     * more, the flag has no meaning. */
    _Atomic uint32_t *slot = word_of(ring, head - 1);
    uint32_t word = load_relaxed(slot);
    while ((word & SHMP_WORD_SEALED) != 0 && (word & SHMP_WORD_CAN_MERGE) != 0 &&
           !cas_seq_cst32(slot, &word, word & ~SHMP_WORD_SEALED))
        ;
}

void shmp_ring_reseal(struct shmp_ring *ring)
{
    struct shmp_header *h = ring->header;
    uint32_t head = load_relaxed(&h->head);
    if (SHMP_TAIL_INDEX(load_acquire(&h->tail)) != head)
        return; /* the slot before head is in use: no fill wrote its word */
    /* Nobody else looks at it: the ring is empty, and we have the lock of those who fill it.  Dies
     * before: the lock is a dead one's again, and the next does the same. */
    _Atomic uint32_t *slot = word_of(ring, head - 1);
    store_relaxed(slot, load_relaxed(slot) | SHMP_WORD_SEALED);
}

void shmp_ring_clear(struct shmp_ring *ring)
{
    struct shmp_header *h = ring->header;
    uint32_t head = load_relaxed(&h->head);
    store_relaxed(word_of(ring, head - 1), SHMP_WORD_SEALED);
    store_relaxed(&h->w.tail_seen, head);
    store_relaxed(&h->r.head_seen, head);
    store_relaxed(&h->r.word_seen, 0);
    store_seq_cst(&h->tail, SHMP_TAIL(head, 0));
}
