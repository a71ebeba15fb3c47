/* bytes.h - what the sweep writes: every byte says whose it is and where it belongs.
 *
 * The two upper bits are the writer's tag, the lower six a mix of the byte's offset in all
 * that this writer has ever written.  So a stream of any pieces can be taken apart again: a byte
 * that is lost, doubled or out of order, or a small write that is torn, shows.
 */
#ifndef SWEEP_BYTES_H
#define SWEEP_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tag { TAG_FILL, TAG_VICTIM, TAG_WRITER, TAG_SECOND, TAGS };

#define PATTERN_BYTES ((size_t)2 << 20)
#define LOG_MAX 512
#define STREAM_MAX ((size_t)3 << 20)

/* The intent log: outside the segment, so that a death leaves it whole. */
struct intent {
    enum tag tag;
    size_t offset;
    size_t length;
    long returned; /* IN_DOUBT until the call is back */
};
#define IN_DOUBT (-1000000L)

struct ledger {
    bool packets; /* every write is one packet for each PIPE_BUF bytes */
    unsigned intents;
    struct intent intent[LOG_MAX];
    size_t written[TAGS]; /* bytes that calls have returned, by tag */
    size_t received;      /* bytes in stream */
    unsigned reads;       /* that got something, while they are packets */
    size_t read[LOG_MAX]; /* bytes */
    unsigned char stream[STREAM_MAX];
};

/* Where TAGS * PATTERN_BYTES are; and fills them. */
void bytes_use(unsigned char *at);
void bytes_prepare(void);
const unsigned char *bytes_of(enum tag tag, size_t offset);

struct intent *ledger_begin(struct ledger *ledger, enum tag tag, size_t length);
/* Nothing was written, and nothing received. */
void ledger_reset(struct ledger *ledger);
/* So many bytes more are in the stream: one read. */
void ledger_receive(struct ledger *ledger, size_t bytes);
void ledger_end(struct ledger *ledger, struct intent *intent, long returned);

/* What was received against what was written.  lost: how many bytes at the front of everything
 * nobody has received (a reader died with them).  NULL, or what is wrong, in a static text. */
const char *ledger_check(const struct ledger *ledger, size_t *lost);
/* Whether anything of this writer was received. */
bool ledger_has(const struct ledger *ledger, enum tag tag);

#endif
