/* The state of an operation, for messages.c and advance.c alone. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "reduce.h"
#include "messages.h"

/* What advance returns; an error code of MPI is returned as ERROR + code. */
enum { IDLE, MOVED, COMPLETE, ERROR = 1000 };

/* Functions of the MPI library of this process, and what its objects look like. */
typedef struct {
    void *irecv, *send_init, *start, *testsome, *request_free;
    void *set_yield;                     /* of Open MPI; else NULL: see advance.c */
    uintptr_t byte;                      /* MPI_BYTE */
    int64_t handle_size, request_size, status_size;
} library;

typedef struct {
    int64_t peer, adds, start, stop; /* elements of all segments together */
} planned_message;

typedef struct {
    int64_t receives, sends, end; /* messages [receives, sends) come in, [sends, end) go out */
    int64_t early;                /* the receives may be posted while the step before runs */
} step;

typedef struct {
    int64_t first, end; /* steps of the color */
} color;

/* What a rank does for one payload size. The arrays belong to the caller. */
typedef struct {
    const planned_message *messages;
    const step *steps;
    const color *colors;
    int64_t color_count, segments, window;
    int64_t most_requests; /* of a lane: messages of a step, and receives of the next */
} plan;

typedef struct {
    int64_t segment, step, color;
    int tag, open, open_early, posted_early;
} lane;

typedef struct {
    int32_t lane, sends; /* whose request, and whether it sends */
    int64_t step;
} owner;

struct run {
    library mpi;
    plan p;
    lane *lanes;
    int lane_count, running;
    /* requests that are not complete */
    int open;
    char *requests, *statuses;
    owner *owners;
    int *done;
    int *ready;
    /* of the operation that runs */
    char *payload, *staging;
    uintptr_t comm;
    int64_t itemsize;  /* bytes of an element */
    int64_t numbers;   /* that an element has: two if it is complex */
    int64_t room;      /* bytes of a half of a lane's staging area */
    reducer add;
    int64_t moved_at;
    int failed; /* 0, or what went wrong, as it is returned */
};

typedef int (*message32)(const void *, int, int, int, int, int, void *);
typedef int (*message64)(const void *, int, uintptr_t, int, int, uintptr_t, void *);
typedef int (*one_request)(void *);
typedef int (*some_requests)(int, void *, int *, int *, void *);
typedef bool (*switch_yield)(bool);

/* Take completed requests, whose numbers are in `done`, off the list and move the lanes concerned. Return an
 * error code of MPI, or 0. */
int run_collect(run *r, int count);
