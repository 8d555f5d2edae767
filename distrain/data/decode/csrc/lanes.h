/* The few vector operations that the kernels are written in: for AVX2, and in plain C for any
 * processor (compilers turn these loops into whatever the processor has).
 *
 * Both halves give the same bits: integer operations are exact, float operations are single IEEE
 * operations in the same order (the build forbids fused multiply-add for this reason). */
#ifndef DISTRAIN_LANES_H
#define DISTRAIN_LANES_H

#include <string.h>

#include "entropy.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* GCC and Clang give these types the operators + - * lane by lane. */
typedef float Float8 __attribute__((vector_size(32)));
typedef int16_t Int16x16 __attribute__((vector_size(32)));

ALWAYS_INLINE Float8 float8_all(float value)
{
    return (Float8){value, value, value, value, value, value, value, value};
}

ALWAYS_INLINE Int16x16 int16_load(const int16_t *p)
{
    Int16x16 lanes;
    memcpy(&lanes, p, sizeof lanes);
    return lanes;
}

ALWAYS_INLINE Int16x16 int16_all(int16_t value)
{
    return (Int16x16){value, value, value, value, value, value, value, value,
                      value, value, value, value, value, value, value, value};
}

#ifdef __AVX2__

/* Eight int16 to eight floats. */
ALWAYS_INLINE Float8 float8_from_int16(const int16_t *p)
{
    return (Float8)_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* Clamp to 0..255, round half to even, store eight bytes. */
ALWAYS_INLINE void float8_store_bytes(Float8 value, uint8_t *out)
{
    __m256 clamped = _mm256_min_ps(_mm256_max_ps((__m256)value, _mm256_setzero_ps()), _mm256_set1_ps(255));
    __m256i rounded = _mm256_cvtps_epi32(clamped);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
    _mm_storel_epi64((__m128i *)out, _mm_packus_epi16(words, words));
}

ALWAYS_INLINE void float8_transpose(Float8 rows[8])
{
    __m256 pair[8], quad[8];
    for (int i = 0; i < 4; i++) {
        pair[2 * i] = _mm256_unpacklo_ps((__m256)rows[2 * i], (__m256)rows[2 * i + 1]);
        pair[2 * i + 1] = _mm256_unpackhi_ps((__m256)rows[2 * i], (__m256)rows[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            quad[4 * i + 2 * j] = _mm256_shuffle_ps(pair[4 * i + j], pair[4 * i + j + 2], 0x44);
            quad[4 * i + 2 * j + 1] = _mm256_shuffle_ps(pair[4 * i + j], pair[4 * i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        rows[i] = (Float8)_mm256_permute2f128_ps(quad[i], quad[i + 4], 0x20);
        rows[i + 4] = (Float8)_mm256_permute2f128_ps(quad[i], quad[i + 4], 0x31);
    }
}

/* Sixteen bytes to int16, times 64. */
ALWAYS_INLINE Int16x16 int16_from_bytes_q6(const uint8_t *p)
{
    return (Int16x16)_mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)), 6);
}

/* a * b / 32768, rounded half up. */
ALWAYS_INLINE Int16x16 int16_multiply_q15(Int16x16 a, Int16x16 b)
{
    return (Int16x16)_mm256_mulhrs_epi16((__m256i)a, (__m256i)b);
}

/* in: 8 rows of 16. out: 16 rows of 8, `stride` apart. */
ALWAYS_INLINE void int16_store_transposed(const Int16x16 rows[8], int16_t *out, ptrdiff_t stride)
{
    __m256i pair[8], quad[8], whole[8];
    for (int i = 0; i < 4; i++) {
        pair[2 * i] = _mm256_unpacklo_epi16((__m256i)rows[2 * i], (__m256i)rows[2 * i + 1]);
        pair[2 * i + 1] = _mm256_unpackhi_epi16((__m256i)rows[2 * i], (__m256i)rows[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            quad[4 * i + 2 * j] = _mm256_unpacklo_epi32(pair[4 * i + j], pair[4 * i + j + 2]);
            quad[4 * i + 2 * j + 1] = _mm256_unpackhi_epi32(pair[4 * i + j], pair[4 * i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        whole[2 * i] = _mm256_unpacklo_epi64(quad[i], quad[i + 4]);
        whole[2 * i + 1] = _mm256_unpackhi_epi64(quad[i], quad[i + 4]);
    }
    for (int i = 0; i < 8; i++) {
        _mm_storeu_si128((__m128i *)(out + i * stride), _mm256_castsi256_si128(whole[i]));
        _mm_storeu_si128((__m128i *)(out + (i + 8) * stride), _mm256_extracti128_si256(whole[i], 1));
    }
}

/* From 10 bits of integer and 6 of fraction to bytes: add a half, clamp. */
ALWAYS_INLINE __m128i bytes_from_q6(Int16x16 value)
{
    __m256i rounded = _mm256_srai_epi16((__m256i)(value + int16_all(32)), 6);
    return _mm_packus_epi16(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

/* One 16-byte part of interleaved RGB. Byte i of the part is byte 16 * part + i of the pixels, thus
 * colour (16 * part + i) % 3 of pixel (16 * part + i) / 3; the shuffles pick it, 0x80 picks nothing. */
ALWAYS_INLINE __m128i interleaved_part(__m128i r, __m128i g, __m128i b, int part)
{
    _Alignas(16) uint8_t pick[3][16];
    for (int i = 0; i < 16; i++)
        for (int colour = 0; colour < 3; colour++)
            pick[colour][i] = (16 * part + i) % 3 == colour ? (uint8_t)((16 * part + i) / 3) : 0x80;
    return _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(r, *(const __m128i *)pick[0]),
                                     _mm_shuffle_epi8(g, *(const __m128i *)pick[1])),
                        _mm_shuffle_epi8(b, *(const __m128i *)pick[2]));
}

/* Sixteen pixels of three planes (with 6 bits of fraction) to 48 bytes of RGB. */
ALWAYS_INLINE void store_rgb(Int16x16 r, Int16x16 g, Int16x16 b, uint8_t *out)
{
    __m128i red = bytes_from_q6(r), green = bytes_from_q6(g), blue = bytes_from_q6(b);
    _mm_storeu_si128((__m128i *)out, interleaved_part(red, green, blue, 0));
    _mm_storeu_si128((__m128i *)(out + 16), interleaved_part(red, green, blue, 1));
    _mm_storeu_si128((__m128i *)(out + 32), interleaved_part(red, green, blue, 2));
}

#else

ALWAYS_INLINE Float8 float8_from_int16(const int16_t *p)
{
    return (Float8){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
}

ALWAYS_INLINE void float8_store_bytes(Float8 value, uint8_t *out)
{
    /* Adding 1.5 * 2^23 leaves the integer, rounded half to even, in the low bits of the float. */
    for (int i = 0; i < 8; i++) {
        float clamped = value[i] > 0 ? value[i] : 0;
        clamped = (clamped < 255 ? clamped : 255) + 12582912.0f;
        uint32_t bits;
        memcpy(&bits, &clamped, 4);
        out[i] = (uint8_t)bits;
    }
}

ALWAYS_INLINE void float8_transpose(Float8 rows[8])
{
    for (int i = 0; i < 8; i++)
        for (int j = i + 1; j < 8; j++) {
            float kept = rows[i][j];
            rows[i][j] = rows[j][i];
            rows[j][i] = kept;
        }
}

ALWAYS_INLINE Int16x16 int16_from_bytes_q6(const uint8_t *p)
{
    Int16x16 lanes;
    for (int i = 0; i < 16; i++)
        lanes[i] = (int16_t)(p[i] << 6);
    return lanes;
}

ALWAYS_INLINE Int16x16 int16_multiply_q15(Int16x16 a, Int16x16 b)
{
    Int16x16 product;
    for (int i = 0; i < 16; i++)
        product[i] = (int16_t)((a[i] * b[i] + (1 << 14)) >> 15);
    return product;
}

ALWAYS_INLINE void int16_store_transposed(const Int16x16 rows[8], int16_t *out, ptrdiff_t stride)
{
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            out[i * stride + j] = rows[j][i];
}

ALWAYS_INLINE uint8_t byte_from_q6(int16_t value)
{
    int rounded = (value + 32) >> 6;
    return (uint8_t)(rounded < 0 ? 0 : rounded > 255 ? 255 : rounded);
}

ALWAYS_INLINE void store_rgb(Int16x16 r, Int16x16 g, Int16x16 b, uint8_t *out)
{
    for (int i = 0; i < 16; i++) {
        out[3 * i] = byte_from_q6(r[i]);
        out[3 * i + 1] = byte_from_q6(g[i]);
        out[3 * i + 2] = byte_from_q6(b[i]);
    }
}

#endif
#endif
