/* From a scan to planes of samples: only the blocks that a crop needs.
 *
 * Compiled once a processor family (the build defines KERNEL_NAME and the compiler's flags). Blocks
 * outside the region still have to be parsed, since a Huffman stream has no addresses; in an indexed
 * scan parsing starts at the checkpoint before the region in each row of MCUs. */
#include "blob.h"
#include "colour.h"
#include "entropy.h"
#include "idct.h"
#include "jpeg.h"
#include "resample.h"
#include "taps.h"

static McuPlan mcu_plan(const Frame *frame)
{
    McuPlan plan = {0};
    for (int i = 0; i < frame->components; i++)
        for (int block = 0; block < (i == 0 ? frame->h * frame->v : 1); block++) {
            plan.dc[plan.count] = frame->dc[i];
            plan.ac[plan.count] = frame->ac[i];
            plan.component[plan.count++] = i;
        }
    return plan;
}

static Stream stream_at(const Scan *scan, const Checkpoint *checkpoint)
{
    Stream stream = {.reader = reader_at(scan, checkpoint->bit)};
    memcpy(stream.dc, checkpoint->dc, sizeof stream.dc);
    return stream;
}

/* Whether any block is broken, or the stream ran over the end of the scan. */
static bool run_is_bad(const Stream *stream, const Scan *scan, const Run *run, int blocks)
{
    return reader_overrun(&stream->reader, scan) || memchr(run->lengths, 0, (size_t)blocks) != NULL;
}

static bool decode_run(Stream *stream, const Scan *scan, const McuPlan *plan, int mcus, Run *run)
{
    read_run(stream, plan, mcus, run, scan_limit(scan));
    return !run_is_bad(stream, scan, run, mcus * plan->count);
}

static bool decode_two_runs(Stream streams[2], const Scan *scan, const McuPlan *plan, const int mcus[2],
                            Run runs[2])
{
    read_two_runs(streams, scan, plan, mcus, runs);
    return !run_is_bad(&streams[0], scan, &runs[0], mcus[0] * plan->count) &&
           !run_is_bad(&streams[1], scan, &runs[1], mcus[1] * plan->count);
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* Where the blocks of an MCU in the region go; returns the end of the list. */
static BlockPlace *place_mcu(const Frame *frame, int row, int column, McuRange region, const Plane *planes,
                             BlockPlace *place)
{
    for (int i = 0; i < frame->components; i++) {
        int h = i == 0 ? frame->h : 1, v = i == 0 ? frame->v : 1;
        ptrdiff_t stride = planes[i].stride;
        uint8_t *out = planes[i].data + (ptrdiff_t)(row - region.top) * v * 8 * stride +
                       (ptrdiff_t)(column - region.left) * h * 8;
        for (int y = 0; y < v; y++, out += 8 * stride)
            for (int x = 0; x < h; x++)
                *place++ = (BlockPlace){frame->quant[i]->factor, out + 8 * x, stride};
    }
    return place;
}

/* Transform the blocks of a run that starts at MCU (column, row) and lie in the region. */
static void transform_run(const Frame *frame, const Run *run, int blocks_per_mcu, int mcus, int row, int column,
                          McuRange region, const Plane *planes)
{
    BlockPlace places[RUN_BLOCKS + BLOCKS - 1], *end = places;
    int first = column < region.left ? region.left - column : 0;
    for (int mcu = first; mcu < smaller(mcus, region.right - column); mcu++)
        end = place_mcu(frame, row, column + mcu, region, planes, end);
    uint8_t nowhere[64]; /* for the second block where their number is odd */
    if (end != places && BLOCKS == 2)
        *end = (BlockPlace){end[-1].factor, nowhere, 8};
    const int16_t *values = run->values + (ptrdiff_t)64 * first * blocks_per_mcu;
    for (const BlockPlace *place = places; place < end; place += BLOCKS, values += 64 * BLOCKS)
        idct_blocks(values, place);
}

/* MCUs [column, right) of one row; those left of the region, or in rows above it, are only parsed. */
static Status decode_row(const Frame *frame, const Scan *scan, const McuPlan *plan, McuRange region, int row,
                         int column, int right, Stream *stream, const Plane *planes)
{
    Run run;
    while (column < right) {
        int mcus = smaller(RUN_MCUS, right - column);
        if (frame->restart_interval != 0) {
            int done = (int)(((int64_t)row * frame->mcu_columns + column) % frame->restart_interval);
            if (done == 0 && row + column > 0) {
                /* A restart: the stream goes on at the next whole byte, DC prediction starts anew. */
                uint64_t bit = (reader_position(&stream->reader, scan) + 7) / 8 * 8;
                *stream = (Stream){.reader = reader_at(scan, (uint32_t)bit)};
            }
            mcus = smaller(mcus, frame->restart_interval - done);
        }
        if (!decode_run(stream, scan, plan, mcus, &run))
            return STATUS_BAD_SCAN;
        if (row >= region.top)
            transform_run(frame, &run, plan->count, mcus, row, column, region, planes);
        column += mcus;
    }
    return STATUS_OK;
}

/* MCUs [column, end) of a row, the first one at a checkpoint. */
typedef struct {
    int row, column, end;
} Strip;

/* Two strips, side by side. */
static Status decode_two_strips(const Frame *frame, const Scan *scan, const McuPlan *plan, McuRange region,
                                Strip strips[2], const Plane *planes)
{
    Stream streams[2];
    Run runs[2];
    for (int k = 0; k < 2; k++) {
        Checkpoint checkpoint;
        checkpoint_read(scan, frame, strips[k].row, strips[k].column, &checkpoint);
        streams[k] = stream_at(scan, &checkpoint);
    }
    while (strips[0].column < strips[0].end && strips[1].column < strips[1].end) {
        int mcus[2];
        for (int k = 0; k < 2; k++)
            mcus[k] = smaller(RUN_MCUS, strips[k].end - strips[k].column);
        if (!decode_two_runs(streams, scan, plan, mcus, runs))
            return STATUS_BAD_SCAN;
        for (int k = 0; k < 2; k++) {
            transform_run(frame, &runs[k], plan->count, mcus[k], strips[k].row, strips[k].column, region,
                          planes);
            strips[k].column += mcus[k];
        }
    }
    for (int k = 0; k < 2; k++) {
        Status status = decode_row(frame, scan, plan, region, strips[k].row, strips[k].column, strips[k].end,
                                   &streams[k], planes);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* Start loading the part of a row's bits that will be decoded next: from row to row the scan is read in
 * jumps, which the processor does not foresee. */
static void fetch_row(const Frame *frame, const Scan *scan, McuRange region, int row)
{
    if (row >= region.bottom)
        return;
    Checkpoint begin, end;
    checkpoint_read(scan, frame, row, region.left, &begin);
    checkpoint_read(scan, frame, row, region.right - 1, &end);
    size_t last = (size_t)(end.bit >> 3) + 128;
    last = last < scan->size ? last : scan->size;
    for (size_t byte = begin.bit >> 3; byte < last; byte += 64)
        __builtin_prefetch(scan->bytes + byte);
}

/* Rows in pairs; a last row without a partner is cut in the middle. */
static Status decode_indexed(const Frame *frame, const Scan *scan, const McuPlan *plan, McuRange region,
                             const Plane *planes)
{
    int first = region.left / CHECKPOINT_MCUS * CHECKPOINT_MCUS;
    int row = region.top;
    Status status = STATUS_OK;
    for (; row + 1 < region.bottom && status == STATUS_OK; row += 2) {
        Strip strips[2] = {{row, first, region.right}, {row + 1, first, region.right}};
        fetch_row(frame, scan, region, row + 2);
        fetch_row(frame, scan, region, row + 3);
        status = decode_two_strips(frame, scan, plan, region, strips, planes);
    }
    if (row < region.bottom && status == STATUS_OK) {
        int middle = first + round_up((region.right - first) / 2, CHECKPOINT_MCUS);
        middle = smaller(middle, region.right);
        Strip strips[2] = {{row, first, middle}, {row, middle, region.right}};
        if (middle == region.right) /* too short to cut: nothing is left for the second */
            strips[1].column = strips[1].end = first;
        status = decode_two_strips(frame, scan, plan, region, strips, planes);
    }
    return status;
}

static Status decode_region(const Frame *frame, const Scan *scan, McuRange region, const Plane *planes)
{
    McuPlan plan = mcu_plan(frame);
    if (scan->checkpoints != NULL)
        return decode_indexed(frame, scan, &plan, region, planes);
    Stream stream = {.reader = reader_at(scan, 0)};
    for (int row = 0; row < region.bottom; row++) {
        int right = row == region.bottom - 1 ? region.right : frame->mcu_columns;
        Status status = decode_row(frame, scan, &plan, region, row, 0, right, &stream, planes);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* Write the checkpoints of a whole scan (layout: blob.c). An interval is at most 4 * 6 * 1,665 bits long,
 * so that its length fits 16 bits. */
static Status index_scan(const Frame *frame, const Scan *scan, uint8_t *checkpoints)
{
    McuPlan plan = mcu_plan(frame);
    Stream stream = {.reader = reader_at(scan, 0)};
    Run run;
    for (int row = 0; row < frame->mcu_rows; row++) {
        uint64_t before = 0;
        for (int column = 0; column < frame->mcu_columns; column += CHECKPOINT_MCUS) {
            uint64_t here = reader_position(&stream.reader, scan);
            if (column == 0)
                store_u32(checkpoints, (uint32_t)here);
            else
                store_u16(checkpoints, (uint32_t)(here - before));
            checkpoints += column == 0 ? 4 : 2;
            before = here;
            for (int i = 0; i < frame->components; i++, checkpoints += 2)
                store_u16(checkpoints, (uint16_t)stream.dc[i]);
            int mcus = smaller(CHECKPOINT_MCUS, frame->mcu_columns - column);
            if (!decode_run(&stream, scan, &plan, mcus, &run))
                return STATUS_BAD_SCAN;
        }
    }
    return STATUS_OK;
}

const Kernel KERNEL_VARIABLE = {KERNEL_NAME, decode_region, index_scan, taps_build, resize};
