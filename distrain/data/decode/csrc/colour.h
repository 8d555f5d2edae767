/* The last step: the pass over columns of all components, then interleaved RGB bytes. */
#ifndef DISTRAIN_COLOUR_H
#define DISTRAIN_COLOUR_H

#include "resample.h"

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

/* One row: planes are int16 [width rounded up to LANES]; out: uint8 [width, 3]. */
ALWAYS_INLINE void colour_row(const int16_t *const planes[3], int kind, int width, uint8_t *out)
{
    int column = 0;
    for (; column + LANES <= width; column += LANES)
        colour_pixels(int16_load(planes[0] + column), planes[1] + column, planes[2] + column, kind,
                      out + 3 * column);
    if (column < width) { /* the last pixels of a row: never write past them */
        uint8_t last[3 * LANES];
        colour_pixels(int16_load(planes[0] + column), planes[1] + column, planes[2] + column, kind, last);
        memcpy(out + 3 * column, last, 3 * (size_t)(width - column));
    }
}

/* The pass over columns, and the colours, LANES rows of the picture at a time. */
static void finish(const HalfResized *half, int kind, int width, int height, int16_t *scratch, uint8_t *out)
{
    ptrdiff_t row_size = half->columns[0]->outputs;
    int planes = kind == COLOUR_GREY ? 1 : 3;
    for (int top = 0; top < height; top += LANES) {
        const int16_t *rows[3];
        for (int i = 0; i < 3; i++)
            rows[i] = scratch + (i < planes ? i : 0) * LANES * row_size;
        for (int i = 0; i < planes; i++)
            resample_columns(half->data[i] + top, half->stride, half->columns[i],
                           scratch + i * LANES * row_size);
        int end = top + LANES < height ? top + LANES : height;
        for (int row = top; row < end; row++) {
            colour_row(rows, kind, width, out + (ptrdiff_t)row * width * 3);
            for (int i = 0; i < 3; i++)
                rows[i] += row_size;
        }
    }
}

#endif
