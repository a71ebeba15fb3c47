/* relay.c - notifiers, and the threads that feed their eventfds. */
#include "relay.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "notify.h"
#include "sys.h"
#include "wait.h"

/* futex_waitv takes 128 words: the relay's own, a counter of each source, lives. */
#define WORDS 128u
#define RELAY_SOURCES 64u
#define RELAY_PEERS (WORDS - 1 - RELAY_SOURCES)

/* So many operations since the last look are a storm: whoever reads has been told, so the relay
 * stays away for a while, and those who operate need not wake it meanwhile. */
#define STORM_OPS 16u
#define STORM_PAUSE_NS UINT64_C(50000)
/* After so many pauses it looks whether anybody has died elsewhere. */
#define STORM_PAUSES 20u

/* Relays that sleep on one word of a peer hold the pipe that the word is for, and watch each other: so
 * one that takes the wake of a death and dies wakes the others in turn.  Beside those who cannot be
 * watched, and common words, that may fail; and nobody else would look. */
#define STRANGERS_SLICE_NS UINT64_C(500000000)

/* Looks at a lock whose owner cannot be watched, like those of a sleeper (watch.h), but less often
 * in the end. */
#define FIRST_SLICE_NS UINT64_C(50000)
#define FIRST_LOOKS 20u
#define LAST_SLICE_NS UINT64_C(100000000)
#define NO_WAITV_SLICE_NS UINT64_C(4000000)

/* How long a thread that is over may take to vanish; it is looked for so often before the first sleep. */
#define FORGOTTEN_NS UINT64_C(1000000000)
#define FORGOTTEN_YIELDS 100u

/* A notifier's view of one counter. */
struct tap {
    struct tap *next; /* of the same source */
    struct notifier *notifier;
    struct source *source; /* NULL: none, or its end is closed */
    uint64_t seen;
};

struct notifier {
    int fd;
    struct shmp_end *end; /* NULL: closed */
    uint64_t owed;   /* counted, and not in the eventfd */
    bool filled;     /* something was put there since the last read; somebody may have read it */
    struct tap taps[2];
};

/* One counter that this process listens to: of a pipe, for the notifiers of one side's ends. */
struct source {
    struct source *next; /* of the same relay */
    struct relay *relay;
    struct shmp_pipe *pipe;
    int side;
    struct tap *taps;
};

struct relay {
    struct relay *next;
    pthread_t thread;
    pid_t tid;
    struct source *sources;
    unsigned source_count;
    bool stop;
    _Atomic uint32_t changed; /* its own futex word: sources came or went */
    /* Of one cycle. */
    struct shmp_futex_waitv words[WORDS];
    unsigned word_count;
    struct shmp_peer *watched[RELAY_PEERS]; /* their life words are the last ones */
    unsigned watched_count;
    bool complete; /* nobody counts just now whose death would not wake us */
    bool unpaid;   /* an eventfd did not take what it is owed */
    bool death;    /* somebody has died, or may have */
    bool strangers; /* sleep on a word of ours, perhaps, and we do not watch them */
    unsigned looks;
    uint64_t slice_ns;
    uint64_t most; /* operations of one counter in this cycle */
    unsigned pauses; /* in this storm */
};

/* Guards everything in here but a relay's words while it sleeps. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct relay *relays;
static struct notifier **by_fd;
static unsigned by_fd_size;
static unsigned notifier_count;

/* ---- Counting into eventfds --------------------------------------------------------------- */

static void pay(struct notifier *n)
{
    /* More than an eventfd takes is damage, or nobody has read it for a lifetime. */
    uint64_t part = n->owed < UINT64_C(1) << 62 ? n->owed : UINT64_C(1) << 62;
    if (part == 0 || shmp_sys.write(n->fd, &part, sizeof part) != (long)sizeof part)
        return;
    n->owed -= part;
    n->filled = true;
}

static void count(struct tap *tap)
{
    struct shmp_notify_line *line = shmp_notify_line(tap->source->pipe, tap->source->side);
    /* K2.  Acquire: what it counts can be read by whoever we tell. */
    uint64_t ops = load_seq_cst(&line->ops);
    tap->notifier->owed += ops - tap->seen;
    tap->seen = ops;
}

/* ---- The relay ----------------------------------------------------------------------------- */

static void add_word(struct relay *relay, const void *address, uint32_t value)
{
    relay->words[relay->word_count++] = (struct shmp_futex_waitv){
        .value = value, .address = (uintptr_t)address, .flags = SHMP_FUTEX_32};
}

static bool is_watched(const struct relay *relay, const struct shmp_record_id *id)
{
    for (unsigned i = 0; i < relay->watched_count; i++)
        if (relay->watched[i]->id.ino == id->ino && relay->watched[i]->id.dev == id->dev)
            return true;
    return false;
}

/* false: it cannot be watched. */
static bool watch_peer(struct relay *relay, struct shmp_live *live, uint32_t index)
{
    struct shmp_peer *peer = shmp_peer_get(live, index);
    if (peer == NULL)
        return false;
    const _Atomic uint32_t *word = shmp_peer_word(peer, SHMP_WORD_RELAY);
    uint32_t value = word ? load_seq_cst(word) : 0;
    bool known = is_watched(relay, &peer->id);
    relay->strangers = relay->strangers || shmp_peer_is_common(peer);
    if (known || shmp_life_is_marked(value) || relay->watched_count == RELAY_PEERS) {
        shmp_peer_put(peer);
        return known;
    }
    relay->watched[relay->watched_count++] = peer;
    add_word(relay, word, value);
    return true;
}

/* Whoever counts, also one that came while we were here: its entry was there before it looked
 * whether we sleep (introduce in notify.c).  One that cannot be watched wakes us before it counts
 * again, and until then it owes us nothing that we do not see behind this: what it has counted, or
 * its lock (shmp_notify_rescue). */
static void watch_holders(struct relay *relay, const struct source *source)
{
    struct shmp_pipe *pipe = source->pipe;
    struct shmp_live *live = &pipe->live;
    uint32_t limit = load_seq_cst(&pipe->seg.header->wait.holder_limit);
    for (uint32_t i = 0; i < limit && i < SHMP_HOLDERS; i++) {
        if ((int)i == shmp_live_index(live) || load_seq_cst(&pipe->seg.holders[i].live) == 0 ||
            watch_peer(relay, live, i))
            continue;
        if (shmp_holder_reap(live, i))
            shmp_broadcast(pipe->seg.header); /* it may have owed anybody a wake */
        else
            shmp_holder_dismiss(live, i, SHMP_RELAYS(source->side));
        relay->death = true;
        relay->strangers = true;
    }
}

static void look(struct relay *relay, struct source *source)
{
    for (struct tap *tap = source->taps; tap; tap = tap->next) {
        count(tap);
        if (tap->notifier->owed > relay->most)
            relay->most = tap->notifier->owed;
        pay(tap->notifier);
        relay->unpaid = relay->unpaid || tap->notifier->owed != 0;
    }
}

/* Gathers what to sleep on, and tells what there is: in this order, so that what comes after the
 * telling ends the sleep. */
static void gather(struct relay *relay)
{
    relay->word_count = 0;
    relay->complete = true;
    relay->unpaid = false;
    relay->death = false;
    relay->strangers = false;
    add_word(relay, &relay->changed, load_seq_cst(&relay->changed));
    for (struct source *s = relay->sources; s; s = s->next) {
        struct shmp_notify_line *line = shmp_notify_line(s->pipe, s->side);
        add_word(relay, &line->sleep, shmp_notify_sleep(line));
    }
    for (struct source *s = relay->sources; s; s = s->next)
        watch_holders(relay, s);
    for (struct source *s = relay->sources; s; s = s->next) {
        if (!shmp_notify_rescue(s->taps->notifier->end, s->side, relay->death))
            relay->complete = false;
        look(relay, s);
    }
}

static void give_back(struct relay *relay)
{
    for (unsigned i = 0; i < relay->watched_count; i++)
        shmp_peer_put(relay->watched[i]);
    relay->watched_count = 0;
}

/* How long to sleep at most; 0: until something happens. */
static uint64_t next_slice(struct relay *relay)
{
    if (relay->complete && !relay->unpaid) {
        relay->looks = 0;
        return relay->strangers && relay->watched_count != 0 ? STRANGERS_SLICE_NS : 0;
    }
    if (relay->looks++ < FIRST_LOOKS)
        relay->slice_ns = FIRST_SLICE_NS;
    else if (relay->slice_ns < LAST_SLICE_NS)
        relay->slice_ns *= 2;
    return relay->slice_ns;
}

static void sleep_on_words(struct relay *relay, uint64_t slice_ns)
{
    struct timespec until = shmp_timespec(shmp_now_ns() + slice_ns);
    long r = shmp_sys.futex_waitv(relay->words, relay->word_count, slice_ns ? &until : NULL);
    if (shmp_waitv_is_refused(r)) {
        until = shmp_timespec(shmp_now_ns() + NO_WAITV_SLICE_NS);
        shmp_sys.futex_wait(&relay->changed, (uint32_t)relay->words[0].value, &until);
    }
    /* The pages are ours, also if the pipes are closed by now. */
    unsigned first_life = relay->word_count - relay->watched_count;
    if (r >= (long)first_life)
        shmp_pass_on(relay->words + first_life, relay->watched_count);
}

static void stay_away(struct relay *relay, uint32_t changed)
{
    struct timespec until = shmp_timespec(shmp_now_ns() + STORM_PAUSE_NS);
    shmp_sys.futex_wait(&relay->changed, changed, &until);
}

static void *run(void *argument)
{
    struct relay *relay = argument;
    pthread_mutex_lock(&mutex);
    relay->tid = (pid_t)syscall(SYS_gettid);
    while (!relay->stop) {
        bool storm = relay->most >= STORM_OPS && relay->pauses++ < STORM_PAUSES;
        uint32_t changed = load_seq_cst(&relay->changed);
        if (!storm) {
            relay->pauses = 0;
            gather(relay);
        }
        uint64_t slice_ns = storm ? 0 : next_slice(relay);
        pthread_mutex_unlock(&mutex);
        if (storm)
            stay_away(relay, changed);
        else
            sleep_on_words(relay, slice_ns);
        pthread_mutex_lock(&mutex);
        give_back(relay);
        relay->most = 0;
        for (struct source *s = relay->sources; s; s = s->next)
            look(relay, s);
    }
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void disturb(struct relay *relay)
{
    fetch_add_seq_cst(&relay->changed, 1);
    shmp_sys.futex_wake((const void *)&relay->changed, 1);
}

/* ---- Sources and relays: the mutex is held --------------------------------------------------- */

static struct relay *relay_with_room(void)
{
    struct relay *relay = relays;
    while (relay && relay->source_count == RELAY_SOURCES)
        relay = relay->next;
    if (relay)
        return relay;
    relay = calloc(1, sizeof *relay);
    if (relay == NULL || shmp_sys.thread_start(&relay->thread, run, relay) < 0) {
        free(relay);
        return NULL;
    }
    relay->next = relays;
    relays = relay;
    return relay;
}

static struct source *find_source(struct shmp_pipe *pipe, int side)
{
    for (struct relay *r = relays; r; r = r->next)
        for (struct source *s = r->sources; s; s = s->next)
            if (s->pipe == pipe && s->side == side)
                return s;
    return NULL;
}

static struct source *get_source(struct shmp_pipe *pipe, int side)
{
    struct source *source = find_source(pipe, side);
    if (source)
        return source;
    source = calloc(1, sizeof *source);
    if (source == NULL)
        return NULL;
    source->relay = relay_with_room();
    if (source->relay == NULL) {
        free(source);
        return NULL;
    }
    source->pipe = pipe;
    source->side = side;
    source->next = source->relay->sources;
    source->relay->sources = source;
    source->relay->source_count++;
    return source;
}

/* A relay that has nothing to do any more goes to the list of those that are to be joined when the
 * mutex is free. */
static void put_source(struct source *source, struct relay **ended)
{
    struct relay *relay = source->relay;
    struct source **link = &relay->sources;
    while (*link != source)
        link = &(*link)->next;
    *link = source->next;
    relay->source_count--;
    free(source);
    relay->stop = relay->source_count == 0;
    disturb(relay);
    if (!relay->stop)
        return;
    struct relay **other = &relays;
    while (*other != relay)
        other = &(*other)->next;
    *other = relay->next;
    relay->next = *ended;
    *ended = relay;
}

/* A joined thread has said that it is over, and still has to run once more until the kernel forgets
 * it.  Until then it is one of the process's threads to whoever counts them (Python does, in fork).
 * On a busy machine another process may have its CPU meanwhile: yielding does not help there, so this
 * sleeps.  Limited, because the number may be a new thread's by now. */
static void await_forgotten(struct relay *relay)
{
    uint64_t give_up = shmp_now_ns() + FORGOTTEN_NS;
    for (unsigned look = 0; shmp_sys.thread_exists(relay->tid) > 0 && shmp_now_ns() < give_up; look++)
        if (look < FORGOTTEN_YIELDS)
            shmp_sys.yield();
        else
            stay_away(relay, load_relaxed(&relay->changed));
}

static void join(struct relay *ended)
{
    while (ended) {
        struct relay *relay = ended;
        ended = relay->next;
        pthread_join(relay->thread, NULL);
        await_forgotten(relay);
        free(relay);
    }
}

static bool attach(struct notifier *n, int side, uint64_t seen)
{
    struct source *source = get_source(n->end->pipe, side);
    if (source == NULL)
        return false;
    struct tap *tap = &n->taps[side];
    *tap = (struct tap){.next = source->taps, .notifier = n, .source = source, .seen = seen};
    source->taps = tap;
    disturb(source->relay);
    return true;
}

/* What was counted so far stays owed. */
static void detach(struct notifier *n, struct relay **ended)
{
    for (int side = 0; side < 2; side++) {
        struct tap *tap = &n->taps[side];
        struct source *source = tap->source;
        if (source == NULL)
            continue;
        count(tap);
        struct tap **link = &source->taps;
        while (*link != tap)
            link = &(*link)->next;
        *link = tap->next;
        tap->source = NULL;
        if (source->taps == NULL)
            put_source(source, ended);
    }
}

/* ---- Notifiers: the mutex is held ------------------------------------------------------------ */

static bool listens(const struct shmp_end *end, int side)
{
    return side == SHMP_SIDE_READERS ? shmp_can_read(end) : shmp_can_write(end);
}

/* Before arming: while somebody is registered, nobody disarms. */
static void enlist(struct shmp_end *end)
{
    for (int side = 0; side < 2; side++)
        if (listens(end, side) && end->pipe->notifiers[side]++ == 0)
            shmp_notify_register(end->pipe, side);
}

static void discharge(struct shmp_end *end, bool disarm)
{
    for (int side = 0; side < 2; side++)
        if (listens(end, side) && --end->pipe->notifiers[side] == 0) {
            shmp_notify_unregister(end->pipe, side);
            if (disarm)
                shmp_notify_disarm(end, side);
        }
}

static bool make_room(unsigned fd)
{
    if (fd < by_fd_size)
        return true;
    unsigned size = fd + 64;
    struct notifier **table = realloc(by_fd, size * sizeof *table);
    if (table == NULL)
        return false;
    for (unsigned i = by_fd_size; i < size; i++)
        table[i] = NULL;
    by_fd = table;
    by_fd_size = size;
    return true;
}

static struct notifier *find(int fd)
{
    return fd >= 0 && (unsigned)fd < by_fd_size ? by_fd[fd] : NULL;
}

static void forget(struct notifier *n)
{
    by_fd[n->fd] = NULL;
    if (--notifier_count == 0) {
        free(by_fd);
        by_fd = NULL;
        by_fd_size = 0;
    }
    shmp_sys.close(n->fd);
    free(n);
}

/* From its first moment in the table, where a fork child finds what it must close.  Attached later. */
static int add(struct shmp_end *end, struct notifier **out)
{
    long fd = shmp_sys.eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return (int)fd;
    struct notifier *n = make_room((unsigned)fd) ? calloc(1, sizeof *n) : NULL;
    if (n == NULL) {
        shmp_sys.close((int)fd);
        return -ENOMEM;
    }
    *n = (struct notifier){.fd = (int)fd, .end = end};
    by_fd[fd] = n;
    notifier_count++;
    enlist(end);
    *out = n;
    return (int)fd;
}

static void take_back(struct notifier *n)
{
    if (n->end)
        discharge(n->end, true);
    forget(n);
}

/* ---- The calls ---------------------------------------------------------------------------------- */

/* SHMP_WOULD_SLEEP: begin anew. */
static int open_one(struct shmp_end *end)
{
    uint64_t seen[2] = {0};
    struct relay *ended = NULL;
    struct notifier *n = NULL;
    pthread_mutex_lock(&mutex);
    int fd = add(end, &n);
    pthread_mutex_unlock(&mutex);
    if (fd < 0)
        return fd;
    int r = 0; /* the ring locks without the mutex: their owners may be stopped */
    for (int side = 0; side < 2 && r == 0; side++)
        r = listens(end, side) ? shmp_notify_arm(end, side, &seen[side]) : 0;
    pthread_mutex_lock(&mutex);
    if (find(fd) != n) /* we are a handler's fork child */
        r = SHMP_WOULD_SLEEP;
    for (int side = 0; side < 2 && r == 0; side++)
        if (listens(end, side) && !attach(n, side, seen[side]))
            r = -EAGAIN; /* no memory, or no thread */
    if (r < 0 && r != SHMP_WOULD_SLEEP) {
        detach(n, &ended);
        take_back(n);
    }
    pthread_mutex_unlock(&mutex);
    join(ended);
    return r < 0 ? r : fd;
}

int shmp_relay_open(struct shmp_end *end)
{
    int r = shmp_end_claim(end);
    while (r == 0 && (r = open_one(end)) == SHMP_WOULD_SLEEP)
        r = shmp_end_claim(end);
    return r;
}

int shmp_relay_read(int fd, uint64_t *operations)
{
    uint64_t stored = 0;
    long r = 0;
    pthread_mutex_lock(&mutex);
    struct notifier *n = find(fd);
    if (n == NULL)
        r = -EBADF;
    else if (n->filled)
        r = shmp_sys.read(fd, &stored, sizeof stored);
    if (r > 0)
        n->filled = false;
    else if (r == -EAGAIN) /* somebody has read the eventfd itself */
        r = 0;
    if (r >= 0) {
        for (int side = 0; side < 2; side++)
            if (n->taps[side].source)
                count(&n->taps[side]);
        *operations = n->owed + stored;
        n->owed = 0;
    }
    pthread_mutex_unlock(&mutex);
    return r < 0 ? (int)r : 0;
}

int shmp_relay_close(int fd)
{
    struct relay *ended = NULL;
    pthread_mutex_lock(&mutex);
    struct notifier *n = find(fd);
    if (n) {
        detach(n, &ended);
        take_back(n);
    }
    pthread_mutex_unlock(&mutex);
    join(ended);
    return n ? 0 : -EBADF;
}

void shmp_relay_end_closed(struct shmp_end *end)
{
    struct relay *ended = NULL;
    pthread_mutex_lock(&mutex);
    for (unsigned fd = 0; fd < by_fd_size; fd++) {
        struct notifier *n = by_fd[fd];
        if (n == NULL || n->end != end)
            continue;
        detach(n, &ended);
        discharge(end, false);
        n->end = NULL;
        pay(n);
    }
    pthread_mutex_unlock(&mutex);
    join(ended);
}

/* ---- fork() --------------------------------------------------------------------------------------- */

void shmp_relay_fork_prepare(void)
{
    pthread_mutex_lock(&mutex);
}

void shmp_relay_fork_parent(void)
{
    pthread_mutex_unlock(&mutex);
}

void shmp_relay_fork_child(void)
{
    /* The threads are the parent's, and so are the eventfds. */
    for (unsigned fd = 0; fd < by_fd_size; fd++)
        if (by_fd[fd])
            forget(by_fd[fd]);
    while (relays) {
        struct relay *relay = relays;
        relays = relay->next;
        for (struct source *s = relay->sources, *next; s; s = next) {
            next = s->next;
            free(s);
        }
        free(relay);
    }
    pthread_mutex_unlock(&mutex);
}
