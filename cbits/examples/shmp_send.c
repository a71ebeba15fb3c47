/* shmp_send - copies standard input into a named pipe, as `cat >fifo` does.
 *
 *   shmp_send NAME      makes NAME if it is missing, waits for a reader, sends
 *
 * Together with shmp_recv.c an introduction to the C interface: each call is the system
 * call of its name, on a handle instead of a descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <shmpipe.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what, const char *name)
{
    /* Two errno values have no text that would help: shmp_reason() has one. */
    const char *why = errno == SHMP_ECORRUPT || errno == SHMP_EINCOMPATIBLE || errno == EINVAL
                          ? shmp_reason()
                          : strerror(errno);
    fprintf(stderr, "shmp_send: %s %s: %s\n", what, name, why);
    return 1;
}

/* All of it, as a blocking write does by itself; but a signal handler that ran after some
 * progress cuts a call short, as it does for write(2). */
static int send_all(shmp_end *end, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = shmp_write(end, bytes, count);
        if (sent < 0 && errno != EINTR)
            return -1;
        if (sent > 0) {
            bytes += sent;
            count -= (size_t)sent;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    static char buffer[65536];
    ssize_t got;
    if (argc != 2) {
        fprintf(stderr, "usage: shmp_send NAME <data\n");
        return 2;
    }
    /* A reader that goes away shall be an error here and not the end of the process. */
    signal(SIGPIPE, SIG_IGN);

    if (shmp_mkfifo(argv[1], 0600) < 0 && errno != EEXIST)
        return fail("cannot make", argv[1]);

    /* Waits until somebody opens the other end, as open(2) of a FIFO does. */
    shmp_end *end = shmp_open(argv[1], O_WRONLY);
    if (end == NULL)
        return fail("cannot open", argv[1]);

    while ((got = read(STDIN_FILENO, buffer, sizeof buffer)) > 0)
        if (send_all(end, buffer, (size_t)got) < 0)
            return fail("cannot write to", argv[1]); /* EPIPE: the readers are gone */
    if (got < 0)
        return fail("cannot read input for", argv[1]);

    /* The last writer's close is the reader's end of file. */
    shmp_close(end);
    return 0;
}
