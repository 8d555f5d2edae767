/* Huffman tables: from the code lengths of a DHT segment to a look-up table.
 *
 * A JPEG symbol is followed by "extra bits" that give the coefficient's value (T.81 F.1.2). Where code
 * and extra bits together are at most LOOKUP_BITS long, one look-up gives everything; where the next
 * AC symbol fits as well, it gives both. An entry:
 *
 *   bits  0- 5  bits to consume (codes + extra bits)
 *   bit      6  ENTRY_VALUE_FOLLOWS: the value is still in the stream (its size is in bits 16-19)
 *   bit      7  ENTRY_LONG_CODE: code longer than LOOKUP_BITS, or no code at all
 *   bits  8-15  advance: how far the coefficient index moves
 *   bits 16-31  value, signed
 *   bits 32-39  advance of the second symbol, 0: there is none
 *   bits 40-45  bits of the first symbol alone
 *   bits 48-63  value of the second symbol
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

/* The meaning of a symbol, with the value still to be read from the stream. */
static Symbol symbol_of(int code, int length, bool is_dc)
{
    int size = is_dc ? code : code & 15;
    int run = is_dc ? 0 : code >> 4;
    /* 8-bit baseline has DC differences of up to 11 bits and AC values of up to 10 (T.81 F.1.2).
     * The bit reader counts on it: larger sizes could empty its window. */
    if (size > (is_dc ? 11 : 10))
        return ENTRY_INVALID;
    if (!is_dc && size == 0)
        return (Symbol)length | (Symbol)(run == 15 ? 16 : ADVANCE_END_OF_BLOCK) << 8;
    Symbol symbol = (Symbol)(length + size) | (Symbol)(run + 1) << 8;
    return size == 0 ? symbol : symbol | ENTRY_VALUE_FOLLOWS | (Symbol)size << 16;
}

/* Fill the entries of all bit patterns that begin with this code. */
static void fill_entries(HuffmanTable *table, uint32_t code, int length, Symbol symbol)
{
    uint32_t first = code << (LOOKUP_BITS - length), count = 1u << (LOOKUP_BITS - length);
    bool has_value = (symbol & ENTRY_VALUE_FOLLOWS) && (symbol & 63) <= LOOKUP_BITS;
    for (uint32_t i = first; i < first + count; i++) {
        Symbol filled = has_value ? symbol_with_value((uint64_t)i << (64 - LOOKUP_BITS), symbol) : symbol;
        table->entries[i] = entry_of_one(filled);
    }
}

/* Add a second symbol to the entries in which it fits. */
static void add_second_symbols(HuffmanTable *table)
{
    uint64_t single[1 << LOOKUP_BITS];
    memcpy(single, table->entries, sizeof single);
    for (uint32_t i = 0; i < 1 << LOOKUP_BITS; i++) {
        uint64_t first = single[i], bits = first & 63;
        bool ends = (first >> 8 & 255) >= 64, partial = first & (ENTRY_VALUE_FOLLOWS | ENTRY_LONG_CODE);
        if (ends || partial)
            continue;
        uint64_t second = single[i << bits & ((1 << LOOKUP_BITS) - 1)];
        if ((second & (ENTRY_VALUE_FOLLOWS | ENTRY_LONG_CODE)) || bits + (second & 63) > LOOKUP_BITS ||
            (second >> 8 & 255) == ADVANCE_INVALID)
            continue;
        table->entries[i] = (first & 0xffffff00) | (bits + (second & 63)) | (second >> 8 & 255) << 32 |
                            bits << 40 | (second >> 16 & 0xffff) << 48;
    }
}

uint32_t huffman_long_code(const HuffmanTable *table, uint64_t window)
{
    for (int length = LOOKUP_BITS + 1; length <= 16; length++) {
        int32_t code = (int32_t)(window >> (64 - length));
        if (code > table->last_code[length])
            continue;
        int number = (code + table->symbol_offset[length]) & 255;
        Symbol symbol = symbol_of(table->symbols[number], length, table->is_dc);
        return symbol & ENTRY_VALUE_FOLLOWS ? symbol_with_value(window, symbol) : symbol;
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
                fill_entries(table, code, length, symbol_of(symbols[used], length, is_dc));
    }
    if (!is_dc)
        add_second_symbols(table);
    table->built = true;
    return STATUS_OK;
}
