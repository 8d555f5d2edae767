/* Allreduces between nodes that the calling thread carries out: see route.c. */
#pragma once
#include <stdint.h>

#include "channel.h"
#include "messages.h"

/* How payloads of one size, type and reduction go. Filled by Python: the fields are those of routes.py. */
typedef struct {
    channel *scatter, *gather; /* memory of the node; NULL: this rank is alone on its node */
    run *between;
    void *staging;
    int64_t room;
    uintptr_t comm;
    uint64_t count;         /* elements of the payload */
    uint64_t first, length; /* those that this rank carries between the nodes */
    int64_t itemsize, numbers;
    int64_t lanes, mark;    /* tags that it takes, and what is added to them */
    int64_t spin, longest;
    int type, op, divisor, whole; /* whole: every rank carries all of the payload */
    int spins, stage;             /* stage: where the last call ended */
} route;

/* Carry out one allreduce. Return COMPLETE, or what the stage in which it stopped has returned: because nothing
 * came for `patience` ns, `news` became true, or something is wrong. */
int distrain_route_carry(route *r, char *payload, int first_tag, const volatile int *news, int64_t patience);
