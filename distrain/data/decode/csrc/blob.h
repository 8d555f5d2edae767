/* The scan of an image, plain or indexed (described in blob.c). */
#ifndef DISTRAIN_BLOB_H
#define DISTRAIN_BLOB_H

#include "jpeg.h"

enum {
    BLOB_HEADER = 16,
    CHECKPOINT_MCUS = 4,  /* 8 bytes per 4 MCUs: 1 to 2 % of the bytes of photographs */
    MAX_SCAN = 1 << 28    /* bytes; bit positions must fit 32 bits */
};

bool blob_is(const uint8_t *bytes, size_t size);
Status blob_open(Decoder *decoder, const uint8_t *bytes, size_t size, Frame *frame, Scan *scan);
Status scan_unstuff(Decoder *decoder, const uint8_t *bytes, size_t size, const Frame *frame, Scan *scan);
size_t blob_bound(const Frame *frame, size_t jpeg_size);
Status blob_build(Decoder *decoder, const uint8_t *jpeg, size_t size, uint8_t *out, size_t room,
                  size_t *written);

#endif
