/* The few vector operations that the resize is written in: for AVX2 and AVX-512, and in plain C for any
 * processor (compilers turn these loops into whatever the processor has). Those of the IDCT: floats.h.
 *
 * All give the same bits: integer operations are exact, float operations are single IEEE
 * operations in the same order (the build forbids fused multiply-add for this reason). */
#ifndef DISTRAIN_LANES_H
#define DISTRAIN_LANES_H

#include <string.h>

#include "entropy.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* GCC and Clang give this type the operators + - * lane by lane. */
#ifdef __AVX512BW__
typedef int16_t Int16s __attribute__((vector_size(64)));
#else
typedef int16_t Int16s __attribute__((vector_size(32)));
#endif

enum { VECTOR = sizeof(Int16s) / 2 };

ALWAYS_INLINE Int16s int16_load(const int16_t *p)
{
    Int16s lanes;
    memcpy(&lanes, p, sizeof lanes);
    return lanes;
}

ALWAYS_INLINE Int16s int16_all(int16_t value) { return (Int16s){0} + value; }

#ifdef __AVX2__

/* Integer registers of the widest kind, and the instructions on them, which work in each part of 16 bytes by
 * itself: the same code serves both widths. */
#ifdef __AVX512BW__
typedef __m512i Register;
#define WIDE(instruction) _mm512_##instruction
#else
typedef __m256i Register;
#define WIDE(instruction) _mm256_##instruction
#endif

ALWAYS_INLINE Int16s int16_all_of_pair(uint32_t pair) { return (Int16s)WIDE(set1_epi32)((int)pair); }

/* Bytes to int16, times 64. */
ALWAYS_INLINE Int16s int16_from_bytes_q6(const uint8_t *p)
{
#ifdef __AVX512BW__
    Register words = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)p));
#else
    Register words = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p));
#endif
    return (Int16s)WIDE(slli_epi16)(words, 6);
}

/* a * b / 32768, rounded half up. */
ALWAYS_INLINE Int16s int16_multiply_q15(Int16s a, Int16s b)
{
    return (Int16s)WIDE(mulhrs_epi16)((Register)a, (Register)b);
}

/* Store the parts of 16 bytes of a register `distance` bytes apart. */
ALWAYS_INLINE void store_parts(Register parts, void *out, ptrdiff_t distance)
{
    uint8_t *place = out;
#ifdef __AVX512BW__
    _mm_storeu_si128((__m128i *)place, _mm512_castsi512_si128(parts));
    _mm_storeu_si128((__m128i *)(place + distance), _mm512_extracti32x4_epi32(parts, 1));
    _mm_storeu_si128((__m128i *)(place + 2 * distance), _mm512_extracti32x4_epi32(parts, 2));
    _mm_storeu_si128((__m128i *)(place + 3 * distance), _mm512_extracti32x4_epi32(parts, 3));
#else
    _mm_storeu_si128((__m128i *)place, _mm256_castsi256_si128(parts));
    _mm_storeu_si128((__m128i *)(place + distance), _mm256_extracti128_si256(parts, 1));
#endif
}

/* in: 8 rows of VECTOR. out: VECTOR rows of 8, `stride` apart. */
ALWAYS_INLINE void int16_store_transposed(const Int16s rows[8], int16_t *out, ptrdiff_t stride)
{
    Register pair[8], quad[8], whole[8];
    for (int i = 0; i < 4; i++) {
        pair[2 * i] = WIDE(unpacklo_epi16)((Register)rows[2 * i], (Register)rows[2 * i + 1]);
        pair[2 * i + 1] = WIDE(unpackhi_epi16)((Register)rows[2 * i], (Register)rows[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            quad[4 * i + 2 * j] = WIDE(unpacklo_epi32)(pair[4 * i + j], pair[4 * i + j + 2]);
            quad[4 * i + 2 * j + 1] = WIDE(unpackhi_epi32)(pair[4 * i + j], pair[4 * i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        whole[2 * i] = WIDE(unpacklo_epi64)(quad[i], quad[i + 4]);
        whole[2 * i + 1] = WIDE(unpackhi_epi64)(quad[i], quad[i + 4]);
    }
    for (int i = 0; i < 8; i++)
        store_parts(whole[i], out + i * stride, 16 * stride); /* 8 rows further, 2 bytes each */
}

/* Two columns of int16 with 6 bits of fraction to bytes: add a half, shift, clamp. In each part of the
 * result: 8 rows of the first column, 8 rows of the second. */
ALWAYS_INLINE Register bytes_of_columns(Int16s first, Int16s second)
{
    return WIDE(packus_epi16)(WIDE(srai_epi16)((Register)(first + int16_all(32)), 6),
                              WIDE(srai_epi16)((Register)(second + int16_all(32)), 6));
}

/* in: 16 columns of VECTOR int16 with 6 bits of fraction. out: VECTOR rows of 16 bytes, `stride` apart.
 *
 * Four rounds of interleaving bring the bytes of a row together: after the round with 8-bit units a unit
 * holds 2 neighbouring columns of a row, then 4, 8 and 16. */
ALWAYS_INLINE void bytes_store_transposed(const Int16s columns[16], uint8_t *out, ptrdiff_t stride)
{
    Register a[8], b[8];
    for (int i = 0; i < 8; i++)
        a[i] = bytes_of_columns(columns[i], columns[i + 8]);
    for (int i = 0; i < 4; i++) { /* b: columns 0 1, 2 3, 4 5, 6 7, then 8 9, ... */
        b[i] = WIDE(unpacklo_epi8)(a[2 * i], a[2 * i + 1]);
        b[i + 4] = WIDE(unpackhi_epi8)(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) { /* a: columns 0-3 of rows 0-3 and 4-7, columns 4-7 of these, ... */
        a[2 * i] = WIDE(unpacklo_epi16)(b[2 * i], b[2 * i + 1]);
        a[2 * i + 1] = WIDE(unpackhi_epi16)(b[2 * i], b[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) /* b: columns 0-7 of rows 0 1, 2 3, 4 5, 6 7, then columns 8-15 */
        for (int j = 0; j < 2; j++) {
            b[4 * i + 2 * j] = WIDE(unpacklo_epi32)(a[4 * i + j], a[4 * i + j + 2]);
            b[4 * i + 2 * j + 1] = WIDE(unpackhi_epi32)(a[4 * i + j], a[4 * i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        a[2 * i] = WIDE(unpacklo_epi64)(b[i], b[i + 4]);
        a[2 * i + 1] = WIDE(unpackhi_epi64)(b[i], b[i + 4]);
    }
    for (int row = 0; row < 8; row++)
        store_parts(a[row], out + row * stride, 8 * stride);
}

#else

ALWAYS_INLINE Int16s int16_all_of_pair(uint32_t pair) { return int16_all((int16_t)pair); }

ALWAYS_INLINE Int16s int16_from_bytes_q6(const uint8_t *p)
{
    Int16s lanes;
    for (int i = 0; i < VECTOR; i++)
        lanes[i] = (int16_t)(p[i] << 6);
    return lanes;
}

ALWAYS_INLINE Int16s int16_multiply_q15(Int16s a, Int16s b)
{
    Int16s product;
    for (int i = 0; i < VECTOR; i++)
        product[i] = (int16_t)((a[i] * b[i] + (1 << 14)) >> 15);
    return product;
}

ALWAYS_INLINE void int16_store_transposed(const Int16s rows[8], int16_t *out, ptrdiff_t stride)
{
    for (int i = 0; i < VECTOR; i++)
        for (int j = 0; j < 8; j++)
            out[i * stride + j] = rows[j][i];
}

ALWAYS_INLINE void bytes_store_transposed(const Int16s columns[16], uint8_t *out, ptrdiff_t stride)
{
    for (int row = 0; row < VECTOR; row++)
        for (int i = 0; i < 16; i++) {
            int rounded = (columns[i][row] + 32) >> 6;
            out[row * stride + i] = (uint8_t)(rounded < 0 ? 0 : rounded > 255 ? 255 : rounded);
        }
}

#endif
#endif
