/* Moves operations that are under way, one or several at once, and waits for their messages: the only loop of
 * this library that asks MPI.
 *
 * Several share one wait. Gradients of a backward pass are several buckets, and a thread that went from one to
 * the next in Python would want the GIL, and a core, for each look.
 */
#include "clock.h"
#include "rest.h"
#include "run.h"

/* A call reports what the one before has found: who sleeps between single calls sees all one sleep late. */
#define CALLS 2

/* Set whether calls that find nothing yield the core; return what it was. Where ranks share cores Open MPI is
 * told to yield, which a blocking call must. Here `rest` says when to, and the calls between two rests would
 * cost two more switches each: a tenth of the thread's time (measured, 4 ranks on 2 cores). */
static bool set_yield(const library *m, bool yields)
{
    return m->set_yield ? ((switch_yield)m->set_yield)(yields) : yields;
}

/* Ask MPI once what is complete of an operation, and move its lanes. */
static int ask(run *r, int *found)
{
    int count = 0;
    int code = ((some_requests)r->mpi.testsome)(r->open, r->requests, &count, r->done, r->statuses);
    if (!code && count > 0) {
        *found = 1;
        code = run_collect(r, count);
    }
    if (code)
        r->failed = ERROR + code;
    return r->failed;
}

/* Ask for all, as often as it takes to have MPI look. */
static int ask_all(run *const *runs, int count, int *found)
{
    for (int i = 0; i < CALLS && !*found; i++)
        for (int k = 0; k < count; k++) {
            int code = runs[k]->running ? ask(runs[k], found) : 0;
            if (code)
                return code;
        }
    return 0;
}

API int distrain_messages_advance(run *const *runs, int count, int64_t work, int waits, const volatile int *news,
                                  int64_t spin, int64_t longest)
{
    int64_t begin = now_ns(), moved_at = 0;
    int moved = 0, complete = 0;
    for (int k = 0; k < count; k++) {
        if (runs[k]->failed)
            return runs[k]->failed;
        complete |= !runs[k]->running;
        moved_at = runs[k]->moved_at > moved_at ? runs[k]->moved_at : moved_at;
    }
    int code = 0;
    bool yields = set_yield(&runs[0]->mpi, false);
    while (!complete) {
        int found = 0;
        code = ask_all(runs, count, &found);
        if (code)
            break;
        int64_t time = now_ns();
        if (waits) /* where others move too, it is for whoever sleeps to say */
            distrain_rest_told(found);
        if (found)
            moved = 1, moved_at = time;
        for (int k = 0; k < count; k++)
            complete |= !runs[k]->running;
        if (complete || *news || time - begin >= work || (!found && !waits))
            break;
        if (!found)
            distrain_rest(time - moved_at, spin, longest, 1);
    }
    set_yield(&runs[0]->mpi, yields);
    for (int k = 0; k < count; k++)
        runs[k]->moved_at = moved_at;
    return code ? code : complete ? COMPLETE : moved ? MOVED : IDLE;
}

API int distrain_messages_is_over(const run *r) { return !r->running || r->failed; }
