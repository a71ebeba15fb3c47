/* fifo.h - named pipes: a POSIX shared memory object and the FIFO beside it.  Internal. */
#ifndef SHMP_FIFO_H
#define SHMP_FIFO_H

#include "pipe.h"

#define SHMP_OBJECT_MAX (SHMP_NAME_MAX + 16)

/* "/shmpipe.NAME" for shm_open.  0, -EINVAL or -ENAMETOOLONG, with a reason. */
int shmp_object_name(const char *name, char object[SHMP_OBJECT_MAX]);
int shmp_fifo_format(int fd, const char *name, const struct shmp_options *options);
int shmp_fifo_open(struct shmp_end **out, int fd, int flags);
int shmp_fifo_unlink(int fd, const char *name);
/* Whether the FIFO lies where an opener of this header would look: 0; -ENOENT; -SHMP_ECORRUPT if
 * something else does; or -errno. */
int shmp_fifo_is_beside(const struct shmp_header *header);

#endif
