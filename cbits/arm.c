/* arm.c - readiness that costs two system calls for each sleep, and nothing otherwise.
 *
 * What shmp_fileno() begins never ends: each operation of both sides keeps the companion in
 * step.  An event loop tries the ring before it sleeps, so it needs less: a companion that
 * says "nothing" when the loop goes to sleep, and that the first change makes get up.
 *
 *      reader                                      writer, in a turn (turn.c)
 *
 *   A1 announce: usage |= armed                    S2 does anybody look, or is armed?
 *   A2 lock and unlock the write side              F  foretell: write one byte
 *   A3 lock companion.  Still armed, and the       S1 change the ring
 *      ring empty: in step, read everything        S4 told: not in step, usage &= ~armed
 *   A4 sleep in epoll                              S5 unlock
 *
 *   I1  Between A3 and S4 the level is kept as for one who looks.
 *   I2  The flag is taken off by the side that tells, when it has told, under the companion's lock:
 *       then the companion says "some", and stays so until the next A3.
 *   I3  A turn that began before A1 is over at A3, because of A2, and seen by it; one that begins
 *       after A1 foretells.  So a writer that is killed between its change and its sync leaves
 *       nobody asleep beside data.
 *
 * While nobody is armed or looks, the companion of a pipe that has had a writer is not empty (I6
 * of companion-sync.md) and not full: a loop that has not armed does not sleep.  Between S4 and
 * the next A3 the companion says "some" whatever is in the ring; the next A3 is its reader's.
 *
 * Dies, or stops, after A1: one operation of the other side pays a system call, and takes the
 * flag off.
 */
#include <errno.h>

#include "companion.h"
#include "pipe.h"

int shmp_end_arm(struct shmp_end *end, int side, bool may_sleep)
{
    struct shmp_pipe *pipe = end->pipe;
    bool reads = side == SHMP_SIDE_READERS;
    uint32_t armed = reads ? SHMP_ARMED_READERS : SHMP_ARMED_WRITERS;
    if (!(reads ? shmp_can_read(end) : shmp_can_write(end)))
        return -EBADF;
    shmp_companion_announce(pipe->seg.header, armed);
    int r = shmp_pass_through(end, reads ? SHMP_SIDE_WRITERS : SHMP_SIDE_READERS, may_sleep);
    if (r == 0)
        r = shmp_companion_arm(&pipe->live, end->fd, end->mode, armed, may_sleep);
    return r == -EAGAIN ? SHMP_WOULD_SLEEP : r;
}
