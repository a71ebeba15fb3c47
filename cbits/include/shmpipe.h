/* shmpipe.h - the public C interface: the Linux pipe, rebuilt in shared memory.
 *
 * Each call mirrors the system call of the same name on an opaque handle
 * instead of a descriptor: same arguments, same result, same errno, and SIGPIPE
 * as there.  docs/reference/semantics.md lists what is different and why.
 *
 * Unless a comment says otherwise a call returns -1 (or NULL) and sets errno.
 * Every call is thread safe.  A handle survives fork() like a descriptor; it
 * goes through exec() as the two descriptors that shmp_export() names.
 * No call is async-signal-safe.
 */
#ifndef SHMPIPE_H
#define SHMPIPE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SHMP_PIPE_BUF 4096u            /* slot size; writes up to here are atomic */
#define SHMP_CAPACITY_DEFAULT 65536u   /* bytes, as the kernel's (rule CP-1) */
#define SHMP_CAPACITY_MAX (1u << 30)   /* bytes; EPERM above (rule CP-4) */
#define SHMP_NAME_MAX 200u             /* bytes in a pipe's name */

/* Errno values that no system call on a pipe has: a damaged or a foreign segment. */
#define SHMP_ECORRUPT 117      /* EUCLEAN */
#define SHMP_EINCOMPATIBLE 8   /* ENOEXEC */

typedef struct shmp_end shmp_end;

/* What mkfifo(3) and pipe2(2) have no argument for.  Zero means the default. */
struct shmp_options {
    uint64_t capacity;      /* bytes, rounded up to a power of two of slots */
    uint32_t first_index;   /* where head, tail and the wait epochs start (tests use 2^32-3) */
    uint32_t reserved;
};

/* An end, taken apart so that another process can take it up (spawn, exec). */
struct shmp_token {
    int32_t segment_fd;
    int32_t companion_fd;
    uint32_t description;   /* index in the segment's description table */
    uint32_t generation;    /* of that description */
    uint32_t mode;          /* O_RDONLY, O_WRONLY, O_RDWR */
    uint32_t flags;         /* of a description that could not be shared */
};

struct shmp_pollfd {
    shmp_end *end;
    short events;
    short revents;
};

int shmp_pipe2(shmp_end *ends[2], int flags);
int shmp_pipe2_with(shmp_end *ends[2], int flags, const struct shmp_options *options);

int shmp_mkfifo(const char *name, mode_t mode);
int shmp_mkfifo_with(const char *name, mode_t mode, const struct shmp_options *options);
shmp_end *shmp_open(const char *name, int flags);
int shmp_unlink(const char *name);

/* The same three for a caller that has opened the POSIX shared memory object
 * itself (shm_open or posix_ipc).  shmp_format takes over an empty object, or one
 * whose creator died; EEXIST if it is a pipe already.  If it fails otherwise the name is gone, or it was
 * when it began (ESTALE: open the object anew).  Neither takes the
 * descriptor: the caller closes it, with shmp_close_segment: a plain close() of any
 * descriptor of an object takes the process's record locks on it away. */
int shmp_format(int segment_fd, const char *name, const struct shmp_options *options);
shmp_end *shmp_open_fd(int segment_fd, int flags);
int shmp_unlink_fd(int segment_fd, const char *name);
int shmp_close_segment(int segment_fd);

ssize_t shmp_read(shmp_end *end, void *buffer, size_t count);
ssize_t shmp_write(shmp_end *end, const void *buffer, size_t count);
ssize_t shmp_readv(shmp_end *end, const struct iovec *iov, int iovcnt);
ssize_t shmp_writev(shmp_end *end, const struct iovec *iov, int iovcnt);

/* F_GETPIPE_SZ F_SETPIPE_SZ F_GETFL F_SETFL F_GETFD F_SETFD, and the signal-driven
 * commands, which the companion's kernel pipe answers itself. */
int shmp_fcntl(shmp_end *end, int command, long argument);
int shmp_ioctl(shmp_end *end, unsigned long request, void *argument);   /* FIONREAD FIONBIO FIOASYNC */
int shmp_poll(struct shmp_pollfd *ends, unsigned long count, int timeout_ms);

/* A real descriptor for select, poll, epoll and asyncio.  Not for read and write.
 * From the first call on, both sides keep it in step with the ring. */
int shmp_fileno(shmp_end *end);

/* The same for an event loop that tries before it sleeps, and costs the other side nothing while
 * it does not sleep.  The descriptor that shmp_descriptor() names is ready whenever the end is
 * (POLLIN: to read, POLLOUT: to write), and at other times, too; after shmp_arm() has said 0 it is
 * not, until the end is.  1: try again first.  For level-triggered waits. */
int shmp_arm(shmp_end *end, short event);
int shmp_descriptor(const shmp_end *end);
/* 1: the other side last ran on another CPU than this thread, so that to try again for as long
 * as a wake takes (50 us) may be worth it. */
int shmp_is_concurrent(shmp_end *end, short event);

/* A notifier: an eventfd (nonblocking, close-on-exec) whose counter grows by one for each operation
 * of the other side that has moved data, from this call on, by whatever process, also when the end
 * was ready already: for a read end writes, for a write end reads, for one that is both, both.  An
 * operation that has to wait with a part of its data moved counts that part, too; a last close
 * and an attempt that moves nothing do not count.
 *
 * The descriptor is the handle: to be polled, and closed with shmp_notifier_close alone.
 * shmp_notifier_read takes what was counted since the last time, without waiting, and is never
 * late; read(2) takes what has arrived in the eventfd.  Both take from the same account.  Closing
 * the end ends the counting.  A fork child's copy is closed (EBADF). */
int shmp_notifier_open(shmp_end *end);
int shmp_notifier_read(int notifier, uint64_t *operations);
int shmp_notifier_close(int notifier);

int shmp_close(shmp_end *end);

/* Ends for other processes.  shmp_export borrows: the descriptors stay the end's.
 * shmp_import takes the two descriptors, also when it fails, but for EBADF, EINVAL,
 * SHMP_EINCOMPATIBLE and SHMP_ECORRUPT: then they are not what the token says, and stay
 * the caller's, open and untouched. */
int shmp_export(shmp_end *end, struct shmp_token *token);
shmp_end *shmp_import(const struct shmp_token *token);

/* A handle may be closed by one thread while another is inside a call with it: the
 * call holds it.  Bindings that release a global lock hold around each call. */
void shmp_hold(shmp_end *end);
void shmp_release(shmp_end *end);

/* Facts about a handle that need no system call. */
int shmp_mode(const shmp_end *end);                 /* O_RDONLY, O_WRONLY or O_RDWR */
const char *shmp_name(const shmp_end *end);         /* "" for an anonymous pipe */
int shmp_segment_fd(const shmp_end *end);

/* Why the last call on this thread failed with SHMP_ECORRUPT, SHMP_EINCOMPATIBLE or
 * EINVAL for a name: one line for people.  Never NULL. */
const char *shmp_reason(void);

/* ---- Watching: lock-free, read-only, never blocks (shmpipe stat) ------------- */

#define SHMP_SNAPSHOT_HOLDERS 64u
#define SHMP_SNAPSHOT_SLOTS 64u

struct shmp_holder_info {
    uint32_t index;
    uint32_t pid;           /* in the pid namespace of that process */
    uint32_t readers;       /* open descriptions of each kind, in that process */
    uint32_t writers;
    uint32_t alive;         /* 1 alive, 0 proven dead and not yet reaped */
    uint32_t generation;
};

struct shmp_slot_info {
    uint32_t start;
    uint32_t end;
    uint32_t flags;         /* SHMP_SLOT_* */
    uint32_t reserved;
};

#define SHMP_SLOT_CAN_MERGE 1u
#define SHMP_SLOT_PACKET 2u
#define SHMP_SLOT_WHOLE 4u
#define SHMP_SLOT_LOSS 8u
#define SHMP_SLOT_SEALED 16u

struct shmp_snapshot {
    uint32_t abi_version;
    uint32_t named;
    uint64_t instance;              /* random identity of this pipe */
    char name[SHMP_NAME_MAX + 1];
    uint64_t created_ns;            /* CLOCK_REALTIME */
    uint32_t creator_pid;
    uint32_t creator_uid;
    uint64_t segment_bytes;
    uint32_t ring_size;             /* slots */
    uint32_t max_usage;             /* slots that writes may fill */
    uint64_t capacity;              /* bytes: max_usage * slot size */
    uint32_t head;
    uint32_t tail;
    uint32_t tail_offset;           /* bytes already read from the tail slot */
    uint32_t occupancy;             /* slots in use */
    uint64_t pending;               /* bytes, what FIONREAD says */
    uint32_t torn;                  /* 1: the ring moved too fast for one consistent view */
    uint32_t readers;               /* descriptions, summed over holders */
    uint32_t writers;
    uint32_t holders;               /* processes */
    uint32_t read_waiters;          /* hints: never too low, may be too high after a death */
    uint32_t write_waiters;
    uint32_t read_epoch;
    uint32_t write_epoch;
    uint32_t poll_usage;            /* 1, 2: somebody looks at read ends, at write ends; 0x100, 0x200:
                                       until the first change; 32, 4: read ends,
                                       write ends have O_ASYNC; 8, 16: notifiers */
    uint32_t write_lock_owner;      /* holder index + 1, 0 free */
    uint32_t read_lock_owner;
    uint32_t companion_lock_owner;
    uint64_t bytes_written;
    uint64_t writes;
    uint64_t bytes_read;
    uint64_t reads;
    uint64_t write_sleeps;
    uint64_t read_sleeps;
    uint64_t read_wakes;            /* wake calls for readers */
    uint64_t write_wakes;
    uint64_t broadcasts;
    uint64_t recoveries;            /* locks taken over from the dead */
    uint64_t reaped;                /* dead holders cleaned up */
    uint64_t slice_found_work;      /* the safety slice found a lost wake: must be 0 */
    uint64_t write_again;           /* EAGAIN on the write side */
    uint64_t read_again;
    uint32_t slot_count;            /* entries below: the oldest occupied slots first */
    uint32_t holder_count;
    struct shmp_slot_info slots[SHMP_SNAPSHOT_SLOTS];
    struct shmp_holder_info holder[SHMP_SNAPSHOT_HOLDERS];
};

/* Reads the segment and maps nothing: a segment that is cut short meanwhile is an error here,
 * and no signal.  The caller closes the descriptor (shmp_close_segment in a process that may
 * hold the pipe open). */
int shmp_inspect_fd(int segment_fd, struct shmp_snapshot *snapshot);

/* ---- Checking: every invariant of a segment, in the same manner (shmpipe check) ------ */

#define SHMP_CHECK_FINDINGS 64u
#define SHMP_CHECK_RULE 24u
#define SHMP_CHECK_TEXT 136u

struct shmp_finding {
    uint32_t error;         /* 1: damage; 0: a note, of something that the protocol allows */
    uint32_t index;         /* of the slot, the holder, the description ... concerned */
    char rule[SHMP_CHECK_RULE]; /* a word for programs, such as "slot-end" */
    char text[SHMP_CHECK_TEXT]; /* a line for people, such as "slot word 3: end 5000 > 4096" */
};

struct shmp_check {
    uint32_t errors;        /* all, also those that did not fit below */
    uint32_t notes;
    uint32_t moving;        /* 1: the ring never stood still, so its slots were not judged */
    uint32_t count;         /* entries below, errors first */
    struct shmp_finding findings[SHMP_CHECK_FINDINGS];
};

/* 0: examined, check->errors says whether it is damaged.  Looks again at what it finds, and
 * reports as damage only what stays.  -1 if it cannot be examined: ENOENT (empty, or not
 * published yet), SHMP_EINCOMPATIBLE, or the errno of a read.  Takes a few milliseconds where it
 * finds damage or the ring is in full motion. */
int shmp_check_fd(int segment_fd, struct shmp_check *check);

#ifdef __cplusplus
}
#endif
#endif
