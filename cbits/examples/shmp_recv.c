/* shmp_recv - copies a named pipe to standard output, as `cat fifo` does.
 *
 *   shmp_recv NAME          waits for a writer, receives until the last writer has closed
 *   shmp_recv --poll NAME   the same without a blocking read: with poll(2) on shmp_fileno()
 *
 * The second form is how a pipe joins an event loop: the descriptor is for readiness, the
 * data goes through shmp_read.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <shmpipe.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what, const char *name)
{
    const char *why = errno == SHMP_ECORRUPT || errno == SHMP_EINCOMPATIBLE || errno == EINVAL
                          ? shmp_reason()
                          : strerror(errno);
    fprintf(stderr, "shmp_recv: %s %s: %s\n", what, name, why);
    return 1;
}

static int put_all(const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t put = write(STDOUT_FILENO, bytes, count);
        if (put < 0 && errno != EINTR)
            return -1;
        if (put > 0) {
            bytes += put;
            count -= (size_t)put;
        }
    }
    return 0;
}

/* Sleeps until a read would not: data, or end of file (POLLHUP). */
static int await(shmp_end *end)
{
    struct pollfd watched = {.fd = shmp_fileno(end), .events = POLLIN};
    return poll(&watched, 1, -1) < 0 && errno != EINTR ? -1 : 0;
}

int main(int argc, char **argv)
{
    static char buffer[65536];
    int polling = argc == 3 && strcmp(argv[1], "--poll") == 0;
    if (argc != 2 + polling) {
        fprintf(stderr, "usage: shmp_recv [--poll] NAME >data\n");
        return 2;
    }
    const char *name = argv[1 + polling];

    if (shmp_mkfifo(name, 0600) < 0 && errno != EEXIST)
        return fail("cannot make", name);
    shmp_end *end = shmp_open(name, O_RDONLY);
    if (end == NULL)
        return fail("cannot open", name);
    if (polling && shmp_fcntl(end, F_SETFL, O_NONBLOCK) < 0)
        return fail("cannot set O_NONBLOCK on", name);

    for (;;) {
        ssize_t got = shmp_read(end, buffer, sizeof buffer);
        if (got == 0) /* end of file: no process has a write end */
            break;
        if (got > 0 && put_all(buffer, (size_t)got) < 0)
            return fail("cannot write what came from", name);
        if (got < 0 && errno == EAGAIN && await(end) == 0)
            continue;
        if (got < 0 && errno != EINTR)
            return fail("cannot read from", name);
    }
    shmp_close(end);
    return 0;
}
