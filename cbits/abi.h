/* abi.h - every shared byte: the only file that knows an offset in the segment.
 *
 *   0        page 0: struct shmp_header (identity, geometry, the hot lines)
 *   1 page   description table: one u64 per open description
 *   2 pages  holder table: one line per process that holds an end
 *   ...      area: slot words, then the data pages; moves when the ring grows
 *
 * The header and both tables are mapped once.  The area is mapped with its data
 * pages twice in a row, so that what wraps is contiguous in memory (D1).
 *
 * Whoever maps the segment may scribble on it (D12).  So: fixed-width types, no
 * pointers, geometry copied and checked at attach, each index range-checked where
 * it is used.
 */
#ifndef SHMP_ABI_H
#define SHMP_ABI_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "include/shmpipe.h"

#define SHMP_MAGIC UINT64_C(0x31657069706d6873) /* "shmpipe1", little endian */
#define SHMP_ABI_VERSION 1u

#define SHMP_PAGE 4096u
#define SHMP_SLOT_SIZE SHMP_PIPE_BUF
#define SHMP_DEFAULT_SLOTS 16u
#define SHMP_MAX_SLOTS (SHMP_CAPACITY_MAX / SHMP_SLOT_SIZE)
#define SHMP_LINE 128u /* two cache lines: the adjacent-line prefetcher pairs them */

/* ---- Slot words: where the bytes of a slot are, and what may be done to it ---- */

/* end:13 | start:12 | flags.  A merging writer and a consuming reader meet in the
 * newest slot's word and nowhere else (D2). */
#define SHMP_WORD_END_MASK 0x1fffu
#define SHMP_WORD_START_SHIFT 13
#define SHMP_WORD_START_MASK 0xfffu
#define SHMP_WORD_FLAGS_SHIFT 25
#define SHMP_WORD(start, end, flags)                                                      \
    ((uint32_t)(end) | ((uint32_t)(start) << SHMP_WORD_START_SHIFT) |                      \
     ((uint32_t)(flags) << SHMP_WORD_FLAGS_SHIFT))
#define SHMP_WORD_SEALED ((uint32_t)SHMP_SLOT_SEALED << SHMP_WORD_FLAGS_SHIFT)
#define SHMP_WORD_CAN_MERGE ((uint32_t)SHMP_SLOT_CAN_MERGE << SHMP_WORD_FLAGS_SHIFT)
#define SHMP_WORD_PACKET ((uint32_t)SHMP_SLOT_PACKET << SHMP_WORD_FLAGS_SHIFT)

/* ---- Lock words: who holds it, by holder slot and generation (D5) ------------- */

/* owner (slot + 1):12 | generation:18 | waiters | long.  Zero is free. */
#define SHMP_LOCK_OWNER_MASK 0xfffu
#define SHMP_LOCK_GEN_SHIFT 12
#define SHMP_LOCK_GEN_MASK 0x3ffffu
#define SHMP_LOCK_WAITERS 0x80000000u

/* ---- Holder table ------------------------------------------------------------- */

#define SHMP_HOLDERS 1024u

/* One process that holds ends of this pipe.  Only that process writes its entry,
 * and whoever reaps it after proving it dead.  The proof, and the right to an entry,
 * is a POSIX record lock on the segment file at SHMP_HOLDER_LOCK + index: the kernel
 * drops it when the process is gone, not before and not with a thread. */
struct shmp_holder {
    _Atomic uint64_t state; /* generation:32 | readers:16 | writers:16; 0 readers and writers: idle */
    _Atomic uint32_t live;  /* 0 free, 1 taken */
    _Atomic uint32_t pid;   /* a hint: where to look for the record, what to show */
    _Atomic uint32_t record_fd;
    _Atomic uint32_t record_seq; /* changes when the process takes a fresh record */
    _Atomic uint64_t record_ino;
    _Atomic uint64_t record_dev;
    _Atomic uint64_t start_ns; /* CLOCK_BOOTTIME of the attach, for people */
    _Atomic uint32_t introduced; /* SHMP_INTRODUCED: queues whose sleepers all watch us */
    _Atomic uint32_t notifiers;  /* SHMP_NOTIFY_*: its notifiers on ends of that side */
    _Atomic uint32_t record_place; /* this pipe's words there */
    uint32_t reserved;
};
#define SHMP_INTRODUCED(side) (1u << (side))
#define SHMP_RELAYS(side) (2 + (side)) /* the same, for relays of notifiers: they take it away */
_Static_assert(sizeof(struct shmp_holder) == 64, "a holder entry is one cache line");

#define SHMP_STATE_READERS(s) ((uint32_t)((s) >> 16) & 0xffffu)
#define SHMP_STATE_WRITERS(s) ((uint32_t)(s) & 0xffffu)
#define SHMP_STATE_GEN(s) ((uint32_t)((s) >> 32))

/* ---- Process record ----------------------------------------------------------- */

/* A sealed memfd, mapped writable by its process only.  Each word lies in a robust process-shared
 * mutex that the process locks once: at its death the kernel sets FUTEX_OWNER_DIED there, and wakes
 * one of those who sleep on the word.  That one may be killed before it has woken the others: so
 * only those sleep on one word who hear of each other's deaths, and each pipe that the process
 * holds has words of its own. */
enum shmp_record_word {
    SHMP_WORD_LIFE,  /* for sleepers in the pipe's queues */
    /* For those of the same side: locked only while a call of the process sleeps or still owes a
     * hand-on, so that they hear of its death, and nobody of its exit. */
    SHMP_WORD_CALL,
    SHMP_WORD_RELAY, /* for relays of notifiers */
    SHMP_WORD_LOCK,  /* for those who wait for a lock, 40 ms at most */
    SHMP_PLACE_WORDS,
};
#define SHMP_RECORD_BYTES (4u * SHMP_PAGE)
#define SHMP_RECORD_PLACES 85u
/* Shared by all pipes for which no place was left: sleepers there also look by themselves. */
#define SHMP_COMMON_PLACE 0u
#define SHMP_MUTEX_BYTES 48u
#define SHMP_RECORD_MAGIC UINT64_C(0x64726365725f6873)
struct shmp_record {
    uint64_t magic;
    uint32_t word_offset; /* of the futex word in each mutex: the C library's choice */
    /* A bit for each place: calls of it sleep in other threads than the one that its words name.  Such a
     * thread may be given a wake, and be killed, when the words have been marked already. */
    _Atomic uint64_t apart[2];
    alignas(64) unsigned char
        mutexes[SHMP_RECORD_PLACES][SHMP_PLACE_WORDS][SHMP_MUTEX_BYTES];
};
_Static_assert(sizeof(struct shmp_record) <= SHMP_RECORD_BYTES, "a record holds its places");
_Static_assert(SHMP_RECORD_PLACES <= 128, "a bit for each place");

/* ---- Description table -------------------------------------------------------- */

/* What fcntl(2) calls the file status flags, shared by all who share the
 * description (LF-9): generation:32 | used:1 | flags:31.  A process that holds it
 * has a read lock on SHMP_DESCRIPTION_LOCK + index of the segment file. */
#define SHMP_DESCRIPTIONS 512u
#define SHMP_DESCRIPTION_USED 0x80000000u

/* ---- Byte ranges of the segment file that carry POSIX record locks ------------- */

#define SHMP_FORMAT_LOCK INT64_C(0x4000000000000000)
#define SHMP_HOLDER_LOCK (SHMP_FORMAT_LOCK + 0x1000)
#define SHMP_DESCRIPTION_LOCK (SHMP_FORMAT_LOCK + 0x10000)

/* ---- Wait queues -------------------------------------------------------------- */

/* An eventcount: epoch (the futex word) and the number of registered exclusive
 * sleepers in one u64, so that one read-modify-write changes both. */
struct shmp_queue {
    _Atomic uint64_t word;
};
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define SHMP_EPOCH_INDEX 0
#else
#define SHMP_EPOCH_INDEX 1
#endif
#define SHMP_QUEUE_WAITER (UINT64_C(1) << 32)
#define SHMP_QUEUE_EPOCH(w) ((uint32_t)(w))
#define SHMP_QUEUE_WAITERS(w) ((uint32_t)((w) >> 32))

/* ---- Geometry ----------------------------------------------------------------- */

/* ring_size slots exist; user writes may fill max_usage of them (D15, CP-13). */
struct shmp_geometry {
    _Atomic uint64_t area_offset;
    _Atomic uint32_t ring_size;
    _Atomic uint32_t max_usage;
};

/* ---- The header --------------------------------------------------------------- */

/* Written by writers under the write lock. */
struct shmp_write_line {
    _Atomic uint32_t lock;
    _Atomic uint32_t cpu;       /* where the last writer ran (D7) */
    _Atomic uint32_t tail_seen; /* what writers know of tail; never ahead of it */
    uint32_t reserved;
    _Atomic uint64_t bytes;
    _Atomic uint64_t calls;
    _Atomic uint64_t sleeps;
    _Atomic uint64_t again;
    _Atomic uint64_t idle_tail;  /* where readers stood since idle_ns, while some of them slept */
    _Atomic uint64_t idle_ns;    /* beside data (WK-10) */
    _Atomic uint64_t redo;       /* a put that is about to be committed: SHMP_REDO */
};

/* Written by readers under the read lock. */
struct shmp_read_line {
    _Atomic uint32_t lock;
    _Atomic uint32_t cpu;
    _Atomic uint32_t head_seen; /* what readers know of head; never ahead of it */
    _Atomic uint32_t word_seen; /* the tail slot's word, loaded after head_seen; 0 unknown */
    _Atomic uint64_t bytes;
    _Atomic uint64_t calls;
    _Atomic uint64_t sleeps;
    _Atomic uint64_t again;
    _Atomic uint64_t idle_head; /* where writers stood since idle_ns, while some of them slept */
    _Atomic uint64_t idle_ns;   /* beside room */
    _Atomic uint64_t redo;      /* a take that is about to be consumed: SHMP_REDO */
};

/* The index at which it begins, its slots, and, of a take, the bytes taken of the slot behind them.
 * Valid while the index is that of head (tail); no slots: none. */
#define SHMP_REDO(index, slots, offset)                                                   \
    ((uint64_t)(uint32_t)(index) | (uint64_t)(slots) << 32 | (uint64_t)(offset) << 48)
#define SHMP_REDO_INDEX(r) ((uint32_t)(r))
#define SHMP_REDO_SLOTS(r) ((uint32_t)((r) >> 32) & 0xffffu)
#define SHMP_REDO_OFFSET(r) ((uint32_t)((r) >> 48))

#define SHMP_POLL_READERS 1u /* somebody looks at read ends: keep POLLIN exact */
#define SHMP_POLL_WRITERS 2u /* somebody looks at write ends: keep POLLOUT exact */
#define SHMP_ASYNC_WRITERS 4u /* a write end has O_ASYNC: tell it of every read (IO-3) */
#define SHMP_NOTIFY_READERS 8u  /* a read end has a notifier: count writes */
#define SHMP_NOTIFY_WRITERS 16u /* a write end has one: count reads */
#define SHMP_NOTIFY(side) (SHMP_NOTIFY_READERS << (side))
#define SHMP_ASYNC_READERS 32u /* a read end has O_ASYNC: tell it of each wait of a writer (IO-4) */
/* The same as POLL, until the first change has been told (arm.c). */
#define SHMP_ARMED_READERS 0x100u
#define SHMP_ARMED_WRITERS 0x200u
#define SHMP_WATCH_READERS (SHMP_POLL_READERS | SHMP_ARMED_READERS)
#define SHMP_WATCH_WRITERS (SHMP_POLL_WRITERS | SHMP_ARMED_WRITERS)
/* Any of these: the companion is in use. */
#define SHMP_POLL_ANY                                                                     \
    (SHMP_WATCH_READERS | SHMP_WATCH_WRITERS | SHMP_ASYNC_READERS | SHMP_ASYNC_WRITERS)

#define SHMP_LEVEL_UNKNOWN 0u
#define SHMP_LEVEL_NOT_FULL 1u
#define SHMP_LEVEL_FULL 2u
#define SHMP_LEVEL_SHRUNK 3u /* full because its free slots were taken away */
#define SHMP_LEVEL_GROWN 4u  /* not full because slots were added */

/* Rarely written: wait queues, poll usage, wake statistics. */
struct shmp_wait_line {
    struct shmp_queue readable;
    struct shmp_queue writable;
    _Atomic uint32_t poll_usage;
    _Atomic uint32_t geometry_gen;
    _Atomic uint32_t holder_limit; /* entries at or beyond it were never used; only grows */
};

struct shmp_companion_line {
    _Atomic uint32_t lock;
    _Atomic uint32_t level;  /* SHMP_LEVEL_*: whether the kernel pipe is full */
    _Atomic uint32_t queued; /* bytes in it, an upper bound */
    _Atomic uint32_t in_step; /* the sides of poll_usage whose level has been set once */
    _Atomic uint32_t most_edges; /* bytes it takes and is not full; few where slots are few */
};

/* What notifiers are told of: for those of read ends written by writers, under the write lock,
 * for those of write ends by readers, under the read lock; but for `sleep` (notify.h). */
struct shmp_notify_line {
    alignas(SHMP_LINE) _Atomic uint64_t ops; /* counted, ever */
    _Atomic uint64_t before; /* where the ring stood when the operation `begun` began */
    _Atomic uint64_t begun;  /* ops + 1: that operation is not counted yet */
    _Atomic uint32_t sleep;  /* the relays' futex word; odd: one of them sleeps, or is about to */
};

struct shmp_stats_line {
    _Atomic uint64_t read_wakes;
    _Atomic uint64_t write_wakes;
    _Atomic uint64_t broadcasts;
    _Atomic uint64_t recoveries;
    _Atomic uint64_t reaped;
    _Atomic uint64_t slice_found_work;
};

struct shmp_header {
    _Atomic uint64_t magic; /* stored last, with release: before that the segment does not exist */
    uint32_t version;
    uint32_t fingerprint; /* of the layout, see shmp_fingerprint() */
    uint32_t byte_order;  /* 0x01020304 as the creator wrote it */
    uint16_t word_bits;
    uint16_t kind; /* SHMP_KIND_* */
    uint32_t page_size;
    uint32_t header_bytes;
    uint64_t instance;
    uint64_t created_ns;
    uint32_t creator_pid;
    uint32_t creator_uid;
    uint32_t first_index;
    uint32_t default_usage; /* slots of a fresh incarnation (FO-1) */
    uint64_t fifo_dev;
    uint64_t fifo_ino;
    char name[SHMP_NAME_MAX + 8];
    struct shmp_geometry geometry[2]; /* geometry_gen's low bit says which one counts */

    alignas(SHMP_LINE) struct shmp_write_line w;
    alignas(SHMP_LINE) _Atomic uint32_t head; /* written by writers, polled by readers */
    alignas(SHMP_LINE) struct shmp_read_line r;
    alignas(SHMP_LINE) _Atomic uint64_t tail; /* index:32 | bytes read of that slot:32 */
    alignas(SHMP_LINE) struct shmp_wait_line wait;
    alignas(SHMP_LINE) struct shmp_companion_line companion;
    alignas(SHMP_LINE) struct shmp_stats_line stats;
    struct shmp_notify_line notify[2]; /* by the side of the ends whose notifiers are told */
};
_Static_assert(sizeof(struct shmp_header) <= SHMP_PAGE, "the header is one page");
_Static_assert(sizeof(_Atomic uint64_t) == 8 && sizeof(_Atomic uint32_t) == 4,
               "atomics have no hidden lock word");

#define SHMP_KIND_ANONYMOUS 1u
#define SHMP_KIND_NAMED 2u

#define SHMP_TAIL(index, offset) ((uint64_t)(uint32_t)(index) | ((uint64_t)(offset) << 32))
#define SHMP_TAIL_INDEX(t) ((uint32_t)(t))
#define SHMP_TAIL_OFFSET(t) ((uint32_t)((t) >> 32))

#define SHMP_DESCRIPTIONS_OFFSET ((size_t)SHMP_PAGE)
#define SHMP_HOLDERS_OFFSET                                                               \
    (SHMP_DESCRIPTIONS_OFFSET + (size_t)SHMP_DESCRIPTIONS * sizeof(uint64_t))
#define SHMP_FIXED_BYTES                                                                  \
    (SHMP_HOLDERS_OFFSET + (size_t)SHMP_HOLDERS * sizeof(struct shmp_holder))
_Static_assert(SHMP_HOLDERS_OFFSET % SHMP_PAGE == 0 && SHMP_FIXED_BYTES % SHMP_PAGE == 0,
               "tables are whole pages");

/* Bytes of slot words in an area, whole pages. */
static inline size_t shmp_words_bytes(uint32_t ring_size)
{
    return ((size_t)ring_size * sizeof(uint32_t) + SHMP_PAGE - 1) / SHMP_PAGE * SHMP_PAGE;
}

static inline size_t shmp_data_bytes(uint32_t ring_size)
{
    return (size_t)ring_size * SHMP_SLOT_SIZE;
}

/* Two builds that disagree on any of these must refuse each other. */
static inline uint32_t shmp_fingerprint(void)
{
    const size_t facts[] = {
        sizeof(struct shmp_header),
        offsetof(struct shmp_header, geometry),
        offsetof(struct shmp_header, w),
        offsetof(struct shmp_header, head),
        offsetof(struct shmp_header, r),
        offsetof(struct shmp_header, tail),
        offsetof(struct shmp_header, wait),
        offsetof(struct shmp_header, companion),
        offsetof(struct shmp_header, stats),
        offsetof(struct shmp_header, notify),
        sizeof(struct shmp_write_line),
        sizeof(struct shmp_read_line),
        sizeof(struct shmp_holder),
        SHMP_HOLDERS,
        SHMP_DESCRIPTIONS,
        SHMP_SLOT_SIZE,
        sizeof(struct shmp_record),
    };
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++)
        hash = (hash ^ (uint32_t)facts[i]) * 16777619u;
    return hash;
}

#endif
