/* actors.h - the survivors of a trial: processes that carry out commands, one at a time.
 *
 * They talk to the director over a page that has nothing to do with the library: what is under
 * test must not carry the test.
 */
#ifndef SWEEP_ACTORS_H
#define SWEEP_ACTORS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "bytes.h"
#include "shmpipe.h"

enum who { READER, WRITER, CHILD, ACTORS };

enum command {
    DO_NOTHING,
    DO_READ,       /* argument bytes, blocking */
    DO_WRITE,      /* argument bytes, blocking */
    DO_DRAIN,      /* nonblocking until EAGAIN (its result) or end of file (0) */
    DO_FILL,       /* nonblocking writes of PIPE_BUF until EAGAIN: how many */
    DO_POLL_READ,  /* in poll() on the real descriptor until a nonblocking read gets something */
    DO_POLL_WRITE, /* the same for a write of argument bytes */
    DO_EDGE_READ,  /* as DO_POLL_READ, edge triggered by epoll */
    DO_ARM_READ,   /* as an event loop does that tries first, and arms before it sleeps */
    DO_ARM_WRITE,  /* the same for a write of argument bytes */
    DO_LOOK,       /* fileno() */
    DO_LEVELS,     /* what poll() shows now, on the end that it has */
    DO_RESIZE,     /* to argument bytes */
    DO_PENDING,    /* FIONREAD */
    DO_LISTEN,     /* opens a notifier */
    DO_COUNT,      /* how many operations it has counted by now */
    DO_READ_BESIDE,  /* a byte of the pipe beside, blocking */
    DO_WRITE_BESIDE, /* a byte into it */
    DO_CLOSE,
    DO_EXIT,
};

struct box {
    _Atomic uint32_t asked;
    _Atomic uint32_t answered;
    _Atomic uint32_t in_call;
    enum command command;
    long argument;
    long result; /* of the call, or -errno */
    pid_t pid;
    unsigned vain; /* wakes of a poller that found nothing */
    long moved;    /* operations of its end that moved data */
    long counted;  /* by its notifier */
    int companion; /* its descriptor of that pipe */
};

struct control {
    struct box box[ACTORS];
    _Atomic uint32_t victim_done;
    _Atomic pid_t forked;         /* a fork child that is the victim, before its library knows */
    _Atomic uint32_t forked_goes; /* it is traced */
    long victim_result;
    struct ledger ledger;
    unsigned char pattern[TAGS * PATTERN_BYTES];
};

extern struct control *control;

/* A descriptor of it, for who executes another program; -1: it cannot be made. */
int control_make(void);
/* In that program. */
void control_adopt(int fd);
void control_reset(void);

/* Another pipe that survivors and victims have, besides the one that is swept; or NULL. */
extern shmp_end *beside[2];

/* In the child: carries out commands until DO_EXIT.  Either end may be NULL. */
_Noreturn void actor_run(enum who who, shmp_end *end);

/* In the director. */
void ask(enum who who, enum command command, long argument);
/* true: answered.  false: it sleeps for longer than any healthy survivor does. */
bool await_answer(enum who who);
bool has_answered(enum who who);
/* Until it has answered or sleeps in its call.  false: neither, for too long. */
bool await_asleep(enum who who);
/* ask and await; the result.  *hung is set if no answer came. */
long tell(enum who who, enum command command, long argument, bool *hung);

/* The number of the system call that the process sleeps in, -1 if it runs. */
long sleeps_in(pid_t pid);
/* It sleeps, and not only until a timer of a few milliseconds lets it look again. */
bool sleeps_for_others(pid_t pid);

/* Until the relay of that process's notifier sleeps; for_ever: and watches all whom it must, so
 * that nothing else wakes it.  false: it does not. */
bool await_relay(pid_t pid, bool for_ever);

/* One blocking write with its intent log; the director and the victims use it, too. */
long logged_write(shmp_end *end, enum tag tag, size_t bytes);

#endif
