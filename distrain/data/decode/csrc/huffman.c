/* Huffman tables: from the code lengths of a DHT segment to a look-up table.
 *
 * A JPEG symbol is followed by "extra bits" that give the coefficient's value (T.81 F.1.2). Where code
 * and extra bits together are at most LOOKUP_BITS long, one look-up gives everything; where the next
 * AC symbol fits as well, it gives both. Where only the last extra bits do not fit, it gives what the first
 * ones make of the value: the others are added to it. An entry:
 *
 *   bits  0- 5  bits to consume (codes + extra bits)
 *   bit      7  ENTRY_LONG_CODE: code too long for its sign to fit, or no code at all
 *   bits  8-15  advance: how far the coefficient index moves
 *   bits 16-31  value of the first symbol, signed
 *   bits 32-39  advance of the first symbol alone
 *   bits 40-45  63 - number of extra bits that the value still lacks
 *   bits 48-53  bits of the first symbol alone
 *   bits 56-63  value of the second symbol, signed, 0 where there is none
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

static Entry entry_of_one(int bits, int advance, int value, int lacking)
{
    return (Entry)bits | (Entry)advance << 8 | (Entry)(value & 0xffff) << 16 | (Entry)advance << 32 |
           (Entry)(63 - lacking) << 40 | (Entry)bits << 48;
}

/* The entry of a symbol whose code has `length` bits. extra: the `known` bits that follow. */
static Entry entry_of(int code, int length, bool is_dc, uint32_t extra, int known)
{
    int size = is_dc ? code : code & 15;
    int run = is_dc ? 0 : code >> 4;
    /* 8-bit baseline has DC differences of up to 11 bits and AC values of up to 10 (T.81 F.1.2).
     * The bit reader counts on it: larger sizes could empty its window. */
    if (size > (is_dc ? 11 : 10))
        return entry_of_one(0, ADVANCE_INVALID, 0, 0);
    if (size == 0)
        return entry_of_one(length, is_dc ? 1 : run == 15 ? 16 : ADVANCE_END_OF_BLOCK, 0, 0);
    if (known == 0)
        return ENTRY_LONG_CODE;
    int used = known < size ? known : size, lacking = size - used;
    int value = (int)(extra >> (known - used) << lacking);
    /* A value whose first bit is 0 is negative: v - (2^size - 1) (T.81 F.2.2.1, EXTEND). */
    if (!(extra >> (known - 1)))
        value -= (1 << size) - 1;
    return entry_of_one(length + size, run + 1, value, lacking);
}

/* Fill the entries of all bit patterns that begin with this code. */
static void fill_entries(HuffmanTable *table, uint32_t code, int length, int symbol)
{
    int known = LOOKUP_BITS - length;
    for (uint32_t extra = 0; extra < 1u << known; extra++)
        table->entries[(code << known) + extra] = entry_of(symbol, length, table->is_dc, extra, known);
}

/* Add a second symbol to the entries in which it fits. */
static void add_second_symbols(HuffmanTable *table)
{
    Entry single[1 << LOOKUP_BITS];
    memcpy(single, table->entries, sizeof single);
    for (uint32_t i = 0; i < 1 << LOOKUP_BITS; i++) {
        Entry first = single[i], bits = first & 63;
        if ((first & ENTRY_LONG_CODE) || (first >> 8 & 255) >= 64 || bits > LOOKUP_BITS)
            continue;
        Entry second = single[i << bits & ((1 << LOOKUP_BITS) - 1)];
        int16_t value = (int16_t)(second >> 16);
        if ((second & ENTRY_LONG_CODE) || bits + (second & 63) > LOOKUP_BITS ||
            (second >> 8 & 255) == ADVANCE_INVALID || value != (int8_t)value)
            continue;
        /* Both lengths and both advances (at most 16 + 128) in one sum. */
        table->entries[i] = first + (second & 0xff3f) + ((Entry)value << 56);
    }
}

Entry huffman_long_code(const HuffmanTable *table, uint64_t window)
{
    for (int length = LOOKUP_BITS; length <= 16; length++) {
        int32_t code = (int32_t)(window >> (64 - length));
        if (code > table->last_code[length])
            continue;
        int number = (code + table->symbol_offset[length]) & 255;
        uint32_t extra = (uint32_t)(window << length >> 48); /* 16 bits: more than any value has */
        return entry_of(table->symbols[number], length, table->is_dc, extra, 16);
    }
    return entry_of_one(0, ADVANCE_INVALID, 0, 0);
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
                fill_entries(table, code, length, symbols[used]);
    }
    if (!is_dc)
        add_second_symbols(table);
    table->built = true;
    return STATUS_OK;
}
