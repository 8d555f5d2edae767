/* The inverse discrete cosine transform: 64 coefficients to 8 x 8 samples.
 *
 * The scaled transform of Arai, Agui and Nakajima (1988; Pennebaker and Mitchell, "JPEG", 1993, 4.3.5):
 * five multiplications a line, because most of its factors are folded into the quantisation table
 * (header.c). In floats, eight lines of each block at once. */
#ifndef DISTRAIN_IDCT_H
#define DISTRAIN_IDCT_H

#include "floats.h"

/* One-dimensional transform of eight lines of each block. v[k] holds their coefficients k: lane i that of line i of
 * the first block, lane 8 + i that of the second. */
ALWAYS_INLINE void idct_lines(Floats v[8])
{
    const Floats sqrt2 = floats_all(1.414213562f);      /* 2 cos(pi/4) */
    const Floats twice_cos8 = floats_all(1.847759065f); /* 2 cos(pi/8) */
    const Floats difference = floats_all(1.082392200f); /* 2 (cos(pi/8) - cos(3pi/8)) */
    const Floats sum = floats_all(2.613125930f);        /* 2 (cos(pi/8) + cos(3pi/8)) */

    Floats even_sum = v[0] + v[4], even_difference = v[0] - v[4];
    Floats middle_sum = v[2] + v[6], middle = (v[2] - v[6]) * sqrt2 - middle_sum;
    Floats e0 = even_sum + middle_sum, e3 = even_sum - middle_sum;
    Floats e1 = even_difference + middle, e2 = even_difference - middle;

    Floats sum53 = v[5] + v[3], difference53 = v[5] - v[3];
    Floats sum17 = v[1] + v[7], difference17 = v[1] - v[7];
    Floats rotation = (difference53 + difference17) * twice_cos8;
    Floats o0 = sum17 + sum53;
    Floats o1 = rotation - difference53 * sum - o0;
    Floats o2 = (sum17 - sum53) * sqrt2 - o1;
    Floats o3 = rotation - difference17 * difference - o2;

    v[0] = e0 + o0;
    v[7] = e0 - o0;
    v[1] = e1 + o1;
    v[6] = e1 - o1;
    v[2] = e2 + o2;
    v[5] = e2 - o2;
    v[3] = e3 + o3;
    v[4] = e3 - o3;
}

/* coefficients: int16 [BLOCKS][64], each transposed (column * 8 + row). */
ALWAYS_INLINE void idct_blocks(const int16_t *coefficients, const BlockPlace places[BLOCKS])
{
    Floats v[8], middle = {128}; /* samples are stored with the middle of their range at 0 */
    middle[8 * (BLOCKS - 1)] = 128;
    for (int i = 0; i < 8; i++)
        v[i] = floats_from_int16(coefficients + 8 * i) * floats_factors(places, 8 * i);
    v[0] += middle;
    idct_lines(v);
    floats_transpose(v);
    idct_lines(v);
    floats_store_bytes(v, places);
}

#endif
