/* Antialiased resize of one plane, as two passes of the same kind.
 *
 * A pass combines whole rows (16 columns at a time, without any shuffling) and writes its result
 * transposed; the second pass therefore works on what were columns, and turns the picture back.
 * Samples have 6 bits of fraction in an int16: sums of weights that add up to 1 cannot overflow. */
#ifndef DISTRAIN_RESAMPLE_H
#define DISTRAIN_RESAMPLE_H

#include "lanes.h"

/* Sixteen neighbouring outputs: the weighted sum of `count` rows. */
ALWAYS_INLINE Int16x16 weighted_rows(const void *in, bool bytes, ptrdiff_t stride, const int16_t *weights,
                                     int count)
{
    Int16x16 sum = int16_all(0);
    for (int k = 0; k < count; k++) {
        Int16x16 row = bytes ? int16_from_bytes_q6((const uint8_t *)in + k * stride)
                             : int16_load((const int16_t *)in + k * stride);
        sum += int16_multiply_q15(row, int16_all(weights[k]));
    }
    return sum;
}

/* All outputs of LANES neighbouring columns. out: int16, LANES rows of taps->outputs each.
 *
 * Strips of columns, rather than rows, because a strip of the input and its part of the output stay in
 * the first-level cache while all outputs are made. */
ALWAYS_INLINE void resample_strip(const void *in, bool bytes, ptrdiff_t stride, const Taps *taps, int count,
                                  int16_t *out)
{
    for (int output = 0; output < taps->outputs; output += 8) {
        Int16x16 rows[8];
        for (int i = 0; i < 8; i++) {
            ptrdiff_t at = taps->start[output + i] * stride;
            const void *first = bytes ? (const void *)((const uint8_t *)in + at)
                                      : (const void *)((const int16_t *)in + at);
            rows[i] = weighted_rows(first, bytes, stride,
                                    taps->weights + (size_t)(output + i) * (size_t)count, count);
        }
        int16_store_transposed(rows, out + output, taps->outputs);
    }
}

/* The usual numbers of taps as constants, so that the compiler unrolls the sums (1.5 times faster). */
ALWAYS_INLINE void resample_by_count(const void *in, bool bytes, ptrdiff_t stride, const Taps *taps,
                                     int16_t *out)
{
    switch (taps->count) {
    case 2: resample_strip(in, bytes, stride, taps, 2, out); break;
    case 3: resample_strip(in, bytes, stride, taps, 3, out); break;
    case 4: resample_strip(in, bytes, stride, taps, 4, out); break;
    default: resample_strip(in, bytes, stride, taps, taps->count, out); break;
    }
}

/* The pass over rows. in: rows of at least `columns` rounded up to LANES bytes. out: int16, as many rows
 * of taps->outputs each. */
static void resample_rows(const uint8_t *in, ptrdiff_t stride, int columns, const Taps *taps, int16_t *out)
{
    for (int column = 0; column < columns; column += LANES)
        resample_by_count(in + column, true, stride, taps, out + (ptrdiff_t)column * taps->outputs);
}

/* The pass over columns for LANES rows of the picture. in: int16, one row a source column; out: int16,
 * LANES rows of taps->outputs. */
static __attribute__((noinline)) void resample_columns(const int16_t *in, ptrdiff_t stride, const Taps *taps,
                                                       int16_t *out)
{
    resample_by_count(in, false, stride, taps, out);
}

#endif
