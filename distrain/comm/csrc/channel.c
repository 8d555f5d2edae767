/* Collectives through memory that all ranks of a node see.
 *
 * The memory holds a board with one line a rank, and for each rank an area of DEPTH slots. A payload is cut
 * into one part a rank, a part into slices; segment k of a collective is slice k of all parts. A rank takes
 * each segment through up to three stages:
 *
 *   give     copy the own slices of the others' parts into the own area         line.given  = k + 1
 *   reduce   combine all ranks' slices of the own part, rank 0 first; the sum
 *            goes into the own payload and into the own area                    line.summed = k + 1
 *   take     copy the sums of the others' parts out of their areas              line.done   = k + 1
 *
 * Segments are numbered through, over all collectives, so no rank ever waits at a border between two of
 * them. A slot is given again when all ranks are done with the segment DEPTH before. Small payloads are
 * given whole, and everybody reduces everything: one exchange instead of two.
 *
 * Nothing here blocks for longer than the caller allows. A rank that waits spins shortly, gives its core
 * away, and then sleeps on the word that it waits for (futex).
 */
#define _GNU_SOURCE
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "channel.h"
#include "reduce.h"

#define ABI 3 /* of all that Python finds in this library, messages too */
#ifndef SOABI
#define SOABI "" /* without the module of caller.c */
#endif
#define DEPTH 4 /* slots of an area: so many segments may be on their way at once */
/* Payloads up to here are given whole. Few ranks can read more from each other than many. */
#define WHOLE_BYTES(ranks) ((ranks) > 8 ? 32768 : 262144 / (ranks))
#define SIGNATURES 4
#define LINE 128   /* processors fetch lines in pairs */

enum { GIVEN, SUMMED, DONE, STAGES };
enum { WHOLE = 4, FUNCTION = REDUCE | GATHER }; /* what a collective does; WHOLE: see above */

typedef struct {
    uint32_t collective; /* its number on this channel, from 1 */
    uint16_t phases, type, op, divisor;
    uint64_t count;
} signature;

/* What a rank tells the others. Written by it alone, but for the count of sleepers. */
typedef struct {
    _Alignas(LINE) _Atomic uint32_t stage[STAGES];
    _Atomic uint32_t sleepers; /* ranks that sleep on one of these words */
    signature signatures[SIGNATURES];
} line;

struct channel {
    line *board;
    char *areas;
    int rank, size;
    size_t slice_bytes, slot_bytes, area_bytes;
    /* The collective that runs */
    signature now;
    char *payload;
    size_t item_bytes, slice_items;
    uint32_t first; /* segments of all collectives before */
    uint32_t segments, made[STAGES]; /* of so many, a stage is done for so many */
    bool checked; /* the others called the same */
    reducer reduce;
    int per_item; /* numbers of an element: 2 for complex ones */
    int odd_rank; /* whose signature differs */
    const void **sources;
};

typedef struct { size_t begin, length; } span; /* elements of the payload */

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

API int distrain_shared_abi(void) { return ABI; }

/* For which Python this was compiled: one of another version must not load the module. */
API const char *distrain_shared_soabi(void) { return SOABI; }

static size_t board_bytes(int size) { return ((size_t)size * sizeof(line) + 4095) & ~(size_t)4095; }

/* Bytes of memory that `size` ranks need for slices of so many bytes (a multiple of 64). */
API size_t distrain_shared_bytes(int size, size_t slice_bytes)
{
    return board_bytes(size) + (size_t)size * size * DEPTH * slice_bytes;
}

/* Payloads of up to so many bytes need one exchange, in which nobody waits for this rank once it has begun. */
API size_t distrain_shared_whole_bytes(int size) { return WHOLE_BYTES(size); }

API int distrain_shared_supports(int type, int op) { return find_reducer(type, op) != NULL; }

/* Return this rank's end of a channel over zeroed shared memory, or NULL: out of memory. */
API channel *distrain_shared_open(void *memory, int rank, int size, size_t slice_bytes)
{
    channel *c = calloc(1, sizeof *c);
    const void **sources = calloc(size, sizeof *sources);
    if (!c || !sources) {
        free(c);
        free(sources);
        return NULL;
    }
    *c = (channel){.board = memory, .areas = (char *)memory + board_bytes(size), .rank = rank, .size = size,
                   .slice_bytes = slice_bytes, .slot_bytes = slice_bytes * size,
                   .area_bytes = slice_bytes * size * DEPTH, .sources = sources};
    /* Large pages save address translation; where the system has none for shared memory nothing is lost. */
    madvise(memory, distrain_shared_bytes(size, slice_bytes), MADV_HUGEPAGE);
    return c;
}

API void distrain_shared_close(channel *c)
{
    free(c->sources);
    free(c);
}

/* Where things are. */

static char *slot(const channel *c, int rank, uint32_t segment)
{
    return c->areas + rank * c->area_bytes + (c->first + segment) % DEPTH * c->slot_bytes;
}

static char *slice(const channel *c, int rank, uint32_t segment, int part)
{
    return slot(c, rank, segment) + part * c->slice_bytes;
}

/* The part of rank p: lengths differ by at most one, the longer ones first (as world.split). */
static span part(const channel *c, int p)
{
    size_t shorter = c->now.count / c->size, longer = c->now.count % c->size;
    return (span){p * shorter + min_size(p, longer), shorter + ((size_t)p < longer)};
}

static span elements(const channel *c, uint32_t segment, int p)
{
    span whole = part(c, p);
    size_t skip = min_size(whole.length, (size_t)segment * c->slice_items);
    return (span){whole.begin + skip, min_size(c->slice_items, whole.length - skip)};
}

static char *at(const channel *c, span s) { return c->payload + s.begin * c->item_bytes; }

/* What ranks tell each other. */

static bool reached(const channel *c, int rank, int stage, uint32_t segment)
{
    uint32_t there = atomic_load_explicit(&c->board[rank].stage[stage], memory_order_acquire);
    return (int32_t)(there - (c->first + segment)) >= 0; /* the numbers may wrap */
}

/* Return a rank that has not done a stage for `segment` segments, or -1: all have. */
static int laggard(const channel *c, int stage, uint32_t segment)
{
    for (int i = 1; i < c->size; i++) {
        int rank = (c->rank + i) % c->size;
        if (!reached(c, rank, stage, segment))
            return rank;
    }
    return -1;
}

static long futex(_Atomic uint32_t *word, int what, uint32_t value, const struct timespec *timeout)
{
    return syscall(SYS_futex, word, what, value, timeout, NULL, 0);
}

/* Sequentially consistent on both sides: either the waiter sees the new value, or we see the waiter. */
static void tell(channel *c, int stage)
{
    line *mine = &c->board[c->rank];
    c->made[stage]++;
    atomic_store(&mine->stage[stage], c->first + c->made[stage]);
    if (atomic_load(&mine->sleepers))
        futex(&mine->stage[stage], FUTEX_WAKE, INT_MAX, NULL);
}

static bool same(const signature *a, const signature *b)
{
    return a->collective == b->collective && a->count == b->count && a->phases == b->phases &&
           a->type == b->type && a->op == b->op && a->divisor == b->divisor;
}

/* Compare what the others called with what this rank called. All have given a segment of it. */
static bool agreed(channel *c)
{
    if (c->checked)
        return true;
    for (int rank = 0; rank < c->size; rank++)
        if (!same(&c->board[rank].signatures[c->now.collective % SIGNATURES], &c->now)) {
            c->odd_rank = rank;
            return false;
        }
    return c->checked = true;
}

/* The stages. */

static void give(channel *c, uint32_t segment)
{
    int phases = c->now.phases;
    if (phases & WHOLE)
        memcpy(slot(c, c->rank, segment), c->payload, c->now.count * c->item_bytes);
    for (int p = 0; p < c->size && !(phases & WHOLE); p++)
        if ((p == c->rank) != (bool)(phases & REDUCE)) { /* to gather, the own part; to reduce, the others' */
            span s = elements(c, segment, p);
            memcpy(slice(c, c->rank, segment, p), at(c, s), s.length * c->item_bytes);
        }
}

static void reduce(channel *c, char *own, size_t offset, uint32_t segment, size_t items)
{
    for (int rank = 0; rank < c->size; rank++)
        c->sources[rank] = rank == c->rank ? own : slot(c, rank, segment) + offset;
    combine(c->reduce, own, c->sources, c->size, items * c->per_item, c->now.divisor);
}

static void reduce_part(channel *c, uint32_t segment)
{
    span s = elements(c, segment, c->rank);
    reduce(c, at(c, s), c->rank * c->slice_bytes, segment, s.length);
    if (c->now.phases & GATHER)
        memcpy(slice(c, c->rank, segment, c->rank), at(c, s), s.length * c->item_bytes);
}

static void take(channel *c, uint32_t segment)
{
    if (c->now.phases & WHOLE)
        reduce(c, c->payload, 0, segment, c->now.count);
    else if (c->now.phases & GATHER)
        for (int i = 1; i < c->size; i++) {
            int p = (c->rank + i) % c->size; /* not all from the same rank at once */
            span s = elements(c, segment, p);
            memcpy(at(c, s), slice(c, p, segment, p), s.length * c->item_bytes);
        }
}

/* What a rank can do next, or else whom it waits for. */
typedef struct { int stage, blocker, blocking_stage; uint32_t needed; } choice;

static choice next(const channel *c)
{
    const uint32_t *made = c->made;
    bool sums = (c->now.phases & (REDUCE | WHOLE)) == REDUCE;
    int before = sums ? SUMMED : GIVEN;
    choice waiting = {-1, -1, 0, 0};
    if (made[DONE] < made[before]) {
        /* Who only reduces needs no one's sums. */
        int rank = c->now.phases & (GATHER | WHOLE) ? laggard(c, before, made[DONE] + 1) : -1;
        if (rank < 0)
            return (choice){DONE, -1, 0, 0};
        waiting = (choice){-1, rank, before, made[DONE] + 1};
    }
    if (sums && made[SUMMED] < made[GIVEN]) {
        int rank = laggard(c, GIVEN, made[SUMMED] + 1);
        if (rank < 0)
            return (choice){SUMMED, -1, 0, 0};
        if (waiting.blocker < 0)
            waiting = (choice){-1, rank, GIVEN, made[SUMMED] + 1};
    }
    if (made[GIVEN] < c->segments && made[GIVEN] - made[DONE] < DEPTH) {
        int rank = laggard(c, DONE, made[GIVEN] + 1 - DEPTH);
        if (rank < 0)
            return (choice){GIVEN, -1, 0, 0};
        if (waiting.blocker < 0)
            waiting = (choice){-1, rank, DONE, made[GIVEN] + 1 - DEPTH};
    }
    return waiting;
}

/* Wait until the blocker of a choice has come far enough. Return false at the deadline. */
static bool wait_for(channel *c, choice w, int spins, int yields, int64_t deadline)
{
    line *its = &c->board[w.blocker];
    for (int i = 0; i < spins + yields; i++) {
        if (reached(c, w.blocker, w.blocking_stage, w.needed))
            return true;
        if (i < spins)
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#else
            atomic_signal_fence(memory_order_seq_cst);
#endif
        else
            sched_yield();
    }
    for (;;) {
        int64_t left = deadline - now_ns();
        if (left <= 0)
            return reached(c, w.blocker, w.blocking_stage, w.needed);
        struct timespec timeout = {left / 1000000000, left % 1000000000};
        atomic_fetch_add(&its->sleepers, 1);
        uint32_t there = atomic_load(&its->stage[w.blocking_stage]);
        if ((int32_t)(there - (c->first + w.needed)) < 0)
            futex(&its->stage[w.blocking_stage], FUTEX_WAIT, there, &timeout);
        atomic_fetch_sub(&its->sleepers, 1);
        if (reached(c, w.blocker, w.blocking_stage, w.needed))
            return true;
    }
}

API int distrain_shared_advance(channel *c, int64_t work_ns, int64_t wait_ns, int spins, int yields)
{
    int64_t begin = 0;
    int result = IDLE;
    while (c->made[DONE] < c->segments) {
        choice chosen = next(c);
        if (chosen.stage < 0) {
            if (wait_ns <= 0)
                return result;
            begin = begin ? begin : now_ns();
            if (!wait_for(c, chosen, spins, yields, begin + wait_ns))
                return result;
            continue;
        }
        uint32_t segment = c->made[chosen.stage];
        if (chosen.stage != GIVEN && !agreed(c))
            return MISMATCH;
        if (chosen.stage == GIVEN)
            give(c, segment);
        else if (chosen.stage == SUMMED)
            reduce_part(c, segment);
        else
            take(c, segment);
        tell(c, chosen.stage);
        result = MOVED;
        if (c->segments > 1) { /* of small payloads the clock would be the dearest part */
            int64_t now = now_ns();
            begin = begin ? begin : now;
            if (now - begin > work_ns)
                break;
        }
    }
    if (c->made[DONE] < c->segments)
        return result;
    c->first += c->segments;
    c->segments = 0;
    for (int stage = 0; stage < STAGES; stage++) /* also those that this collective did without */
        atomic_store(&c->board[c->rank].stage[stage], c->first);
    memset(c->made, 0, sizeof c->made);
    return COMPLETE;
}

API int distrain_shared_begin(channel *c, void *payload, uint64_t count, int type, int per_item, int op,
                              int divisor, int phases)
{
    c->item_bytes = type_size(type) * per_item;
    if ((phases & FUNCTION) == FUNCTION && count * c->item_bytes <= distrain_shared_whole_bytes(c->size))
        phases |= WHOLE;
    size_t longest = (count + c->size - 1) / c->size, room = c->slice_bytes / c->item_bytes;
    uint64_t segments = phases & WHOLE ? 1 : (longest + room - 1) / room;
    c->segments = segments ? segments : 1; /* even of nothing: the ranks notice if they do not agree */
    c->slice_items = phases & WHOLE ? count : (longest + c->segments - 1) / c->segments;
    c->now = (signature){c->now.collective + 1, phases, type * 2 + per_item - 1, op, divisor, count};
    c->payload = payload;
    c->per_item = per_item;
    c->reduce = find_reducer(type, op);
    c->checked = false;
    c->board[c->rank].signatures[c->now.collective % SIGNATURES] = c->now;
    return distrain_shared_advance(c, 0, 0, 0, 0);
}

/* Say where the running collective stands: {segments, given, summed, done} here, the same for each rank. */
API void distrain_shared_progress(const channel *c, int64_t *out)
{
    for (int rank = 0; rank < c->size; rank++)
        for (int stage = 0; stage < STAGES; stage++)
            out[rank * STAGES + stage] =
                (int32_t)(atomic_load(&c->board[rank].stage[stage]) - c->first);
}

/* After MISMATCH: {a rank, then its collective, phases, type, op, divisor, count; then those of this rank}. */
API void distrain_shared_mismatch(const channel *c, int64_t *out)
{
    const signature *both[2] = {&c->board[c->odd_rank].signatures[c->now.collective % SIGNATURES], &c->now};
    out[0] = c->odd_rank;
    for (int i = 0; i < 2; i++) {
        const signature *s = both[i];
        const int64_t fields[] = {s->collective, s->phases, s->type, s->op, s->divisor, s->count};
        memcpy(out + 1 + i * 6, fields, sizeof fields);
    }
}
