/* The inverse discrete cosine transform: 64 coefficients to 8 x 8 samples.
 *
 * The scaled transform of Arai, Agui and Nakajima (1988; Pennebaker and Mitchell, "JPEG", 1993, 4.3.5):
 * five multiplications a line, because most of its factors are folded into the quantisation table
 * (header.c). In floats, eight lines at once. */
#ifndef DISTRAIN_IDCT_H
#define DISTRAIN_IDCT_H

#include "lanes.h"

/* One-dimensional transform of eight lines; lane i of v[k] is coefficient k of line i. */
ALWAYS_INLINE void idct_lines(Float8 v[8])
{
    const Float8 sqrt2 = float8_all(1.414213562f);      /* 2 cos(pi/4) */
    const Float8 twice_cos8 = float8_all(1.847759065f); /* 2 cos(pi/8) */
    const Float8 difference = float8_all(1.082392200f); /* 2 (cos(pi/8) - cos(3pi/8)) */
    const Float8 sum = float8_all(2.613125930f);        /* 2 (cos(pi/8) + cos(3pi/8)) */

    Float8 even_sum = v[0] + v[4], even_difference = v[0] - v[4];
    Float8 middle_sum = v[2] + v[6], middle = (v[2] - v[6]) * sqrt2 - middle_sum;
    Float8 e0 = even_sum + middle_sum, e3 = even_sum - middle_sum;
    Float8 e1 = even_difference + middle, e2 = even_difference - middle;

    Float8 sum53 = v[5] + v[3], difference53 = v[5] - v[3];
    Float8 sum17 = v[1] + v[7], difference17 = v[1] - v[7];
    Float8 rotation = (difference53 + difference17) * twice_cos8;
    Float8 o0 = sum17 + sum53;
    Float8 o1 = rotation - difference53 * sum - o0;
    Float8 o2 = (sum17 - sum53) * sqrt2 - o1;
    Float8 o3 = rotation - difference17 * difference - o2;

    v[0] = e0 + o0;
    v[7] = e0 - o0;
    v[1] = e1 + o1;
    v[6] = e1 - o1;
    v[2] = e2 + o2;
    v[5] = e2 - o2;
    v[3] = e3 + o3;
    v[4] = e3 - o3;
}

/* coefficients: int16 [64], transposed (column * 8 + row). length: how many a scan gave; 1 means DC
 * only, a flat block. Writes 8 rows of 8 samples, `stride` apart. */
ALWAYS_INLINE void idct_block(const int16_t *coefficients, int length, const float *factor, uint8_t *out,
                              ptrdiff_t stride)
{
    Float8 v[8];
    if (length == 1) {
        for (int i = 0; i < 4; i++)
            v[i] = float8_all((float)coefficients[0] * factor[0] + 128);
        float8_store_bytes(v, out, stride);
        float8_store_bytes(v, out + 4 * stride, stride);
        return;
    }
    for (int i = 0; i < 8; i++) {
        Float8 scale;
        memcpy(&scale, factor + 8 * i, sizeof scale);
        v[i] = float8_from_int16(coefficients + 8 * i) * scale;
    }
    v[0] += (Float8){128}; /* samples are stored with the middle of their range at 0 */
    idct_lines(v);
    float8_transpose(v);
    idct_lines(v);
    float8_store_bytes(v, out, stride);
    float8_store_bytes(v + 4, out + 4 * stride, stride);
}

#endif
