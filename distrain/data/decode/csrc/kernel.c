/* From a scan to planes of samples: only the blocks that a crop needs.
 *
 * Compiled once a processor family (the build defines KERNEL_NAME and the compiler's flags). Blocks
 * outside the region still have to be parsed, since a Huffman stream has no addresses; in an indexed
 * scan parsing starts at the checkpoint before the region in each row of MCUs. */
#include "colour.h"
#include "entropy.h"
#include "idct.h"
#include "jpeg.h"
#include "resample.h"

/* One reader of the scan with its DC predictors. */
typedef struct {
    BitReader reader;
    int16_t dc[MAX_COMPONENTS];
} Stream;

static Stream stream_at(const Scan *scan, const Checkpoint *checkpoint)
{
    Stream stream = {.reader = reader_at(scan, checkpoint->bit)};
    memcpy(stream.dc, checkpoint->dc, sizeof stream.dc);
    return stream;
}

/* Where the block (x, y) of an MCU of the region goes. */
ALWAYS_INLINE uint8_t *block_place(const Plane *plane, McuRange region, int mcu_x, int mcu_y, int h, int v,
                                   int x, int y)
{
    return plane->data + ((ptrdiff_t)(mcu_y - region.top) * v + y) * 8 * plane->stride +
           ((ptrdiff_t)(mcu_x - region.left) * h + x) * 8;
}

/* Parse an MCU that is not wanted. */
static bool skip_mcu(const Frame *frame, Stream *stream)
{
    int16_t ignored[COEFFICIENT_SLOTS];
    bool good = true;
    for (int i = 0; i < frame->components; i++) {
        int blocks = i == 0 ? frame->h * frame->v : 1;
        for (int block = 0; block < blocks; block++)
            good &= read_block(&stream->reader, frame->dc[i], frame->ac[i], &stream->dc[i], false, ignored) > 0;
    }
    return good;
}

static bool decode_mcu(const Frame *frame, Stream *stream, McuRange region, int mcu_x, int mcu_y,
                       const Plane *planes)
{
    _Alignas(32) int16_t coefficients[COEFFICIENT_SLOTS];
    for (int i = 0; i < frame->components; i++) {
        int h = i == 0 ? frame->h : 1, v = i == 0 ? frame->v : 1;
        for (int block = 0; block < h * v; block++) {
            memset(coefficients, 0, 64 * sizeof coefficients[0]);
            int length =
                read_block(&stream->reader, frame->dc[i], frame->ac[i], &stream->dc[i], true, coefficients);
            if (length == 0)
                return false;
            idct_block(coefficients, length, frame->quant[i]->factor,
                       block_place(&planes[i], region, mcu_x, mcu_y, h, v, block % h, block / h),
                       planes[i].stride);
        }
    }
    return true;
}

/* The same for two streams at once: MCUs of the same column in rows mcu_y and mcu_y + 1. */
ALWAYS_INLINE bool two_mcus(const Frame *frame, Stream streams[2], McuRange region, int mcu_x, int mcu_y,
                            const Plane *planes, bool keep)
{
    _Alignas(32) int16_t coefficients[2][COEFFICIENT_SLOTS];
    int16_t *const out[2] = {coefficients[0], coefficients[1]};
    BitReader readers[2] = {streams[0].reader, streams[1].reader};
    for (int i = 0; i < frame->components; i++) {
        int h = i == 0 ? frame->h : 1, v = i == 0 ? frame->v : 1;
        int16_t *const predictors[2] = {&streams[0].dc[i], &streams[1].dc[i]};
        for (int block = 0; block < h * v; block++) {
            int lengths[2];
            if (keep) {
                memset(coefficients[0], 0, 64 * sizeof(int16_t));
                memset(coefficients[1], 0, 64 * sizeof(int16_t));
            }
            read_two_blocks(readers, frame->dc[i], frame->ac[i], predictors, keep, out, lengths);
            if (lengths[0] == 0 || lengths[1] == 0)
                return false;
            for (int k = 0; keep && k < 2; k++)
                idct_block(coefficients[k], lengths[k], frame->quant[i]->factor,
                           block_place(&planes[i], region, mcu_x, mcu_y + k, h, v, block % h, block / h),
                           planes[i].stride);
        }
    }
    streams[0].reader = readers[0];
    streams[1].reader = readers[1];
    return true;
}

static bool skip_two_mcus(const Frame *frame, Stream streams[2])
{
    return two_mcus(frame, streams, (McuRange){0}, 0, 0, NULL, false);
}

static bool decode_two_mcus(const Frame *frame, Stream streams[2], McuRange region, int mcu_x, int mcu_y,
                            const Plane *planes)
{
    return two_mcus(frame, streams, region, mcu_x, mcu_y, planes, true);
}

/* Two rows of the region, side by side. The end of the scan is checked after every MCU; within one,
 * the reader itself does not leave the padding. */
static Status decode_two_rows(const Frame *frame, const Scan *scan, McuRange region, int row,
                              const Plane *planes)
{
    Stream streams[2];
    for (int k = 0; k < 2; k++) {
        Checkpoint checkpoint;
        checkpoint_read(scan, frame, row + k, region.left, &checkpoint);
        streams[k] = stream_at(scan, &checkpoint);
    }
    int column = region.left / scan->checkpoint_mcus * scan->checkpoint_mcus;
    for (; column < region.right; column++) {
        bool good = column < region.left ? skip_two_mcus(frame, streams)
                                         : decode_two_mcus(frame, streams, region, column, row, planes);
        if (!good || reader_overrun(&streams[0].reader, scan) || reader_overrun(&streams[1].reader, scan))
            return STATUS_BAD_SCAN;
    }
    return STATUS_OK;
}

/* MCUs [column, right) of one row; those left of the region, or in rows above it, are only parsed. */
static Status decode_row(const Frame *frame, const Scan *scan, McuRange region, int row, int column,
                         int right, Stream *stream, const Plane *planes)
{
    for (; column < right; column++) {
        int64_t mcu = (int64_t)row * frame->mcu_columns + column;
        if (frame->restart_interval != 0 && mcu > 0 && mcu % frame->restart_interval == 0) {
            /* A restart: the stream goes on at the next whole byte, DC prediction starts anew. */
            uint64_t bit = (reader_position(&stream->reader, scan) + 7) / 8 * 8;
            *stream = (Stream){.reader = reader_at(scan, (uint32_t)bit)};
        }
        bool wanted = row >= region.top && column >= region.left && column < region.right;
        bool good = wanted ? decode_mcu(frame, stream, region, column, row, planes)
                           : skip_mcu(frame, stream);
        if (!good || reader_overrun(&stream->reader, scan))
            return STATUS_BAD_SCAN;
    }
    return STATUS_OK;
}

static Status decode_indexed(const Frame *frame, const Scan *scan, McuRange region, const Plane *planes)
{
    int row = region.top;
    for (; row + 1 < region.bottom; row += 2) {
        Status status = decode_two_rows(frame, scan, region, row, planes);
        if (status != STATUS_OK)
            return status;
    }
    if (row == region.bottom)
        return STATUS_OK;
    Checkpoint checkpoint;
    checkpoint_read(scan, frame, row, region.left, &checkpoint);
    Stream stream = stream_at(scan, &checkpoint);
    int column = region.left / scan->checkpoint_mcus * scan->checkpoint_mcus;
    return decode_row(frame, scan, region, row, column, region.right, &stream, planes);
}

static Status decode_region(const Frame *frame, const Scan *scan, McuRange region, Plane *planes)
{
    if (scan->checkpoints != NULL)
        return decode_indexed(frame, scan, region, planes);
    Stream stream = {.reader = reader_at(scan, 0)};
    for (int row = 0; row < region.bottom; row++) {
        int right = row == region.bottom - 1 ? region.right : frame->mcu_columns;
        Status status = decode_row(frame, scan, region, row, 0, right, &stream, planes);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* Write the checkpoints of a whole scan (layout: blob.c). An interval of CHECKPOINT_MCUS MCUs is at most
 * 4 * 6 * 1,665 bits long, so that its length fits 16 bits. */
static Status index_scan(const Frame *frame, const Scan *scan, int mcus, uint8_t *checkpoints)
{
    Stream stream = {.reader = reader_at(scan, 0)};
    for (int row = 0; row < frame->mcu_rows; row++) {
        uint64_t before = reader_position(&stream.reader, scan);
        store_u32(checkpoints, (uint32_t)before);
        checkpoints += 4;
        for (int column = 0; column < frame->mcu_columns; column++) {
            if (column % mcus == 0) {
                uint64_t here = reader_position(&stream.reader, scan);
                store_u16(checkpoints, (uint32_t)(here - before));
                before = here;
                for (int i = 0; i < frame->components; i++)
                    store_u16(checkpoints + 2 + 2 * i, (uint16_t)stream.dc[i]);
                checkpoints += 2 + 2 * frame->components;
            }
            if (!skip_mcu(frame, &stream) || reader_overrun(&stream.reader, scan))
                return STATUS_BAD_SCAN;
        }
    }
    return STATUS_OK;
}

const Kernel KERNEL_VARIABLE = {KERNEL_NAME, decode_region, index_scan, resample_rows, resample_columns,
                                colour};
