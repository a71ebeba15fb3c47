/* main.c - which protocols are explored, and what must come out.
 *
 *   model quick     what `make test` runs
 *   model all       everything
 *   model TITLE...  those whose title has one of the words, with the counterexample
 *   model labels    the labels that each refuted protocol breaks
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "level.h"
#include "relay.h"
#include "wake.h"

struct run {
    const char *title;
    const char *labels; /* of docs/explanation and the C code; "" for what must hold */
    bool refuted;
    bool slow;
    struct wake_setting wake; /* if it has readers, else: */
    struct level_setting level; /* if it has readers, else: */
    struct relay_setting relay;
};

#define HOLDS(title, ...) {title, "", false, false, {__VA_ARGS__}, {0}, {0}}
#define HOLDS_SLOWLY(title, ...) {title, "", false, true, {__VA_ARGS__}, {0}, {0}}
#define REFUTED(title, labels, name, ...)                                                         \
    {title, labels, true, false, {.variant = name, .too_many = 1, __VA_ARGS__}, {0}, {0}}
#define REFUTED_SLOWLY(title, labels, name, ...)                                                  \
    {title, labels, true, true, {.variant = name, __VA_ARGS__}, {0}, {0}}
#define POLL_HOLDS(title, ...) {title, "", false, false, {0}, {__VA_ARGS__}, {0}}
#define POLL_HOLDS_SLOWLY(title, ...) {title, "", false, true, {0}, {__VA_ARGS__}, {0}}
#define POLL_REFUTED(title, labels, name, ...)                                                    \
    {title, labels, true, false, {0}, {.variant = name, __VA_ARGS__}, {0}}
#define TOLD_HOLDS(title, ...) {title, "", false, false, {0}, {0}, {__VA_ARGS__}}
#define TOLD_HOLDS_SLOWLY(title, ...) {title, "", false, true, {0}, {0}, {__VA_ARGS__}}
#define TOLD_REFUTED(title, labels, name, ...)                                                    \
    {title, labels, true, false, {0}, {0}, {.variant = name, __VA_ARGS__}}
#define TOLD_REFUTED_SLOWLY(title, labels, name, ...)                                             \
    {title, labels, true, true, {0}, {0}, {.variant = name, __VA_ARGS__}}

#define ONE_TO_ONE .readers = 1, .writers = 1, .slots = 1
#define TWO_READERS .readers = 2, .writers = 1, .slots = 1
#define TWO_WRITERS .readers = 1, .writers = 2, .slots = 1
#define LATE_READER .late = 2
#define LATE_WRITER .late = 4
#define LATE_LAST_WRITER .late = 8
#define ONE_RELAY .relays = 1, .writers = 1
#define TWO_RELAYS .relays = 2, .writers = 1
#define RELAY_TWO_WRITERS .relays = 1, .writers = 2

static const struct run runs[] = {
    /* ---- What must hold ---- */
    HOLDS("sleep: 1 writer, 1 reader, a death, closes, signals, two loads a look", ONE_TO_ONE,
          .deaths = 1, .closes = true, .signals = true, .two_loads = true, .stepwise = true,
          .too_many = 2),
    HOLDS("sleep: the same, 2 slots", .readers = 1, .writers = 1, .slots = 2, .deaths = 1,
          .closes = true, .signals = true, .two_loads = true, .too_many = 1),
    HOLDS("sleep: 1 writer, 2 readers, a death", TWO_READERS, .deaths = 1),
    HOLDS("sleep: 2 writers, 1 reader, a death", TWO_WRITERS, .deaths = 1),
    HOLDS_SLOWLY("sleep: 1 writer, 2 readers, 2 slots, two loads a look", .readers = 2,
                 .writers = 1, .slots = 2, .two_loads = true),
    HOLDS_SLOWLY("sleep: 1 writer, 2 readers, a death, closes, signals", TWO_READERS, .deaths = 1,
                 .closes = true, .signals = true),
    HOLDS_SLOWLY("sleep: 2 writers, 1 reader, a death, closes, signals", TWO_WRITERS, .deaths = 1,
                 .closes = true, .signals = true),
    HOLDS_SLOWLY("sleep: a late reader, a death", TWO_READERS, LATE_READER, .deaths = 1),
    HOLDS_SLOWLY("sleep: a late writer, a death", TWO_WRITERS, LATE_WRITER, .deaths = 1),
    HOLDS_SLOWLY("sleep: a late writer, two deaths", TWO_WRITERS, LATE_WRITER, .deaths = 2),
    HOLDS_SLOWLY("sleep: 2 writers, 2 readers, no merges, no long writes", .readers = 2,
                 .writers = 2, .slots = 1, .plain = true),
    HOLDS_SLOWLY("sleep: 2 writers, 2 readers, a death, no merges, no long writes", .readers = 2,
                 .writers = 2, .slots = 1, .deaths = 1, .plain = true),
    HOLDS_SLOWLY("sleep: 1 writer, 2 readers, one of them stopped when it is chosen", TWO_READERS,
                 .stops = 1),
    HOLDS_SLOWLY("sleep: 2 writers, 1 reader, a writer stopped when it is chosen", TWO_WRITERS,
                 .stops = 1),
    POLL_HOLDS("poll: 1 writer, 1 reader, a death, 2 slots", .readers = 1, .writers = 1,
               .slots = 2, .deaths = 1),
    POLL_HOLDS("poll: 1 writer, 2 readers, a death", TWO_READERS, .deaths = 1),
    POLL_HOLDS("poll: 2 writers, 1 reader, two deaths", TWO_WRITERS, .deaths = 2),
    POLL_HOLDS_SLOWLY("poll: 1 writer, 2 readers, two deaths", TWO_READERS, .deaths = 2),
    POLL_HOLDS_SLOWLY("poll: 2 writers, 2 readers, a death", .readers = 2, .writers = 2, .slots = 1,
                      .deaths = 1),
    POLL_HOLDS_SLOWLY("poll: 2 writers, 2 readers, two deaths", .readers = 2, .writers = 2,
                      .slots = 1, .deaths = 2),
    POLL_HOLDS("signals: 2 writers, 1 reader, two deaths", TWO_WRITERS, .deaths = 2, .async = true),
    POLL_HOLDS("signals: 1 writer, 2 readers, two deaths", TWO_READERS, .deaths = 2, .async = true),
    TOLD_HOLDS("notifier: 1 writer, 1 relay, a death", ONE_RELAY, .deaths = 1),
    TOLD_HOLDS("notifier: 2 writers, one late, 1 relay, two deaths", RELAY_TWO_WRITERS,
               LATE_WRITER, .deaths = 2),
    TOLD_HOLDS("notifier: 1 writer, 2 relays, two deaths", TWO_RELAYS, .deaths = 2),
    TOLD_HOLDS("notifier: 1 writer, 2 relays, one of them late, two deaths", TWO_RELAYS, .late = 2,
               .deaths = 2),
    TOLD_HOLDS("notifier: 2 writers that nobody can watch, one late, 1 relay, two deaths",
               RELAY_TWO_WRITERS, LATE_WRITER, .unreachable = 6, .deaths = 2),
    TOLD_HOLDS("notifier: 2 writers, one that nobody can watch, 1 relay, two deaths",
               RELAY_TWO_WRITERS, .unreachable = 2, .deaths = 2),
    TOLD_HOLDS("notifier: 1 writer that nobody can watch, 2 relays, two deaths", TWO_RELAYS,
               .unreachable = 4, .deaths = 2),
    TOLD_HOLDS_SLOWLY("notifier: 2 writers, one late, 2 relays, two deaths", .relays = 2,
                      .writers = 2, LATE_LAST_WRITER, .deaths = 2),

    /* ---- What is refuted: the wait queues ---- */
    REFUTED("no hand-on", "H", NO_HAND_ON, TWO_READERS, .signals = true),
    REFUTED("hand-on only on success", "H", HAND_ON_ONLY_ON_SUCCESS, .readers = 3, .writers = 1,
            .slots = 1, .signals = true),
    REFUTED("hand-on after the call words are given back", "H", HAND_ON_AFTER_THE_CALL_WORD,
            TWO_READERS, .deaths = 1),
    REFUTED("call words are locked after R1", "R1", CALL_WORD_AFTER_R1, TWO_WRITERS, LATE_WRITER,
            .deaths = 1),
    REFUTED("a wake does not change the epoch", "W3, R3", NO_EPOCH_CHANGE, ONE_TO_ONE),
    REFUTED("look, then register", "R1, R2", LOOK_BEFORE_R1, ONE_TO_ONE),
    REFUTED("no look after registering", "R2", NO_LOOK_AFTER_R1, ONE_TO_ONE),
    REFUTED("gather, then register", "G", GATHER_BEFORE_R1, ONE_TO_ONE, .closes = true),
    REFUTED("look, then gather", "G", GATHER_AFTER_R2, ONE_TO_ONE, .deaths = 1),
    REFUTED("a look loads head before tail", "R2", LOOK_IN_THE_WRONG_ORDER, .readers = 2,
            .writers = 1, .slots = 2, .two_loads = true),
    REFUTED("W1 relaxed: head is still in the store buffer at W2", "W1, publish-and-merge P1, publish-and-merge T4", W1_RELAXED,
            ONE_TO_ONE),
    REFUTED("R1 relaxed: the registration is still in the store buffer at R2", "R1, R2",
            R1_RELAXED, ONE_TO_ONE),
    REFUTED("W2 relaxed: done before W1", "W2, W1", W2_BEFORE_W1, ONE_TO_ONE),
    REFUTED("the other index is loaded before W1", "W2", OTHER_INDEX_BEFORE_W1, .readers = 1,
            .writers = 1, .slots = 2),
    REFUTED("wake, then publish", "W1, W3", WAKES_BEFORE_W1, ONE_TO_ONE),
    REFUTED("the epoch changes and nobody is woken", "W4", W4_LEFT_OUT, ONE_TO_ONE),
    REFUTED("life words are not watched", "D1", NO_LIFE_WORDS, ONE_TO_ONE, .deaths = 1),
    REFUTED("call words are not watched", "D1", NO_CALL_WORDS, TWO_READERS, .deaths = 1),
    REFUTED("idle call words are not watched", "D1, R3", IDLE_CALL_WORDS_UNWATCHED, TWO_READERS,
            .deaths = 1),
    REFUTED("whom a death woke does not pass it on", "D1", NOT_PASSED_ON, TWO_READERS,
            .deaths = 1),
    REFUTED("a newcomer does not introduce itself", "wait-and-wake A2, C4", NOT_INTRODUCED, TWO_WRITERS, LATE_WRITER,
            .deaths = 1),
    REFUTED("a wake ahead takes the registration off first", "wait-and-wake A2, W5", REGISTRATION_TAKEN_FIRST, TWO_WRITERS,
            LATE_WRITER, .deaths = 1),
    REFUTED_SLOWLY("a wake takes the registration off first", "W5, W3", REGISTRATION_TAKEN_FIRST,
                   .readers = 2, .writers = 2, .slots = 1, .deaths = 1, .plain = true),
    REFUTED("a wake ahead that woke nobody counts as one", "wait-and-wake A2", AHEAD_WITHOUT_A_WAKE,
            TWO_WRITERS, LATE_WRITER, .signals = true),
    REFUTED_SLOWLY("a wake lowers the count of any epoch", "wait-and-wake A2, W5", WAKER_LOWERS_ANY_EPOCH,
                   TWO_WRITERS, LATE_WRITER, .deaths = 1, .too_many = 1),
    REFUTED("who was woken ahead does not wait for the change", "R7", NO_WAIT_FOR_THE_LOCK,
            TWO_WRITERS, LATE_WRITER),
    REFUTED_SLOWLY("a wake is passed on for one of the words only", "D1", PASSED_ON_FOR_ONE_WORD,
                   .readers = 2, .writers = 2, .slots = 1, LATE_LAST_WRITER, .deaths = 2),
    REFUTED("nobody looks whether the other side is overdue", "O", NO_NUDGE, TWO_READERS,
            .stops = 1),
    REFUTED("(a known gap) a waker is stopped between its change and W3", "O", STOPPED_WAKER,
            TWO_READERS, .stops = 1),
    REFUTED("a newcomer sleeps and does not change the epoch", "N", NEWCOMER_KEEPS_EPOCH,
            TWO_WRITERS, LATE_WRITER, .deaths = 1),
    REFUTED("the claim is still in the store buffer at A3", "C3, attach-and-fork A2, A1", CLAIM_RELAXED,
            TWO_WRITERS, LATE_WRITER, .deaths = 1),
    REFUTED("a newcomer looks for sleepers before it is there to be seen", "A3, C3",
            ANNOUNCE_BEFORE_CLAIM, TWO_WRITERS, LATE_WRITER, .deaths = 1),
    REFUTED("the last close wakes one", "A", LAST_CLOSE_WAKES_ONE, TWO_READERS, .closes = true),
    REFUTED("the last close wakes nobody", "A", LAST_CLOSE_WAKES_NOBODY, ONE_TO_ONE,
            .closes = true),
    REFUTED("a closer counts on one whom the sleepers do not watch", "C4", CLOSER_COUNTS_STRANGERS,
            TWO_WRITERS, LATE_WRITER, .deaths = 1, .closes = true),
    REFUTED("who sees no holder does not ask the companion", "", HUNG_UP_NOT_ASKED, TWO_READERS,
            .deaths = 1, .closes = true),
    REFUTED("end of file without another look", "T1", EOF_WITHOUT_A_LOOK, ONE_TO_ONE, .deaths = 1),
    REFUTED("wake all takes the count down first", "A", WAKE_ALL_COUNTS_FIRST, TWO_WRITERS,
            LATE_WRITER, .deaths = 1, .closes = true),
    REFUTED("healing whoever came meanwhile", "W4, A", HEAL_WHOEVER_CAME, ONE_TO_ONE),
    REFUTED("leaving an epoch that is over", "R6", LEAVE_ANY_EPOCH, TWO_READERS, .signals = true),

    /* ---- and the companion ---- */
    POLL_REFUTED("poll: a first look does not pass through the ring locks", "L2",
                 LOOK_PAST_THE_LOCKS, TWO_READERS, .deaths = 1),
    POLL_REFUTED("poll: later steps of a long operation are not foretold", "F", LATER_STEPS_UNTOLD,
                 ONE_TO_ONE),
    POLL_REFUTED("poll: told after the change, not foretold", "F, S1", TOLD_AFTER_THE_CHANGE,
                 TWO_READERS, .deaths = 1),
    POLL_REFUTED("poll: the companion's lock is given back before the change", "S3, S5",
                 TOLD_WITHOUT_THE_LOCK, ONE_TO_ONE),
    POLL_REFUTED("poll: the level that this operation has made, not the ring's", "S4",
                 LEVEL_FROM_THE_OPERATION, ONE_TO_ONE),
    POLL_REFUTED("poll: the level first, then the flag", "L1", FLAG_AFTER_THE_LEVEL,
                 ONE_TO_ONE),
    POLL_REFUTED("poll: in step, then the level", "L4, L0", IN_STEP_BEFORE_THE_LEVEL, TWO_READERS),
    POLL_REFUTED("poll: a level that a dead one wrote is believed", "S3", DEAD_LEVEL_BELIEVED,
                 TWO_WRITERS, .deaths = 1),
    POLL_REFUTED("poll: no sync when the operation is over", "S4", NO_SYNC_AT_THE_END, ONE_TO_ONE),
    POLL_REFUTED("poll: a companion that nobody looks at is empty", "L3", NO_WAITING_BYTE,
                 ONE_TO_ONE),
    POLL_REFUTED("poll: a read foretells only from a level that is known to be full", "F",
                 FORETOLD_ONLY_FROM_FULL, .readers = 2, .writers = 2, .slots = 1, .deaths = 2),
    POLL_REFUTED("poll: a first look is content with the flag", "L0", CONTENT_WITH_THE_FLAG,
                 TWO_WRITERS, .deaths = 1),
    POLL_REFUTED("poll: what is foretold is not noted", "F", NOT_NOTED, TWO_WRITERS, .deaths = 1),
    POLL_REFUTED("poll: told, then noted", "F", NOTED_AFTER_IT_IS_TOLD, TWO_WRITERS, .deaths = 1),
    POLL_REFUTED("poll: noted outside the companion's lock", "F", NOTED_OUTSIDE_THE_LOCK, ONE_TO_ONE),
    POLL_REFUTED("poll: a note of a dead one waits for the next of its side", "F",
                 NOTES_LEFT_TO_THE_NEXT_WRITER, TWO_WRITERS, .deaths = 1),
    POLL_REFUTED("poll: a note is made although nobody has been told", "F", NOTES_MADE_UNTOLD,
                 TWO_WRITERS, .deaths = 2),
    POLL_REFUTED("poll: the level does not know of notes", "S4", LEVEL_WITHOUT_NOTES, TWO_READERS,
                 .deaths = 1),
    POLL_REFUTED("signals: a note is made although nobody has signalled", "F",
                 NOTES_MADE_UNTOLD_OF_BY_SIGNAL, TWO_WRITERS, .deaths = 2, .async = true),
    POLL_REFUTED("signals: a reader does not wait for who signals", "S3", TELLER_NOT_WAITED_FOR,
                 ONE_TO_ONE, .async = true),
    POLL_REFUTED("signals: told after the change, not foretold", "F", TOLD_AFTER_THE_CHANGE,
                 ONE_TO_ONE, .deaths = 1, .async = true),
    POLL_REFUTED("poll: S2 relaxed: asked before S1 only", "S2", S2_RELAXED, ONE_TO_ONE,
                 .old_look = true),

    /* ---- and notifiers ---- */
    TOLD_REFUTED("notifier: where the ring stood is not written down", "notifier N1", NO_BEFORE,
                 RELAY_TWO_WRITERS, .deaths = 1),
    TOLD_REFUTED("notifier: an operation that begins leaves no trace", "notifier N2", NO_BEGUN,
                 RELAY_TWO_WRITERS, .deaths = 1),
    TOLD_REFUTED("notifier: nobody settles for the dead", "notifier N2", NO_SETTLE,
                 RELAY_TWO_WRITERS, .deaths = 1),
    TOLD_REFUTED("notifier: counted before the publish", "notifier N3", COUNTED_BEFORE_THE_PUBLISH,
                 ONE_RELAY),
    TOLD_REFUTED("notifier: N4 relaxed: done before N3", "notifier N3, notifier N4",
                 COUNTED_AFTER_N4, ONE_RELAY),
    TOLD_REFUTED("notifier: N3 relaxed: the count is still in the store buffer at N4",
                 "notifier N3, notifier N4", COUNT_BUFFERED, ONE_RELAY),
    TOLD_REFUTED("notifier: a waker does not change the word before it wakes", "notifier N5",
                 WORD_KEPT_BY_N5, ONE_RELAY),
    TOLD_REFUTED("notifier: the word becomes even whoever has come meanwhile", "notifier N5",
                 EVEN_WHOEVER_CAME, ONE_RELAY),
    TOLD_REFUTED("notifier: the word changes and nobody is woken", "notifier N5",
                 COUNTED_AND_NOBODY_WOKEN, ONE_RELAY),
    TOLD_REFUTED("notifier: K1 relaxed: sleep is still in the store buffer at K2",
                 "notifier K1, notifier K2", K1_BUFFERED, ONE_RELAY),
    TOLD_REFUTED("notifier: who finds the word odd leaves it so", "notifier K1",
                 K1_KEEPS_AN_ODD_WORD, TWO_RELAYS),
    TOLD_REFUTED("notifier: no look after registering", "notifier K2", NO_LOOK_AFTER_K1,
                 ONE_RELAY),
    TOLD_REFUTED("notifier: lives are not watched", "notifier K3", LIVES_UNWATCHED, ONE_RELAY,
                 .deaths = 1),
    TOLD_REFUTED("notifier: lives are gathered before K1", "notifier K1", GATHERED_BEFORE_K1,
                 RELAY_TWO_WRITERS, LATE_WRITER, .deaths = 1),
    TOLD_REFUTED("notifier: a relay leaves a dead one's lock to the next writer", "notifier K3",
                 NO_RESCUE, ONE_RELAY, .deaths = 1),
    TOLD_REFUTED("notifier: whom a death woke does not pass it on", "notifier K3",
                 DEATH_NOT_PASSED_ON, TWO_RELAYS, .deaths = 1),
    TOLD_REFUTED_SLOWLY("notifier: a death is passed on for one of the words only", "notifier K3",
                 DEATH_PASSED_ON_FOR_ONE_WORD, .relays = 2, .writers = 2, LATE_LAST_WRITER,
                 .deaths = 2),
    TOLD_REFUTED("notifier: a stranger that has the lock from the dead is trusted", "notifier K3",
                 STRANGERS_TRUSTED, RELAY_TWO_WRITERS, LATE_WRITER, .deaths = 2),
    TOLD_REFUTED("notifier: a newcomer does not introduce itself", "notifier N0a, notifier N5",
                 NEWCOMER_SILENT, RELAY_TWO_WRITERS, LATE_WRITER, .deaths = 1),
    TOLD_REFUTED("notifier: one that cannot be watched does not hear of it", "notifier K1a",
                 NOT_DISMISSED, ONE_RELAY, .unreachable = 2, .deaths = 1),
    TOLD_REFUTED("notifier: one that cannot be watched has the lock, and nobody comes back",
                 "notifier K1a", STRANGERS_TRUSTED, ONE_RELAY, .unreachable = 2, .deaths = 1),
};

#define MOST_STATES ((size_t)300 * 1000 * 1000)

static bool run_one(const struct run *run, bool print)
{
    const struct model *model = run->wake.readers != 0    ? wake_model(&run->wake)
                                : run->level.readers != 0 ? level_model(&run->level)
                                                          : relay_model(&run->relay);
    clock_t start = clock();
    if (print)
        printf("%s\n", run->title);
    struct finding f = explore(model, MOST_STATES, print);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    bool as_expected = !f.cut && (f.what != NULL) == run->refuted;
    printf("%-7s %-70s %9zu states %10zu steps %5.1f s  ", as_expected ? "ok" : "WRONG",
           run->title, f.states, f.edges, seconds);
    if (f.what)
        printf("refuted in %u: %s\n", f.depth, f.what);
    else
        printf("%s, depth %u, %zu steps led beyond\n", f.cut ? "cut" : "holds", f.depth, f.beyond);
    fflush(stdout);
    if (!as_expected && f.what && !print)
        run_one(run, true);
    return as_expected;
}

int main(int argc, char **argv)
{
    bool all = argc == 2 && strcmp(argv[1], "all") == 0;
    bool quick = argc < 2 || strcmp(argv[1], "quick") == 0;
    bool labels = argc == 2 && strcmp(argv[1], "labels") == 0;
    unsigned wrong = 0;
    unsigned ran = 0;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        const struct run *run = &runs[i];
        bool named = false;
        for (int word = 1; word < argc; word++)
            named = named || strstr(run->title, argv[word]) != NULL;
        if (labels && run->refuted)
            printf("%s\t%s\n", run->title, run->labels);
        if (labels || !(all || (quick && !run->slow) || (!quick && named)))
            continue;
        wrong += !run_one(run, !all && !quick);
        ran++;
    }
    if (labels)
        return 0;
    printf("%u protocols explored, %u not as expected\n", ran, wrong);
    return wrong != 0 || ran == 0;
}
