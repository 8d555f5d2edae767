"""The shared library of the checksums: loading and signatures. Its calls release the GIL."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.blobs import address_of
from distrain.data.checksum import build_native

NO_CHECKSUM = -1  # a transfer only reads
KERNELS = {"best": 0, "portable": 1, "one lane": 2, "four lanes": 3}  # as csrc/crc32.h numbers them
_ABI = 1  # of csrc/calls.c; a library of another version is not used
_POINTER, _SIZE, _INT, _LONG, _CRC = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int64,
    ctypes.c_uint32,
)
_REBUILD = "run `python -m distrain.data.checksum.build_native`"
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "abi": (_INT, []),
    "kernel_name": (ctypes.c_char_p, [_INT]),
    "power": (_CRC, [ctypes.c_uint]),
    "crc32": (_CRC, [_INT, _CRC, _POINTER, _SIZE]),
    "each": (None, [_INT, _POINTER, _POINTER, _POINTER, _LONG, _POINTER]),
    "transfer": (_INT, [_INT, _INT, _LONG, _POINTER, _INT, _LONG, _LONG, _POINTER]),
}


class Progress(ctypes.Structure):
    """What has come of a file: see csrc/calls.c."""

    _fields_ = (("done", _LONG), ("crc", _CRC), ("error", ctypes.c_int32))

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
        if not path.exists():
            missing = "" if build_native.find_compiler() else ", and there is no C compiler"
            raise RuntimeError(f"it is not built{missing}; {_REBUILD}")
        try:
            library = ctypes.CDLL(str(path))
            functions = {name: getattr(library, f"distrain_checksum_{name}") for name in _SIGNATURES}
        except (OSError, AttributeError) as error:
            raise RuntimeError(f"{path} cannot be used ({error}); {_REBUILD}") from error
        for name, (result, arguments) in _SIGNATURES.items():
            functions[name].restype, functions[name].argtypes = result, arguments
        if functions["abi"]() != _ABI:
            raise RuntimeError(f"{path} was built from another version; {_REBUILD}")
        self.transfer, self.power = functions["transfer"], functions["power"]
        self._crc32, self._each, self._name = functions["crc32"], functions["each"], functions["kernel_name"]

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
