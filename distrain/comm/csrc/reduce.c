#include "reduce.h"

#include <stdint.h>
#include <string.h>

/* Elements that are combined at a time: the accumulators of a block stay in the first-level cache. */
#define BLOCK 1024

/* The loops below are plain C that the compiler vectorises; on x86 also for processors with AVX2, which
 * the loader chooses when the library is loaded. No fused multiply-add: results are the same everywhere. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

static inline float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t as_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float from_bf16(uint16_t bits) { return as_float((uint32_t)bits << 16); }

/* Round to nearest, ties to even. */
static inline uint16_t to_bf16(float value)
{
    uint32_t bits = as_bits(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return value != value ? 0x7fc0 : rounded;
}

/* A half's exponent is rebased by a multiplication, which also makes its subnormals normal. */
static inline float from_f16(uint16_t bits)
{
    uint32_t magnitude = (uint32_t)(bits & 0x7fff) << 13;
    uint32_t finite = as_bits(as_float(magnitude) * 0x1p112f);
    uint32_t result = magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : finite; /* infinity, NaN */
    return as_float(result | (uint32_t)(bits & 0x8000) << 16);
}

/* Round to nearest, ties to even. Adding 0.5 rounds a subnormal half, whose last bit is worth 2^-24. */
static inline uint16_t to_f16(float value)
{
    uint32_t bits = as_bits(value), magnitude = bits & 0x7fffffff;
    uint32_t normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112u << 23)) >> 13;
    uint32_t subnormal = as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f);
    uint32_t huge = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
    uint32_t result = magnitude < 0x38800000 ? subnormal : normal;
    result = magnitude >= 0x47800000 ? huge : result;
    return result | (bits >> 16 & 0x8000);
}

#define SAME(x) (x)

/* T: the type in memory. A: the type in which it is combined. D: the type in which it is divided.
 * RESULT combines x and y. Three sources in one pass spare the accumulators two trips to memory. */
#define REDUCER(NAME, T, A, D, LOAD, STORE, RESULT)                                                        \
    static inline A NAME##_pair(A x, A y) { return (A)(RESULT); }                                          \
    FOR_EACH_PROCESSOR static void NAME(void *out, const void *const *sources, int count, size_t elements, \
                                        int divisor)                                                       \
    {                                                                                                      \
        for (size_t at = 0; at < elements; at += BLOCK) {                                                  \
            size_t n = elements - at < BLOCK ? elements - at : BLOCK;                                      \
            A total[BLOCK];                                                                                \
            const T *first = (const T *)sources[0] + at;                                                   \
            for (size_t i = 0; i < n; i++)                                                                 \
                total[i] = LOAD(first[i]);                                                                 \
            int s = 1;                                                                                     \
            for (; s + 2 < count; s += 3) {                                                                \
                const T *a = (const T *)sources[s] + at, *b = (const T *)sources[s + 1] + at;              \
                const T *c = (const T *)sources[s + 2] + at;                                               \
                for (size_t i = 0; i < n; i++) {                                                           \
                    A x = NAME##_pair(total[i], LOAD(a[i]));                                               \
                    total[i] = NAME##_pair(NAME##_pair(x, LOAD(b[i])), LOAD(c[i]));                        \
                }                                                                                          \
            }                                                                                              \
            for (; s < count; s++) {                                                                       \
                const T *next = (const T *)sources[s] + at;                                                \
                for (size_t i = 0; i < n; i++)                                                             \
                    total[i] = NAME##_pair(total[i], LOAD(next[i]));                                       \
            }                                                                                              \
            if (divisor > 1)                                                                               \
                for (size_t i = 0; i < n; i++)                                                             \
                    total[i] = (A)(total[i] / (D)divisor);                                                 \
            T *target = (T *)out + at;                                                                     \
            for (size_t i = 0; i < n; i++)                                                                 \
                target[i] = STORE(total[i]);                                                               \
        }                                                                                                  \
    }

/* A NaN on either side is the result. */
#define REAL(NAME, T, A, LOAD, STORE)                                                                      \
    REDUCER(NAME##_sum, T, A, A, LOAD, STORE, x + y)                                                       \
    REDUCER(NAME##_prod, T, A, A, LOAD, STORE, x * y)                                                      \
    REDUCER(NAME##_min, T, A, A, LOAD, STORE, x < y || x != x ? x : y)                                     \
    REDUCER(NAME##_max, T, A, A, LOAD, STORE, x > y || x != x ? x : y)
#define INTEGER(NAME, T)                                                                                   \
    REDUCER(NAME##_sum, T, T, int64_t, SAME, SAME, x + y)                                                  \
    REDUCER(NAME##_prod, T, T, int64_t, SAME, SAME, x * y)                                                 \
    REDUCER(NAME##_min, T, T, int64_t, SAME, SAME, x < y ? x : y)                                          \
    REDUCER(NAME##_max, T, T, int64_t, SAME, SAME, x > y ? x : y)                                          \
    REDUCER(NAME##_and, T, T, int64_t, SAME, SAME, x & y)                                                  \
    REDUCER(NAME##_or, T, T, int64_t, SAME, SAME, x | y)                                                   \
    REDUCER(NAME##_xor, T, T, int64_t, SAME, SAME, x ^ y)

REAL(f32, float, float, SAME, SAME)
REAL(f64, double, double, SAME, SAME)
REAL(f16, uint16_t, float, from_f16, to_f16)
REAL(bf16, uint16_t, float, from_bf16, to_bf16)
INTEGER(i8, int8_t)
INTEGER(u8, uint8_t)
INTEGER(i16, int16_t)
INTEGER(u16, uint16_t)
INTEGER(i32, int32_t)
INTEGER(u32, uint32_t)
INTEGER(i64, int64_t)
INTEGER(u64, uint64_t)

#define REAL_ROW(NAME) {NAME##_sum, NAME##_prod, NAME##_min, NAME##_max, NULL, NULL, NULL}
#define INTEGER_ROW(NAME)                                                                                  \
    {NAME##_sum, NAME##_prod, NAME##_min, NAME##_max, NAME##_and, NAME##_or, NAME##_xor}

static const reducer REDUCERS[TYPES][OPS] = {
    REAL_ROW(f32),    REAL_ROW(f64),    REAL_ROW(f16),    REAL_ROW(bf16),
    INTEGER_ROW(i8),  INTEGER_ROW(u8),  INTEGER_ROW(i16), INTEGER_ROW(u16),
    INTEGER_ROW(i32), INTEGER_ROW(u32), INTEGER_ROW(i64), INTEGER_ROW(u64),
};
static const size_t SIZES[TYPES] = {4, 8, 2, 2, 1, 1, 2, 2, 4, 4, 8, 8};

reducer find_reducer(int type, int op)
{
    int known = type >= 0 && type < TYPES && op >= 0 && op < OPS;
    return known ? REDUCERS[type][op] : NULL;
}

size_t type_size(int type) { return SIZES[type]; }

/* Of two ranks, one may add in a thread of the program and the other in the engine's. Where only the first
 * takes denormals for zero (torch.set_flush_denormal), they would end with different sums; and a half below
 * 2^-14 is a denormal float on its way through `from_f16`. */
void combine(reducer how, void *out, const void *const *sources, int count, size_t elements, int divisor)
{
#ifdef __SSE2__
    const unsigned flush = 0x8040; /* FTZ, DAZ */
    unsigned state = __builtin_ia32_stmxcsr();
    if (state & flush) {
        __builtin_ia32_ldmxcsr(state & ~flush);
        how(out, sources, count, elements, divisor);
        __builtin_ia32_ldmxcsr(state);
        return;
    }
#endif
    how(out, sources, count, elements, divisor);
}

void distrain_shared_divide(int type, void *numbers, uint64_t count, int divisor)
{
    const void *sources[] = {numbers};
    combine(find_reducer(type, SUM), numbers, sources, 1, count, divisor);
}
