/* Collectives through memory that all ranks of a node see: see channel.c. */
#pragma once
#include <stdint.h>

#include "api.h"

typedef struct channel channel;

enum { IDLE, MOVED, COMPLETE, MISMATCH }; /* what begin and advance return */
enum { REDUCE = 1, GATHER = 2 };          /* phases */

/* Start a collective on a payload, in place; the one before must be complete. Return as advance does.
 *   per_item  numbers an element: 1, or 2 (complex)
 *   phases    REDUCE: rank r gets the result of part r. GATHER: all ranks get part r of rank r.
 *             Both: an allreduce. */
API int distrain_shared_begin(channel *c, void *payload, uint64_t count, int type, int per_item, int op,
                              int divisor, int phases);

/* Work on the running collective for about `work_ns`, and wait for others for at most `wait_ns` of it.
 * Return IDLE (nothing could be done), MOVED, COMPLETE or MISMATCH (see distrain_shared_mismatch). */
API int distrain_shared_advance(channel *c, int64_t work_ns, int64_t wait_ns, int spins, int yields);
