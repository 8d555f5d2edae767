/* An allreduce between nodes as one call: what levels.py and messages/compiled.py do, without Python.
 *
 * Of a short message the way from torch to the first byte on the wire is most of the time, the more so
 * where several ranks share a core and none finds its code in the cache.
 */
#include "route.h"

#include "reduce.h"

#define YIELDS 50 /* as shared/channel.py */
#define LOOK_NS 2000000 /* a wait in memory looks so often whether the engine is wanted */

/* Carry out one stage in the memory of the node. */
static int in_memory(route *r, channel *c, void *payload, int phases, const volatile int *news, int64_t patience)
{
    int code = distrain_shared_begin(c, payload, r->count, r->type, (int)r->numbers, r->op, 1, phases);
    for (int64_t idle = 0; (code == IDLE || code == MOVED) && idle < patience && !*news;) {
        code = distrain_shared_advance(c, LOOK_NS, LOOK_NS, r->spins, YIELDS);
        idle = code == MOVED ? 0 : idle + LOOK_NS;
    }
    return code;
}

/* Exchange this rank's part with the other nodes, and divide it if an average is wanted. */
static int between(route *r, char *payload, int first_tag, const volatile int *news, int64_t patience)
{
    char *part = payload + r->first * (uint64_t)r->itemsize;
    int code = distrain_messages_begin(r->between, part, r->staging, r->room, r->comm, first_tag, r->itemsize,
                                       r->numbers, r->type, r->op);
    if (code)
        return code;
    do
        code = distrain_messages_advance(&r->between, 1, patience, 1, news, r->spin, r->longest);
    while (code == MOVED && !*news);
    if (code == COMPLETE && r->divisor > 1)
        distrain_shared_divide(r->type, part, r->length * (uint64_t)r->numbers, r->divisor);
    return code;
}

int distrain_route_carry(route *r, char *payload, int first_tag, const volatile int *news, int64_t patience)
{
    int code = COMPLETE;
    r->stage = 0;
    if (r->scatter)
        code = in_memory(r, r->scatter, payload, r->whole ? REDUCE | GATHER : REDUCE, news, patience);
    if (code != COMPLETE)
        return code;
    r->stage = 1;
    code = between(r, payload, first_tag, news, patience);
    if (code != COMPLETE || !r->gather || r->whole)
        return code;
    r->stage = 2;
    return in_memory(r, r->gather, payload, GATHER, news, patience);
}
