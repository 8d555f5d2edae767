/* libFuzzer target: nothing that enters the decoder may make it read or write out of bounds, and whatever
 * it accepts has the same pixels plain and indexed, with every kernel.
 *
 * Input: 10 bytes of arguments (crop as four u16, output side, mirror), then a JPEG, a blob or a raw picture. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Decoder Decoder;
Decoder *distrain_decoder_new(int kernel);
int distrain_decode_batch(Decoder *, int, const uint8_t *const *, const size_t *, const int32_t *,
                          const uint8_t *, int, int, uint8_t *, int32_t *);
int distrain_index_bound(Decoder *, const uint8_t *, size_t, size_t *);
int distrain_index(Decoder *, const uint8_t *, size_t, uint8_t *, size_t, size_t *);
int distrain_resize_batch(Decoder *, int, int, const uint8_t *const *, const size_t *, const int32_t *,
                          const uint8_t *, int, int, uint8_t *, int32_t *);
void distrain_decoder_free(Decoder *);
int distrain_image_size(Decoder *, const uint8_t *, size_t, int32_t *);

enum { ARGUMENTS = 10, MAX_SIDE = 40, KERNELS = 3 /* best, portable, avx2 */ };

static void demand(int holds, const char *rule)
{
    if (!holds) {
        fprintf(stderr, "broken rule: %s\n", rule);
        abort();
    }
}

/* Decode from a copy of exactly the right size, so that AddressSanitizer sees every byte too many.
 * Returns the status; out has exactly the room it needs. */
static int decode(int kernel, const uint8_t *bytes, size_t size, const int32_t crop[4], uint8_t flip,
                  int width, int height, uint8_t *out)
{
    static Decoder *decoders[KERNELS];
    if (decoders[kernel] == NULL)
        decoders[kernel] = distrain_decoder_new(kernel);
    uint8_t *copy = malloc(size);
    memcpy(copy, bytes, size);
    const uint8_t *image = copy;
    int32_t status;
    distrain_decode_batch(decoders[kernel], 1, &image, &size, crop, &flip, width, height, out, &status);
    free(copy);
    return status;
}

static void check_indexed(const uint8_t *jpeg, size_t size, const int32_t crop[4], uint8_t flip, int width,
                          int height, const uint8_t *plain, int plain_status)
{
    static Decoder *decoder;
    if (decoder == NULL)
        decoder = distrain_decoder_new(0);
    size_t bound, written;
    if (distrain_index_bound(decoder, jpeg, size, &bound) != 0)
        return;
    uint8_t *blob = malloc(bound), *out = malloc((size_t)(3 * width * height));
    if (distrain_index(decoder, jpeg, size, blob, bound, &written) == 0) {
        demand(written <= bound, "a blob fits its bound");
        int status = decode(0, blob, written, crop, flip, width, height, out);
        demand(status == plain_status, "a whole JPEG decodes plain and indexed alike");
        demand(status != 0 || memcmp(plain, out, (size_t)(3 * width * height)) == 0,
               "plain and indexed give the same pixels");
    }
    free(blob);
    free(out);
}

/* Resize raw bytes with all kernels, which have to agree. layout: 0 is RGB, 1 is YCbCr 4:2:0. Returns the
 * status. The copy has exactly the right size. */
static int resize_raw(int layout, const uint8_t *bytes, size_t size, const int32_t crop[4], uint8_t flip,
                      int width, int height)
{
    static Decoder *decoders[KERNELS];
    int32_t status[KERNELS];
    uint8_t *copy = malloc(size), *out[KERNELS];
    memcpy(copy, bytes, size);
    const uint8_t *image = copy;
    for (int kernel = 0; kernel < KERNELS; kernel++) {
        if (decoders[kernel] == NULL)
            decoders[kernel] = distrain_decoder_new(kernel);
        out[kernel] = malloc((size_t)(3 * width * height));
        distrain_resize_batch(decoders[kernel], layout, 1, &image, &size, crop, &flip, width, height,
                              out[kernel], &status[kernel]);
        demand(status[kernel] == status[0], "all kernels judge raw pictures alike");
        demand(status[0] != 0 || memcmp(out[kernel], out[0], (size_t)(3 * width * height)) == 0,
               "all kernels resize raw pictures alike");
    }
    for (int kernel = 0; kernel < KERNELS; kernel++)
        free(out[kernel]);
    free(copy);
    return status[0];
}

/* The same bytes as the samples of a raw picture whose head is right. A crop without pixels means all of it. */
static void check_raw(int layout, const uint8_t *samples, size_t size, const int32_t crop[4], uint8_t flip,
                      int width, int height, int columns)
{
    size_t rows = 0, need = 0, half = (size_t)(columns + 1) / 2, padding = layout == 0 ? 0 : 32;
    for (size_t next = 0; next <= size; rows++) { /* the most rows for which the samples suffice */
        need = next;
        size_t more = rows + 1;
        next = layout == 0 ? more * 3 * (size_t)columns : more * (size_t)columns + (more + 1) / 2 * 2 * half;
    }
    rows--;
    uint8_t *picture = calloc(8 + need + padding, 1);
    memcpy(picture, (uint8_t[8]){(uint8_t)columns, 0, 0, 0, (uint8_t)rows, (uint8_t)(rows >> 8)}, 8);
    if (need > 0)
        memcpy(picture + 8, samples, need);
    int32_t whole[4] = {0, 0, columns, (int32_t)rows};
    bool all = crop[2] <= 0 || crop[3] <= 0;
    int status = resize_raw(layout, picture, 8 + need + padding, all ? whole : crop, flip, width, height);
    demand(!all || rows == 0 || rows > 512 || status == 0, "a whole raw picture has pixels");
    free(picture);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < ARGUMENTS)
        return 0;
    int32_t crop[4];
    for (int i = 0; i < 4; i++)
        crop[i] = (int16_t)(data[2 * i] | data[2 * i + 1] << 8);
    int width = 1 + data[8] % MAX_SIDE, height = 1 + data[9] / 2 % MAX_SIDE;
    uint8_t flip = data[9] & 1;
    const uint8_t *image = data + ARGUMENTS;
    size_t image_size = size - ARGUMENTS, room = (size_t)(3 * width * height);
    int32_t whole[4] = {0, 0, 0, 0};
    Decoder *decoder = distrain_decoder_new(0);
    if (distrain_image_size(decoder, image, image_size, whole + 2) == 0 && crop[2] == 0)
        memcpy(crop, whole, sizeof crop); /* a width of 0 asks for the whole picture */
    distrain_decoder_free(decoder);

    uint8_t *fast = malloc(room), *other = malloc(room);
    int status = decode(0, image, image_size, crop, flip, width, height, fast);
    for (int kernel = 1; kernel < KERNELS; kernel++) {
        int again = decode(kernel, image, image_size, crop, flip, width, height, other);
        demand(status == again, "all kernels judge alike");
        demand(status != 0 || memcmp(fast, other, room) == 0, "all kernels give the same pixels");
    }
    check_raw(data[1] & 1, image, image_size, crop, flip, width, height, 1 + data[0] % 60);
    for (int layout = 0; layout < 2; layout++) /* the head as it comes */
        resize_raw(layout, image, image_size, crop, flip, width, height);
    check_indexed(image, image_size, crop, flip, width, height, fast, status);
    free(fast);
    free(other);
    return 0;
}
