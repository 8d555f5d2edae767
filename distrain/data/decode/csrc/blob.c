/* The scan of an image: plain JPEG bytes, or the indexed form made from them.
 *
 * A blob is what a JPEG becomes when it is indexed (all numbers little-endian):
 *
 *   0   "dJPG"                        16  u32  MCU rows
 *   4   u16  version, 1               20  u32  bytes of the JPEG header
 *   6   u16  MCUs per checkpoint      24  u32  bytes of the scan
 *   8   u32  checkpoints per row      28  u32  0
 *   12  u32  components
 *   32  checkpoints: for each MCU row   u32 bit position of its first MCU, then for each checkpoint
 *                                       u16 bits since the one before, i16 DC predictor per component
 *       the JPEG header, from SOI to the end of SOS
 *       the scan without byte stuffing
 *       SCAN_PADDING zero bytes
 *
 * The picture is not coded again: the bits of the scan are those of the original. */
#include "blob.h"

#include <string.h>

static size_t checkpoint_row_size(int per_row, int components)
{
    return 4 + (size_t)per_row * (2 + 2 * (size_t)components);
}

static int checkpoints_per_row(const Frame *frame)
{
    return (frame->mcu_columns + CHECKPOINT_MCUS - 1) / CHECKPOINT_MCUS;
}

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

/* Check a blob down to its last byte, and read its JPEG header. */
Status blob_open(Decoder *decoder, const uint8_t *bytes, size_t size, Frame *frame, Scan *scan)
{
    uint32_t mcus = load_u16(bytes + 6), per_row = load_u32(bytes + 8), components = load_u32(bytes + 12);
    uint32_t rows = load_u32(bytes + 16), header_size = load_u32(bytes + 20), scan_size = load_u32(bytes + 24);
    if (load_u16(bytes + 4) != 1 || mcus != CHECKPOINT_MCUS || load_u32(bytes + 28) != 0)
        return STATUS_BAD_BLOB;
    if (per_row < 1 || per_row > 65536 || rows < 1 || rows > 65536 || components > MAX_COMPONENTS)
        return STATUS_BAD_BLOB;
    size_t index_size = rows * checkpoint_row_size((int)per_row, (int)components);
    if (size != BLOB_HEADER + index_size + header_size + (size_t)scan_size + SCAN_PADDING)
        return STATUS_BAD_BLOB;
    const uint8_t *header = bytes + BLOB_HEADER + index_size;
    Status status = header_read(decoder, header, header_size, frame);
    if (status != STATUS_OK)
        return status;
    if (frame->header_size != header_size || frame->restart_interval != 0 ||
        frame->components != (int)components || frame->mcu_rows != (int)rows ||
        checkpoints_per_row(frame) != (int)per_row)
        return STATUS_BAD_BLOB;
    *scan = (Scan){header + header_size, scan_size, bytes + BLOB_HEADER, (int)per_row};
    return check_size(frame, scan);
}

/* The last checkpoint at or before an MCU column. */
void checkpoint_read(const Scan *scan, const Frame *frame, int row, int column, Checkpoint *found)
{
    size_t entry_size = 2 + 2 * (size_t)frame->components;
    const uint8_t *p = scan->checkpoints +
                       (size_t)row * checkpoint_row_size(scan->checkpoints_per_row, frame->components);
    found->bit = load_u32(p);
    p += 4;
    for (int i = 0; i <= column / CHECKPOINT_MCUS; i++, p += entry_size)
        found->bit += load_u16(p);
    p -= entry_size;
    for (int i = 0; i < frame->components; i++)
        found->dc[i] = (int16_t)load_u16(p + 2 + 2 * i);
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
    return BLOB_HEADER + jpeg_size + SCAN_PADDING +
           (size_t)frame->mcu_rows * checkpoint_row_size(checkpoints_per_row(frame), frame->components);
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
    if (status != STATUS_OK)
        return status;
    if (room < blob_bound(&frame, size))
        return STATUS_BUFFER;
    int per_row = checkpoints_per_row(&frame);
    size_t index_size = (size_t)frame.mcu_rows * checkpoint_row_size(per_row, frame.components);
    memset(out, 0, BLOB_HEADER);
    status = decoder->kernel->index_scan(&frame, &scan, out + BLOB_HEADER);
    if (status != STATUS_OK)
        return status;
    uint8_t *header = out + BLOB_HEADER + index_size;
    size_t header_size;
    status = header_copy(jpeg, frame.header_size, header, &header_size);
    if (status != STATUS_OK)
        return status;
    memcpy(header + header_size, scan.bytes, scan.size + SCAN_PADDING); /* the padding is zero */
    memcpy(out, "dJPG", 4);
    store_u16(out + 4, 1);
    store_u16(out + 6, CHECKPOINT_MCUS);
    store_u32(out + 8, (uint32_t)per_row);
    store_u32(out + 12, (uint32_t)frame.components);
    store_u32(out + 16, (uint32_t)frame.mcu_rows);
    store_u32(out + 20, (uint32_t)header_size);
    store_u32(out + 24, (uint32_t)scan.size);
    *written = BLOB_HEADER + index_size + header_size + scan.size + SCAN_PADDING;
    return STATUS_OK;
}
