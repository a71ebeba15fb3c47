/* api.c - the public C interface: system-call manners over the core. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "companion.h"
#include "fifo.h"
#include "pipe.h"
#include "relay.h"
#include "sys.h"

#define MOST_BYTES 0x7ffff000u /* one call moves no more (WR-18) */
#define MOST_IOVECS 1024

static int answer(long r)
{
    if (r >= 0)
        return (int)r;
    errno = (int)-r;
    return -1;
}

/* ---- Making and opening ---------------------------------------------------------- */

/* Should somebody have put a FIFO under the name, nobody waits for its writer. */
#define OPENING (O_CLOEXEC | O_NONBLOCK)

static int make_ends(shmp_end *ends[2], int segment_fd, int companion[2], int flags)
{
    struct shmp_header h;
    uint32_t both = (uint32_t)flags & O_NONBLOCK;
    int r = shmp_seg_judge(segment_fd, &h);
    long second = r < 0 ? r : shmp_sys.fcntl(segment_fd, F_DUPFD_CLOEXEC, 3);
    if (second < 0) {
        shmp_sys.close(segment_fd);
        shmp_sys.close(companion[0]);
        shmp_sys.close(companion[1]);
        return (int)second;
    }
    /* The second descriptor joins the attachment that the first one makes. */
    shmp_end *made[2];
    r = shmp_end_new(&made[0], segment_fd, &h, companion[0], O_RDONLY, both, NULL);
    if (r < 0) {
        shmp_sys.close((int)second);
        shmp_sys.close(companion[1]);
        return r;
    }
    r = shmp_end_new(&made[1], (int)second, &h, companion[1], O_WRONLY,
                     both | ((uint32_t)flags & O_DIRECT), NULL);
    if (r < 0) {
        shmp_end_close(made[0]);
        return r;
    }
    if ((flags & O_CLOEXEC) == 0) {
        /* Record locks survive exec with their descriptor; the close of another one of the
         * same file takes them away, so that who execs while it holds a ring lock is known
         * to have gone. */
        struct shmp_seg *seg = &made[0]->pipe->seg;
        seg->guard_fd = (int)shmp_sys.fcntl(seg->fd, F_DUPFD_CLOEXEC, 3);
        shmp_sys.fcntl(seg->fd, F_SETFD, 0);
        shmp_sys.fcntl(made[0]->fd, F_SETFD, 0);
        shmp_sys.fcntl(made[1]->fd, F_SETFD, 0);
    }
    shmp_companion_measure(made[0]->pipe->seg.header, made[0]->fd);
    ends[0] = made[0]; /* written only on success (CR-5) */
    ends[1] = made[1];
    return 0;
}

int shmp_pipe2_with(shmp_end *ends[2], int flags, const struct shmp_options *options)
{
    int segment_fd;
    int companion[2];
    if ((flags & ~(O_CLOEXEC | O_NONBLOCK | O_DIRECT | O_EXCL)) != 0)
        return answer(-EINVAL);
    if ((flags & O_EXCL) != 0)
        return answer(-ENOPKG); /* O_NOTIFICATION_PIPE is not built yet (CR-4) */
    int r = shmp_seg_create(&segment_fd, options);
    if (r < 0)
        return answer(r);
    r = shmp_companion_create(companion);
    if (r < 0)
        shmp_sys.close(segment_fd);
    else
        r = make_ends(ends, segment_fd, companion, flags);
    return answer(r);
}

int shmp_pipe2(shmp_end *ends[2], int flags)
{
    return shmp_pipe2_with(ends, flags, NULL);
}

int shmp_format(int segment_fd, const char *name, const struct shmp_options *options)
{
    return answer(shmp_fifo_format(segment_fd, name, options));
}

int shmp_mkfifo_with(const char *name, mode_t mode, const struct shmp_options *options)
{
    char object[SHMP_OBJECT_MAX];
    int r = shmp_object_name(name, object);
    if (r < 0)
        return answer(r);
    do {
        long fd = shmp_sys.shm_open(object, OPENING | O_RDWR | O_CREAT, mode);
        if (fd < 0) /* a link, or a directory, for which EINVAL is the C library's word: it is there */
            return answer(fd == -EINVAL || fd == -ELOOP ? -EEXIST : fd);
        r = shmp_fifo_format((int)fd, name, options);
        shmp_segment_close((int)fd);
    } while (r == -ESTALE);
    return answer(r);
}

int shmp_mkfifo(const char *name, mode_t mode)
{
    return shmp_mkfifo_with(name, mode, NULL);
}

shmp_end *shmp_open_fd(int segment_fd, int flags)
{
    shmp_end *end;
    return answer(shmp_fifo_open(&end, segment_fd, flags)) < 0 ? NULL : end;
}

shmp_end *shmp_open(const char *name, int flags)
{
    char object[SHMP_OBJECT_MAX];
    int r = shmp_object_name(name, object);
    if (r < 0) {
        answer(r);
        return NULL;
    }
    /* Both sides write to the segment, so both need the object's write permission. */
    long fd = shmp_sys.shm_open(object, OPENING | O_RDWR, 0);
    if (fd < 0) {
        answer(fd);
        return NULL;
    }
    shmp_end *end = shmp_open_fd((int)fd, flags);
    int kept = errno;
    shmp_segment_close((int)fd);
    errno = kept;
    return end;
}

int shmp_unlink_fd(int segment_fd, const char *name)
{
    return answer(shmp_fifo_unlink(segment_fd, name));
}

int shmp_unlink(const char *name)
{
    char object[SHMP_OBJECT_MAX];
    int r = shmp_object_name(name, object);
    if (r < 0)
        return answer(r);
    long fd = shmp_sys.shm_open(object, OPENING | O_RDONLY, 0);
    if (fd < 0)
        return answer(fd);
    r = shmp_fifo_unlink((int)fd, name);
    shmp_segment_close((int)fd);
    return answer(r);
}

int shmp_close_segment(int segment_fd)
{
    return answer(shmp_segment_close(segment_fd));
}

/* ---- Moving data ------------------------------------------------------------------- */

static ssize_t transfer(shmp_end *end, const struct iovec *iov, int iovcnt, bool out)
{
    if (!(out ? shmp_can_write(end) : shmp_can_read(end))) {
        errno = EBADF; /* before any look at the buffers (CR-10) */
        return -1;
    }
    if (iovcnt < 0 || iovcnt > MOST_IOVECS) {
        errno = EINVAL;
        return -1;
    }
    size_t total = 0;
    for (int i = 0; i < iovcnt; i++) {
        if (iov[i].iov_len > SSIZE_MAX - total) {
            errno = EINVAL;
            return -1;
        }
        total += iov[i].iov_len;
    }
    struct shmp_transfer op = {.cursor = {.iov = iov, .left = iovcnt},
                               .left = total < MOST_BYTES ? total : MOST_BYTES};
    shmp_end_hold(end);
    ssize_t r = out ? shmp_write_run(end, &op, true) : shmp_read_run(end, &op, true);
    shmp_end_release(end);
    if (r >= 0)
        return r;
    errno = (int)-r;
    return -1;
}

ssize_t shmp_readv(shmp_end *end, const struct iovec *iov, int iovcnt)
{
    return transfer(end, iov, iovcnt, false);
}

ssize_t shmp_writev(shmp_end *end, const struct iovec *iov, int iovcnt)
{
    return transfer(end, iov, iovcnt, true);
}

ssize_t shmp_read(shmp_end *end, void *buffer, size_t count)
{
    struct iovec iov = {.iov_base = buffer, .iov_len = count < MOST_BYTES ? count : MOST_BYTES};
    return transfer(end, &iov, 1, false);
}

ssize_t shmp_write(shmp_end *end, const void *buffer, size_t count)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer,
                        .iov_len = count < MOST_BYTES ? count : MOST_BYTES};
    return transfer(end, &iov, 1, true);
}

/* ---- Control ----------------------------------------------------------------------- */

#define SETTABLE ((uint32_t)(O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK))

static long set_flags(shmp_end *end, uint32_t wanted)
{
    uint32_t seen = shmp_flags(end);
    if (((seen ^ wanted) & O_ASYNC) != 0) {
        /* The look first: what it reads and writes to set the level is no operation. */
        long r = (wanted & O_ASYNC) != 0 ? shmp_look(end, true) : 0;
        if (r == 0)
            r = shmp_sys.fcntl(end->fd, F_SETFL, O_NONBLOCK | (long)(wanted & O_ASYNC));
        if (r < 0)
            return r;
    }
    /* Other threads and processes may change other bits of the same description. */
    while (!cas_seq_cst32(end->flags, &seen, (seen & ~SETTABLE) | (wanted & SETTABLE)))
        ;
    return 0;
}

static long control(shmp_end *end, int command, long argument)
{
    switch (command) {
    case F_GETPIPE_SZ:
        return shmp_capacity_get(end);
    case F_SETPIPE_SZ:
        return shmp_capacity_set(end, argument);
    case F_GETFL:
        return (long)(shmp_flags(end) & ~SHMP_DESCRIPTION_USED) | end->mode;
    case F_SETFL:
        return set_flags(end, (uint32_t)argument);
    case F_GETFD:
    case F_SETFD:
    case F_SETOWN:
    case F_GETOWN:
    case F_SETSIG:
    case F_GETSIG:
    case F_SETOWN_EX:
    case F_GETOWN_EX:
        return shmp_sys.fcntl(end->fd, command, argument);
    default:
        return -EINVAL;
    }
}

int shmp_fcntl(shmp_end *end, int command, long argument)
{
    shmp_end_hold(end);
    long r = shmp_end_claim(end);
    if (r == 0)
        r = control(end, command, argument);
    shmp_end_release(end);
    return answer(r);
}

static long toggle(shmp_end *end, uint32_t flag, const int *on)
{
    uint32_t flags = shmp_flags(end);
    return set_flags(end, *on ? flags | flag : flags & ~flag);
}

int shmp_ioctl(shmp_end *end, unsigned long request, void *argument)
{
    shmp_end_hold(end);
    long r = shmp_end_claim(end);
    if (r == 0 && request == FIONREAD)
        r = shmp_pending(end, argument);
    else if (r == 0 && request == FIONBIO)
        r = toggle(end, O_NONBLOCK, argument);
    else if (r == 0 && request == FIOASYNC)
        r = toggle(end, O_ASYNC, argument);
    else if (r == 0)
        r = -ENOTTY;
    shmp_end_release(end);
    return answer(r);
}

int shmp_fileno(shmp_end *end)
{
    shmp_end_hold(end);
    int r = shmp_look(end, false);
    int fd = end->fd;
    shmp_end_release(end);
    return answer(r < 0 ? r : fd);
}

static int side_of(short event)
{
    return event == POLLIN ? SHMP_SIDE_READERS : SHMP_SIDE_WRITERS;
}

int shmp_arm(shmp_end *end, short event)
{
    if (event != POLLIN && event != POLLOUT)
        return answer(-EINVAL);
    shmp_end_hold(end);
    int r = shmp_end_arm(end, side_of(event), true);
    shmp_end_release(end);
    return answer(r);
}

int shmp_descriptor(const shmp_end *end)
{
    return end->fd;
}

int shmp_is_concurrent(shmp_end *end, short event)
{
    return shmp_can_spin(end, side_of(event));
}

int shmp_poll(struct shmp_pollfd *ends, unsigned long count, int timeout_ms)
{
    long r = 0;
    unsigned long held = 0;
    /* A copy of the handles, too: the caller's are its own again if a thread closes one meanwhile. */
    shmp_end **handles = calloc(count ? count : 1, sizeof *handles + sizeof(struct pollfd));
    if (handles == NULL)
        return answer(-ENOMEM);
    struct pollfd *fds = (struct pollfd *)(void *)(handles + count);
    for (; held < count && r == 0; held++) {
        handles[held] = ends[held].end;
        if (handles[held] && !shmp_end_hold_anew(handles[held])) {
            r = -ENOMEM;
            break;
        }
        /* One that cannot be looked at must not be waited for. */
        r = handles[held] ? shmp_look(handles[held], false) : 0;
        fds[held].fd = handles[held] ? handles[held]->fd : -1;
        fds[held].events = ends[held].events;
    }
    if (r == 0)
        r = shmp_sys.poll(fds, count, timeout_ms);
    for (unsigned long i = 0; i < count && r >= 0; i++)
        ends[i].revents = fds[i].revents;
    while (held-- > 0)
        if (handles[held])
            shmp_end_release(handles[held]);
    free(handles);
    return answer(r);
}

/* ---- Notifiers ----------------------------------------------------------------------- */

int shmp_notifier_open(shmp_end *end)
{
    shmp_end_hold(end);
    int r = shmp_relay_open(end);
    shmp_end_release(end);
    return answer(r);
}

int shmp_notifier_read(int notifier, uint64_t *operations)
{
    return answer(shmp_relay_read(notifier, operations));
}

int shmp_notifier_close(int notifier)
{
    return answer(shmp_relay_close(notifier));
}

/* ---- Lifetime and passing on --------------------------------------------------------- */

int shmp_close(shmp_end *end)
{
    return answer(shmp_end_close(end));
}

void shmp_hold(shmp_end *end)
{
    shmp_end_hold(end);
}

void shmp_release(shmp_end *end)
{
    shmp_end_release(end);
}

int shmp_export(shmp_end *end, struct shmp_token *token)
{
    *token = (struct shmp_token){.segment_fd = end->pipe->seg.fd,
                                 .companion_fd = end->fd,
                                 .description = end->shared ? end->description : UINT32_MAX,
                                 .generation = end->description_gen,
                                 .mode = (uint32_t)end->mode,
                                 .flags = shmp_flags(end) & ~SHMP_DESCRIPTION_USED};
    return 0;
}

static int check_companion(const struct shmp_token *token)
{
    struct stat st;
    long r = shmp_sys.fstat(token->companion_fd, &st);
    if (r == -EBADF)
        shmp_set_reason("descriptor %d is not open", token->companion_fd);
    if (r < 0)
        return (int)r;
    long flags = shmp_sys.fcntl(token->companion_fd, F_GETFL, 0);
    if (!S_ISFIFO(st.st_mode) || flags < 0 || (uint32_t)(flags & O_ACCMODE) != token->mode) {
        shmp_set_reason("descriptor %d is not the companion of this end", token->companion_fd);
        return -EINVAL;
    }
    return 0;
}

static int check_segment(const struct shmp_token *token, struct shmp_header *h)
{
    int r = shmp_seg_judge(token->segment_fd, h);
    if (r == -EBADF)
        shmp_set_reason("descriptor %d is not open for reading", token->segment_fd);
    if (r == -ENOENT) { /* a name may become a pipe yet; who passes an end on had one */
        shmp_set_reason("not a shmpipe segment");
        return -SHMP_EINCOMPATIBLE;
    }
    if (r < 0)
        return r;
    long flags = shmp_sys.fcntl(token->segment_fd, F_GETFL, 0);
    if (flags < 0 || (flags & O_ACCMODE) != O_RDWR) { /* mmap would refuse it, too late */
        shmp_set_reason("descriptor %d is not open for reading and writing",
                        token->segment_fd);
        return -EINVAL;
    }
    return 0;
}

/* By these errnos the caller knows that the descriptors are still its own. */
static bool is_refusal(int r)
{
    return r == -EBADF || r == -EINVAL || r == -SHMP_EINCOMPATIBLE || r == -SHMP_ECORRUPT;
}

shmp_end *shmp_import(const struct shmp_token *token)
{
    struct shmp_header h;
    shmp_end *end = NULL;
    int r = check_companion(token);
    if (r == 0)
        r = check_segment(token, &h);
    if (r == 0) {
        r = shmp_end_new(&end, token->segment_fd, &h, token->companion_fd, (int)token->mode,
                         token->flags, token);
        if (is_refusal(r)) /* it changed since we looked, and they are taken all the same */
            r = -EIO;
    } else if (!is_refusal(r)) {
        shmp_set_reason("descriptors %d and %d cannot be looked at: errno %d",
                        token->segment_fd, token->companion_fd, -r);
        r = -EINVAL;
    }
    if (answer(r) < 0)
        return NULL;
    end->deaf = h.kind == SHMP_KIND_NAMED && end->mode == O_RDONLY;
    /* They had to be inheritable to come here, and shall not go on by accident. */
    shmp_sys.fcntl(end->fd, F_SETFD, FD_CLOEXEC);
    shmp_sys.fcntl(end->pipe->seg.fd, F_SETFD, FD_CLOEXEC);
    return end;
}

int shmp_mode(const shmp_end *end)
{
    return end->mode;
}

const char *shmp_name(const shmp_end *end)
{
    return end->pipe->seg.name;
}

int shmp_segment_fd(const shmp_end *end)
{
    return end->pipe->seg.fd;
}
