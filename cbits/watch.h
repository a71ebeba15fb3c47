/* watch.h - sleeping on a word of the segment and on the lives of its holders at once.
 *
 * A sleeper may be owed a wake by another process that dies before it gives it:
 *
 *   - a holder of the other side, between publishing and waking, or as the last of its side:
 *     the sleeper watches its life word;
 *   - one of its own side that sleeps before it in the queue, was chosen, and dies before it
 *     has handed on: the sleeper watches its call word.  One that does not sleep owes nothing:
 *     its word reads 0, the kernel does not mark that, and its exit disturbs nobody (WK-8);
 *   - a holder that came after the sleeper had gathered its words.  Until the queue has been empty
 *     once, or as many have got up as slept, it wakes before it publishes, and owes nothing after
 *     it (shmp_wake_ahead).  One that only sleeps stands behind those who sleep; those who are
 *     about to, it makes gather again (shmp_queue_step_epoch).
 *
 * The kernel wakes one sleeper per word, who wakes the others (shmp_pass_on), or dies: but he is one
 * of those whom the others watch, as only sleepers of this pipe sleep on the life and call words that
 * a holder has for it.  The exceptions are the common words of one that holds very many pipes, and a
 * process whose calls sleep in other threads than the one that its words name: such a thread may be woken
 * and die when the words have been marked already, and nobody hears of that.  Who watches one of these
 * looks twice a second (SHMP_COMMON_SLICE_NS).
 *
 * Where a word cannot be watched (no record in reach, more holders than a futex_waitv takes, a
 * word marked by a thread's exit) the sleeper wakes up by itself every few milliseconds.
 */
#ifndef SHMP_WATCH_H
#define SHMP_WATCH_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>

#include "live.h"
#include "sys.h"

#define SHMP_WATCH_MAX 96u /* futex_waitv takes 128 words, and each costs 0.3 us */

struct shmp_watch {
    unsigned count;
    bool complete;   /* all that may owe us a wake are watched */
    bool common;     /* others sleep on one of the words of whom we may not hear */
    unsigned tracked; /* watched holders of the other side */
    unsigned own_count; /* holders of our side alone, by index */
    uint16_t own[SHMP_HOLDERS];
    struct shmp_futex_waitv words[SHMP_WATCH_MAX + 1]; /* [0] is the caller's own word */
    struct shmp_peer *peers[SHMP_WATCH_MAX + 1];
};

/* futex_waitv is not there (before Linux 5.16), forbidden (EPERM), or takes too much (ENOMEM). */
static inline bool shmp_waitv_is_refused(long r)
{
    return r < 0 && r != -EAGAIN && r != -EINTR && r != -ETIMEDOUT;
}

/* How long to sleep without being woken. */
struct shmp_pace {
    uint32_t crowd; /* in: so many look for the same, and the first to find it tells the others */
    unsigned looks; /* so far, at what cannot be watched */
    uint64_t slice_ns;
    bool soon;   /* in: sleepers of the other side are overdue, look after SHMP_OVERDUE_NS */
    bool tick;   /* in: the binding has not looked for signals, let it after SHMP_TICK_NS */
    bool safety; /* out: the last sleep was cut by the backstop, which must not find work */
};

/* The backstop of those who watch all who may owe them a wake.  Not shorter than any wait that
 * matters, because who sleeps anew goes to the tail of the queue (WK-4).  A variable for tests. */
extern uint64_t shmp_backstop_ns;
/* A receiver that was chosen, or a waker, and has not come by then is stopped (WK-10). */
#define SHMP_OVERDUE_NS UINT64_C(10000000)
#define SHMP_TICK_NS UINT64_C(100000000)
/* A process that has just been killed closes its descriptors within a millisecond or so, and
 * nothing tells us when: look often at first. */
#define SHMP_FIRST_SLICE_NS UINT64_C(50000)
#define SHMP_FIRST_LOOKS 20u
/* They need the CPUs on which it dies: so a crowd looks as often as one alone would, together. */
#define SHMP_LARGEST_CROWD 16u
#define SHMP_LAST_SLICE_NS UINT64_C(4000000)
/* Beside common words: at least two must be killed at once for the look to find anything. */
#define SHMP_COMMON_SLICE_NS UINT64_C(500000000)

/* For a sleeper of that side.  First those of the other side, and of whom that is not clear; then, if all
 * of them are watched, our own.  Who looks again in a moment anyway hears of a death among his own by that, and he
 * may be about to find the end, with a crowd that he has never met: 17 us for each of them. */
void shmp_watch_others(struct shmp_watch *watch, struct shmp_live *live, int side);
void shmp_watch_own(struct shmp_watch *watch, struct shmp_live *live);
/* For who waits for that holder's lock. */
void shmp_watch_holder(struct shmp_watch *watch, struct shmp_live *live, uint32_t index);
void shmp_watch_release(struct shmp_watch *watch);

enum shmp_woken {
    SHMP_WOKEN,   /* chosen by a FUTEX_WAKE on the word */
    SHMP_CHANGED, /* the word no longer had the value: did not sleep */
    SHMP_LOOK,    /* a holder died, or the slice is over */
    SHMP_SIGNAL,  /* a handler ran */
    SHMP_LATE,    /* the deadline has passed */
};

/* Sleeps while *word == value, no later than deadline_ns (CLOCK_MONOTONIC, 0: none). */
enum shmp_woken shmp_watch_sleep(struct shmp_watch *watch, const _Atomic uint32_t *word,
                                 uint32_t value, uint64_t deadline_ns, struct shmp_pace *pace);

/* After a sleep on these life words that one of them ended.  The kernel wakes one sleeper per word
 * (m9) and names one word; until we ran we were queued on the others, and may have taken the wake of
 * another death as well.  The pages are still mapped. */
void shmp_pass_on(const struct shmp_futex_waitv *words, unsigned count);

#endif
