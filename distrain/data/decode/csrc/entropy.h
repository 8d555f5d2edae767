/* Entropy decoding: from bits to the coefficients of a block.
 *
 * This is where most of the time goes. A symbol costs one load from a 16 KiB table whose address
 * depends on the symbol before: a chain of about 8 cycles. Two rows of MCUs are therefore decoded
 * in turn (read_two_blocks): while one waits for its load, the other one works. */
#ifndef DISTRAIN_ENTROPY_H
#define DISTRAIN_ENTROPY_H

#include <string.h>

#include "jpeg.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

enum {
    ENTRY_VALUE_FOLLOWS = 1 << 6,
    ENTRY_LONG_CODE = 1 << 7,
    /* Advances beyond any coefficient: the index leaves the block, the loop ends. */
    ADVANCE_END_OF_BLOCK = 128,
    ADVANCE_INVALID = 255,
    ENTRY_INVALID = ADVANCE_INVALID << 8,
    COEFFICIENT_SLOTS = 80 /* 64 coefficients, and slot 64 into which everything invalid is written */
};

uint32_t huffman_long_code(const HuffmanTable *table, uint64_t window);

/* Read the extra bits behind a code and return the entry with its value filled in.
 * A value whose first bit is 0 is negative: v - (2^size - 1) (T.81 F.2.2.1, EXTEND). */
ALWAYS_INLINE uint32_t entry_with_value(uint64_t window, uint32_t entry)
{
    int size = entry >> 16 & 15;
    uint64_t extra = window << ((entry & 63) - (uint32_t)size);
    int32_t value = (int32_t)(extra >> 1 >> (63 - size));
    if (!(extra >> 63))
        value -= (1 << size) - 1;
    return (entry & 0xff3f) | (uint32_t)value << 16;
}

/* Reads bits from the most significant end. Invariant: the top `available` bits of window are the
 * next bits of the scan. `next` never passes `limit`, behind which 8 bytes are readable: a reader
 * that runs over its end sees padding again and again, and reader_position tells. */
typedef struct {
    const uint8_t *next, *limit;
    uint64_t window;
    int available;
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

/* Afterwards at least 56 bits are available: enough for two AC symbols of 26 bits. */
ALWAYS_INLINE void reader_refill(BitReader *reader)
{
    reader->window |= load_big_endian(reader->next) >> reader->available;
    reader->next += (63 - reader->available) >> 3;
    reader->next = reader->next < reader->limit ? reader->next : reader->limit;
    reader->available |= 56;
}

ALWAYS_INLINE void reader_consume(BitReader *reader, uint32_t bits)
{
    reader->window <<= bits;
    reader->available -= (int)bits;
}

/* Start at a bit of the scan. Positions behind the end are allowed: reader_overrun tells. */
static inline BitReader reader_at(const Scan *scan, uint32_t bit)
{
    size_t byte = bit >> 3;
    BitReader reader = {scan->bytes + (byte < scan->size ? byte : scan->size),
                        scan->bytes + scan->size + SCAN_PADDING - 8, 0, 0};
    reader_refill(&reader);
    reader_consume(&reader, bit & 7);
    return reader;
}

/* The position of the next bit, counted from the start of the scan. */
static inline uint64_t reader_position(const BitReader *reader, const Scan *scan)
{
    return (uint64_t)(reader->next - scan->bytes) * 8 - (uint64_t)reader->available;
}

static inline bool reader_overrun(const BitReader *reader, const Scan *scan)
{
    return reader_position(reader, scan) > (uint64_t)scan->size * 8;
}

/* Where the coefficient with zigzag number k goes: column * 8 + row (transposed, as the IDCT reads it).
 * Numbers past 63 (end of block, invalid) go to the waste slot. */
extern const uint8_t coefficient_slot[64 + 256];

ALWAYS_INLINE uint32_t next_entry(const BitReader *reader, const HuffmanTable *table)
{
    uint32_t entry = table->entries[reader->window >> (64 - LOOKUP_BITS)];
    if (UNLIKELY(entry & (ENTRY_VALUE_FOLLOWS | ENTRY_LONG_CODE)))
        entry = entry & ENTRY_LONG_CODE ? huffman_long_code(table, reader->window)
                                        : entry_with_value(reader->window, entry);
    return entry;
}

/* Decode the DC difference and return the index of the next coefficient: 1, or past all of them. */
ALWAYS_INLINE int read_dc(BitReader *reader, const HuffmanTable *table, int16_t *predictor)
{
    reader_refill(reader);
    uint32_t entry = next_entry(reader, table);
    reader_consume(reader, entry & 63);
    *predictor = (int16_t)(*predictor + (int16_t)(entry >> 16));
    return (int)(entry >> 8 & 255);
}

/* Decode one AC symbol: store its value, return the next index. */
ALWAYS_INLINE int read_ac(BitReader *reader, const HuffmanTable *table, int index, bool keep, int16_t *out)
{
    uint32_t entry = next_entry(reader, table);
    reader_consume(reader, entry & 63);
    index += (int)(entry >> 8 & 255);
    if (keep)
        out[coefficient_slot[index - 1]] = (int16_t)(entry >> 16);
    return index;
}

/* Number of coefficients that a block has, 1..64, from the index at which its loop ended; 0: invalid. */
ALWAYS_INLINE int block_length(int index)
{
    if (index == 64)
        return 64;
    int length = index - ADVANCE_END_OF_BLOCK;
    return length >= 1 && length < 64 ? length : 0;
}

ALWAYS_INLINE int read_ac_until_end(BitReader *reader, const HuffmanTable *table, int index, bool keep,
                                    int16_t *out)
{
    while (index < 64) {
        reader_refill(reader);
        index = read_ac(reader, table, index, keep, out);
        if (index < 64)
            index = read_ac(reader, table, index, keep, out);
    }
    return index;
}

/* Decode a block. out (int16 [COEFFICIENT_SLOTS], zeroed by the caller) is only written if keep.
 * Returns the number of coefficients, 0 for a block that breaks the rules. */
ALWAYS_INLINE int read_block(BitReader *reader, const HuffmanTable *dc, const HuffmanTable *ac,
                             int16_t *predictor, bool keep, int16_t *out)
{
    BitReader local = *reader;
    int index = read_dc(&local, dc, predictor);
    out[0] = *predictor;
    index = read_ac_until_end(&local, ac, index, keep, out);
    *reader = local;
    return block_length(index);
}

/* Decode a block of each of two streams, symbol by symbol in turn. */
ALWAYS_INLINE void read_two_blocks(BitReader readers[2], const HuffmanTable *dc, const HuffmanTable *ac,
                                   int16_t *const predictors[2], bool keep, int16_t *const out[2],
                                   int lengths[2])
{
    BitReader a = readers[0], b = readers[1];
    int index_a = read_dc(&a, dc, predictors[0]);
    int index_b = read_dc(&b, dc, predictors[1]);
    out[0][0] = *predictors[0];
    out[1][0] = *predictors[1];
    while (index_a < 64 && index_b < 64) {
        reader_refill(&a);
        reader_refill(&b);
        index_a = read_ac(&a, ac, index_a, keep, out[0]);
        index_b = read_ac(&b, ac, index_b, keep, out[1]);
        if (index_a >= 64 || index_b >= 64)
            break;
        index_a = read_ac(&a, ac, index_a, keep, out[0]);
        index_b = read_ac(&b, ac, index_b, keep, out[1]);
    }
    index_a = read_ac_until_end(&a, ac, index_a, keep, out[0]);
    index_b = read_ac_until_end(&b, ac, index_b, keep, out[1]);
    readers[0] = a;
    readers[1] = b;
    lengths[0] = block_length(index_a);
    lengths[1] = block_length(index_b);
}

#endif
