/* wait.c - the two wait queues: eventcounts with exclusive wakes. */
#include "wait.h"

#include <limits.h>

#include "atomic.h"
#include "sys.h"

_Atomic uint32_t *shmp_queue_word(struct shmp_queue *queue)
{
    return (_Atomic uint32_t *)(void *)&queue->word + SHMP_EPOCH_INDEX;
}

static uint64_t with(uint32_t waiters, uint32_t epoch)
{
    return ((uint64_t)waiters << 32) | epoch;
}

uint32_t shmp_queue_register(struct shmp_queue *queue)
{
    /* R1: sequentially consistent, partner W2 (store buffering with R2/W1). */
    return SHMP_QUEUE_EPOCH(fetch_add_seq_cst(&queue->word, SHMP_QUEUE_WAITER));
}

void shmp_queue_leave(struct shmp_queue *queue, uint32_t epoch)
{
    uint64_t seen = load_relaxed(&queue->word);
    while (SHMP_QUEUE_EPOCH(seen) == epoch && SHMP_QUEUE_WAITERS(seen) != 0)
        if (cas_seq_cst64(&queue->word, &seen, seen - SHMP_QUEUE_WAITER))
            return;
    /* The epoch moved: our registration may be spent or not.  Leave it: too high is safe. */
}

uint32_t shmp_queue_waiters(struct shmp_queue *queue)
{
    return SHMP_QUEUE_WAITERS(load_seq_cst(&queue->word));
}

/* Nobody sleeps with the epoch that was before `word`, and if the queue still reads `word`
 * nobody has registered since: so the count is zero, whatever the dead left in it. */
static void heal(struct shmp_queue *queue, uint64_t word)
{
    cas_seq_cst64(&queue->word, &word, with(0, SHMP_QUEUE_EPOCH(word)));
}

/* The word after it; 0: nobody is registered. */
static uint64_t step_epoch(struct shmp_queue *queue)
{
    uint64_t seen = load_seq_cst(&queue->word);
    uint64_t next;
    do {
        if (SHMP_QUEUE_WAITERS(seen) == 0)
            return 0;
        next = with(SHMP_QUEUE_WAITERS(seen), SHMP_QUEUE_EPOCH(seen) + 1);
    } while (!cas_seq_cst64(&queue->word, &seen, next));
    return next;
}

void shmp_queue_step_epoch(struct shmp_queue *queue)
{
    step_epoch(queue);
}

void shmp_queue_wake_all(struct shmp_queue *queue)
{
    uint64_t word = step_epoch(queue);
    if (word == 0)
        return; /* I1; who registers from now on sees what we changed before (R2) */
    /* The count stays until they are awake: dies here, and the next waker still sees them. */
    shmp_sys.futex_wake(shmp_queue_word(queue), INT_MAX);
    heal(queue, word);
}

bool shmp_queue_wake_one(struct shmp_queue *queue, _Atomic uint64_t *wakes)
{
    uint64_t word = step_epoch(queue); /* W3 */
    if (word == 0)
        return false;
    /* Dies here: those who watch us look, and all stay counted.  (Taken off here, a registration would be
     * missing as long as he has not run: the next wake would go to him, and take off another's.) */
    fetch_add_relaxed(wakes, 1);
    if (shmp_sys.futex_wake(shmp_queue_word(queue), 1) == 0) {
        heal(queue, word);
        return false;
    }
    /* W5: for him, and as he would, with the epoch of our own step. */
    shmp_queue_leave(queue, SHMP_QUEUE_EPOCH(word));
    return true;
}

void shmp_broadcast(struct shmp_header *header)
{
    fetch_add_relaxed(&header->stats.broadcasts, 1);
    shmp_queue_wake_all(&header->wait.readable);
    shmp_queue_wake_all(&header->wait.writable);
}
