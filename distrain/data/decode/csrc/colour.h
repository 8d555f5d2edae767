/* The last step: the pass over columns of all components, then RGB bytes.
 *
 * Tiles of VECTOR x TILE pixels. Colours are computed while pixels lie column by column; turning the picture back
 * then puts red, green and blue of a pixel side by side for nothing. */
#ifndef DISTRAIN_COLOUR_H
#define DISTRAIN_COLOUR_H

#include "resample.h"

/* YCbCr to RGB as in JFIF (ITU-T T.871): R = Y + 1.402 Cr', B = Y + 1.772 Cb',
 * G = Y - 0.344136 Cb' - 0.714136 Cr' with Cb' = Cb - 128. Factors above 1 are split, because
 * int16_multiply_q15 takes less than 1. */
ALWAYS_INLINE void rgb_of_ycc(Int16s y, Int16s cb, Int16s cr, Int16s rgb[3])
{
    cb -= int16_all(128 << 6);
    cr -= int16_all(128 << 6);
    rgb[0] = y + cr + int16_multiply_q15(cr, int16_all(13173));      /* 0.402 */
    rgb[1] = y - int16_multiply_q15(cb, int16_all(11277))            /* 0.344136 */
             - int16_multiply_q15(cr, int16_all(23401));             /* 0.714136 */
    rgb[2] = y + cb + cb - int16_multiply_q15(cb, int16_all(7471));  /* 2 - 0.228 */
}

/* components: [3][TILE] columns of VECTOR rows. out: uint8, VECTOR rows of TILE pixels, `stride` apart. */
ALWAYS_INLINE void colour_tile(Int16s components[3][TILE], int kind, uint8_t *out, ptrdiff_t stride)
{
    Int16s rgb[3 * TILE];
    for (int i = 0; i < TILE; i++)
        if (kind == COLOUR_YCC)
            rgb_of_ycc(components[0][i], components[1][i], components[2][i], rgb + 3 * i);
        else
            for (int colour = 0; colour < 3; colour++)
                rgb[3 * i + colour] = components[kind == COLOUR_GREY ? 0 : colour][i];
    for (int part = 0; part < 3; part++)
        bytes_store_transposed(rgb + TILE * part, out + TILE * part, stride);
}

/* out: uint8 [height, width, 3]. */
static void finish(const HalfResized *half, int kind, int width, int height, uint8_t *out)
{
    int planes = kind == COLOUR_GREY ? 1 : 3;
    ptrdiff_t row_size = 3 * (ptrdiff_t)width;
    for (int top = 0; top < height; top += VECTOR)
        for (int left = 0; left < width; left += TILE) {
            Int16s components[3][TILE];
            for (int i = 0; i < planes; i++)
                resample_columns(half->data[i] + top, half->stride, half->columns[i], left, components[i]);
            uint8_t *place = out + top * row_size + 3 * left;
            if (top + VECTOR <= height && left + TILE <= width) {
                colour_tile(components, kind, place, row_size);
                continue;
            }
            uint8_t whole[3 * VECTOR * TILE]; /* at the borders: never write past the picture */
            colour_tile(components, kind, whole, 3 * TILE);
            int rows = top + VECTOR <= height ? VECTOR : height - top;
            int columns = left + TILE <= width ? TILE : width - left;
            for (int row = 0; row < rows; row++)
                memcpy(place + row * row_size, whole + 3 * TILE * row, 3 * (size_t)columns);
        }
}

#endif
