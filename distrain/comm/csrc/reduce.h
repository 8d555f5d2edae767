/* Element-wise reduction of several arrays into one. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "api.h"

/* The numbers are those of native.py. */
enum { F32, F64, F16, BF16, I8, U8, I16, U16, I32, U32, I64, U64, TYPES };
enum { SUM, PROD, MIN, MAX, BAND, BOR, BXOR, OPS };

/* out[i] = sources[0][i] op sources[1][i] op ...: always in this order, so that every rank that adds the
 * same arrays gets the same bits. Half types are added in float32 and rounded once, at the end. A divisor
 * above 1 divides the result (integers towards zero). `out` may be one of the sources. */
typedef void (*reducer)(void *out, const void *const *sources, int count, size_t elements, int divisor);

/* Return the function for a type and an operation, or NULL where it has no meaning. */
reducer find_reducer(int type, int op);
size_t type_size(int type);

/* Call a reducer with denormal numbers as they are, whatever the calling thread does with its own. */
void combine(reducer how, void *out, const void *const *sources, int count, size_t elements, int divisor);

/* Divide numbers of a type in place, as `combine` does with a sum. */
API void distrain_shared_divide(int type, void *numbers, uint64_t count, int divisor);
