/* libFuzzer target: nothing that enters the decoder may make it read or write out of bounds, and whatever
 * it accepts has the same pixels plain and indexed, with the portable and the fast kernel.
 *
 * Input: 10 bytes of arguments (crop as four u16, output side, mirror), then a JPEG or a blob. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Decoder Decoder;
Decoder *distrain_decoder_new(int portable);
int distrain_decode_batch(Decoder *, int, const uint8_t *const *, const size_t *, const int32_t *,
                          const uint8_t *, int, int, uint8_t *, int32_t *);
int distrain_index_bound(Decoder *, const uint8_t *, size_t, size_t *);
int distrain_index(Decoder *, const uint8_t *, size_t, uint8_t *, size_t, size_t *);
int distrain_resize_batch(Decoder *, int, const uint8_t *const *, const size_t *, const int32_t *,
                          const uint8_t *, int, int, uint8_t *, int32_t *);
void distrain_decoder_free(Decoder *);
int distrain_image_size(Decoder *, const uint8_t *, size_t, int32_t *);

enum { ARGUMENTS = 10, MAX_SIDE = 40 };

static void demand(int holds, const char *rule)
{
    if (!holds) {
        fprintf(stderr, "broken rule: %s\n", rule);
        abort();
    }
}

/* Decode from a copy of exactly the right size, so that AddressSanitizer sees every byte too many.
 * Returns the status; out has exactly the room it needs. */
static int decode(int portable, const uint8_t *bytes, size_t size, const int32_t crop[4], uint8_t flip,
                  int width, int height, uint8_t *out)
{
    static Decoder *decoders[2];
    if (decoders[portable] == NULL)
        decoders[portable] = distrain_decoder_new(portable);
    uint8_t *copy = malloc(size);
    memcpy(copy, bytes, size);
    const uint8_t *image = copy;
    int32_t status;
    distrain_decode_batch(decoders[portable], 1, &image, &size, crop, &flip, width, height, out, &status);
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

/* The same bytes as the pixels of a raw picture. */
static void check_raw(const uint8_t *pixels, size_t size, const int32_t crop[4], uint8_t flip, int width,
                      int height, int picture_width)
{
    static Decoder *decoders[2];
    size_t row = (size_t)(3 * picture_width), rows = size / row, used = 8 + rows * row;
    int32_t status[2];
    uint8_t *copy = malloc(used), *out[2];
    memcpy(copy, (uint8_t[8]){(uint8_t)picture_width, 0, 0, 0, (uint8_t)rows, (uint8_t)(rows >> 8)}, 8);
    memcpy(copy + 8, pixels, used - 8);
    const uint8_t *image = copy;
    for (int portable = 0; portable < 2; portable++) {
        if (decoders[portable] == NULL)
            decoders[portable] = distrain_decoder_new(portable);
        out[portable] = malloc((size_t)(3 * width * height));
        distrain_resize_batch(decoders[portable], 1, &image, &used, crop, &flip, width, height,
                              out[portable], &status[portable]);
    }
    demand(status[0] == status[1], "both kernels judge raw pictures alike");
    demand(status[0] != 0 || memcmp(out[0], out[1], (size_t)(3 * width * height)) == 0,
           "both kernels resize raw pictures alike");
    free(copy);
    free(out[0]);
    free(out[1]);
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

    uint8_t *fast = malloc(room), *portable = malloc(room);
    int status = decode(0, image, image_size, crop, flip, width, height, fast);
    int again = decode(1, image, image_size, crop, flip, width, height, portable);
    demand(status == again, "both kernels judge alike");
    demand(status != 0 || memcmp(fast, portable, room) == 0, "both kernels give the same pixels");
    check_raw(image, image_size, crop, flip, width, height, 1 + data[0] % 60);
    check_indexed(image, image_size, crop, flip, width, height, fast, status);
    free(fast);
    free(portable);
    return 0;
}
