/* arena.h - malloc of the sweep, which forgets everything between two trials.
 *
 * The state of the C library's allocator depends on all that the process has ever allocated, and
 * with it the path of a victim that allocates.  Here the same calls return the same addresses in
 * every trial.  What an allocator does is private memory: no survivor can see it.
 */
#ifndef SWEEP_ARENA_H
#define SWEEP_ARENA_H

/* Everything that was allocated since arena_mark() is gone. */
void arena_mark(void);
void arena_reset(void);

#endif
