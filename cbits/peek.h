/* peek.h - reading a segment without mapping it: what the inspector and the checker do.
 *
 * A peer that may write to a named object may also cut it short, and then a touch of the mapping
 * is SIGBUS; a read is merely short.  So whoever only looks reads copies (decision 0025).
 *
 * A copy is not one moment: the kernel copies while others store.  A ring stood still if the words
 * that say where it is read the same before and after everything else was copied.  Words of eight
 * bytes come whole on the processors we know; one that did not would have to be torn twice in the
 * same way to be believed.
 */
#ifndef SHMP_PEEK_H
#define SHMP_PEEK_H

#include <stdbool.h>
#include <stdint.h>

#include "abi.h"
#include "seg.h"

struct shmp_peek {
    int fd;
    uint64_t file_bytes;
    struct shmp_header header; /* a copy: load_relaxed() its atomics, nobody changes them */
    struct shmp_shape shape;   /* of that copy, checked */
};

/* n bytes at an offset.  0; -SHMP_ECORRUPT if the file ends before; or -errno. */
int shmp_peek_bytes(int fd, void *to, size_t n, uint64_t offset);

/* The words of slots first .. first + count - 1, in the order of the ring; at most this many at
 * a time. */
#define SHMP_PEEK_WORDS 1024u
int shmp_peek_words(const struct shmp_peek *peek, uint32_t first, uint32_t count,
                    _Atomic uint32_t *words);

/* Holder entries first .. first + count - 1; whoever wants all takes so many at a time. */
#define SHMP_PEEK_HOLDERS 64u
int shmp_peek_holders(int fd, uint32_t first, uint32_t count,
                      struct shmp_holder *holders);

/* Whether the ring is still where the copy says: head, tail and geometry.  now: another copy. */
bool shmp_peek_stood_still(const struct shmp_peek *peek, const struct shmp_header *now);

/* Whether another process has the record lock of a holder entry.  A process never sees its own. */
bool shmp_peek_is_locked(int fd, uint32_t index);

#endif
