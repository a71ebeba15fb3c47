/* wake.pml - wait and wake with hand-on and death, for spin: a second opinion on wake.c.
 *
 * One writer, two readers, one slot.  Labels as in docs/explanation/wait-and-wake.md.  The ring step
 * under its lock is one step.  Without further -D it must hold; with one of these it must not:
 * NO_HAND_ON, NO_EPOCH_CHANGE, LOOK_BEFORE_R1, NO_BROADCAST_ON_DEATH, W1_RELAXED. */
#define SLOTS 1
#define WRITES 2

byte used;
byte buffered;   /* stores of head that only the writer sees yet (TSO) */
byte registered;
byte epoch;
bool asleep[2];
byte deaths;
byte dead_readers;
chan futex = [2] of { byte }; /* first in, first out */

inline futex_wake_one(it)
{
    atomic {
        if
        :: futex?it -> asleep[it] = false
        :: empty(futex)
        fi;
        it = 0
    }
}

/* The kernel marks the words that the sleepers watch: each looks for itself. */
inline death(it)
{
    atomic {
        deaths++;
#ifndef NO_BROADCAST_ON_DEATH
        epoch++; /* for who has gathered and does not sleep yet: R3 compares those words, too */
        do
        :: futex?it -> asleep[it] = false
        :: empty(futex) -> break
        od;
        it = 0
#endif
    }
}

inline may_die(it)
{
    if
    :: deaths == 0 -> death(it); goto dead
    :: true
    fi
}

inline wake_one(found, it)
{
    found = false;
    d_step {
        if
        :: registered > 0 ->
W3:         registered--; found = true;
#ifndef NO_EPOCH_CHANGE
            epoch++
#endif
        :: else
        fi
    };
    may_die(it);
    if
    :: found -> futex_wake_one(it) /* W4 */
    :: else
    fi
}

proctype reader(byte me)
{
    byte e, it;
    bool slept, had, found;
call:
    do
    :: goto leaves /* it need not read again */
    :: slept = false;
retry:
       may_die(it);
       d_step {
           had = used > 0;
           if
           :: had -> used-- /* T4 */
           :: else
           fi
       };
       if
       :: had
       :: else ->
#ifdef LOOK_BEFORE_R1
R2:        if
           :: used > 0 -> goto retry
           :: else
           fi;
R1:        d_step { registered++; e = epoch }
#else
R1:        d_step { registered++; e = epoch };
R2:        if
           :: used > 0 ->
R6:           d_step {
                  if
                  :: e == epoch && registered > 0 -> registered--
                  :: else
                  fi
              };
              slept = true;
              goto retry
           :: else
           fi
#endif
           ;
R3:        atomic {
               if
               :: e == epoch -> asleep[me] = true; futex!me
               :: else
               fi
           };
R5:        !asleep[me];
           slept = true;
           goto retry
       fi;
       may_die(it);
#ifndef NO_HAND_ON
       if
       :: slept && registered > 0 && used > 0 -> wake_one(found, it)
       :: else
       fi
#endif
    od;
dead:
    dead_readers++;
leaves:
    skip
}

proctype writer()
{
    byte n, it;
    bool found, owes;
    for (n : 1 .. WRITES) {
        (used + buffered < SLOTS + 1 && used < 2);
        may_die(it);
W1:     buffered++;
#ifndef W1_RELAXED
        (buffered == 0); /* seq_cst: the buffer drains first */
#endif
W2:     owes = registered > 0;
        owes = owes && used + buffered <= 1; /* was it empty? */
        may_die(it);
        if
        :: owes -> wake_one(found, it)
        :: else
        fi
    };
dead:
    skip
}

active proctype store_buffer()
{
end:
    do
    :: atomic { buffered > 0 -> buffered--; used++ }
    od
}

active proctype nothing_more_happens()
{
end:
    timeout ->
        assert(!(used > 0 && (asleep[0] || asleep[1])))
}

init {
    atomic { run reader(0); run reader(1); run writer() }
}
