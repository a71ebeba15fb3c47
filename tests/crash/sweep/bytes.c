/* bytes.c - the pattern, the intent log, and the check of a received stream against it. */
#include "bytes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "shmpipe.h"

static unsigned char *pattern;

void bytes_use(unsigned char *at)
{
    pattern = at;
}

void bytes_prepare(void)
{
    for (size_t tag = 0; tag < TAGS; tag++)
        for (size_t i = 0; i < PATTERN_BYTES; i++)
            pattern[tag * PATTERN_BYTES + i] =
                (unsigned char)(tag << 6 | ((uint32_t)(i + 1) * 2654435761u) >> 26);
}

const unsigned char *bytes_of(enum tag tag, size_t offset)
{
    return pattern + (size_t)tag * PATTERN_BYTES + offset;
}

struct intent *ledger_begin(struct ledger *ledger, enum tag tag, size_t length)
{
    struct intent *intent = &ledger->intent[ledger->intents];
    *intent = (struct intent){
        .tag = tag, .offset = ledger->written[tag], .length = length, .returned = IN_DOUBT};
    ledger->intents++;
    return intent;
}

void ledger_reset(struct ledger *ledger)
{
    ledger->packets = false;
    ledger->intents = 0;
    ledger->received = 0;
    ledger->reads = 0;
    memset(ledger->written, 0, sizeof ledger->written);
}

void ledger_receive(struct ledger *ledger, size_t bytes)
{
    ledger->received += bytes;
    if (ledger->packets)
        ledger->read[ledger->reads++] = bytes;
}

void ledger_end(struct ledger *ledger, struct intent *intent, long returned)
{
    if (returned > 0)
        ledger->written[intent->tag] += (size_t)returned;
    intent->returned = returned;
}

static char text[200];

#define WRONG(...) (snprintf(text, sizeof text, __VA_ARGS__), text)

/* What a call that did not return may have published (O4): of up to PIPE_BUF bytes all or
 * nothing; of more, whole slots, after a first part that was merged or not. */
static bool is_documented_prefix(size_t n, size_t length)
{
    if (n == 0 || n == length)
        return true;
    if (length <= SHMP_PIPE_BUF || n > length)
        return false;
    size_t merged = length % SHMP_PIPE_BUF;
    return n % SHMP_PIPE_BUF == 0 || (n >= merged && (n - merged) % SHMP_PIPE_BUF == 0);
}

/* The write that covers this offset, or NULL if one ends just there. */
static const struct intent *inside(const struct ledger *ledger, enum tag tag, size_t offset)
{
    for (unsigned i = 0; i < ledger->intents; i++) {
        const struct intent *intent = &ledger->intent[i];
        if (intent->tag == tag && intent->offset < offset &&
            offset < intent->offset + intent->length &&
            (intent->returned == IN_DOUBT ||
             offset < intent->offset + (size_t)(intent->returned > 0 ? intent->returned : 0)))
            return intent;
    }
    return NULL;
}

static const struct intent *in_doubt(const struct ledger *ledger, enum tag tag)
{
    for (unsigned i = 0; i < ledger->intents; i++)
        if (ledger->intent[i].tag == tag && ledger->intent[i].returned == IN_DOUBT)
            return &ledger->intent[i];
    return NULL;
}

/* The bytes of one writer, in the order in which they were received. */
struct strand {
    size_t seen;
    size_t before; /* so many, from the first on, are there */
    size_t hole;   /* then so many are missing, and the rest follows */
    size_t found;  /* while the hole is looked for */
    size_t at;
};

static size_t offset_in(const struct strand *strand)
{
    return strand->at + (strand->at >= strand->before ? strand->hole : 0);
}

/* It is before the first byte that is not the next one. */
static void find_hole(struct strand *strand, unsigned char byte)
{
    if (strand->hole == 0) {
        strand->before = strand->seen;
        return;
    }
    if (strand->found == strand->before && byte == *bytes_of(byte >> 6, strand->found))
        strand->before++;
    strand->found++;
}

static const char *measure(const struct ledger *ledger, enum tag tag, struct strand *strand)
{
    const struct intent *doubt = in_doubt(ledger, tag);
    size_t all = ledger->written[tag];
    size_t most = all + (doubt ? doubt->length : 0);
    if (strand->seen > most)
        return WRONG("%zu bytes of writer %u were read, and it wrote %zu", strand->seen, tag,
                     most);
    if (strand->seen < all)
        strand->hole = all - strand->seen;
    else if (doubt && !is_documented_prefix(strand->seen - all, doubt->length))
        return WRONG("of a write of %zu bytes that died %zu were read", doubt->length,
                     strand->seen - all);
    return NULL;
}

/* PK: each read is one packet, whole: neither two, nor a part of one.  The bytes are those of
 * the strands, so a length at an offset says which packet it is. */
static const char *check_packets(const struct ledger *ledger, struct strand *strands)
{
    size_t at = 0;
    for (enum tag tag = 0; tag < TAGS; tag++)
        strands[tag].at = 0;
    for (unsigned i = 0; i < ledger->reads; i++) {
        enum tag tag = ledger->stream[at] >> 6;
        size_t offset = offset_in(&strands[tag]);
        size_t packet = 0;
        for (unsigned n = 0; n < ledger->intents; n++) {
            const struct intent *intent = &ledger->intent[n];
            if (intent->tag != tag || intent->returned == -EAGAIN || offset < intent->offset ||
                (offset - intent->offset) % SHMP_PIPE_BUF != 0 ||
                offset >= intent->offset + intent->length)
                continue;
            packet = intent->offset + intent->length - offset;
        }
        if (packet > SHMP_PIPE_BUF)
            packet = SHMP_PIPE_BUF;
        if (ledger->read[i] != packet)
            return WRONG("a read of a packet of %zu bytes got %zu", packet, ledger->read[i]);
        strands[tag].at += ledger->read[i];
        at += ledger->read[i];
    }
    return NULL;
}

const char *ledger_check(const struct ledger *ledger, size_t *lost)
{
    struct strand strands[TAGS] = {0};
    const unsigned char *stream = ledger->stream;
    *lost = 0;
    for (size_t i = 0; i < ledger->received; i++)
        strands[stream[i] >> 6].seen++;
    for (enum tag tag = 0; tag < TAGS; tag++) {
        const char *wrong = measure(ledger, tag, &strands[tag]);
        if (wrong)
            return wrong;
        *lost += strands[tag].hole;
    }
    for (size_t i = 0; i < ledger->received; i++)
        find_hole(&strands[stream[i] >> 6], stream[i]);
    for (size_t i = 0; i < ledger->received;) {
        enum tag tag = stream[i] >> 6;
        struct strand *strand = &strands[tag];
        size_t run = 1;
        while (i + run < ledger->received && stream[i + run] >> 6 == tag &&
               strand->at + run != strand->before)
            run++;
        if (memcmp(stream + i, bytes_of(tag, offset_in(strand)), run) != 0)
            return WRONG("the %zu bytes at %zu of the stream are not those at %zu of writer %u",
                         run, i, offset_in(strand), (unsigned)tag);
        strand->at += run;
        i += run;
        bool at_hole = strand->at == strand->before;
        const struct intent *torn =
            at_hole || i == ledger->received ? NULL : inside(ledger, tag, offset_in(strand));
        if (torn && torn->length <= SHMP_PIPE_BUF)
            return WRONG("a write of %zu bytes is torn", torn->length);
    }
    return ledger->packets ? check_packets(ledger, strands) : NULL;
}

bool ledger_has(const struct ledger *ledger, enum tag tag)
{
    for (size_t i = 0; i < ledger->received; i++)
        if (ledger->stream[i] >> 6 == tag)
            return true;
    return false;
}
