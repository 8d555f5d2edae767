/* Filter weights of the antialiased bilinear resize, with Pillow's semantics: a triangle as wide as the
 * reduction, at least two pixels, cut at the border of the crop and normalised.
 *
 * Chroma of 4:2:0, 4:2:2 and 4:4:0 is never enlarged to full size first. Enlarging (libjpeg's "fancy"
 * triangle filter: 3/4 of the nearer sample, 1/4 of the farther) and resizing are both linear, so their
 * product is one filter on the chroma samples: the same pixels for a quarter of the work.
 *
 * Everything is computed for all outputs of an axis at once, tap by tap: loops over outputs have no
 * branches, which compilers turn into vector code. */
#ifndef DISTRAIN_TAPS_H
#define DISTRAIN_TAPS_H

#include <string.h>

#include "jpeg.h"

enum { MARGIN = 3 }; /* rows of zeros on both sides of a set of windows: fold_windows reads them */

/* For each output the source pixels (or samples) that it sees: output o sees first[o] and the following
 * ones, of which number k has the weight row(k)[o]. Weights of an output add up to 32768. */
typedef struct {
    int outputs, count;
    int32_t *first;
    float *rows;
} Windows;

static float *window_row(const Windows *windows, int k)
{
    return windows->rows + (ptrdiff_t)(k + MARGIN) * windows->outputs;
}

/* Exact floor for values above -65536, without a call of the C library. */
static int32_t floor_to_int(double value) { return (int32_t)(value + 65536.0) - 65536; }

static bool windows_reserve(Windows *windows, Buffer *buffer, int outputs, int count)
{
    size_t rows = (size_t)outputs * (size_t)(count + 2 * MARGIN);
    uint8_t *memory = buffer_reserve(buffer, (rows + (size_t)outputs) * 4);
    if (memory == NULL)
        return false;
    *windows = (Windows){outputs, count, (int32_t *)memory, (float *)memory + outputs};
    for (int k = 0; k < MARGIN; k++) {
        memset(window_row(windows, k - MARGIN), 0, (size_t)outputs * sizeof(float));
        memset(window_row(windows, count + k), 0, (size_t)outputs * sizeof(float));
    }
    return true;
}

/* Pixels outside the crop get no weight. Only outputs at both ends see any. */
static void cut_at_borders(Windows *windows, int length)
{
    for (int o = 0; o < windows->outputs; o++) {
        int first = windows->first[o];
        if (first >= 0 && first + windows->count <= length)
            continue;
        for (int k = 0; k < windows->count; k++)
            if (first + k < 0 || first + k >= length)
                window_row(windows, k)[o] = 0;
    }
}

/* Weights of the pixels of the crop. Pixel i has its middle at i + 0.5. sum: float [outputs], scratch. */
static void pixel_windows(const Axis *axis, double scale, double support, Windows *windows, float *sum)
{
    int outputs = windows->outputs;
    float *at = window_row(windows, 0), step = (float)(1 / support);
    for (int o = 0; o < outputs; o++) {
        int place = o < axis->outputs ? o : axis->outputs - 1; /* those past the end repeat the last */
        double centre = ((axis->mirror ? axis->outputs - 1 - place : place) + 0.5) * scale;
        windows->first[o] = floor_to_int(centre - support - 0.5) + 1;
        at[o] = (float)((windows->first[o] + 0.5 - centre) * (1 / support));
    }
    for (int k = windows->count - 1; k >= 0; k--) { /* row 0 holds `at`, so it comes last */
        float *row = window_row(windows, k), offset = (float)k * step;
        for (int o = 0; o < outputs; o++) {
            float distance = at[o] + offset;
            float weight = 1 - (distance < 0 ? -distance : distance);
            row[o] = weight > 0 ? weight : 0;
        }
    }
    cut_at_borders(windows, axis->crop_length);
    memset(sum, 0, (size_t)outputs * sizeof *sum);
    for (int k = 0; k < windows->count; k++)
        for (int o = 0; o < outputs; o++)
            sum[o] += window_row(windows, k)[o];
    for (int o = 0; o < outputs; o++)
        sum[o] = 32768 / sum[o];
    for (int k = 0; k < windows->count; k++)
        for (int o = 0; o < outputs; o++)
            window_row(windows, k)[o] *= sum[o];
    for (int o = 0; o < outputs; o++)
        windows->first[o] += axis->crop_start;
}

/* From weights of pixels to weights of samples, of which there is one for two pixels. Sample s is the
 * nearer one of pixels 2 s and 2 s + 1, the farther one of 2 s - 1 and 2 s + 2. */
static void fold_windows(const Windows *pixels, bool smooth, Windows *samples)
{
    float near = smooth ? 0.75f : 1, far = smooth ? 0.25f : 0;
    for (int o = 0; o < pixels->outputs; o++)
        samples->first[o] = (pixels->first[o] - smooth) >> 1;
    for (int j = 0; j < samples->count; j++) {
        /* Pixel 2 s is number 2 j - smooth of the window, one less where its first pixel is uneven
         * (smooth: even). */
        const float *w[5];
        for (int i = 0; i < 5; i++) {
            int k = 2 * j - smooth - 2 + i;
            w[i] = window_row(pixels, k < -MARGIN ? -MARGIN : k < pixels->count ? k : pixels->count);
        }
        float *row = window_row(samples, j);
        for (int o = 0; o < pixels->outputs; o++) {
            float late = near * (w[2][o] + w[3][o]) + far * (w[1][o] + w[4][o]);
            float early = near * (w[1][o] + w[2][o]) + far * (w[0][o] + w[3][o]);
            row[o] = (pixels->first[o] & 1) == smooth ? late : early;
        }
    }
}

/* Round the weights to integers that still add up to 32768: the largest weight of an output gets what
 * rounding took or gave. left, largest: float [outputs], scratch. */
static void round_weights(Windows *windows, float *left, float *largest)
{
    int outputs = windows->outputs;
    for (int o = 0; o < outputs; o++) {
        left[o] = 32768;
        largest[o] = 0;
    }
    for (int k = 0; k < windows->count; k++) {
        float *row = window_row(windows, k);
        for (int o = 0; o < outputs; o++) {
            row[o] = (float)(int)(row[o] + 0.5f);
            left[o] -= row[o];
            largest[o] = row[o] > largest[o] ? row[o] : largest[o];
        }
    }
    for (int k = 0; k < windows->count; k++) {
        float *row = window_row(windows, k);
        for (int o = 0; o < outputs; o++) {
            bool takes = row[o] == largest[o];
            row[o] += takes ? left[o] : 0;
            left[o] = takes ? 0 : left[o];
        }
    }
}

/* 32767 does for 1: times an int16 it rounds to the same integer. */
static uint32_t weight_pair(float weight)
{
    uint32_t whole = weight < 32767 ? (uint32_t)(int)weight : 32767;
    return whole | whole << 16;
}

/* Store one filter some of whose inputs do not exist. Their weights belong to the first or last input:
 * libjpeg repeats the samples at the border. (Outside the crop all weights are 0.) */
static void store_at_border(const Windows *windows, int o, const Taps *taps, int start, uint32_t *out)
{
    float sums[MAX_TAPS];
    for (int k = 0; k < taps->count; k++)
        sums[k] = 0;
    for (int k = 0; k < windows->count; k++) {
        int input = windows->first[o] + k;
        input = input < taps->first ? taps->first : input < taps->last ? input : taps->last - 1;
        sums[input - start] += window_row(windows, k)[o];
    }
    for (int k = 0; k < taps->count; k++)
        out[k] = weight_pair(sums[k]);
}

static void store_filters(const Windows *windows, Taps *taps)
{
    int last_start = taps->last - taps->count;
    for (int o = 0; o < taps->outputs; o++) {
        uint32_t *out = taps->weights + (size_t)o * (size_t)taps->count;
        int first = windows->first[o], start = first < last_start ? first : last_start;
        start = start < taps->first ? taps->first : start;
        taps->start[o] = start - taps->first;
        if (start != first || taps->count != windows->count) {
            store_at_border(windows, o, taps, start, out);
            continue;
        }
        for (int k = 0; k < taps->count; k++)
            out[k] = weight_pair(window_row(windows, k)[o]);
    }
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

static bool taps_reserve(TapStore *store, const Axis *axis, int factor, int count)
{
    Taps *taps = &store->taps;
    sample_range(taps, axis, factor);
    taps->outputs = round_up(axis->outputs, LANES);
    taps->count = count < taps->last - taps->first ? count : taps->last - taps->first;
    size_t outputs = (size_t)taps->outputs;
    taps->start = (int32_t *)buffer_reserve(&store->starts, outputs * sizeof *taps->start);
    taps->weights = (uint32_t *)buffer_reserve(
        &store->weights, outputs * (size_t)taps->count * sizeof *taps->weights);
    return taps->start != NULL && taps->weights != NULL;
}

/* Build the filters of one axis: for components with a sample for each pixel and, unless half is NULL,
 * for those with one for two pixels. */
static Status taps_build(const Axis *axis, TapStore *full, TapStore *half)
{
    double scale = (double)axis->crop_length / axis->outputs, support = scale < 1 ? 1 : scale;
    int pixels = -floor_to_int(-2 * support), samples = pixels / 2 + 2;
    if (pixels > MAX_TAPS)
        return STATUS_REDUCTION;
    int outputs = round_up(axis->outputs, LANES);
    Windows windows, folded;
    float *sum = (float *)buffer_reserve(&full->sums, 2 * (size_t)outputs * sizeof(float));
    if (sum == NULL || !taps_reserve(full, axis, 1, pixels) ||
        !windows_reserve(&windows, &full->windows, outputs, pixels))
        return STATUS_NO_MEMORY;
    pixel_windows(axis, scale, support, &windows, sum);
    if (half != NULL) {
        if (!taps_reserve(half, axis, 2, samples) ||
            !windows_reserve(&folded, &half->windows, outputs, samples))
            return STATUS_NO_MEMORY;
        fold_windows(&windows, axis->smooth, &folded);
        round_weights(&folded, sum, sum + outputs);
        store_filters(&folded, &half->taps);
    }
    round_weights(&windows, sum, sum + outputs);
    store_filters(&windows, &full->taps);
    return STATUS_OK;
}

#endif
