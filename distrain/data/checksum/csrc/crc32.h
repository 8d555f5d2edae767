// CRC-32 of zlib (polynomial 0x04C11DB7, bits reflected): the same values, several times as fast.
#ifndef DISTRAIN_CRC32_H
#define DISTRAIN_CRC32_H

#include <stddef.h>
#include <stdint.h>

// What computes it. A processor that lacks a kernel uses the next one that it has.
enum { KERNEL_NONE = -1, KERNEL_BEST = 0, KERNEL_PORTABLE = 1, KERNEL_ONE_LANE = 2, KERNEL_FOUR_LANES = 3 };

// The checksum of `size` bytes that follow those of checksum `crc`; that of nothing is 0. KERNEL_NONE: `crc`.
uint32_t crc32_of(int kernel, uint32_t crc, const uint8_t *data, size_t size);

#endif
