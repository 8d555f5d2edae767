/* One rank's part of a Schedule, run over MPI point to point: see messages.c. */
#pragma once
#include <stdint.h>

#include "api.h"

typedef struct run run;

/* Post the first messages of an operation. Its staging area holds 2 x window x colors halves of `room`
 * bytes. Returns 0 or 1000 + an error code of MPI. */
API int distrain_messages_begin(run *r, void *payload, void *staging, int64_t room, uintptr_t comm, int first_tag,
                                int64_t itemsize, int64_t numbers, int type, int op);

/* Go on with `count` operations as far as the others allow. Return to the caller when one of them is complete,
 * after `work` nanoseconds, or when `news` becomes true; without a message to take, wait for one as long if
 * `waits` is set, and return at once otherwise.
 * Returns 0 (nothing came), 1 (something did), 2 (one is complete), or 1000 + an error code of MPI, and the same
 * again when the operation concerned is advanced alone. */
API int distrain_messages_advance(run *const *runs, int count, int64_t work, int waits, const volatile int *news,
                                  int64_t spin, int64_t longest);

/* Return whether there is nothing left to advance: the operation is complete, or something was wrong. */
API int distrain_messages_is_over(const run *r);
