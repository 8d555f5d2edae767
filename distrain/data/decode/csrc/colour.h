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

/* Rows of a source that are fetched from main memory ahead of their use. */
typedef struct {
    int done, end; /* rows [done, end) are left to be fetched */
} Ahead;

/* Where the rows end that outputs [output, output + VECTOR) read. */
static int rows_end(const Taps *rows, int output)
{
    output += VECTOR - 1;
    return rows->start[output < rows->outputs ? output : rows->outputs - 1] + rows->count;
}

/* Start loading up to `most` rows. */
static void fetch_rows(const Source *source, Ahead *ahead, int most)
{
    for (; most > 0 && ahead->done < ahead->end; most--, ahead->done++)
        for (int x = 0; x < source->width; x += 64)
            __builtin_prefetch(source->first + ahead->done * source->stride + x);
}

/* The passes of a tile of pixels, VECTOR x TILE, after the pass over rows; then its colours. */
static void finish_tile(const Resize *resize, int left, int rows, int columns, uint8_t *out, ptrdiff_t row_size)
{
    bool pixels = resize->kind == COLOUR_PIXELS;
    Int16s components[3][TILE];
    for (int i = 0; i < (resize->kind == COLOUR_GREY ? 1 : 3); i++) {
        const int16_t *half = pixels ? resize->sources[0].half + i * VECTOR : resize->sources[i].half;
        resample_columns(half, pixels ? 3 * VECTOR : VECTOR, resize->columns[i], left, components[i]);
    }
    if (rows == VECTOR && columns == TILE) {
        colour_tile(components, resize->kind, out, row_size);
        return;
    }
    uint8_t whole[3 * VECTOR * TILE]; /* at the borders: never write past the picture */
    colour_tile(components, resize->kind, whole, 3 * TILE);
    for (int row = 0; row < rows; row++)
        memcpy(out + row * row_size, whole + 3 * TILE * row, 3 * (size_t)columns);
}

static int at_most(int value, int most) { return value < most ? value : most; }

/* out: uint8 [height, width, 3]. */
static void resize(const Resize *resize, int width, int height, uint8_t *out)
{
    int sources = resize->kind == COLOUR_YCC || resize->kind == COLOUR_RGB ? 3 : 1;
    int tiles = (width + TILE - 1) / TILE;
    Ahead ahead[MAX_COMPONENTS] = {{0, 0}};
    for (int top = 0; top < height; top += VECTOR) {
        int shares[MAX_COMPONENTS] = {0};
        for (int i = 0; i < sources; i++) {
            const Source *source = &resize->sources[i];
            if (resize->is_far) { /* what this tile needs at once, that of the next one bit by bit */
                ahead[i].end = rows_end(source->rows, top);
                fetch_rows(source, &ahead[i], ahead[i].end);
                ahead[i].end = rows_end(source->rows, top + VECTOR);
                shares[i] = (ahead[i].end - ahead[i].done + tiles - 1) / tiles;
            }
            resample_rows(source, top);
        }
        for (int left = 0; left < width; left += TILE) {
            for (int i = 0; i < sources; i++)
                fetch_rows(&resize->sources[i], &ahead[i], shares[i]);
            finish_tile(resize, left, at_most(height - top, VECTOR), at_most(width - left, TILE),
                        out + 3 * ((ptrdiff_t)top * width + left), 3 * (ptrdiff_t)width);
        }
    }
}

#endif
