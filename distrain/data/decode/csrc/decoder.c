/* The functions that Python calls (distrain/data/decode/native.py), and one image from bytes to pixels. */
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "entropy.h"
#include "jpeg.h"

static const char *const status_texts[STATUS_COUNT] = {
    [STATUS_OK] = "no error",
    [STATUS_NOT_JPEG] = "the bytes do not begin like a JPEG",
    [STATUS_TRUNCATED] = "the JPEG ends too early",
    [STATUS_BAD_SEGMENT] = "a marker segment of the JPEG header is damaged",
    [STATUS_BAD_TABLE] = "a quantisation or Huffman table of the JPEG is damaged",
    [STATUS_MISSING_TABLE] = "the JPEG refers to a table that it does not hold",
    [STATUS_BAD_SCAN] = "the compressed data of the JPEG are damaged",
    [STATUS_BAD_BLOB] = "the index of the packed JPEG is damaged or of another version",
    [STATUS_BAD_CROP] = "the crop does not lie inside the picture",
    [STATUS_BAD_OUTPUT] = "the sides of the output must be 1 to 4096 pixels",
    [STATUS_NO_MEMORY] = "out of memory",
    [STATUS_BUFFER] = "the buffer for the result is too small",
    [STATUS_BAD_PIXELS] = "the bytes are not those of a raw picture of its size",
    [STATUS_PROGRESSIVE] = "progressive or lossless JPEG",
    [STATUS_ARITHMETIC] = "JPEG with arithmetic coding",
    [STATUS_PRECISION] = "JPEG with other than 8 bits a sample",
    [STATUS_COMPONENTS] = "JPEG with other than 1 or 3 components",
    [STATUS_SAMPLING] = "JPEG with a rare chroma subsampling",
    [STATUS_SCANS] = "JPEG with several scans",
    [STATUS_HEIGHT] = "JPEG whose height follows its data",
    [STATUS_RESTARTS] = "JPEG with restart markers, which cannot be indexed",
    [STATUS_REDUCTION] = "reduction by more than 512",
};

uint8_t *buffer_reserve(Buffer *buffer, size_t size)
{
    if (buffer->size >= size && buffer->data != NULL)
        return buffer->data;
    free(buffer->data);
    size_t rounded = (size + size / 4 + 4095) / 4096 * 4096;
    buffer->data = aligned_alloc(64, rounded);
    buffer->size = buffer->data != NULL ? rounded : 0;
    return buffer->data;
}

/* Whether libjpeg would smooth chroma when it enlarges it: horizontally from three samples on. */
static bool is_smoothed(const Frame *frame)
{
    return frame->h == 1 || (frame->width + 1) / 2 > 2;
}

/* Filters of both axes, for each component. */
Status frame_taps(Decoder *decoder, const Frame *frame, const int32_t crop[4], bool mirror, int width,
                  int height, const Taps *rows[], const Taps *columns[])
{
    bool smooth = is_smoothed(frame), half_rows = frame->v == 2, half_columns = frame->h == 2;
    for (int i = 0; i < frame->components; i++) {
        rows[i] = &decoder->rows[i > 0 && half_rows].taps;
        columns[i] = &decoder->columns[i > 0 && half_columns].taps;
    }
    Axis vertical = {crop[1], crop[3], height, false, (frame->height + 1) / 2, smooth};
    Axis horizontal = {crop[0], crop[2], width, mirror, (frame->width + 1) / 2, smooth};
    Status status = decoder->kernel->taps_build(&vertical, &decoder->rows[0], half_rows ? &decoder->rows[1] : NULL);
    if (status != STATUS_OK)
        return status;
    return decoder->kernel->taps_build(&horizontal, &decoder->columns[0], half_columns ? &decoder->columns[1] : NULL);
}

/* The MCUs that hold all samples which the filters read. */
static McuRange needed_mcus(const Frame *frame, const Taps *const rows[], const Taps *const columns[])
{
    McuRange range = {frame->mcu_columns, frame->mcu_rows, 0, 0};
    for (int i = 0; i < frame->components; i++) {
        int width = 8 * (i == 0 ? frame->h : 1), height = 8 * (i == 0 ? frame->v : 1);
        int left = columns[i]->first / width, right = (columns[i]->last + width - 1) / width;
        int top = rows[i]->first / height, bottom = (rows[i]->last + height - 1) / height;
        range.left = left < range.left ? left : range.left;
        range.top = top < range.top ? top : range.top;
        range.right = right > range.right ? right : range.right;
        range.bottom = bottom > range.bottom ? bottom : range.bottom;
    }
    return range;
}

static Status reserve_planes(Decoder *decoder, const Frame *frame, McuRange region, Plane planes[])
{
    for (int i = 0; i < frame->components; i++) {
        Plane *plane = &planes[i];
        int width = 8 * (i == 0 ? frame->h : 1), height = 8 * (i == 0 ? frame->v : 1);
        plane->left = region.left * width;
        plane->top = region.top * height;
        plane->width = (region.right - region.left) * width;
        plane->height = (region.bottom - region.top) * height;
        /* Rows a multiple of 512 bytes apart would compete for the same few cache sets. */
        plane->stride = plane->width % 512 == 0 ? plane->width + 64 : plane->width;
        /* Vector loops read up to LANES - 1 samples behind the last one. */
        plane->data = buffer_reserve(&decoder->planes[i],
                                     (size_t)plane->stride * (size_t)plane->height + LANES);
        if (plane->data == NULL)
            return STATUS_NO_MEMORY;
    }
    return STATUS_OK;
}

Status set_source(Decoder *decoder, Resize *resize, int number, const uint8_t *first, ptrdiff_t stride, int width,
                  const Taps *rows)
{
    int16_t *half = (int16_t *)buffer_reserve(&decoder->half[number],
                                              (size_t)round_up(width, LANES) * LANES * sizeof(int16_t));
    if (half == NULL)
        return STATUS_NO_MEMORY;
    resize->sources[number] = (Source){first, stride, width, rows, half};
    return STATUS_OK;
}

static Status open_image(Decoder *decoder, const uint8_t *bytes, size_t size, Frame *frame, Scan *scan)
{
    if (blob_is(bytes, size))
        return blob_open(decoder, bytes, size, frame, scan);
    Status status = header_read(decoder, bytes, size, frame);
    if (status != STATUS_OK)
        return status;
    return scan_unstuff(decoder, bytes + frame->header_size, size - frame->header_size, frame, scan);
}

bool crop_is_inside(const int32_t crop[4], int width, int height)
{
    return crop[0] >= 0 && crop[1] >= 0 && crop[2] >= 1 && crop[3] >= 1 && crop[0] < width &&
           crop[1] < height && crop[2] <= width - crop[0] && crop[3] <= height - crop[1];
}

static Status decode_image(Decoder *decoder, const uint8_t *bytes, size_t size, const int32_t crop[4],
                           bool mirror, int width, int height, uint8_t *out)
{
    Frame frame;
    Scan scan;
    Plane planes[MAX_COMPONENTS];
    const Taps *rows[MAX_COMPONENTS], *columns[MAX_COMPONENTS];
    Status status = open_image(decoder, bytes, size, &frame, &scan);
    if (status != STATUS_OK)
        return status;
    if (!crop_is_inside(crop, frame.width, frame.height))
        return STATUS_BAD_CROP;
    status = frame_taps(decoder, &frame, crop, mirror, width, height, rows, columns);
    if (status != STATUS_OK)
        return status;
    McuRange region = needed_mcus(&frame, rows, columns);
    status = reserve_planes(decoder, &frame, region, planes);
    if (status == STATUS_OK)
        status = decoder->kernel->decode_region(&frame, &scan, region, planes);
    Resize resize = {.kind = frame.components == 1 ? COLOUR_GREY : frame.is_rgb ? COLOUR_RGB : COLOUR_YCC};
    for (int i = 0; status == STATUS_OK && i < frame.components; i++) {
        const Plane *plane = &planes[i];
        const uint8_t *first = plane->data + (ptrdiff_t)(rows[i]->first - plane->top) * plane->stride +
                               (columns[i]->first - plane->left);
        resize.columns[i] = columns[i];
        status = set_source(decoder, &resize, i, first, plane->stride, columns[i]->last - columns[i]->first, rows[i]);
    }
    if (status == STATUS_OK)
        decoder->kernel->resize(&resize, width, height, out);
    return status;
}

/* Which kernels a decoder may use; library.py knows these numbers. */
enum { KERNEL_BEST, KERNEL_PORTABLE, KERNEL_AVX2 };

static const Kernel *best_kernel(int allowed)
{
#ifdef DISTRAIN_HAVE_AVX2
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
    if (allowed == KERNEL_BEST && avx2 && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw"))
        return &kernel_avx512;
    if (allowed != KERNEL_PORTABLE && avx2)
        return &kernel_avx2;
#endif
    (void)allowed;
    return &kernel_portable;
}

/* Goes up with every change of these functions; native.py compares. */
EXPORT int distrain_abi(void) { return 5; }

/* A decoder for one thread, NULL when memory is out. kernel: KERNEL_BEST or the best one allowed. */
EXPORT Decoder *distrain_decoder_new(int kernel)
{
    Decoder *decoder = aligned_alloc(64, (sizeof(Decoder) + 63) / 64 * 64);
    if (decoder == NULL)
        return NULL;
    memset(decoder, 0, sizeof *decoder);
    decoder->kernel = best_kernel(kernel);
    return decoder;
}

static void free_taps(TapStore *store)
{
    free(store->starts.data);
    free(store->weights.data);
    free(store->windows.data);
    free(store->sums.data);
}

EXPORT void distrain_decoder_free(Decoder *decoder)
{
    if (decoder == NULL)
        return;
    free(decoder->scan.data);
    for (int i = 0; i < MAX_COMPONENTS; i++) {
        free(decoder->planes[i].data);
        free(decoder->half[i].data);
    }
    for (int i = 0; i < 2; i++) {
        free_taps(&decoder->rows[i]);
        free_taps(&decoder->columns[i]);
    }
    free(decoder);
}

EXPORT const char *distrain_kernel_name(int kernel) { return best_kernel(kernel)->name; }

EXPORT const char *distrain_status_text(int status)
{
    return status >= 0 && status < STATUS_COUNT ? status_texts[status] : "unknown status";
}

/* Whether another decoder may succeed where this one gave `status`. */
EXPORT int distrain_status_is_unsupported(int status) { return status >= STATUS_PROGRESSIVE; }

/* Decode `count` images into out: uint8 [count, height, width, 3].
 *
 * crops: int32 [count, 4], (x, y, width, height). flips: uint8 [count]. status: int32 [count], one Status
 * an image; the pixels of an image that failed are undefined. Returns the number of failures. */
EXPORT int distrain_decode_batch(Decoder *decoder, int count, const uint8_t *const *images,
                                 const size_t *sizes, const int32_t *crops, const uint8_t *flips, int width,
                                 int height, uint8_t *out, int32_t *status)
{
    bool fits = width >= 1 && width <= MAX_SIDE && height >= 1 && height <= MAX_SIDE;
    int failures = 0;
    for (int i = 0; i < count; i++) {
        status[i] = fits ? (int32_t)decode_image(decoder, images[i], sizes[i], crops + 4 * i, flips[i] != 0,
                                                 width, height, out + (size_t)i * (size_t)(width * height) * 3)
                         : STATUS_BAD_OUTPUT;
        failures += status[i] != STATUS_OK;
    }
    return failures;
}

/* Read the size of a picture, plain or indexed: size: int32 [2], (width, height). */
EXPORT int distrain_image_size(Decoder *decoder, const uint8_t *bytes, size_t size, int32_t *out)
{
    Frame frame;
    Scan scan;
    Status status = blob_is(bytes, size) ? blob_open(decoder, bytes, size, &frame, &scan)
                                         : header_read(decoder, bytes, size, &frame);
    if (status == STATUS_OK) {
        out[0] = frame.width;
        out[1] = frame.height;
    }
    return status;
}

/* The room that distrain_index needs at most for a JPEG. */
EXPORT int distrain_index_bound(Decoder *decoder, const uint8_t *jpeg, size_t size, size_t *bound)
{
    Frame frame;
    Status status = header_read(decoder, jpeg, size, &frame);
    if (status == STATUS_OK)
        *bound = blob_bound(&frame, size);
    return status;
}

/* Turn a JPEG into its indexed form (blob.c). */
EXPORT int distrain_index(Decoder *decoder, const uint8_t *jpeg, size_t size, uint8_t *out, size_t room,
                          size_t *written)
{
    return blob_build(decoder, jpeg, size, out, room, written);
}
