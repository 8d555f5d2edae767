/* Crop, antialiased resize and mirror of pictures that are stored as pixels: rows of interleaved RGB.
 *
 * The pass over rows does not care what a column is: it runs on the bytes as they are stored. In its
 * result every third row belongs to the same colour, which the pass over columns reads with three times
 * the stride. Nothing is ever sorted into planes. */
#include <string.h>

#include "jpeg.h"

enum { COLOURS = 3, MAX_PICTURE_SIDE = 1 << 16 };

/* The first byte of the crop. Vector loops read up to LANES - 1 bytes behind a row: where the picture
 * ends there, the crop is copied first. */
static const uint8_t *crop_bytes(Decoder *decoder, const uint8_t *pixels, int width, int height,
                                 const int32_t crop[4], ptrdiff_t *stride)
{
    size_t row = (size_t)width * COLOURS, size = row * (size_t)height;
    size_t start = (size_t)crop[1] * row + (size_t)crop[0] * COLOURS, used = (size_t)crop[2] * COLOURS;
    size_t end = start + (size_t)(crop[3] - 1) * row + used;
    *stride = (ptrdiff_t)row;
    if (end + LANES <= size)
        return pixels + start;
    uint8_t *copy = buffer_reserve(&decoder->scan, used * (size_t)crop[3] + LANES);
    if (copy == NULL)
        return NULL;
    for (int y = 0; y < crop[3]; y++)
        memcpy(copy + (size_t)y * used, pixels + start + (size_t)y * row, used);
    *stride = (ptrdiff_t)used;
    return copy;
}

static Status resize_image(Decoder *decoder, const uint8_t *pixels, size_t size, const int32_t sides[2],
                           const int32_t crop[4], bool mirror, int width, int height, uint8_t *out)
{
    if (sides[0] < 1 || sides[1] < 1 || sides[0] > MAX_PICTURE_SIDE || sides[1] > MAX_PICTURE_SIDE ||
        size != (size_t)sides[0] * (size_t)sides[1] * COLOURS)
        return STATUS_BAD_PIXELS;
    if (!crop_is_inside(crop, sides[0], sides[1]))
        return STATUS_BAD_CROP;
    Axis vertical = {.crop_start = crop[1], .crop_length = crop[3], .outputs = height};
    Axis horizontal = {.crop_start = crop[0], .crop_length = crop[2], .outputs = width, .mirror = mirror};
    Status status = taps_build(&vertical, &decoder->rows[0], NULL);
    if (status == STATUS_OK)
        status = taps_build(&horizontal, &decoder->columns[0], NULL);
    if (status != STATUS_OK)
        return status;
    const Taps *rows = &decoder->rows[0].taps, *columns = &decoder->columns[0].taps;
    int bytes = crop[2] * COLOURS;
    ptrdiff_t stride, half_row = rows->outputs;
    const uint8_t *first = crop_bytes(decoder, pixels, sides[0], sides[1], crop, &stride);
    int16_t *half = (int16_t *)buffer_reserve(
        &decoder->half, (size_t)round_up(bytes, LANES) * (size_t)rows->outputs * sizeof(int16_t));
    if (first == NULL || half == NULL)
        return STATUS_NO_MEMORY;
    decoder->kernel->resample_rows(first, stride, bytes, rows, half);
    const int16_t *colours[COLOURS];
    for (int i = 0; i < COLOURS; i++) {
        int16_t *resized = (int16_t *)buffer_reserve(
            &decoder->resized[i], (size_t)rows->outputs * (size_t)columns->outputs * sizeof(int16_t));
        if (resized == NULL)
            return STATUS_NO_MEMORY;
        decoder->kernel->resample_columns(half + i * half_row, COLOURS * half_row, rows->outputs, columns,
                                          resized);
        colours[i] = resized;
    }
    decoder->kernel->colour(colours, columns->outputs, COLOUR_RGB, width, height, out);
    return STATUS_OK;
}

/* Resize `count` raw pictures into out, as distrain_decode_batch does for JPEGs.
 *
 * images: the first pixel of each picture; sizes: its bytes; sides: int32 [count, 2], (width, height). */
EXPORT int distrain_resize_batch(Decoder *decoder, int count, const uint8_t *const *images,
                                 const size_t *sizes, const int32_t *sides, const int32_t *crops,
                                 const uint8_t *flips, int width, int height, uint8_t *out, int32_t *status)
{
    bool fits = width >= 1 && width <= MAX_SIDE && height >= 1 && height <= MAX_SIDE;
    int failures = 0;
    for (int i = 0; i < count; i++) {
        status[i] = fits ? (int32_t)resize_image(decoder, images[i], sizes[i], sides + 2 * i, crops + 4 * i,
                                                 flips[i] != 0, width, height,
                                                 out + (size_t)i * (size_t)(width * height) * COLOURS)
                         : STATUS_BAD_OUTPUT;
        failures += status[i] != STATUS_OK;
    }
    return failures;
}
