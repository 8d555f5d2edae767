/* Antialiased resize, as two passes of the same kind.
 *
 * A pass combines whole rows, many columns at a time and without any shuffling. The pass over rows writes
 * its result transposed, so that what were columns are rows in the pass over columns; colour.h turns
 * the picture back. Samples have 6 bits of fraction in an int16: sums of weights that add up to 1
 * cannot overflow.
 *
 * Both passes go over a tile of VECTOR rows of the picture before the next one: what lies between them stays in
 * the first-level cache. */
#ifndef DISTRAIN_RESAMPLE_H
#define DISTRAIN_RESAMPLE_H

#include "lanes.h"

enum { TILE = 16 }; /* outputs that the pass over columns makes at a time */

/* VECTOR neighbouring outputs: the weighted sum of `count` rows. */
ALWAYS_INLINE Int16s weighted_rows(const void *in, bool bytes, ptrdiff_t stride, const uint32_t *weights,
                                     int count)
{
    Int16s sum = int16_all(0);
    for (int k = 0; k < count; k++) {
        Int16s row = bytes ? int16_from_bytes_q6((const uint8_t *)in + k * stride)
                             : int16_load((const int16_t *)in + k * stride);
        sum += int16_multiply_q15(row, int16_all_of_pair(weights[k]));
    }
    return sum;
}

/* Outputs [output, output + outputs), at most TILE of them, for VECTOR neighbouring columns. */
ALWAYS_INLINE void resample_tile(const void *in, bool bytes, ptrdiff_t stride, const Taps *taps, int count,
                                 int output, int outputs, Int16s *out)
{
    for (int i = 0; i < outputs; i++) {
        ptrdiff_t at = taps->start[output + i] * stride;
        const void *first = bytes ? (const void *)((const uint8_t *)in + at)
                                  : (const void *)((const int16_t *)in + at);
        out[i] = weighted_rows(first, bytes, stride, taps->weights + (size_t)(output + i) * (size_t)count,
                               count);
    }
}

/* Outputs [output, output + VECTOR) of VECTOR neighbouring columns. out: int16, a row of VECTOR for each column. */
ALWAYS_INLINE void resample_strip(const uint8_t *in, ptrdiff_t stride, const Taps *taps, int count, int output,
                                  int16_t *out)
{
    for (int i = 0; i < VECTOR; i += 8) {
        Int16s rows[8];
        resample_tile(in, true, stride, taps, count, output + i, 8, rows);
        int16_store_transposed(rows, out + i, VECTOR);
    }
}

/* The pass over rows: outputs [output, output + VECTOR). The usual numbers of taps are constants, so that the
 * compiler unrolls the sums (1.5 times faster). */
static void resample_rows(const Source *source, int output)
{
    const Taps *taps = source->rows;
    for (int column = 0; column < source->width; column += VECTOR) {
        const uint8_t *in = source->first + column;
        int16_t *out = source->half + (ptrdiff_t)column * VECTOR;
        switch (taps->count) {
        case 2: resample_strip(in, source->stride, taps, 2, output, out); break;
        case 3: resample_strip(in, source->stride, taps, 3, output, out); break;
        case 4: resample_strip(in, source->stride, taps, 4, output, out); break;
        default: resample_strip(in, source->stride, taps, taps->count, output, out); break;
        }
    }
}

/* The pass over columns for VECTOR rows of the picture and TILE outputs. in: int16, one row a source
 * column; lane r of out[i] is row r of output i. */
ALWAYS_INLINE void resample_columns(const int16_t *in, ptrdiff_t stride, const Taps *taps, int output,
                                    Int16s out[TILE])
{
    switch (taps->count) {
    case 2: resample_tile(in, false, stride, taps, 2, output, TILE, out); break;
    case 3: resample_tile(in, false, stride, taps, 3, output, TILE, out); break;
    case 4: resample_tile(in, false, stride, taps, 4, output, TILE, out); break;
    default: resample_tile(in, false, stride, taps, taps->count, output, TILE, out); break;
    }
}

#endif
