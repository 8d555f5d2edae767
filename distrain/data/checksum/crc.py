"""CRC-32 of bytes in memory: by this package's C where it was built, else by zlib. The values are equal."""

from __future__ import annotations

import zlib

import numpy as np

from distrain.data.checksum.native import library

# A call of C through ctypes costs 2 us, in which zlib checks so many bytes.
_SHORT = 16 << 10


def crc32(data: memoryview | bytes, crc: int = 0) -> int:
    """Return the checksum of contiguous bytes that follow bytes of checksum ``crc``; that of none is 0."""
    native = library()
    if native is None or len(data) < _SHORT:
        return zlib.crc32(data, crc)
    return native.crc32(np.frombuffer(data, np.uint8), crc)


def crc32_each(memory: memoryview, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the checksum of each of some stretches of memory: uint32 [N].

    Args:
        memory: contiguous bytes.
        starts: int64 [N], in them.
        sizes: int64 [N], bytes.

    Raises:
        ValueError: a stretch is not within the memory.
    """
    if not len(starts):
        return np.empty(0, np.uint32)
    if min(starts.min(), sizes.min()) < 0 or (starts + sizes).max() > len(memory):
        raise ValueError(f"stretches of memory: they leave its {len(memory)} bytes")
    native = library()
    if native is not None:
        data = np.frombuffer(memory, np.uint8)
        return native.each(data, *(np.ascontiguousarray(array, np.int64) for array in (starts, sizes)))
    pairs = zip(starts.tolist(), sizes.tolist(), strict=True)
    return np.array([zlib.crc32(memory[at : at + size]) for at, size in pairs], np.uint32)
