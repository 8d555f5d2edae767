/* The scan of an image: plain JPEG bytes, or the indexed form made from them.
 *
 * A blob is what a JPEG becomes when it is indexed (all numbers little-endian):
 *
 *   0   "dJPG"
 *   4   u16  version, 1
 *   6   u16  MCUs per checkpoint
 *   8   u32  bytes of the JPEG header
 *   12  u32  bytes of the scan
 *   16  the JPEG header, from SOI to the end of SOS
 *       checkpoints, for each MCU row:  u32 bit position of its first MCU, i16 DC predictor per component,
 *                                       then for each further checkpoint of the row:
 *                                       u16 bits since the one before, i16 DC predictor per component
 *       the scan without byte stuffing
 *       SCAN_PADDING zero bytes
 *
 * The picture is not coded again: the bits of the scan are those of the original. */
#include "blob.h"

#include <string.h>

static int checkpoints_per_row(const Frame *frame)
{
    return (frame->mcu_columns + CHECKPOINT_MCUS - 1) / CHECKPOINT_MCUS;
}

static size_t checkpoint_row_size(const Frame *frame)
{
    return 2 + (size_t)checkpoints_per_row(frame) * (2 + 2 * (size_t)frame->components);
}

static size_t index_size(const Frame *frame) { return (size_t)frame->mcu_rows * checkpoint_row_size(frame); }

bool blob_is(const uint8_t *bytes, size_t size)
{
    return size >= BLOB_HEADER && memcmp(bytes, "dJPG", 4) == 0;
}

/* A block takes at least two bits. Checked before memory is reserved for the planes, so that a few
 * bytes that claim to be a huge picture cannot ask for gigabytes. */
static Status check_size(const Frame *frame, const Scan *scan)
{
    uint64_t blocks = (uint64_t)frame->mcu_columns * (uint64_t)frame->mcu_rows *
                      (uint64_t)(frame->components == 1 ? 1 : frame->h * frame->v + 2);
    if (scan->size > MAX_SCAN)
        return STATUS_BAD_SCAN;
    return blocks * 2 > (uint64_t)scan->size * 8 ? STATUS_TRUNCATED : STATUS_OK;
}

/* Check a blob down to its last byte, and read its JPEG header. Positions in checkpoints are not checked
 * here: readers may start anywhere, and notice where they end. */
Status blob_open(Decoder *decoder, const uint8_t *bytes, size_t size, Frame *frame, Scan *scan)
{
    size_t header_size = load_u32(bytes + 8), scan_size = load_u32(bytes + 12);
    if (load_u16(bytes + 4) != 1 || load_u16(bytes + 6) != CHECKPOINT_MCUS ||
        header_size > size - BLOB_HEADER)
        return STATUS_BAD_BLOB;
    const uint8_t *header = bytes + BLOB_HEADER;
    Status status = header_read(decoder, header, header_size, frame);
    if (status != STATUS_OK)
        return status;
    if (frame->header_size != header_size || frame->restart_interval != 0 ||
        size != BLOB_HEADER + header_size + index_size(frame) + scan_size + SCAN_PADDING)
        return STATUS_BAD_BLOB;
    const uint8_t *checkpoints = header + header_size;
    *scan = (Scan){checkpoints + index_size(frame), scan_size, checkpoints};
    return check_size(frame, scan);
}

/* The last checkpoint at or before an MCU column. */
void checkpoint_read(const Scan *scan, const Frame *frame, int row, int column, Checkpoint *found)
{
    const uint8_t *p = scan->checkpoints + (size_t)row * checkpoint_row_size(frame);
    found->bit = load_u32(p);
    p += 4;
    for (int i = 0; i < column / CHECKPOINT_MCUS; i++) {
        p += 2 * frame->components;
        found->bit += load_u16(p);
        p += 2;
    }
    for (int i = 0; i < frame->components; i++)
        found->dc[i] = (int16_t)load_u16(p + 2 * i);
}

/* Remove the zero byte behind each 0xff of a plain scan, and the restart markers (which must come in
 * order, T.81 E.2.4), into the decoder's memory. The scan has to end in an EOI marker. */
Status scan_unstuff(Decoder *decoder, const uint8_t *bytes, size_t size, const Frame *frame, Scan *scan)
{
    uint8_t *out = buffer_reserve(&decoder->scan, size + SCAN_PADDING);
    if (out == NULL)
        return STATUS_NO_MEMORY;
    const uint8_t *at = bytes, *end = bytes + size;
    uint8_t *start = out;
    int next_restart = 0;
    for (;;) {
        const uint8_t *mark = at < end ? memchr(at, 0xff, (size_t)(end - at)) : NULL;
        if (mark == NULL)
            return STATUS_TRUNCATED;
        memcpy(out, at, (size_t)(mark - at));
        out += mark - at;
        while (mark + 1 < end && mark[1] == 0xff) /* fill bytes */
            mark++;
        if (mark + 1 >= end)
            return STATUS_TRUNCATED;
        at = mark + 2;
        if (mark[1] == 0)
            *out++ = 0xff;
        else if (frame->restart_interval && mark[1] == 0xd0 + next_restart)
            next_restart = (next_restart + 1) & 7;
        else if (mark[1] == 0xd9)
            break;
        else
            return mark[1] == 0xda || mark[1] == 0xc4 ? STATUS_SCANS : STATUS_BAD_SCAN;
    }
    memset(out, 0, SCAN_PADDING);
    *scan = (Scan){.bytes = start, .size = (size_t)(out - start)};
    return check_size(frame, scan);
}

/* The largest blob that a JPEG of this header can become. */
size_t blob_bound(const Frame *frame, size_t jpeg_size)
{
    return BLOB_HEADER + jpeg_size + index_size(frame) + SCAN_PADDING;
}

/* Write the blob of a JPEG. The whole scan is decoded on the way, which checks it. */
Status blob_build(Decoder *decoder, const uint8_t *jpeg, size_t size, uint8_t *out, size_t room,
                  size_t *written)
{
    Frame frame;
    Scan scan;
    Status status = header_read(decoder, jpeg, size, &frame);
    if (status == STATUS_OK && frame.restart_interval != 0)
        status = STATUS_RESTARTS;
    if (status == STATUS_OK)
        status = scan_unstuff(decoder, jpeg + frame.header_size, size - frame.header_size, &frame, &scan);
    if (status == STATUS_OK && room < blob_bound(&frame, size))
        status = STATUS_BUFFER;
    if (status != STATUS_OK)
        return status;
    size_t header_size;
    status = header_copy(jpeg, frame.header_size, out + BLOB_HEADER, &header_size);
    if (status != STATUS_OK)
        return status;
    uint8_t *checkpoints = out + BLOB_HEADER + header_size, *end = checkpoints + index_size(&frame);
    status = decoder->kernel->index_scan(&frame, &scan, checkpoints);
    if (status != STATUS_OK)
        return status;
    memcpy(end, scan.bytes, scan.size + SCAN_PADDING); /* the padding is zero */
    memcpy(out, "dJPG", 4);
    store_u16(out + 4, 1);
    store_u16(out + 6, CHECKPOINT_MCUS);
    store_u32(out + 8, (uint32_t)header_size);
    store_u32(out + 12, (uint32_t)scan.size);
    *written = BLOB_HEADER + header_size + index_size(&frame) + scan.size + SCAN_PADDING;
    return STATUS_OK;
}
