/* Huffman tables: from the code lengths of a DHT segment to a look-up table.
 *
 * A JPEG symbol is followed by "extra bits" that give the coefficient's value (T.81 F.1.2). Where code
 * and extra bits together are at most LOOKUP_BITS long, one look-up gives everything:
 *
 *   bits  0- 5  bits to consume (code + extra bits)
 *   bit      6  ENTRY_VALUE_FOLLOWS: the value is still in the stream (its size is in bits 16-19)
 *   bit      7  ENTRY_LONG_CODE: code longer than LOOKUP_BITS, or no code at all
 *   bits  8-15  advance: how far the coefficient index moves
 *   bits 16-31  value, signed
 */
#include <string.h>

#include "entropy.h"
#include "jpeg.h"

const uint8_t coefficient_slot[65 + 255] = {
    64, /* no coefficient moves the index to 0 */
    0, 8, 1, 2, 9, 16, 24, 17, 10, 3, 4, 11, 18, 25, 32, 40,
    33, 26, 19, 12, 5, 6, 13, 20, 27, 34, 41, 48, 56, 49, 42, 35,
    28, 21, 14, 7, 15, 22, 29, 36, 43, 50, 57, 58, 51, 44, 37, 30,
    23, 31, 38, 45, 52, 59, 60, 53, 46, 39, 47, 54, 61, 62, 55, 63,
    [65 ... 319] = 64};

/* The complete meaning of one symbol, with the value still to be read from the stream. */
static uint32_t symbol_entry(int symbol, int length, bool is_dc)
{
    int size = is_dc ? symbol : symbol & 15;
    int run = is_dc ? 0 : symbol >> 4;
    /* 8-bit baseline has DC differences of up to 11 bits and AC values of up to 10 (T.81 F.1.2).
     * The bit reader counts on it: larger sizes could empty its window. */
    if (size > (is_dc ? 11 : 10))
        return ENTRY_INVALID;
    if (!is_dc && size == 0)
        return (uint32_t)length | (uint32_t)(run == 15 ? 16 : ADVANCE_END_OF_BLOCK) << 8;
    uint32_t entry = (uint32_t)(length + size) | (uint32_t)(run + 1) << 8;
    return size == 0 ? entry : entry | ENTRY_VALUE_FOLLOWS | (uint32_t)size << 16;
}

/* Fill the entries of all bit patterns that begin with this code. */
static void fill_entries(HuffmanTable *table, uint32_t code, int length, uint32_t entry)
{
    uint32_t first = code << (LOOKUP_BITS - length), count = 1u << (LOOKUP_BITS - length);
    for (uint32_t i = first; i < first + count; i++) {
        uint32_t filled = entry;
        if ((entry & ENTRY_VALUE_FOLLOWS) && (entry & 63) <= LOOKUP_BITS)
            filled = entry_with_value((uint64_t)i << (64 - LOOKUP_BITS), entry);
        table->entries[i] = filled;
    }
}

uint32_t huffman_long_code(const HuffmanTable *table, uint64_t window)
{
    for (int length = LOOKUP_BITS + 1; length <= 16; length++) {
        int32_t code = (int32_t)(window >> (64 - length));
        if (code > table->last_code[length])
            continue;
        int symbol = table->symbols[(code + table->symbol_offset[length]) & 255];
        uint32_t entry = symbol_entry(symbol, length, table->is_dc);
        return entry & ENTRY_VALUE_FOLLOWS ? entry_with_value(window, entry) : entry;
    }
    return ENTRY_INVALID;
}

/* Build a table, or keep it where it is the same as in the image before (most encoders use the
 * standard tables of T.81 annex K; building costs about 10 microseconds). */
Status huffman_build(HuffmanTable *table, const uint8_t *counts, const uint8_t *symbols, int count,
                     bool is_dc)
{
    if (table->built && table->symbol_count == count && memcmp(table->counts, counts, 16) == 0 &&
        memcmp(table->symbols, symbols, (size_t)count) == 0)
        return STATUS_OK;
    table->built = false;
    table->is_dc = is_dc;
    table->symbol_count = count;
    memcpy(table->counts, counts, 16);
    memset(table->symbols, 0, sizeof table->symbols);
    memcpy(table->symbols, symbols, (size_t)count);
    for (int i = 0; i < 1 << LOOKUP_BITS; i++)
        table->entries[i] = ENTRY_LONG_CODE;

    /* Codes are numbered upwards within a length; the next length continues with a 0 appended
     * (T.81 annex C). The all-ones code is reserved, so that a length is full before its end. */
    uint32_t code = 0;
    int used = 0;
    for (int length = 1; length <= 16; length++, code <<= 1) {
        int here = counts[length - 1];
        if (code + (uint32_t)here >= 1u << length)
            return STATUS_BAD_TABLE;
        table->symbol_offset[length] = used - (int32_t)code;
        table->last_code[length] = here ? (int32_t)code + here - 1 : -1;
        for (int i = 0; i < here; i++, code++, used++)
            if (length <= LOOKUP_BITS)
                fill_entries(table, code, length, symbol_entry(symbols[used], length, is_dc));
    }
    table->built = true;
    return STATUS_OK;
}
