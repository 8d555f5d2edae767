/* Crop, antialiased resize and mirror of pictures that are stored as pixels: width and height (u32,
 * little-endian), then one of
 *
 *   LAYOUT_RGB     rows of interleaved RGB
 *   LAYOUT_YUV420  the planes of a 4:2:0 JPEG: Y, then Cb and Cr with a sample for 2 x 2 pixels (uneven
 *                  sides rounded up), then LANES zero bytes, which vector loops may read
 *
 * YCbCr takes half the bytes of RGB and goes the way of a decoded JPEG: only the output's pixels get
 * colours.
 *
 * With RGB the pass over rows does not care what a column is: it runs on the bytes as they are stored. In
 * its result every third row belongs to the same colour, which the pass over columns reads with three times
 * the stride. Nothing is ever sorted into planes. */
#include <string.h>

#include "jpeg.h"

enum { LAYOUT_RGB, LAYOUT_YUV420 };
enum { COLOURS = 3, HEAD = 8, MAX_PICTURE_SIDE = 1 << 16 };

/* What one call makes of every picture. */
typedef struct {
    int layout, width, height;
} Wanted;

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

static Status resize_rgb(Decoder *decoder, const uint8_t *pixels, int source_width, int source_height,
                         const int32_t crop[4], bool mirror, const Wanted *wanted, uint8_t *out)
{
    Axis vertical = {.crop_start = crop[1], .crop_length = crop[3], .outputs = wanted->height};
    Axis horizontal = {.crop_start = crop[0], .crop_length = crop[2], .outputs = wanted->width, .mirror = mirror};
    Status status = decoder->kernel->taps_build(&vertical, &decoder->rows[0], NULL);
    if (status == STATUS_OK)
        status = decoder->kernel->taps_build(&horizontal, &decoder->columns[0], NULL);
    if (status != STATUS_OK)
        return status;
    const Taps *rows = &decoder->rows[0].taps, *columns = &decoder->columns[0].taps;
    ptrdiff_t stride;
    const uint8_t *first = crop_bytes(decoder, pixels, source_width, source_height, crop, &stride);
    if (first == NULL)
        return STATUS_NO_MEMORY;
    Resize resize = {.kind = COLOUR_PIXELS, .columns = {columns, columns, columns}, .is_far = true};
    status = set_source(decoder, &resize, 0, first, stride, crop[2] * COLOURS, rows);
    if (status == STATUS_OK)
        decoder->kernel->resize(&resize, wanted->width, wanted->height, out);
    return status;
}

static Status resize_yuv420(Decoder *decoder, const uint8_t *samples, int source_width, int source_height,
                            const int32_t crop[4], bool mirror, const Wanted *wanted, uint8_t *out)
{
    Frame frame = {.width = source_width, .height = source_height, .components = 3, .h = 2, .v = 2};
    const Taps *rows[MAX_COMPONENTS], *columns[MAX_COMPONENTS];
    Status status = frame_taps(decoder, &frame, crop, mirror, wanted->width, wanted->height, rows, columns);
    Resize resize = {.kind = COLOUR_YCC, .is_far = true};
    for (int i = 0; status == STATUS_OK && i < COLOURS; i++) {
        int width = i == 0 ? source_width : (source_width + 1) / 2;
        int height = i == 0 ? source_height : (source_height + 1) / 2;
        const uint8_t *first = samples + (ptrdiff_t)rows[i]->first * width + columns[i]->first;
        resize.columns[i] = columns[i];
        status = set_source(decoder, &resize, i, first, width, columns[i]->last - columns[i]->first, rows[i]);
        samples += (size_t)width * (size_t)height;
    }
    if (status == STATUS_OK)
        decoder->kernel->resize(&resize, wanted->width, wanted->height, out);
    return status;
}

/* Bytes behind the head of a picture. */
static size_t picture_size(int layout, size_t width, size_t height)
{
    if (layout == LAYOUT_RGB)
        return width * height * COLOURS;
    return width * height + 2 * ((width + 1) / 2) * ((height + 1) / 2) + LANES;
}

static Status resize_image(Decoder *decoder, const uint8_t *bytes, size_t size, const int32_t crop[4],
                           bool mirror, const Wanted *wanted, uint8_t *out)
{
    uint32_t width = size < HEAD ? 0 : load_u32(bytes), height = size < HEAD ? 0 : load_u32(bytes + 4);
    if (width < 1 || height < 1 || width > MAX_PICTURE_SIDE || height > MAX_PICTURE_SIDE ||
        size - HEAD != picture_size(wanted->layout, width, height))
        return STATUS_BAD_PIXELS;
    if (!crop_is_inside(crop, (int)width, (int)height))
        return STATUS_BAD_CROP;
    return (wanted->layout == LAYOUT_RGB ? resize_rgb : resize_yuv420)(
        decoder, bytes + HEAD, (int)width, (int)height, crop, mirror, wanted, out);
}

/* Resize `count` raw pictures of one layout into out, as distrain_decode_batch does for JPEGs. */
EXPORT int distrain_resize_batch(Decoder *decoder, int layout, int count, const uint8_t *const *images,
                                 const size_t *sizes, const int32_t *crops, const uint8_t *flips, int width,
                                 int height, uint8_t *out, int32_t *status)
{
    bool fits = width >= 1 && width <= MAX_SIDE && height >= 1 && height <= MAX_SIDE;
    Wanted wanted = {layout, width, height};
    int failures = 0;
    for (int i = 0; i < count; i++) {
        status[i] = fits ? (int32_t)resize_image(decoder, images[i], sizes[i], crops + 4 * i, flips[i] != 0,
                                                 &wanted, out + (size_t)i * (size_t)(width * height) * 3)
                         : STATUS_BAD_OUTPUT;
        failures += status[i] != STATUS_OK;
    }
    return failures;
}
