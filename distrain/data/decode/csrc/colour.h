/* From three planes of the output's size to interleaved RGB bytes. */
#ifndef DISTRAIN_COLOUR_H
#define DISTRAIN_COLOUR_H

#include "lanes.h"

/* Sixteen pixels. YCbCr to RGB as in JFIF (ITU-T T.871): R = Y + 1.402 Cr', B = Y + 1.772 Cb',
 * G = Y - 0.344136 Cb' - 0.714136 Cr' with Cb' = Cb - 128. Factors above 1 are split, because
 * int16_multiply_q15 takes less than 1. */
ALWAYS_INLINE void colour_pixels(Int16x16 first, const int16_t *second, const int16_t *third, int kind,
                                 uint8_t *out)
{
    if (kind == COLOUR_GREY) {
        store_rgb(first, first, first, out);
        return;
    }
    if (kind == COLOUR_RGB) {
        store_rgb(first, int16_load(second), int16_load(third), out);
        return;
    }
    Int16x16 cb = int16_load(second) - int16_all(128 << 6), cr = int16_load(third) - int16_all(128 << 6);
    Int16x16 red = first + cr + int16_multiply_q15(cr, int16_all(13173));         /* 0.402 */
    Int16x16 green = first - int16_multiply_q15(cb, int16_all(11277))             /* 0.344136 */
                     - int16_multiply_q15(cr, int16_all(23401));                  /* 0.714136 */
    Int16x16 blue = first + cb + cb - int16_multiply_q15(cb, int16_all(7471));    /* 2 - 0.228 */
    store_rgb(red, green, blue, out);
}

/* planes: int16 with 6 bits of fraction, rows `stride` apart. out: uint8 [height, width, 3]. */
static void colour(const int16_t *const planes[3], ptrdiff_t stride, int kind, int width, int height,
                   uint8_t *out)
{
    for (int row = 0; row < height; row++) {
        const int16_t *p[3];
        for (int i = 0; i < 3; i++)
            p[i] = planes[i] + row * stride;
        int column = 0;
        for (; column + LANES <= width; column += LANES, out += 3 * LANES)
            colour_pixels(int16_load(p[0] + column), p[1] + column, p[2] + column, kind, out);
        if (column < width) { /* the last pixels of a row: never write past them */
            uint8_t last[3 * LANES];
            colour_pixels(int16_load(p[0] + column), p[1] + column, p[2] + column, kind, last);
            memcpy(out, last, 3 * (size_t)(width - column));
            out += 3 * (width - column);
        }
    }
}

#endif
