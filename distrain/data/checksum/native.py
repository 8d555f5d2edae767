"""The shared library of the checksums: loading and signatures. Its calls release the GIL."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.blobs import address_of
from distrain.data.checksum import build_native
from distrain.native_load import INT, LONG, POINTER, SIZE, load

NO_CHECKSUM = -1  # a transfer only reads
KERNELS = {"best": 0, "portable": 1, "one lane": 2, "four lanes": 3}  # as csrc/crc32.h numbers them
_ABI = ("distrain_checksum_abi", 1)  # of csrc/calls.c
_CRC = ctypes.c_uint32
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "kernel_name": (ctypes.c_char_p, [INT]),
    "power": (_CRC, [ctypes.c_uint]),
    "crc32": (_CRC, [INT, _CRC, POINTER, SIZE]),
    "each": (None, [INT, POINTER, POINTER, POINTER, LONG, POINTER]),
    "transfer": (INT, [INT, INT, LONG, POINTER, INT, LONG, LONG, POINTER]),
}


class Progress(ctypes.Structure):
    """What has come of a file: see csrc/calls.c."""

    _fields_ = (("done", LONG), ("crc", _CRC), ("error", ctypes.c_int32))

    done: int
    crc: int
    error: int

    def address(self) -> int:
        """Return where it lies, for C."""
        return ctypes.addressof(self)


class Library:
    """The functions of the shared library, without their prefix.

    Args:
        path: the shared library.

    Attributes:
        transfer: see csrc/calls.c; all arguments as there.
        power: x^n modulo the polynomial, for tests.

    Raises:
        RuntimeError: it is missing, cannot be loaded or is of another version.
    """

    def __init__(self, path: Path) -> None:
        found = load(path, "distrain_checksum_", _SIGNATURES, _ABI, build_native.__name__)
        self.transfer, self.power = found.transfer, found.power
        self._crc32, self._each, self._name = found.crc32, found.each, found.kernel_name

    def kernel_name(self, kernel: str = "best") -> str:
        """Return what computes checksums on this processor if this kernel, of `KERNELS`, is wanted."""
        name: bytes = self._name(KERNELS[kernel])
        return name.decode()

    def crc32(self, data: np.ndarray, crc: int = 0, kernel: str = "best") -> int:
        """Return the checksum of uint8 [N], contiguous, that follow bytes of checksum ``crc``."""
        return int(self._crc32(KERNELS[kernel], crc, address_of(data), data.size))

    def each(self, data: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Return the checksums uint32 [N] of stretches of uint8 [M]; the caller has checked their bounds.

        Args:
            data: contiguous.
            starts: int64 [N], contiguous.
            sizes: int64 [N], contiguous.
        """
        found = np.empty(len(starts), np.uint32)
        addresses = (address_of(array) for array in (data, starts, sizes))
        self._each(KERNELS["best"], *addresses, len(starts), address_of(found))
        return found


@functools.cache
def library() -> Library | None:
    """Return the shared library, loaded once a process; None: it is not usable here, zlib must do."""
    try:
        return Library(build_native.LIBRARY)
    except RuntimeError:  # `build_info` says why; without a compiler it is only slower
        return None


def build_info() -> tuple[bool, str]:
    """Return whether the library works here, and in words which kernel it uses or why it does not."""
    try:
        return True, f"built, {Library(build_native.LIBRARY).kernel_name()} kernel"
    except RuntimeError as error:
        return False, str(error)
