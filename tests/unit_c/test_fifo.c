/* test_fifo.c - named pipes: names, making, opening, unlinking, and a second life (FO-1). */
#include "fifo.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "seg.h"
#include "sys.h"
#include "unit.h"

static unsigned char bytes[70000];

static void object_path(char path[300], const char *name)
{
    snprintf(path, 300, "/dev/shm/shmpipe.%s", name);
}

static shmp_end *open_now(const char *name, int flags)
{
    shmp_end *end = shmp_open(name, flags | O_NONBLOCK);
    if (end == NULL)
        unit_fail(__FILE__, __LINE__, "open: %s (%s)", strerror(errno), shmp_reason());
    return end;
}

/* errno of a failed open, 0 if it worked. */
static int open_errno(const char *name, int flags)
{
    errno = 0;
    shmp_end *end = shmp_open(name, flags);
    if (end == NULL)
        return errno;
    shmp_close(end);
    return 0;
}

TEST(names)
{
    char object[SHMP_OBJECT_MAX];
    char longest[SHMP_NAME_MAX + 2];
    memset(longest, 'n', sizeof longest);
    longest[SHMP_NAME_MAX + 1] = '\0';
    CHECK_EQ(shmp_object_name("plain", object), 0);
    CHECK(strcmp(object, "/shmpipe.plain") == 0);
    CHECK_EQ(shmp_object_name("", object), -EINVAL);
    CHECK_EQ(shmp_object_name("a/b", object), -EINVAL);
    CHECK(strstr(shmp_reason(), "slash") != NULL);
    CHECK_EQ(shmp_object_name("a\nb", object), -EINVAL);
    CHECK_EQ(shmp_object_name("a\x7f", object), -EINVAL);
    CHECK_EQ(shmp_object_name("..", object), 0); /* with the prefix it is nothing special */
    CHECK_EQ(shmp_object_name("M\xc3\xbcnchen", object), 0);
    CHECK_EQ(shmp_object_name(longest, object), -ENAMETOOLONG);
    longest[SHMP_NAME_MAX] = '\0';
    CHECK_EQ(shmp_object_name(longest, object), 0);
    CHECK_EQ(strlen(object), SHMP_NAME_MAX + strlen("/shmpipe."));
    CHECK_ERRNO(shmp_mkfifo("a/b", 0600), EINVAL);
    CHECK_ERRNO(shmp_unlink(""), EINVAL);
    CHECK_EQ(open_errno("a/b", O_RDWR), EINVAL);
}

TEST(make_once_unlink_once)
{
    const char *name = unit_name();
    CHECK_EQ(open_errno(name, O_RDWR), ENOENT);
    CHECK_ERRNO(shmp_unlink(name), ENOENT);
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    CHECK_EQ(unit_names_left(), 2);
    CHECK_ERRNO(shmp_mkfifo(name, 0600), EEXIST);
    CHECK_EQ(unit_names_left(), 2);
    CHECK_EQ(shmp_unlink(name), 0);
    CHECK_EQ(unit_names_left(), 0);
    CHECK_ERRNO(shmp_unlink(name), ENOENT);
}

TEST(what_is_there_is_there_whatever_it_is)
{
    const char *name = unit_name();
    char path[300];
    object_path(path, name);
    CHECK_EQ(mkdir(path, 0700), 0);
    CHECK_ERRNO(shmp_mkfifo(name, 0600), EEXIST);
    CHECK_EQ(rmdir(path), 0);
    CHECK_EQ(symlink("nowhere", path), 0);
    CHECK_ERRNO(shmp_mkfifo(name, 0600), EEXIST);
    CHECK_EQ(unlink(path), 0);
}

TEST(both_files_have_the_mode)
{
    const char *name = unit_name();
    char path[300];
    struct stat st;
    mode_t before = umask(027);
    CHECK_EQ(shmp_mkfifo(name, 0666), 0);
    umask(before);
    object_path(path, name);
    CHECK_EQ(stat(path, &st), 0);
    CHECK_EQ(st.st_mode & 07777, 0640);
    DIR *directory = opendir("/dev/shm");
    int fifos = 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        const char *dot = strstr(entry->d_name, name);
        if (strncmp(entry->d_name, "shmpipe-", 8) == 0 && dot && strcmp(dot, name) == 0) {
            CHECK_EQ(fstatat(dirfd(directory), entry->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
            CHECK(S_ISFIFO(st.st_mode));
            CHECK_EQ(st.st_mode & 07777, 0640);
            fifos++;
        }
    }
    closedir(directory);
    CHECK_EQ(fifos, 1);
    CHECK_EQ(shmp_unlink(name), 0);
}

TEST(open_judges_its_flags)
{
    const char *name = unit_name();
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    CHECK_EQ(open_errno(name, O_WRONLY | O_NONBLOCK), ENXIO);
    CHECK_EQ(open_errno(name, O_ACCMODE | O_NONBLOCK), EINVAL);
    CHECK_EQ(open_errno(name, O_RDWR | O_CREAT | O_EXCL), EEXIST);
    CHECK_EQ(open_errno(name, O_RDWR | O_DIRECTORY), ENOTDIR);
    CHECK_EQ(open_errno(name, O_RDWR | O_DIRECT), EINVAL);
    CHECK_EQ(open_errno(name, O_RDWR | O_TRUNC | O_APPEND), 0);
    shmp_end *both = open_now(name, O_RDWR);
    CHECK_EQ(shmp_mode(both), O_RDWR);
    CHECK(strcmp(shmp_name(both), name) == 0);
    CHECK_EQ(shmp_write(both, "x", 1), 1);
    CHECK_EQ(shmp_read(both, bytes, 10), 1);
    CHECK_ERRNO(shmp_read(both, bytes, 10), EAGAIN); /* no end of file from oneself (FO-8) */
    CHECK_EQ(shmp_close(both), 0);
    CHECK_EQ(shmp_unlink(name), 0);
}

static const char *rendezvous_name;
static _Atomic pid_t opener;

static void *open_reader(void *argument)
{
    opener = (pid_t)syscall(SYS_gettid);
    *(shmp_end **)argument = shmp_open(rendezvous_name, O_RDONLY);
    return NULL;
}

TEST(a_reader_waits_for_a_writer)
{
    pthread_t thread;
    shmp_end *reader = NULL;
    rendezvous_name = unit_name();
    CHECK_EQ(shmp_mkfifo(rendezvous_name, 0600), 0);
    CHECK_EQ(pthread_create(&thread, NULL, open_reader, &reader), 0);
    shmp_end *writer;
    /* A blocked opener already counts as a reader (FO-5): until it is there, ENXIO. */
    UNTIL((writer = shmp_open(rendezvous_name, O_WRONLY | O_NONBLOCK)) != NULL);
    pthread_join(thread, NULL);
    CHECK(reader != NULL);
    CHECK_EQ(shmp_write(writer, "hello", 5), 5);
    CHECK_EQ(shmp_read(reader, bytes, 10), 5);
    CHECK_EQ(shmp_close(writer), 0);
    CHECK_EQ(shmp_read(reader, bytes, 10), 0);
    CHECK_EQ(shmp_close(reader), 0);
    CHECK_EQ(shmp_unlink(rendezvous_name), 0);
}

static void on_alarm(int signal)
{
    (void)signal;
}

TEST(a_signal_ends_a_blocked_open)
{
    const char *name = unit_name();
    struct sigaction action = {.sa_handler = on_alarm};
    CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
    struct itimerspec often = {.it_value = {.tv_nsec = 2000000}, .it_interval = {.tv_nsec = 2000000}};
    CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    CHECK_EQ(timer_settime(timer, 0, &often, NULL), 0);
    CHECK_EQ(open_errno(name, O_RDONLY), EINTR);
    timer_delete(timer);
    CHECK_EQ(open_errno(name, O_WRONLY | O_NONBLOCK), ENXIO); /* the count is as before (FO-9) */
    CHECK_EQ(shmp_unlink(name), 0);
}

TEST(the_last_close_ends_a_life)
{
    const char *name = unit_name();
    int pending = -1;
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    for (int life = 0; life < 3; life++) {
        shmp_end *reader = open_now(name, O_RDONLY);
        CHECK_EQ(shmp_read(reader, bytes, 10), 0); /* nobody has ever written here (FO-16) */
        shmp_end *writer = open_now(name, O_WRONLY);
        CHECK_EQ(shmp_ioctl(reader, FIONREAD, &pending), 0);
        CHECK_EQ(pending, 0);
        CHECK_EQ(shmp_fcntl(reader, F_GETPIPE_SZ, 0), 65536);
        CHECK_EQ(shmp_write(writer, bytes, 10000), 10000);
        CHECK_EQ(shmp_fcntl(writer, F_SETPIPE_SZ, life == 1 ? 16384 : 1 << 20),
                 life == 1 ? 16384 : 1 << 20);
        CHECK_EQ(shmp_close(writer), 0);
        CHECK_EQ(shmp_read(reader, bytes, 100), 100); /* unread data outlives the writer (FO-2) */
        writer = open_now(name, O_WRONLY);
        CHECK_EQ(shmp_ioctl(writer, FIONREAD, &pending), 0);
        CHECK_EQ(pending, 9900);
        CHECK_EQ(shmp_close(reader), 0);
        reader = open_now(name, O_RDONLY); /* the writer kept it */
        CHECK_EQ(shmp_read(reader, bytes, 100), 100);
        CHECK_EQ(shmp_close(writer), 0);
        CHECK_EQ(shmp_close(reader), 0);
    }
    CHECK_EQ(shmp_unlink(name), 0);
}

/* What a killed process leaves in a ring is not there in the next life. */
TEST(a_killed_life_leaves_nothing)
{
    const char *name = unit_name();
    int ready = unit_gate();
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    pid_t child = unit_fork();
    if (child == 0) {
        shmp_end *both = open_now(name, O_RDWR);
        CHECK_EQ(shmp_write(both, bytes, 5000), 5000);
        CHECK_EQ(shmp_side_lock(both, SHMP_SIDE_WRITERS, true), 0);
        unit_pass(ready);
        for (;;)
            pause();
    }
    unit_await(ready);
    unit_kill(child);
    shmp_end *both = open_now(name, O_RDWR);
    CHECK_ERRNO(shmp_read(both, bytes, 10), EAGAIN);
    CHECK_EQ(shmp_write(both, "n", 1), 1);
    CHECK_EQ(shmp_read(both, bytes, 10), 1);
    CHECK_EQ(shmp_close(both), 0);
    CHECK_EQ(shmp_unlink(name), 0);
    close(ready);
}

static long dies_writing(int fd, const void *from, size_t n)
{
    (void)fd;
    (void)from;
    (void)n;
    return raise(SIGKILL);
}

/* Nor does who takes its locks tell the pollers of the new life of it: a companion that was made to say
 * "full" would have the size of a known one. */
TEST(a_life_killed_when_it_was_full_leaves_nothing)
{
    const char *name = unit_name();
    int pending = -1;
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    pid_t child = unit_fork();
    if (child == 0) {
        shmp_end *both = open_now(name, O_RDWR);
        CHECK(shmp_fileno(both) >= 0);
        CHECK_EQ(shmp_write(both, bytes, 65536), 65536);
        shmp_sys.write_quiet = dies_writing;
        shmp_write(both, bytes, 4096);
        unit_done();
    }
    CHECK_EQ(unit_wait(child), SIGKILL);
    shmp_end *both = open_now(name, O_RDWR);
    CHECK_EQ(shmp_ioctl(both, FIONREAD, &pending), 0);
    CHECK_EQ(pending, 0);
    CHECK_EQ(shmp_write(both, "n", 1), 1);
    shmp_end *writer = open_now(name, O_WRONLY); /* of the same life */
    CHECK_EQ(shmp_read(both, bytes, 10), 1);
    CHECK_EQ(shmp_close(writer), 0);
    CHECK_EQ(shmp_close(both), 0);
    CHECK_EQ(shmp_unlink(name), 0);
}

/* A fork child that has not run yet holds its ends, and is in no table.  The companion whose free slots
 * were taken away has the size that the kernel gives to new pipes of users above their limit. */
TEST(a_life_goes_on_in_a_child_that_nobody_has_seen)
{
    const char *name = unit_name();
    int pending = -1;
    int leave = unit_gate();
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    shmp_end *both = open_now(name, O_RDWR);
    CHECK(shmp_fileno(both) >= 0);
    CHECK_EQ(shmp_write(both, bytes, 65536), 65536);
    CHECK_EQ(fcntl(shmp_fileno(both), F_SETPIPE_SZ, 2 * SHMP_PAGE), 2 * SHMP_PAGE);
    CHECK(ioctl(shmp_fileno(both), FIONREAD, &pending) == 0 && pending > 0);
    pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* no fork handler runs */
    if (child == 0) {
        uint64_t passed;
        while (read(leave, &passed, sizeof passed) < 0)
            ;
        syscall(SYS_exit_group, 0);
    }
    CHECK_EQ(shmp_close(both), 0);
    both = open_now(name, O_RDWR);
    CHECK_EQ(shmp_ioctl(both, FIONREAD, &pending), 0);
    CHECK_EQ(pending, 65536);
    unit_pass(leave);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK_EQ(shmp_close(both), 0);
    CHECK_EQ(shmp_unlink(name), 0);
    close(leave);
}

TEST(an_open_pipe_survives_its_name)
{
    const char *name = unit_name();
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    shmp_end *old = open_now(name, O_RDWR);
    CHECK_EQ(shmp_write(old, "old", 3), 3);
    CHECK_EQ(shmp_unlink(name), 0);
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    shmp_end *fresh = open_now(name, O_RDWR);
    CHECK_ERRNO(shmp_read(fresh, bytes, 10), EAGAIN);
    CHECK_EQ(shmp_read(old, bytes, 10), 3);
    CHECK_EQ(shmp_close(old), 0);
    CHECK_EQ(shmp_close(fresh), 0);
    CHECK_EQ(shmp_unlink(name), 0);
}

TEST(unlink_spares_a_name_that_is_another_pipes_by_now)
{
    const char *name = unit_name();
    char object[SHMP_OBJECT_MAX];
    CHECK_EQ(shmp_object_name(name, object), 0);
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    int old = shm_open(object, O_RDWR, 0);
    CHECK(old >= 0);
    CHECK_EQ(shmp_unlink(name), 0);
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    CHECK_ERRNO(shmp_unlink_fd(old, name), ENOENT);
    CHECK_EQ(unit_names_left(), 2);
    CHECK_EQ(shmp_unlink(name), 0);
    CHECK_EQ(shmp_close_segment(old), 0);
}

TEST(a_dead_creators_object_is_taken_over)
{
    const char *name = unit_name();
    char object[SHMP_OBJECT_MAX];
    char stray[300];
    CHECK_EQ(shmp_object_name(name, object), 0);
    /* It died after its FIFO, before the magic. */
    int fd = shm_open(object, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    CHECK_EQ(shmp_seg_format(fd, SHMP_KIND_NAMED, name, 0xabcdef, NULL), 0);
    snprintf(stray, sizeof stray, "/dev/shm/shmpipe-%016llx.%s", 0xabcdefull, name);
    CHECK_EQ(mkfifo(stray, 0600), 0);
    close(fd);
    CHECK_EQ(open_errno(name, O_RDWR), ENOENT);
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    CHECK_EQ(unit_names_left(), 2); /* the stray FIFO is gone */
    CHECK_EQ(open_errno(name, O_RDWR), 0);
    CHECK_EQ(shmp_unlink(name), 0);
}

TEST(a_living_creators_object_is_left_alone)
{
    const char *name = unit_name();
    char object[SHMP_OBJECT_MAX];
    int ready = unit_gate();
    CHECK_EQ(shmp_object_name(name, object), 0);
    pid_t creator = unit_fork();
    if (creator == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SHMP_FORMAT_LOCK,
                             .l_len = 1};
        int fd = shm_open(object, O_RDWR | O_CREAT | O_EXCL, 0600);
        CHECK_EQ(fcntl(fd, F_SETLK, &lock), 0);
        unit_pass(ready);
        for (;;)
            pause();
    }
    unit_await(ready);
    CHECK_ERRNO(shmp_mkfifo(name, 0600), EEXIST);
    CHECK_EQ(unit_names_left(), 1);
    unit_kill(creator);
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    CHECK_EQ(shmp_unlink(name), 0);
    close(ready);
}

TEST(a_foreign_object_is_refused_and_kept)
{
    const char *name = unit_name();
    char object[SHMP_OBJECT_MAX];
    CHECK_EQ(shmp_object_name(name, object), 0);
    int fd = shm_open(object, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    for (int i = 0; i < 1000; i++)
        CHECK_EQ(write(fd, "a letter, ", 10), 10);
    CHECK_ERRNO(shmp_mkfifo(name, 0600), EEXIST);
    CHECK_EQ(open_errno(name, O_RDWR), SHMP_EINCOMPATIBLE);
    struct stat st;
    CHECK_EQ(fstat(fd, &st), 0);
    CHECK_EQ(st.st_size, 10000);
    close(fd);
    CHECK_EQ(shm_unlink(object), 0);
}

TEST(a_fifo_that_is_not_its_own_is_damage)
{
    const char *name = unit_name();
    char path[300];
    char object[SHMP_OBJECT_MAX];
    struct shmp_header h;
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    CHECK_EQ(shmp_object_name(name, object), 0);
    int fd = shm_open(object, O_RDWR, 0);
    CHECK_EQ(shmp_seg_judge(fd, &h), 0);
    snprintf(path, sizeof path, "/dev/shm/shmpipe-%016llx.%s", (unsigned long long)h.instance, name);
    char kept[320];
    snprintf(kept, sizeof kept, "%s.kept", path); /* so that the inode is not used again */
    CHECK_EQ(rename(path, kept), 0);
    CHECK_EQ(open_errno(name, O_RDWR | O_NONBLOCK), ENOENT);
    CHECK_EQ(mkfifo(path, 0600), 0);
    CHECK_EQ(open_errno(name, O_RDWR | O_NONBLOCK), SHMP_ECORRUPT);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(symlink("/etc/passwd", path), 0);
    CHECK_EQ(open_errno(name, O_RDWR | O_NONBLOCK), ELOOP);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(unlink(kept), 0);
    close(fd);
    CHECK_EQ(shmp_unlink(name), 0);
}

/* An object that ends inside its ring: an error now, and not a SIGBUS later. */
TEST(a_truncated_object_is_refused)
{
    const char *name = unit_name();
    char path[300];
    CHECK_EQ(shmp_mkfifo(name, 0600), 0);
    object_path(path, name);
    CHECK_EQ(truncate(path, SHMP_FIXED_BYTES), 0);
    CHECK_EQ(open_errno(name, O_RDWR | O_NONBLOCK), SHMP_ECORRUPT);
    CHECK_EQ(truncate(path, 10), 0);
    CHECK_EQ(open_errno(name, O_RDWR | O_NONBLOCK), SHMP_ECORRUPT);
    CHECK_EQ(shmp_unlink(name), 0);
    /* Its FIFO's name was in the part that is gone. */
    DIR *directory = opendir("/dev/shm");
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        const char *at = strstr(entry->d_name, name);
        if (at && strcmp(at, name) == 0)
            CHECK_EQ(unlinkat(dirfd(directory), entry->d_name, 0), 0);
    }
    closedir(directory);
}

/* ---- A creator that fails beside another one ---------------------------------------------------- */

static struct shmp_sys_table kernel;
static int go_on;
static int is_done;
static const char *contested;

static long no_room(int fd, int mode, off_t offset, off_t length)
{
    (void)fd;
    (void)mode;
    (void)offset;
    (void)length;
    return -ENOSPC;
}

static long let_the_other_after_the_lock(int fd, int command, struct flock *lock)
{
    long r = kernel.lock(fd, command, lock);
    if (lock->l_type == F_UNLCK && lock->l_start == SHMP_FORMAT_LOCK) {
        unit_pass(go_on);
        unit_await(is_done);
    }
    return r;
}

static long let_the_other_before_the_lock(int fd, int command, struct flock *lock)
{
    if (lock->l_type == F_WRLCK && lock->l_start == SHMP_FORMAT_LOCK) {
        shmp_sys.lock = kernel.lock;
        unit_pass(is_done);
        unit_await(go_on);
    }
    return kernel.lock(fd, command, lock);
}

/* The one that fails is in the middle of it, or has done it, when the other one comes. */
static void one_of_two_fails(bool other_waits)
{
    contested = unit_name();
    kernel = shmp_sys;
    go_on = unit_gate();
    is_done = unit_gate();
    pid_t other = unit_fork();
    if (other == 0) {
        if (other_waits)
            shmp_sys.lock = let_the_other_before_the_lock;
        else
            unit_await(go_on);
        CHECK_EQ(shmp_mkfifo(contested, 0600), 0);
        unit_pass(is_done);
        unit_done();
    }
    if (other_waits)
        unit_await(is_done);
    else
        shmp_sys.lock = let_the_other_after_the_lock;
    shmp_sys.fallocate = no_room;
    CHECK_ERRNO(shmp_mkfifo(contested, 0600), ENOSPC);
    shmp_sys = kernel;
    if (other_waits)
        unit_pass(go_on);
    unit_join(other);
    CHECK_EQ(open_errno(contested, O_RDWR | O_NONBLOCK), 0);
    CHECK_EQ(unit_names_left(), 2);
    CHECK_EQ(shmp_unlink(contested), 0);
    close(go_on);
    close(is_done);
}

TEST(a_creator_that_fails_does_not_remove_anothers_pipe)
{
    one_of_two_fails(false);
}

TEST(a_creator_that_waits_makes_no_pipe_of_what_was_removed)
{
    one_of_two_fails(true);
}

static long its_name_is_taken(const char *path, mode_t mode)
{
    (void)path;
    (void)mode;
    return -EEXIST;
}

TEST(a_creator_whose_fifos_name_is_taken_leaves_nothing)
{
    kernel = shmp_sys;
    shmp_sys.mkfifo = its_name_is_taken;
    CHECK_ERRNO(shmp_mkfifo(unit_name(), 0600), EEXIST);
    CHECK_EQ(unit_names_left(), 0);
    shmp_sys = kernel;
}

static long unlinked_before_there_is_a_fifo(const char *path, mode_t mode)
{
    char object[SHMP_OBJECT_MAX];
    CHECK_EQ(shmp_object_name(contested, object), 0);
    CHECK_EQ(kernel.shm_unlink(object), 0);
    return kernel.mkfifo(path, mode);
}

TEST(what_is_unlinked_before_it_is_published_leaves_no_fifo)
{
    kernel = shmp_sys;
    contested = unit_name();
    shmp_sys.mkfifo = unlinked_before_there_is_a_fifo;
    CHECK_EQ(shmp_mkfifo(contested, 0600), 0);
    CHECK_EQ(unit_names_left(), 0);
    shmp_sys = kernel;
}

static long let_the_other_in_the_lock(const char *path, mode_t mode)
{
    unit_pass(go_on);
    unit_await(is_done);
    return kernel.mkfifo(path, mode);
}

static long no_lock(int fd, int command, struct flock *lock)
{
    return command == F_SETLK && lock->l_type == F_WRLCK ? -ENOLCK : kernel.lock(fd, command, lock);
}

TEST(who_gets_no_lock_does_not_remove_what_another_is_making)
{
    kernel = shmp_sys;
    contested = unit_name();
    go_on = unit_gate();
    is_done = unit_gate();
    pid_t other = unit_fork();
    if (other == 0) {
        unit_await(go_on);
        shmp_sys.lock = no_lock;
        CHECK_ERRNO(shmp_mkfifo(contested, 0600), ENOLCK);
        unit_pass(is_done);
        unit_done();
    }
    shmp_sys.mkfifo = let_the_other_in_the_lock;
    CHECK_EQ(shmp_mkfifo(contested, 0600), 0);
    shmp_sys = kernel;
    unit_join(other);
    CHECK_EQ(open_errno(contested, O_RDWR | O_NONBLOCK), 0);
    CHECK_EQ(shmp_unlink(contested), 0);
    close(go_on);
    close(is_done);
}

TEST(two_creators_one_pipe)
{
    const char *name = unit_name();
    _Atomic int *made = unit_shared(sizeof *made);
    pid_t children[6];
    int go = unit_gate();
    for (uint32_t round = 0; round < unit_rounds(40); round++) {
        atomic_store(made, 0);
        for (int i = 0; i < 6; i++) {
            children[i] = unit_fork();
            if (children[i] == 0) {
                unit_await(go);
                int r = shmp_mkfifo(name, 0600);
                CHECK(r == 0 || errno == EEXIST);
                atomic_fetch_add(made, r == 0);
                unit_done();
            }
        }
        for (int i = 0; i < 6; i++)
            unit_pass(go);
        for (int i = 0; i < 6; i++)
            unit_join(children[i]);
        CHECK_EQ(*made, 1);
        CHECK_EQ(unit_names_left(), 2);
        CHECK_EQ(open_errno(name, O_RDWR | O_NONBLOCK), 0);
        CHECK_EQ(shmp_unlink(name), 0);
    }
    munmap((void *)made, sizeof *made);
    close(go);
}
