/* The vectors of the IDCT: eight floats for each of the BLOCKS blocks that are transformed at once, two with
 * AVX-512, else one. What lanes.h says of the bits holds here too. */
#ifndef DISTRAIN_FLOATS_H
#define DISTRAIN_FLOATS_H

#include <string.h>

#include "entropy.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

/* GCC and Clang give this type the operators + - * lane by lane. */
#ifdef __AVX512BW__
typedef float Floats __attribute__((vector_size(64)));
#else
typedef float Floats __attribute__((vector_size(32)));
#endif

enum { BLOCKS = sizeof(Floats) / 32 };

/* Where a block goes, and how it is scaled. */
typedef struct {
    const float *factor; /* [64], transposed as its coefficients are */
    uint8_t *out;        /* 8 rows of 8 samples */
    ptrdiff_t stride;    /* bytes between rows */
} BlockPlace;

ALWAYS_INLINE Floats floats_all(float value) { return (Floats){0} + value; }

#if defined __AVX512BW__

/* Eight int16 of each block to floats; a block's are 64 behind those of the block before. */
ALWAYS_INLINE Floats floats_from_int16(const int16_t *p)
{
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p)),
                                           _mm_loadu_si128((const __m128i *)(p + 64)), 1);
    return (Floats)_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(both));
}

/* Eight factors of each block, from number `at` on. */
ALWAYS_INLINE Floats floats_factors(const BlockPlace places[BLOCKS], int at)
{
    __m256d first = _mm256_castps_pd(_mm256_load_ps(places[0].factor + at));
    __m256d second = _mm256_castps_pd(_mm256_load_ps(places[1].factor + at));
    return (Floats)_mm512_insertf64x4(_mm512_castpd256_pd512(first), second, 1);
}

#define FLOATS(instruction) _mm512_##instruction
typedef __m512 FloatRegister;

/* Put 16-byte parts 0 of both registers (and 2, with two blocks) side by side; then the same with parts 1 and 3. */
ALWAYS_INLINE FloatRegister even_parts(FloatRegister a, FloatRegister b)
{
    const __m512i order = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    return _mm512_castpd_ps(_mm512_permutex2var_pd(_mm512_castps_pd(a), order, _mm512_castps_pd(b)));
}

ALWAYS_INLINE FloatRegister odd_parts(FloatRegister a, FloatRegister b)
{
    const __m512i order = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    return _mm512_castpd_ps(_mm512_permutex2var_pd(_mm512_castps_pd(a), order, _mm512_castps_pd(b)));
}

#elif defined __AVX2__

ALWAYS_INLINE Floats floats_from_int16(const int16_t *p)
{
    return (Floats)_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p)));
}

#define FLOATS(instruction) _mm256_##instruction
typedef __m256 FloatRegister;

ALWAYS_INLINE FloatRegister even_parts(FloatRegister a, FloatRegister b)
{
    return _mm256_permute2f128_ps(a, b, 0x20);
}

ALWAYS_INLINE FloatRegister odd_parts(FloatRegister a, FloatRegister b)
{
    return _mm256_permute2f128_ps(a, b, 0x31);
}

#endif

#ifndef __AVX512BW__

ALWAYS_INLINE Floats floats_factors(const BlockPlace places[BLOCKS], int at)
{
    Floats factors;
    memcpy(&factors, places[0].factor + at, sizeof factors);
    return factors;
}

#endif

#ifdef __AVX2__

/* Transpose the 8 x 8 of each block. */
ALWAYS_INLINE void floats_transpose(Floats rows[8])
{
    FloatRegister pair[8], quad[8];
    for (int i = 0; i < 4; i++) {
        pair[2 * i] = FLOATS(unpacklo_ps)((FloatRegister)rows[2 * i], (FloatRegister)rows[2 * i + 1]);
        pair[2 * i + 1] = FLOATS(unpackhi_ps)((FloatRegister)rows[2 * i], (FloatRegister)rows[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            quad[4 * i + 2 * j] = FLOATS(shuffle_ps)(pair[4 * i + j], pair[4 * i + j + 2], 0x44);
            quad[4 * i + 2 * j + 1] = FLOATS(shuffle_ps)(pair[4 * i + j], pair[4 * i + j + 2], 0xee);
        }
    for (int i = 0; i < 4; i++) {
        rows[i] = (Floats)even_parts(quad[i], quad[i + 4]);
        rows[i + 4] = (Floats)odd_parts(quad[i], quad[i + 4]);
    }
}

/* Store two rows, each of 8 bytes, that lie side by side. */
ALWAYS_INLINE void store_two_rows(__m128i rows, uint8_t *out, ptrdiff_t stride)
{
    _mm_storel_epi64((__m128i *)out, rows);
    _mm_storeh_pd((double *)(out + stride), _mm_castsi128_pd(rows));
}

/* The rows of each block to bytes: round half to even, clamp (values past 2^31, which only damaged data have,
 * become 0). */
ALWAYS_INLINE void floats_store_bytes(const Floats rows[8], const BlockPlace places[BLOCKS])
{
    for (int half = 0; half < 2; half++) {
        const Floats *four = rows + 4 * half;
        /* Packing works in each 16 bytes by itself: the left and right parts of a row have to be brought together. */
#ifdef __AVX512BW__
        __m512i words[2];
        for (int i = 0; i < 2; i++)
            words[i] = _mm512_packs_epi32(_mm512_cvtps_epi32((__m512)four[2 * i]),
                                          _mm512_cvtps_epi32((__m512)four[2 * i + 1]));
        const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
        __m512i all = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(words[0], words[1]));
        __m256i bytes[BLOCKS] = {_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1)};
#else
        __m256i words[2];
        for (int i = 0; i < 2; i++)
            words[i] = _mm256_packs_epi32(_mm256_cvtps_epi32((__m256)four[2 * i]),
                                          _mm256_cvtps_epi32((__m256)four[2 * i + 1]));
        __m256i bytes[BLOCKS] = {_mm256_permutevar8x32_epi32(_mm256_packus_epi16(words[0], words[1]),
                                                             _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))};
#endif
        for (int k = 0; k < BLOCKS; k++) {
            ptrdiff_t stride = places[k].stride;
            uint8_t *out = places[k].out + 4 * half * stride;
            store_two_rows(_mm256_castsi256_si128(bytes[k]), out, stride);
            store_two_rows(_mm256_extracti128_si256(bytes[k], 1), out + 2 * stride, stride);
        }
    }
}

#else

ALWAYS_INLINE Floats floats_from_int16(const int16_t *p)
{
    return (Floats){p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]};
}

ALWAYS_INLINE void floats_transpose(Floats rows[8])
{
    for (int i = 0; i < 8; i++)
        for (int j = i + 1; j < 8; j++) {
            float kept = rows[i][j];
            rows[i][j] = rows[j][i];
            rows[j][i] = kept;
        }
}

ALWAYS_INLINE void floats_store_bytes(const Floats rows[8], const BlockPlace places[BLOCKS])
{
    for (int row = 0; row < 8; row++)
        for (int i = 0; i < 8; i++) {
            float value = rows[row][i];
            value = value > 0 && value < 2147483648.0f ? value : 0;
            /* Adding 1.5 * 2^23 leaves the integer, rounded half to even, in the low bits of the float. */
            value = (value < 255 ? value : 255) + 12582912.0f;
            uint32_t bits;
            memcpy(&bits, &value, 4);
            places[0].out[row * places[0].stride + i] = (uint8_t)bits;
        }
}

#endif
#endif
