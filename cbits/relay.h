/* relay.h - notifiers: eventfds that count the operations of the other side, and who feeds them.
 *
 * A notifier belongs to an end and to the process that made it.  Closing the end ends the counting,
 * and what was counted stays to be read; a fork child's copies are closed (IO-12: the owner stays
 * who it is).
 *
 * A relay is a thread that blocks every signal and sleeps until a counter moves, or somebody dies
 * who may have moved one without a word (notify.h).  It starts with the first notifier and ends
 * with the last; one serves the notifiers of RELAY_SOURCES pipes, so most processes have one.
 */
#ifndef SHMP_RELAY_H
#define SHMP_RELAY_H

#include <stdint.h>

#include "pipe.h"

/* A new notifier's eventfd, which is also its handle; or -errno. */
int shmp_relay_open(struct shmp_end *end);
/* Operations since the last time, also those that the relay has not put into the eventfd yet.
 * 0 or -errno. */
int shmp_relay_read(int fd, uint64_t *operations);
int shmp_relay_close(int fd);

/* Before the end is freed, in the registry's lock. */
void shmp_relay_end_closed(struct shmp_end *end);

/* Lock order: registry, notifiers, live, seg, record.  Ring locks are taken inside the notifiers'
 * lock, and never the other way round. */
void shmp_relay_fork_prepare(void);
void shmp_relay_fork_parent(void);
void shmp_relay_fork_child(void);

#endif
