/* companion.pml - the companion's level, foretold and looked at, for spin: a second opinion on
 * level.c.
 *
 * A writer and a reader do turns, and another reader looks for the first time and sleeps in
 * poll().  The writer may be killed.  Labels as in docs/explanation/companion-sync.md.  Without
 * further -D it must hold; with one of these it must not: TOLD_AFTER_THE_CHANGE,
 * LOOK_PAST_THE_LOCKS, LEVEL_BEFORE_THE_FLAG. */
#define SLOTS 1
#define TURNS 2

byte used;
bool some = true; /* the companion holds a byte: POLLIN */
bool looked_at;
bool in_step;
bool write_lock, read_lock, companion_lock; /* free again when the owner is proven dead */
bool polls;

inline lock(it) { atomic { !it -> it = true } }

inline drain_or_not(mine) /* S4 of a reader, and of one that brings its side in step */
{
    some = ((in_step || mine) && used == 0 -> false : some)
}

proctype writer()
{
    byte n;
    bool held;
    for (n : 1 .. TURNS) {
        lock(write_lock);
        held = looked_at; /* S2 */
        if
        :: held -> lock(companion_lock) /* S3 */
        :: else
        fi;
        if
        :: goto dead
        :: true
        fi;
#ifndef TOLD_AFTER_THE_CHANGE
        some = (held && used == 0 -> true : some); /* F */
#endif
        if
        :: used < SLOTS -> used++ /* S1 */
        :: else
        fi;
        if
        :: goto dead
        :: true
        fi;
        if
        :: held -> some = (used > 0 -> true : some); companion_lock = false /* S4, S5 */
        :: else
        fi;
        write_lock = false;
        if
        :: !held && looked_at -> /* S2 again */
            if
            :: goto dead_unlocked
            :: true
            fi;
            lock(companion_lock);
            some = (used > 0 -> true : some);
            companion_lock = false
        :: else
        fi
    };
    goto dead_unlocked;
dead:
    atomic {
        write_lock = false;
        if
        :: held -> companion_lock = false
        :: else
        fi
    };
dead_unlocked:
    skip
}

proctype reader()
{
    byte n;
    bool held;
    for (n : 1 .. TURNS) {
        lock(read_lock);
        held = looked_at;
        if
        :: held -> lock(companion_lock)
        :: else
        fi;
        if
        :: used > 0 -> used--
        :: else
        fi;
        if
        :: held -> drain_or_not(false); companion_lock = false
        :: else
        fi;
        read_lock = false;
        if
        :: !held && looked_at -> lock(companion_lock); drain_or_not(false); companion_lock = false
        :: else
        fi
    }
}

proctype looker()
{
#ifndef LEVEL_BEFORE_THE_FLAG
    looked_at = true; /* L1 */
#endif
#ifndef LOOK_PAST_THE_LOCKS
    lock(write_lock);
    write_lock = false;
    lock(read_lock);
    read_lock = false;
#endif
    lock(companion_lock);
    drain_or_not(true); /* L3 */
    in_step = true; /* L4 */
    companion_lock = false;
#ifdef LEVEL_BEFORE_THE_FLAG
    looked_at = true;
#endif
    polls = true;
    some;
    polls = false
}

active proctype nothing_more_happens()
{
end:
    timeout ->
        assert(!(polls && used > 0))
}

init {
    atomic { run writer(); run reader(); run looker() }
}
