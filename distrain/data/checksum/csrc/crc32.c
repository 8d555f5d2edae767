// CRC-32 by folding with carry-less multiplication.
//
// Source: Gopal, Ozturk, Guilford, Wolrich, Feghali, Dixon, Karakoyunlu, "Fast CRC Computation for Generic
// Polynomials Using PCLMULQDQ Instruction", Intel, 2009. A message is a polynomial over GF(2). A block A that
// lies D bits before a block B may be replaced by A * x^D mod P, added to B: the remainder of the whole stays.
// A has 128 bits; its two halves are multiplied by x^(D+32) mod P and x^(D-32) mod P, 32 bits each, so the sum
// fits into the 128 bits of B. (In the reflected order of bits the product of 64 and 32 bits comes out 33 bits
// too far to one side: hence the 32 and one bit of shift.) What remains, 16 bytes, goes through the tables.

#include "crc32.h"

#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define REFLECTED 0xEDB88320u  // the polynomial without x^32, the coefficient of x^31 in bit 0

#if defined(__x86_64__) && ((defined(__clang__) && __clang_major__ >= 8) || (!defined(__clang__) && __GNUC__ >= 9))
#define HAVE_CLMUL
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_BIG_ENDIAN) == 0 && (defined(__linux__) || defined(__APPLE__))
#define HAVE_ARM_CRC
#ifdef __linux__
#include <sys/auxv.h>
#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif
#endif
#endif

static uint32_t tables[8][256];  // tables[k][b]: remainder of byte b with k zero bytes behind it
static uint64_t fold_1[2], fold_4[2], fold_16[2];  // factors that carry a block 1, 4 and 16 blocks on
static int best;

// x^n mod P, reflected.
EXPORT uint32_t distrain_checksum_power(unsigned n) {
    uint32_t value = 0x80000000u;  // 1
    while (n--) value = (value >> 1) ^ (value & 1 ? REFLECTED : 0);
    return value;
}

static void set_fold(uint64_t *factors, unsigned blocks) {
    factors[0] = (uint64_t)distrain_checksum_power(128 * blocks + 32) << 1;
    factors[1] = (uint64_t)distrain_checksum_power(128 * blocks - 32) << 1;
}

static uint64_t load64(const uint8_t *p) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value |= (uint64_t)p[i] << (8 * i);  // one instruction on little-endian
    return value;
}

// All kernels work on the register of the CRC: the checksum with all bits inverted.
static uint32_t by_tables(uint32_t state, const uint8_t *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word = load64(data) ^ state;
        state = 0;
        for (int i = 0; i < 8; i++) state ^= tables[7 - i][(word >> (8 * i)) & 255];
    }
    while (size--) state = (state >> 8) ^ tables[0][(state ^ *data++) & 255];
    return state;
}

#ifdef HAVE_CLMUL

// With AVX for its form of the instruction: on Zen 5 the older one takes more than twice as long.
#define ONE_LANE __attribute__((target("pclmul,avx")))
#define FOUR_LANES __attribute__((target("vpclmulqdq,avx512f,avx512vl,pclmul,avx")))

ONE_LANE static inline __m128i fold(__m128i block, __m128i factors, __m128i onto) {
    __m128i low = _mm_clmulepi64_si128(block, factors, 0x00);
    __m128i high = _mm_clmulepi64_si128(block, factors, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), onto);
}

ONE_LANE static inline __m128i load(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }

// Four blocks at a time: the multiplier takes a new one each cycle, and some cycles for each.
ONE_LANE static uint32_t by_one_lane(uint32_t state, const uint8_t *data, size_t size) {
    if (size < 64) return by_tables(state, data, size);
    __m128i by_4 = _mm_loadu_si128((const __m128i *)fold_4), by_1 = _mm_loadu_si128((const __m128i *)fold_1);
    __m128i a = _mm_xor_si128(load(data), _mm_cvtsi32_si128((int)state));
    __m128i b = load(data + 16), c = load(data + 32), d = load(data + 48);
    for (data += 64, size -= 64; size >= 64; data += 64, size -= 64) {
        a = fold(a, by_4, load(data));
        b = fold(b, by_4, load(data + 16));
        c = fold(c, by_4, load(data + 32));
        d = fold(d, by_4, load(data + 48));
    }
    a = fold(fold(fold(a, by_1, b), by_1, c), by_1, d);
    for (; size >= 16; data += 16, size -= 16) a = fold(a, by_1, load(data));
    uint8_t rest[16];
    _mm_storeu_si128((__m128i *)rest, a);
    return by_tables(by_tables(0, rest, 16), data, size);
}

FOUR_LANES static inline __m512i fold_wide(__m512i blocks, __m512i factors, __m512i onto) {
    __m512i low = _mm512_clmulepi64_epi128(blocks, factors, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(blocks, factors, 0x11);
    return _mm512_ternarylogic_epi64(low, high, onto, 0x96);  // all three added
}

FOUR_LANES static inline __m512i load_wide(const uint8_t *p) { return _mm512_loadu_si512((const void *)p); }

// Sixteen blocks at a time, four in each register.
FOUR_LANES static uint32_t by_four_lanes(uint32_t state, const uint8_t *data, size_t size) {
    if (size < 256) return by_one_lane(state, data, size);
    __m512i by_16 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold_16));
    __m512i by_4 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold_4));
    __m512i first = _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)state));
    __m512i a = _mm512_xor_si512(load_wide(data), first);
    __m512i b = load_wide(data + 64), c = load_wide(data + 128), d = load_wide(data + 192);
    for (data += 256, size -= 256; size >= 256; data += 256, size -= 256) {
        a = fold_wide(a, by_16, load_wide(data));
        b = fold_wide(b, by_16, load_wide(data + 64));
        c = fold_wide(c, by_16, load_wide(data + 128));
        d = fold_wide(d, by_16, load_wide(data + 192));
    }
    a = fold_wide(fold_wide(fold_wide(a, by_4, b), by_4, c), by_4, d);
    for (; size >= 64; data += 64, size -= 64) a = fold_wide(a, by_4, load_wide(data));
    uint8_t rest[64];
    _mm512_storeu_si512((void *)rest, a);
    return by_one_lane(by_one_lane(0, rest, 64), data, size);
}

#endif

#ifdef HAVE_ARM_CRC

// By assembler, since <arm_acle.h> hides the instructions unless the whole file is compiled for them.
static uint32_t by_one_lane(uint32_t state, const uint8_t *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word = load64(data);
        __asm__(".arch_extension crc\n\tcrc32x %w0, %w0, %x1" : "+r"(state) : "r"(word));
    }
    return by_tables(state, data, size);
}

#endif

static int best_kernel(void) {
#ifdef HAVE_CLMUL
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("pclmul") || !__builtin_cpu_supports("avx")) return KERNEL_PORTABLE;
    int wide = __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx512f");
    return wide && __builtin_cpu_supports("avx512vl") ? KERNEL_FOUR_LANES : KERNEL_ONE_LANE;
#elif defined(HAVE_ARM_CRC) && defined(__linux__)
    return getauxval(AT_HWCAP) & HWCAP_CRC32 ? KERNEL_ONE_LANE : KERNEL_PORTABLE;
#elif defined(HAVE_ARM_CRC)
    return KERNEL_ONE_LANE;  // every 64-bit processor of Apple has it
#else
    return KERNEL_PORTABLE;
#endif
}

__attribute__((constructor)) static void prepare(void) {
    for (unsigned byte = 0; byte < 256; byte++) {
        uint32_t value = byte;
        for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ (value & 1 ? REFLECTED : 0);
        tables[0][byte] = value;
    }
    for (int behind = 1; behind < 8; behind++)
        for (unsigned byte = 0; byte < 256; byte++) {
            uint32_t value = tables[behind - 1][byte];
            tables[behind][byte] = (value >> 8) ^ tables[0][value & 255];
        }
    set_fold(fold_1, 1);
    set_fold(fold_4, 4);
    set_fold(fold_16, 16);
    best = best_kernel();
}

static int usable(int kernel) { return kernel == KERNEL_BEST || kernel > best ? best : kernel; }

EXPORT const char *distrain_checksum_kernel_name(int kernel) {
    switch (usable(kernel)) {
#ifdef HAVE_CLMUL
    case KERNEL_FOUR_LANES: return "VPCLMULQDQ";
    case KERNEL_ONE_LANE: return "PCLMULQDQ";
#else
    case KERNEL_ONE_LANE: return "ARMv8 CRC32";
#endif
    default: return "portable";
    }
}

uint32_t crc32_of(int kernel, uint32_t crc, const uint8_t *data, size_t size) {
    switch (kernel == KERNEL_NONE ? KERNEL_NONE : usable(kernel)) {
    case KERNEL_NONE: return crc;
#ifdef HAVE_CLMUL
    case KERNEL_FOUR_LANES: return ~by_four_lanes(~crc, data, size);
#endif
#if defined(HAVE_CLMUL) || defined(HAVE_ARM_CRC)
    case KERNEL_ONE_LANE: return ~by_one_lane(~crc, data, size);
#endif
    default: return ~by_tables(~crc, data, size);
    }
}
