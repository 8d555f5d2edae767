/* Filter weights of the antialiased bilinear resize, with Pillow's semantics: a triangle as wide as the
 * reduction, at least two pixels, cut at the border of the crop and normalised.
 *
 * Chroma of 4:2:0, 4:2:2 and 4:4:0 is never enlarged to full size first. Enlarging (libjpeg's "fancy"
 * triangle filter: 3/4 of the nearer sample, 1/4 of the farther) and resizing are both linear, so their
 * product is one filter on the chroma samples: the same pixels for a quarter of the work. */
#include <string.h>

#include "jpeg.h"

typedef struct {
    int first, count; /* source pixels (or samples) and how many weights */
    float weights[MAX_TAPS + 4];
} Window;

/* Exact floor for values above -65536, without a call of the C library. */
static int floor_to_int(double value) { return (int)(value + 65536.0) - 65536; }

/* The pixels of the crop that output `output` sees. Pixel i has its middle at i + 0.5. */
static void pixel_window(int output, double scale, double support, double inverse, int length, Window *window)
{
    double centre = (output + 0.5) * scale;
    int first = floor_to_int(centre - support - 0.5) + 1;
    int end = -floor_to_int(0.5 - centre - support); /* ceil(centre + support - 0.5) */
    first = first < 0 ? 0 : first;
    end = end > length ? length : end;
    window->first = first;
    window->count = end - first;
    float at = (float)((first + 0.5 - centre) * inverse), step = (float)inverse;
    for (int i = 0; i < window->count; i++, at += step) {
        float weight = at < 0 ? 1 + at : 1 - at;
        window->weights[i] = weight > 0 ? weight : 0;
    }
}

/* From weights of pixels to weights of samples, of which there is one for two pixels. */
static void fold_into_samples(const Window *pixels, const Axis *axis, Window *out)
{
    int pixel = axis->crop_start + pixels->first, end = pixel + pixels->count;
    int first = axis->smooth ? (pixel - 1) >> 1 : pixel >> 1;
    int last = axis->smooth ? end >> 1 : (end - 1) >> 1;
    first = first < 0 ? 0 : first;
    last = last > axis->samples - 1 ? axis->samples - 1 : last;
    out->first = first;
    out->count = last - first + 1;
    for (int i = 0; i < out->count; i++)
        out->weights[i] = 0;
    for (int i = 0; i < pixels->count; i++, pixel++) {
        int near = pixel >> 1, far = pixel & 1 ? near + 1 : near - 1;
        far = far < first ? first : far > last ? last : far; /* only at the picture's border */
        float weight = pixels->weights[i];
        out->weights[near - first] += axis->smooth ? 0.75f * weight : weight;
        if (axis->smooth)
            out->weights[far - first] += 0.25f * weight;
    }
}

/* Write a window as `count` integers that add up to 32768; it starts at most where all of them fit. */
static void quantise(const Window *window, Taps *taps, int output)
{
    int start = window->first - taps->first, room = taps->last - taps->first - taps->count;
    int shift = start > room ? start - room : 0;
    int used = taps->count - shift < window->count ? taps->count - shift : window->count;
    int16_t *out = taps->weights + (size_t)output * (size_t)taps->count;
    taps->start[output] = start - shift;
    for (int i = 0; i < shift; i++)
        *out++ = 0;
    float sum = 0;
    for (int i = 0; i < used; i++)
        sum += window->weights[i];
    float unit = 32768 / sum;
    int total = 0, largest = 0;
    for (int i = 0; i < used; i++) {
        int weight = (int)(window->weights[i] * unit + 0.5f);
        total += weight;
        out[i] = (int16_t)(weight > 32767 ? 32767 : weight);
        largest = out[i] > out[largest] ? i : largest;
    }
    for (int i = used; i < taps->count - shift; i++)
        out[i] = 0;
    /* 32767 stands for 1 exactly: the product with an int16 rounds to the same integer. */
    int mended = out[largest] + 32768 - total;
    if (mended > 0 && total != 32768)
        out[largest] = (int16_t)(mended > 32767 ? 32767 : mended);
}

/* Source samples that the crop's pixels need, [first, last). */
static void sample_range(Taps *taps, const Axis *axis, int factor)
{
    int end = axis->crop_start + axis->crop_length;
    taps->first = axis->crop_start;
    taps->last = end;
    if (factor == 2) {
        taps->first = axis->smooth ? (axis->crop_start - 1) >> 1 : axis->crop_start >> 1;
        taps->last = (axis->smooth ? end >> 1 : (end - 1) >> 1) + 1;
        taps->first = taps->first < 0 ? 0 : taps->first;
        taps->last = taps->last > axis->samples ? axis->samples : taps->last;
    }
}

static Status taps_begin(TapStore *store, const Axis *axis, int factor, int pixels)
{
    Taps *taps = &store->taps;
    sample_range(taps, axis, factor);
    taps->outputs = round_up(axis->outputs, LANES);
    taps->count = factor == 2 ? pixels / 2 + 2 : pixels;
    if (taps->count > taps->last - taps->first)
        taps->count = taps->last - taps->first;
    taps->start = (int32_t *)buffer_reserve(&store->starts, (size_t)taps->outputs * sizeof(int32_t));
    taps->weights = (int16_t *)buffer_reserve(
        &store->weights, (size_t)taps->outputs * (size_t)taps->count * sizeof(int16_t));
    return taps->start != NULL && taps->weights != NULL ? STATUS_OK : STATUS_NO_MEMORY;
}

/* Outputs past the last one, up to a multiple of LANES, repeat it. */
static void taps_end(Taps *taps, int outputs)
{
    size_t row = (size_t)taps->count;
    for (int output = outputs; output < taps->outputs; output++) {
        taps->start[output] = taps->start[outputs - 1];
        memcpy(taps->weights + (size_t)output * row, taps->weights + (size_t)(outputs - 1) * row,
               row * sizeof(int16_t));
    }
}

/* Build the filters of one axis: for components with a sample for each pixel and, unless half is NULL,
 * for those with one for two pixels. */
Status taps_build(const Axis *axis, TapStore *full, TapStore *half)
{
    double scale = (double)axis->crop_length / axis->outputs, support = scale < 1 ? 1 : scale;
    double inverse = 1 / support;
    int pixels = -floor_to_int(-2 * support);
    if (pixels > MAX_TAPS)
        return STATUS_REDUCTION;
    Status status = taps_begin(full, axis, 1, pixels);
    if (status == STATUS_OK && half != NULL)
        status = taps_begin(half, axis, 2, pixels);
    if (status != STATUS_OK)
        return status;
    Window window, folded;
    for (int output = 0; output < axis->outputs; output++) {
        int place = axis->mirror ? axis->outputs - 1 - output : output;
        pixel_window(output, scale, support, inverse, axis->crop_length, &window);
        if (half != NULL) {
            fold_into_samples(&window, axis, &folded);
            quantise(&folded, &half->taps, place);
        }
        window.first += axis->crop_start;
        quantise(&window, &full->taps, place);
    }
    taps_end(&full->taps, axis->outputs);
    if (half != NULL)
        taps_end(&half->taps, axis->outputs);
    return STATUS_OK;
}
