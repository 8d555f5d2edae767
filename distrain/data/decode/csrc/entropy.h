/* Entropy decoding: from bits to the coefficients of a block.
 *
 * This is where most of the time goes. One or two symbols cost one load from a 16 KiB table whose address
 * depends on the symbols before: a chain of about 8 cycles. Two rows of MCUs are therefore decoded
 * in turn (read_two_runs): while one waits for its load, the other one works. */
#ifndef DISTRAIN_ENTROPY_H
#define DISTRAIN_ENTROPY_H

#include <string.h>

#include "jpeg.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

enum {
    ENTRY_LONG_CODE = 1 << 7,
    /* Advances beyond any coefficient: the index leaves the block, the loop ends. */
    ADVANCE_END_OF_BLOCK = 128,
    ADVANCE_INVALID = 255,
    MCU_BLOCKS = 6,   /* at most: 4 of luma, 2 of chroma */
    RUN_MCUS = 4,     /* MCUs that are decoded before their blocks are transformed */
    RUN_BLOCKS = RUN_MCUS * MCU_BLOCKS,
    BLOCK_BYTES = 224 /* more than the longest block (27 + 63 * 26 bits) and what a refill loads */
};

/* An entry of a look-up table; layout: huffman.c. */
typedef uint64_t Entry;

Entry huffman_long_code(const HuffmanTable *table, uint64_t window);

/* Reads bits from the most significant end. Invariant: the top `available` bits of window are the
 * next bits of the scan. */
typedef struct {
    const uint8_t *next;
    uint64_t window;
    uint64_t available;
} BitReader;

ALWAYS_INLINE uint64_t load_big_endian(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

/* Afterwards at least 56 bits are available: enough for two AC symbols of 26 bits, or a DC symbol of 27 and one.
 *
 * limit: the last place from which 8 bytes may be loaded; a reader that runs over its end stays there,
 * and reader_overrun tells. NULL where the caller knows that the end is far. */
ALWAYS_INLINE void reader_refill(BitReader *reader, const uint8_t *limit)
{
    reader->window |= load_big_endian(reader->next) >> reader->available;
    reader->next += 7 - (reader->available >> 3);
    if (limit != NULL && reader->next > limit)
        reader->next = limit;
    reader->available |= 56;
}

ALWAYS_INLINE void reader_consume(BitReader *reader, uint64_t bits)
{
    reader->window <<= bits;
    reader->available -= bits;
}

static inline const uint8_t *scan_limit(const Scan *scan) { return scan->bytes + scan->size + SCAN_PADDING - 8; }

/* Start at a bit of the scan. Positions behind the end are allowed: reader_overrun tells. */
static inline BitReader reader_at(const Scan *scan, uint32_t bit)
{
    size_t byte = bit >> 3;
    BitReader reader = {scan->bytes + (byte < scan->size ? byte : scan->size), 0, 0};
    reader_refill(&reader, scan_limit(scan));
    reader_consume(&reader, bit & 7);
    return reader;
}

/* The position of the next bit, counted from the start of the scan. */
static inline uint64_t reader_position(const BitReader *reader, const Scan *scan)
{
    return (uint64_t)(reader->next - scan->bytes) * 8 - reader->available;
}

static inline bool reader_overrun(const BitReader *reader, const Scan *scan)
{
    return reader_position(reader, scan) > (uint64_t)scan->size * 8;
}

/* Where the coefficient goes that moves the index to i (its zigzag number is i - 1): column * 8 + row
 * (transposed, as the IDCT reads it). Past 64 (end of block, invalid) it is slot 64, the waste. */
extern const uint8_t coefficient_slot[65 + 255];

/* The blocks of an MCU in the order of the scan. */
typedef struct {
    int count; /* 1..6 */
    const HuffmanTable *dc[MCU_BLOCKS], *ac[MCU_BLOCKS];
    int component[MCU_BLOCKS];
} McuPlan;

/* A place in the scan with its DC predictors: MCUs can be decoded from here on. */
typedef struct {
    BitReader reader;
    int16_t dc[MAX_COMPONENTS];
} Stream;

/* The coefficients of a run of MCUs. */
typedef struct {
    _Alignas(64) int16_t values[RUN_BLOCKS * 64 + 64]; /* transposed; a block's waste is the next one's DC */
    uint8_t lengths[RUN_BLOCKS];                       /* coefficients of each block; 0: broken */
} Run;

/* The state of one stream while a run is decoded. */
typedef struct {
    BitReader reader;
    const HuffmanTable *ac;
    int16_t *block;
    unsigned index; /* of the next coefficient */
    int number;     /* of the block in its MCU */
    uint8_t *length, *end;
} Lane;

ALWAYS_INLINE Entry next_entry(const BitReader *reader, const HuffmanTable *table)
{
    Entry entry = table->entries[reader->window >> (64 - LOOKUP_BITS)];
    return UNLIKELY(entry & ENTRY_LONG_CODE) ? huffman_long_code(table, reader->window) : entry;
}

/* The first value of an entry. Its last bits may lie behind those that were looked up: they are added, always,
 * because a branch here would be mispredicted at a tenth of all look-ups. */
ALWAYS_INLINE int16_t entry_value(Entry entry, uint64_t window)
{
    return (int16_t)((entry >> 16) + (window << LOOKUP_BITS >> 1 >> (entry >> 40 & 63)));
}

/* Decode the DC coefficient of the lane's block; the window has been refilled. */
ALWAYS_INLINE void lane_read_dc(Lane *lane, const McuPlan *plan, Stream *stream)
{
    int16_t *predictor = &stream->dc[plan->component[lane->number]];
    Entry entry = next_entry(&lane->reader, plan->dc[lane->number]);
    *predictor = (int16_t)(*predictor + entry_value(entry, lane->reader.window));
    reader_consume(&lane->reader, entry & 63);
    lane->block[0] = *predictor;
    lane->ac = plan->ac[lane->number];
    lane->index = entry >> 8 & 255; /* 1; past all coefficients if the code is invalid */
}

/* Decode the AC symbols of one entry, at most 26 bits; true when the block has ended. */
ALWAYS_INLINE bool lane_read_ac(Lane *lane)
{
    Entry entry = next_entry(&lane->reader, lane->ac);
    unsigned first = lane->index + (unsigned)(entry >> 32 & 255);
    lane->index += entry >> 8 & 255;
    lane->block[coefficient_slot[lane->index]] = (int16_t)((int64_t)entry >> 56);
    lane->block[coefficient_slot[first]] = entry_value(entry, lane->reader.window);
    if (UNLIKELY(lane->index >= 64) && first >= 64) { /* what follows the first symbol is no AC symbol */
        lane->index = first;
        reader_consume(&lane->reader, entry >> 48 & 63);
        return true;
    }
    reader_consume(&lane->reader, entry & 63);
    return lane->index >= 64;
}

/* Number of coefficients that a block has, 1..64, from the index at which it ended; 0: invalid. */
ALWAYS_INLINE uint8_t block_length(unsigned index)
{
    unsigned length = index == 64 ? 64 : index - ADVANCE_END_OF_BLOCK;
    return (uint8_t)(length <= 64 ? length : 0);
}

ALWAYS_INLINE Lane lane_begin(Stream *stream, const McuPlan *plan, int mcus, Run *run, const uint8_t *limit)
{
    int blocks = mcus * plan->count;
    memset(run->values, 0, (size_t)blocks * 64 * sizeof(int16_t));
    Lane lane = {.reader = stream->reader, .block = run->values, .length = run->lengths,
                 .end = run->lengths + blocks};
    reader_refill(&lane.reader, limit);
    lane_read_dc(&lane, plan, stream);
    return lane;
}

/* Leave a block that has ended; false when it was the last one of the run. */
ALWAYS_INLINE bool lane_leave_block(Lane *lane, const McuPlan *plan)
{
    *lane->length++ = block_length(lane->index);
    lane->block += 64;
    lane->number = lane->number + 1 < plan->count ? lane->number + 1 : 0;
    return lane->length != lane->end;
}

/* Begin the next block, of which AC symbols can be read then; false when there is none, or the reader is
 * past `far`, or the block is broken: lane_finish does the rest. */
ALWAYS_INLINE bool lane_next_block(Lane *lane, const McuPlan *plan, Stream *stream, const uint8_t *far)
{
    if (!lane_leave_block(lane, plan))
        return false;
    reader_refill(&lane->reader, NULL);
    lane_read_dc(lane, plan, stream);
    return lane->reader.next <= far && lane->index < 64;
}

/* Decode what is left of a run, watching the end of the scan. */
ALWAYS_INLINE void lane_finish(Lane *lane, const McuPlan *plan, Stream *stream, const uint8_t *limit)
{
    while (lane->length != lane->end) {
        bool ended = lane->index >= 64;
        while (!ended) {
            reader_refill(&lane->reader, limit);
            ended = lane_read_ac(lane) || lane_read_ac(lane);
        }
        if (lane_leave_block(lane, plan)) {
            reader_refill(&lane->reader, limit);
            lane_read_dc(lane, plan, stream);
        }
    }
    stream->reader = lane->reader;
}

/* Decode a run of MCUs. */
static inline void read_run(Stream *stream, const McuPlan *plan, int mcus, Run *run, const uint8_t *limit)
{
    Lane lane = lane_begin(stream, plan, mcus, run, limit);
    lane_finish(&lane, plan, stream, limit);
}

/* Decode runs of two streams, look-up by look-up in turn. Blocks begin and end where they will: waiting
 * for each other at every block would cost a fifth of the time. The only branch of a look-up that the
 * processor cannot foresee is that at the end of a block. In the last bytes of a scan the streams go on one by
 * one, so that the loop here need not watch the end. */
static inline void read_two_runs(Stream streams[2], const Scan *scan, const McuPlan *plan,
                                 const int mcus[2], Run runs[2])
{
    const uint8_t *limit = scan_limit(scan);
    const uint8_t *far = scan->size >= BLOCK_BYTES ? limit - BLOCK_BYTES : NULL;
    Lane a = lane_begin(&streams[0], plan, mcus[0], &runs[0], limit);
    Lane b = lane_begin(&streams[1], plan, mcus[1], &runs[1], limit);
    bool both = far != NULL && a.reader.next <= far && b.reader.next <= far && a.index < 64 && b.index < 64;
    while (both) {
        reader_refill(&a.reader, NULL);
        reader_refill(&b.reader, NULL);
        if ((lane_read_ac(&a) && !lane_next_block(&a, plan, &streams[0], far)) ||
            (lane_read_ac(&b) && !lane_next_block(&b, plan, &streams[1], far)) ||
            (lane_read_ac(&a) && !lane_next_block(&a, plan, &streams[0], far)) ||
            (lane_read_ac(&b) && !lane_next_block(&b, plan, &streams[1], far)))
            break;
    }
    lane_finish(&a, plan, &streams[0], limit);
    lane_finish(&b, plan, &streams[1], limit);
}

#endif
