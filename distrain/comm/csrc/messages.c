/* One rank's part of a Schedule, run over MPI point to point: the loop of messages/executor.py without Python.
 *
 * A lane works through every window-th segment of one color. In each step it posts the receives (what is
 * added lands in the lane's staging area, copies land in place), then the sends, then the receives of the
 * next step where the plan allows that. When a step's messages are complete the lane adds what came in, in
 * the order of the plan, and goes on. Lanes do not wait for each other.
 *
 * The functions of MPI are handed in as pointers, its handles as numbers and its requests as bytes: no
 * mpi.h is needed to compile this, and one build serves every MPI that mpi4py can load.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "run.h"

#define ALIGNMENT 64

/* Handles are ints in some MPIs and pointers in others. */
static int message(run *r, void *function, void *data, int64_t bytes, int64_t peer, int tag, void *request)
{
    const library *m = &r->mpi;
    if (m->handle_size == sizeof(int))
        return ((message32)function)(data, (int)bytes, (int)m->byte, (int)peer, tag, (int)r->comm, request);
    return ((message64)function)(data, (int)bytes, m->byte, (int)peer, tag, r->comm, request);
}

static char *request_at(run *r, int index) { return r->requests + index * r->mpi.request_size; }

/* The elements of one segment of a message; lengths differ by at most one. */
static void cut(const run *r, const planned_message *m, int64_t segment, int64_t *start, int64_t *stop)
{
    int64_t length = m->stop - m->start;
    *start = m->start + length * segment / r->p.segments;
    *stop = m->start + length * (segment + 1) / r->p.segments;
}

static int64_t lines(int64_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* A lane has two halves, which its steps use in turn. */
static char *staging_of(run *r, int number, int64_t step)
{
    return r->staging + (2 * number + step % 2) * r->room;
}

/* Take the next entry of the open requests for a lane's step; the request is made in it. */
static char *track(run *r, int number, int64_t step, int sends)
{
    r->owners[r->open] = (owner){number, sends, step};
    return request_at(r, r->open++);
}

static int post_receives(run *r, int number, int64_t step_number, int *posted)
{
    lane *l = &r->lanes[number];
    const step *s = &r->p.steps[step_number];
    char *area = staging_of(r, number, step_number);
    *posted = 0;
    for (int64_t i = s->receives; i < s->sends; i++) {
        const planned_message *m = &r->p.messages[i];
        int64_t start, stop;
        cut(r, m, l->segment, &start, &stop);
        if (stop == start)
            continue; /* the sender knows too that there is nothing to send */
        int64_t bytes = (stop - start) * r->itemsize;
        char *target = m->adds ? area : r->payload + start * r->itemsize;
        area += m->adds ? lines(bytes) : 0;
        char *request = track(r, number, step_number, 0);
        int code = message(r, r->mpi.irecv, target, bytes, m->peer, l->tag, request);
        if (code)
            return code;
        ++*posted;
    }
    return 0;
}

/* A persistent send, not Isend: Open MPI's Isend asks twice which network card is next, so that on two
 * cards all short messages leave by the same one. */
static int post_sends(run *r, int number)
{
    lane *l = &r->lanes[number];
    const step *s = &r->p.steps[l->step];
    for (int64_t i = s->sends; i < s->end; i++) {
        const planned_message *m = &r->p.messages[i];
        int64_t start, stop;
        cut(r, m, l->segment, &start, &stop);
        if (stop == start)
            continue;
        int64_t bytes = (stop - start) * r->itemsize;
        char *request = track(r, number, l->step, 1);
        int code = message(r, r->mpi.send_init, r->payload + start * r->itemsize, bytes, m->peer, l->tag, request);
        code = code ? code : ((one_request)r->mpi.start)(request);
        if (code)
            return code;
        l->open++;
    }
    return 0;
}

/* Post the messages of the lane's step, and early receives of the one after it. */
static int enter(run *r, int number)
{
    lane *l = &r->lanes[number];
    int code = 0;
    if (l->posted_early)
        l->open = l->open_early;
    else
        code = post_receives(r, number, l->step, &l->open);
    l->open_early = l->posted_early = 0;
    code = code ? code : post_sends(r, number);
    int64_t next = l->step + 1;
    if (!code && next < r->p.colors[l->color].end && r->p.steps[next].early) {
        l->posted_early = 1;
        code = post_receives(r, number, next, &l->open_early);
    }
    return code;
}

/* Add what the lane's step has brought, in the order of the plan. */
static void take_in(run *r, int number)
{
    const lane *l = &r->lanes[number];
    const step *s = &r->p.steps[l->step];
    const char *area = staging_of(r, number, l->step);
    for (int64_t i = s->receives; i < s->sends; i++) {
        const planned_message *m = &r->p.messages[i];
        int64_t start, stop;
        cut(r, m, l->segment, &start, &stop);
        if (!m->adds || stop == start)
            continue;
        char *mine = r->payload + start * r->itemsize;
        const void *sources[] = {mine, area};
        combine(r->add, mine, sources, 2, (size_t)((stop - start) * r->numbers), 1);
        area += lines((stop - start) * r->itemsize);
    }
}

/* Go on from step to step, and segment to segment, until something must be waited for. */
static int advance_lane(run *r, int number)
{
    lane *l = &r->lanes[number];
    const color *c = &r->p.colors[l->color];
    while (l->open == 0) {
        take_in(r, number);
        if (++l->step == c->end) {
            l->step = c->first;
            l->segment += r->p.window;
            if (l->segment >= r->p.segments) {
                r->running--;
                return 0;
            }
        }
        int code = enter(r, number);
        if (code)
            return code;
    }
    return 0;
}

static int by_number(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

int run_collect(run *r, int count)
{
    int ready = 0, code = 0;
    qsort(r->done, (size_t)count, sizeof *r->done, by_number);
    for (int i = 0; i < count; i++) {
        owner *o = &r->owners[r->done[i]];
        lane *l = &r->lanes[o->lane];
        if (o->step != l->step)
            l->open_early--;
        else if (--l->open == 0)
            r->ready[ready++] = o->lane;
        if (o->sends) /* inactive now, but not gone */
            code = code ? code : ((one_request)r->mpi.request_free)(request_at(r, r->done[i]));
    }
    for (int i = count - 1; i >= 0; i--) { /* close the gaps with the last entries */
        int last = --r->open, gap = r->done[i];
        memmove(request_at(r, gap), request_at(r, last), (size_t)r->mpi.request_size);
        r->owners[gap] = r->owners[last];
    }
    for (int i = 0; i < ready && !code; i++)
        code = advance_lane(r, r->ready[i]);
    return code;
}

API void distrain_messages_close(run *r)
{
    free(r->lanes);
    free(r->ready);
    free(r->requests);
    free(r->statuses);
    free(r->owners);
    free(r->done);
    free(r);
}

/* Make what one operation at a time needs to run a plan; NULL: no memory. */
API run *distrain_messages_open(const library *mpi, const plan *p)
{
    run *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->mpi = *mpi;
    r->p = *p;
    size_t lanes = (size_t)(p->color_count * p->window), most = lanes * (size_t)p->most_requests;
    r->lanes = calloc(lanes, sizeof *r->lanes);
    r->ready = calloc(lanes, sizeof *r->ready);
    r->requests = calloc(most, (size_t)mpi->request_size);
    r->statuses = calloc(most, (size_t)mpi->status_size);
    r->owners = calloc(most, sizeof *r->owners);
    r->done = calloc(most, sizeof *r->done);
    if (!r->lanes || !r->ready || !r->requests || !r->statuses || !r->owners || !r->done) {
        distrain_messages_close(r);
        return NULL;
    }
    return r;
}

API int distrain_messages_begin(run *r, void *payload, void *staging, int64_t room, uintptr_t comm, int first_tag,
                                int64_t itemsize, int64_t numbers, int type, int op)
{
    r->payload = payload, r->staging = staging, r->room = room, r->comm = comm;
    r->itemsize = itemsize, r->numbers = numbers, r->add = find_reducer(type, op);
    r->open = r->lane_count = r->running = r->failed = 0;
    for (int64_t c = 0; c < r->p.color_count; c++)
        for (int64_t slot = 0; slot < r->p.window; slot++)
            if (r->p.colors[c].end > r->p.colors[c].first) {
                int tag = first_tag + (int)(c * r->p.window + slot);
                r->lanes[r->lane_count++] = (lane){.segment = slot, .step = r->p.colors[c].first, .color = c, .tag = tag};
            }
    r->running = r->lane_count;
    r->moved_at = now_ns();
    for (int number = 0; number < r->lane_count; number++) {
        int code = enter(r, number);
        code = code ? code : advance_lane(r, number);
        if (code)
            return r->failed = ERROR + code;
    }
    return 0;
}

/* Write which color and step each open request belongs to, up to `most` pairs; return how many there are.
 * Another thread may ask while the operation moves: what it gets is then a little old. */
API int distrain_messages_open_steps(run *r, int64_t *pairs, int most)
{
    int count = r->open < most ? r->open : most;
    for (int i = 0; i < count; i++) {
        pairs[2 * i] = r->lanes[r->owners[i].lane].color;
        pairs[2 * i + 1] = r->owners[i].step;
    }
    return count;
}
