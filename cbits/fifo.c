/* fifo.c - named pipes: a POSIX shared memory object and the FIFO beside it.
 *
 *   /dev/shm/shmpipe.NAME             the segment
 *   /dev/shm/shmpipe-INSTANCE.NAME    the companion FIFO
 *
 * INSTANCE is a random number that the segment carries, so a name that is unlinked and made
 * again never meets the FIFO of its predecessor (FO-14).  Opening is the kernel's own
 * open(2) of that FIFO: the rendezvous, its counters, EINTR and ENXIO are not rebuilt
 * (FO-3..FO-9).
 *
 * A creator holds a record lock on the object until it has published it.  Dies before: an
 * object without magic and without lock, which reads as ENOENT and which the next mkfifo
 * takes over, with the FIFO it may have left.
 */
#include "fifo.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "companion.h"
#include "sys.h"

#define DIRECTORY "/dev/shm/"

int shmp_object_name(const char *name, char object[SHMP_OBJECT_MAX])
{
    size_t length = strnlen(name, SHMP_NAME_MAX + 1);
    if (length == 0) {
        shmp_set_reason("the name is empty");
        return -EINVAL;
    }
    if (length > SHMP_NAME_MAX) {
        shmp_set_reason("the name has more than %u bytes", SHMP_NAME_MAX);
        return -ENAMETOOLONG;
    }
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c == '/' || c < 0x20 || c == 0x7f) {
            shmp_set_reason("the name has %s at byte %zu",
                            c == '/' ? "a slash" : "a control character", i);
            return -EINVAL;
        }
    }
    snprintf(object, SHMP_OBJECT_MAX, "/shmpipe.%s", name);
    return 0;
}

struct fifo_path {
    char text[sizeof DIRECTORY + SHMP_NAME_MAX + 40];
};

static struct fifo_path fifo_path(uint64_t instance, const char *name)
{
    struct fifo_path path;
    snprintf(path.text, sizeof path.text, DIRECTORY "shmpipe-%016llx.%s",
             (unsigned long long)instance, name);
    return path;
}

static long format_lock(int fd, short type)
{
    struct flock lock = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = SHMP_FORMAT_LOCK, .l_len = 1};
    return shmp_sys.lock(fd, F_SETLK, &lock);
}

/* What a creator that died here has left: its FIFO. */
static void remove_stray(int fd, const char *name)
{
    struct shmp_header h;
    if (shmp_sys.pread(fd, &h, sizeof h, 0) == (long)sizeof h && h.instance != 0)
        shmp_sys.unlink(fifo_path(h.instance, name).text);
}

static int make_fifo(const char *path, mode_t mode, struct stat *st)
{
    long r = shmp_sys.mkfifo(path, mode);
    if (r < 0)
        return (int)r;
    r = shmp_sys.chmod(path, mode); /* exactly the object's, whatever the umask took */
    if (r == 0)
        r = shmp_sys.lstat(path, st);
    if (r < 0)
        shmp_sys.unlink(path);
    return (int)r;
}

/* 0: nobody has made a pipe of it, and we may. */
static int check_unmade(int fd, struct stat *object)
{
    struct shmp_header h;
    int r = shmp_seg_judge(fd, &h);
    if (r != -ENOENT)
        return r == 0 || r == -SHMP_ECORRUPT || r == -SHMP_EINCOMPATIBLE ? -EEXIST : r;
    r = (int)shmp_sys.fstat(fd, object);
    if (r < 0)
        return r;
    /* Its creator could not finish, and took the name away while we waited for the lock. */
    if (object->st_nlink == 0)
        return -ESTALE;
    /* What another user has put there would be that user's pipe, with that user's mode; and what
     * has a second name is somebody's file. */
    return object->st_uid != geteuid() || object->st_nlink > 1 ? -EEXIST : 0;
}

static int make_pipe(int fd, const char *name, const struct shmp_options *options, mode_t mode)
{
    struct stat fifo;
    struct stat object;
    uint64_t instance = 0;
    int r = 0;
    remove_stray(fd, name);
    while (r >= 0 && instance == 0)
        r = (int)shmp_sys.random(&instance, sizeof instance);
    if (r < 0)
        return r;
    r = shmp_seg_format(fd, SHMP_KIND_NAMED, name, instance, options);
    if (r < 0)
        return r;
    struct fifo_path path = fifo_path(instance, name);
    r = make_fifo(path.text, mode, &fifo);
    if (r < 0)
        return r;
    r = shmp_seg_publish(fd, (uint64_t)fifo.st_dev, (uint64_t)fifo.st_ino);
    /* Somebody may have unlinked the object before there was a FIFO to go with it. */
    if (r < 0 || (shmp_sys.fstat(fd, &object) == 0 && object.st_nlink == 0))
        shmp_sys.unlink(path.text);
    return r;
}

static bool is_over(int r)
{
    return r == 0 || r == -EEXIST || r == -ESTALE || r == -ENOENT;
}

/* In the creator's lock: after it the object may be another creator's pipe.  What has just failed may fail
 * a few times more, and then the name would stay. */
static void remove_unfinished(int fd, const char *name)
{
    struct stat object;
    int r = -EAGAIN;
    for (int tries = 0; tries < 10 && !is_over(r); tries++) {
        r = check_unmade(fd, &object);
        if (r == 0)
            r = shmp_fifo_unlink(fd, name);
    }
}

static int format_locked(int fd, const char *name, const struct shmp_options *options)
{
    struct stat object;
    int r = check_unmade(fd, &object);
    bool begun = r == 0;
    if (begun)
        r = make_pipe(fd, name, options, object.st_mode & 0777);
    if (begun ? r < 0 : !is_over(r))
        remove_unfinished(fd, name);
    return r;
}

/* No lock is to be had.  Then nobody else may be at it, either, when the name is taken away. */
static void remove_unlocked(int fd, const char *name)
{
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SHMP_FORMAT_LOCK, .l_len = 1};
    long r = -EAGAIN;
    for (int tries = 0; tries < 10 && r < 0; tries++)
        r = shmp_sys.lock(fd, F_GETLK, &lock);
    if (r == 0 && lock.l_type == F_UNLCK)
        remove_unfinished(fd, name);
}

int shmp_fifo_format(int fd, const char *name, const struct shmp_options *options)
{
    char object[SHMP_OBJECT_MAX];
    int r = shmp_object_name(name, object);
    if (r < 0)
        return r;
    /* Record locks do not keep threads of one process apart. */
    shmp_registry_lock();
    r = (int)format_lock(fd, F_WRLCK);
    if (r == 0) {
        r = format_locked(fd, name, options);
        format_lock(fd, F_UNLCK);
    } else if (r == -EAGAIN || r == -EACCES) {
        r = -EEXIST; /* somebody is making it at this moment */
    } else if (r != -EBADF) { /* which is for reading only: nothing was begun */
        remove_unlocked(fd, name);
    }
    shmp_registry_unlock();
    return r;
}

/* open(2) on a FIFO accepts and ignores more than it uses (FO-10..FO-12). */
static int check_flags(int flags)
{
    if ((flags & O_ACCMODE) == O_ACCMODE || (flags & O_DIRECT) != 0)
        return -EINVAL;
    if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
        return -EEXIST;
    if ((flags & O_DIRECTORY) == O_DIRECTORY)
        return -ENOTDIR;
    if ((flags & O_PATH) != 0)
        return -EINVAL;
    return 0;
}

static bool is_made_with(const struct shmp_header *h, const struct stat *st)
{
    return S_ISFIFO(st->st_mode) && (uint64_t)st->st_ino == h->fifo_ino &&
           (uint64_t)st->st_dev == h->fifo_dev;
}

int shmp_fifo_is_beside(const struct shmp_header *h)
{
    char name[SHMP_NAME_MAX + 1] = "";
    struct stat st;
    memcpy(name, h->name, SHMP_NAME_MAX);
    if (strchr(name, '/'))
        return -SHMP_ECORRUPT;
    long r = shmp_sys.lstat(fifo_path(h->instance, name).text, &st);
    return r < 0 ? (int)r : is_made_with(h, &st) ? 0 : -SHMP_ECORRUPT;
}

static int open_companion(const struct shmp_header *h, int flags)
{
    struct fifo_path path = fifo_path(h->instance, h->name);
    int mode = flags & (O_ACCMODE | O_NONBLOCK);
    long fd = shmp_sys.open(path.text, mode | O_CLOEXEC | O_NOFOLLOW); /* the rendezvous */
    if (fd < 0)
        return (int)fd;
    struct stat st;
    long r = shmp_sys.fstat((int)fd, &st);
    if (r == 0 && !is_made_with(h, &st)) {
        shmp_set_reason("the FIFO beside it is not the one it was made with");
        r = -SHMP_ECORRUPT;
    }
    /* Whether our calls may sleep is the description's business, never the companion's. */
    if (r == 0)
        r = shmp_sys.fcntl((int)fd, F_SETFL, O_NONBLOCK);
    if (r < 0) {
        shmp_sys.close((int)fd);
        return (int)r;
    }
    return (int)fd;
}

int shmp_fifo_open(struct shmp_end **out, int fd, int flags)
{
    struct shmp_header h;
    int r = check_flags(flags);
    if (r == 0)
        r = shmp_seg_judge(fd, &h);
    if (r == 0 && h.kind != SHMP_KIND_NAMED) {
        shmp_set_reason("an anonymous pipe has no name to open");
        r = -SHMP_EINCOMPATIBLE;
    }
    if (r < 0)
        return r;
    int companion = open_companion(&h, flags);
    if (companion < 0)
        return companion;
    long own = shmp_sys.fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0) {
        shmp_sys.close(companion);
        return (int)own;
    }
    int mode = flags & O_ACCMODE;
    uint32_t kept = (uint32_t)(flags & (O_NONBLOCK | O_APPEND | O_NOATIME | O_ASYNC)) |
                    0100000u; /* O_ASYNC is shown, and not armed (FO-13) */
    struct shmp_end *end;
    r = shmp_end_new(&end, (int)own, &h, companion, mode, kept, NULL);
    if (r < 0)
        return r;
    end->deaf = mode == O_RDONLY && (flags & O_NONBLOCK) != 0;
    r = shmp_incarnate(end);
    if (r < 0) {
        shmp_end_close(end);
        return r;
    }
    shmp_companion_prime(&end->pipe->live, end->fd, mode);
    *out = end;
    return 0;
}

int shmp_fifo_unlink(int fd, const char *name)
{
    char object[SHMP_OBJECT_MAX];
    char path[sizeof DIRECTORY + SHMP_OBJECT_MAX];
    struct stat ours;
    struct stat named;
    struct shmp_header h = {0};
    int r = shmp_object_name(name, object);
    if (r == 0)
        r = (int)shmp_sys.fstat(fd, &ours);
    if (r < 0)
        return r;
    /* The name may be another pipe's by now (H44).  Without a descriptor: there may be none left, and
     * that be why the name is to go. */
    snprintf(path, sizeof path, DIRECTORY "%s", object + 1);
    r = (int)shmp_sys.lstat(path, &named);
    if (r == 0 && (named.st_ino != ours.st_ino || named.st_dev != ours.st_dev))
        r = -ENOENT;
    /* First, what the FIFO is called: without that it would stay behind. */
    bool has_header = r == 0 && S_ISREG(ours.st_mode);
    long whole = has_header ? shmp_sys.pread(fd, &h, sizeof h, 0) : r;
    if (whole < 0)
        return (int)whole;
    r = (int)shmp_sys.shm_unlink(object);
    if (r == 0 && whole == (long)sizeof h && h.instance != 0)
        shmp_sys.unlink(fifo_path(h.instance, name).text);
    return r;
}
