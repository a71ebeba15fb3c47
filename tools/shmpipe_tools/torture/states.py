"""The rare states of a scene, all that are counted: one that is never reached is printed, too.

Which of them decide is said by the stressors (`sometimes`, `seldom`): a million kills that all
landed in the same place would prove little (P31).
"""

SCENE_STATES = (
    # From the pipe's own statistics
    "lock taken from the dead",
    "dead process reaped",
    "pipe empty: reader slept",
    "pipe full: writer slept",
    "EAGAIN",
    "merge",
    "wrap of the ring",
    "wrap of an index",
    "broadcast",
    # From the books
    "record of a killed writer",
    "of these: it was there",
    "cell that died with its reader",
    "signal handler ran",
    # The last acts
    "eof",
    "eof, company",
    "epipe",
    "epipe, company",
    "leave",
    "massacre",
    "single record",
    "kill of a chosen one",
    "readiness left by the dead",
    # At rest, with everybody known
    "at rest: looked into the segment",
    "at rest: a lock of the dead",
    "at rest: an entry of the dead",
    "curtain: all of the dead cleared away",
)

# So many ops of a stressor are a long run: then its `sometimes` must have been reached; and its
# `seldom` in one that is ten times as long, as `make torture` is.
LONG_RUN = 20_000
VERY_LONG_RUN = 10 * LONG_RUN
# Several stressors, or several of one, disturb each other: who is killed young was nowhere yet.
# Then so many times as many ops are needed.
IN_COMPANY = 10
# Which scenes are played is drawn for each episode: with fewer a state of theirs may be missing by
# chance, also where many ops fit into an episode.
MANY_EPISODES = 50
