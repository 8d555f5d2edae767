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
static void pixel_window(int output, double scale, double support, int length, Window *window)
{
    double centre = (output + 0.5) * scale;
    int first = floor_to_int(centre - support - 0.5) + 1;
    int end = -floor_to_int(0.5 - centre - support); /* ceil(centre + support - 0.5) */
    first = first < 0 ? 0 : first;
    end = end > length ? length : end;
    window->first = first;
    window->count = end - first;
    double distance = first + 0.5 - centre;
    float inverse = (float)(1 / support), at = (float)(distance / support);
    for (int i = 0; i < window->count; i++, at += inverse) {
        float weight = at < 0 ? 1 + at : 1 - at;
        window->weights[i] = weight > 0 ? weight : 0;
    }
}

/* From weights of pixels to weights of samples, of which there is one for two pixels. */
static void fold_into_samples(const Window *pixels, int crop_start, bool smooth, int samples, Window *out)
{
    int pixel = crop_start + pixels->first, end = pixel + pixels->count;
    int first = smooth ? (pixel - 1) >> 1 : pixel >> 1;
    int last = smooth ? end >> 1 : (end - 1) >> 1;
    first = first < 0 ? 0 : first;
    last = last > samples - 1 ? samples - 1 : last;
    out->first = first;
    out->count = last - first + 1;
    memset(out->weights, 0, (size_t)out->count * sizeof out->weights[0]);
    for (int i = 0; i < pixels->count; i++, pixel++) {
        int near = pixel >> 1, far = pixel & 1 ? near + 1 : near - 1;
        far = far < first ? first : far > last ? last : far; /* only at the picture's border */
        float weight = pixels->weights[i];
        out->weights[near - first] += smooth ? 0.75f * weight : weight;
        if (smooth)
            out->weights[far - first] += 0.25f * weight;
    }
}

/* Write a window as `count` integers that add up to 32768; it starts at most where all of them fit. */
static void quantise(const Window *window, Taps *taps, int output)
{
    int start = window->first - taps->first, room = taps->last - taps->first - taps->count;
    int shift = start > room ? start - room : 0;
    int16_t *out = taps->weights + (size_t)output * (size_t)taps->count;
    memset(out, 0, (size_t)taps->count * sizeof *out);
    taps->start[output] = start - shift;
    int used = taps->count - shift < window->count ? taps->count - shift : window->count;
    float sum = 0;
    for (int i = 0; i < used; i++)
        sum += window->weights[i];
    float unit = 32768 / sum;
    int total = 0, largest = 0;
    for (int i = 0; i < used; i++) {
        int weight = (int)(window->weights[i] * unit + 0.5f);
        total += weight;
        out[shift + i] = (int16_t)(weight > 32767 ? 32767 : weight);
        if (out[shift + i] > out[shift + largest])
            largest = i;
    }
    /* 32767 stands for 1 exactly: the product with an int16 rounds to the same integer. */
    int mended = out[shift + largest] + 32768 - total;
    if (total != out[shift + largest] || used > 1)
        out[shift + largest] = (int16_t)(mended > 32767 ? 32767 : mended < 0 ? 0 : mended);
}

/* Source samples that the crop's pixels need, [first, last). */
static void sample_range(Taps *taps, int crop_start, int crop_length, int factor, bool smooth, int samples)
{
    int end = crop_start + crop_length;
    taps->first = crop_start;
    taps->last = end;
    if (factor == 2) {
        taps->first = smooth ? (crop_start - 1) >> 1 : crop_start >> 1;
        taps->last = (smooth ? end >> 1 : (end - 1) >> 1) + 1;
        taps->first = taps->first < 0 ? 0 : taps->first;
        taps->last = taps->last > samples ? samples : taps->last;
    }
}

/* Build the filter of one axis.
 *
 * crop_start, crop_length: in pixels of the picture. outputs: pixels wanted. mirror: in reverse order.
 * factor: pixels per sample of this component, 1 or 2. smooth: whether libjpeg would enlarge such a
 * component with its triangle filter. samples: how many the component has along the axis. */
Status taps_build(TapStore *store, int crop_start, int crop_length, int outputs, bool mirror, int factor,
                  bool smooth, int samples)
{
    double scale = (double)crop_length / outputs, support = scale < 1 ? 1 : scale;
    int pixels = -floor_to_int(-2 * support);
    if (pixels > MAX_TAPS)
        return STATUS_REDUCTION;
    Taps *taps = &store->taps;
    sample_range(taps, crop_start, crop_length, factor, smooth, samples);
    taps->outputs = round_up(outputs, LANES);
    taps->count = factor == 2 ? pixels / 2 + 2 : pixels;
    if (taps->count > taps->last - taps->first)
        taps->count = taps->last - taps->first;
    taps->start = (int32_t *)buffer_reserve(&store->starts, (size_t)taps->outputs * sizeof(int32_t));
    taps->weights = (int16_t *)buffer_reserve(
        &store->weights, (size_t)taps->outputs * (size_t)taps->count * sizeof(int16_t));
    if (taps->start == NULL || taps->weights == NULL)
        return STATUS_NO_MEMORY;

    Window window, folded;
    for (int output = 0; output < outputs; output++) {
        pixel_window(output, scale, support, crop_length, &window);
        int place = mirror ? outputs - 1 - output : output;
        if (factor == 2) {
            fold_into_samples(&window, crop_start, smooth, samples, &folded);
            quantise(&folded, taps, place);
        } else {
            window.first += crop_start;
            quantise(&window, taps, place);
        }
    }
    size_t row = (size_t)taps->count;
    for (int output = outputs; output < taps->outputs; output++) {
        taps->start[output] = taps->start[outputs - 1];
        memcpy(taps->weights + (size_t)output * row, taps->weights + (size_t)(outputs - 1) * row,
               row * sizeof(int16_t));
    }
    return STATUS_OK;
}
