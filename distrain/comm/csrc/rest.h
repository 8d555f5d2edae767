/* How a thread waits until MPI may have something for it: see rest.c. */
#pragma once
#include <stdint.h>

#include "api.h"

/* Sleep on these epoll sets, which MPI made, from now on. Returns an open file that `ring` uses, or -1: all
 * sleeps go by the clock. To be called once a process. */
API int distrain_rest_watch(const int *sets, int count);

/* Pause between two looks at MPI: give the core away while `waited` ns, which have passed since the last
 * movement, are fewer than `spin`; then sleep, at most `longest` ns. A `patient` thread waits for nothing but
 * messages, so whatever it waits for is announced where sets are to be trusted. */
API void distrain_rest(int64_t waited, int64_t spin, int64_t longest, int patient);

/* Say whether the look after a pause found something. */
API void distrain_rest_told(int moved);

/* Wake the thread that sleeps, if one does. From any thread. */
API void distrain_rest_ring(void);
