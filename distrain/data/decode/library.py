"""The shared library of the native decoder: loading, signatures, one C decoder for each thread."""

from __future__ import annotations

import ctypes
import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.decode import build_native
from distrain.native_load import INT, POINTER, SIZE, load

KERNELS = {"best": 0, "portable": 1, "avx2": 2}  # as csrc/decoder.c numbers them
_ABI = ("distrain_abi", 5)  # of csrc/decoder.c
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "decoder_new": (POINTER, [INT]),
    "decoder_free": (None, [POINTER]),
    "kernel_name": (ctypes.c_char_p, [INT]),
    "status_text": (ctypes.c_char_p, [INT]),
    "status_is_unsupported": (INT, [INT]),
    "decode_batch": (INT, [POINTER, INT] + [POINTER] * 4 + [INT, INT, POINTER, POINTER]),
    "resize_batch": (INT, [POINTER, INT, INT] + [POINTER] * 4 + [INT, INT, POINTER, POINTER]),
    "image_size": (INT, [POINTER, POINTER, SIZE, POINTER]),
    "index_bound": (INT, [POINTER, POINTER, SIZE, POINTER]),
    "index": (INT, [POINTER, POINTER, SIZE, POINTER, SIZE, POINTER]),
}


class Library:
    """The functions of the shared library, with one C decoder for each Python thread.

    Args:
        path: the shared library.
        kernel: ``best``, or only up to ``avx2`` or ``portable`` (tests compare them).

    Raises:
        RuntimeError: the library is missing, cannot be loaded or is of another version.
    """

    def __init__(self, path: Path, kernel: str = "best") -> None:
        self.functions = vars(load(path, "distrain_", _SIGNATURES, _ABI, build_native.__name__))
        self.kernel = KERNELS[kernel]
        self._local = threading.local()

    def decoder(self) -> int:
        """Return the C decoder of the calling thread; it is freed with the thread."""
        handle = getattr(self._local, "handle", None)
        if handle is None:
            handle = self._local.handle = _Handle(self)
        return handle.address

    def text(self, status: int) -> str:
        """Return what a status code means."""
        return self.functions["status_text"](status).decode()


class _Handle:
    """Owns one C decoder."""

    def __init__(self, library: Library) -> None:
        address = library.functions["decoder_new"](library.kernel)
        if not address:
            raise MemoryError("native decoder: no memory for its tables")
        self.address: int = address
        self._free = library.functions["decoder_free"]

    def __del__(self) -> None:
        self._free(self.address)


@functools.cache
def library(kernel: str = "best") -> Library:
    """Return the shared library, loaded once a process.

    Raises:
        RuntimeError: it is not built or not usable; the text says why.
    """
    return Library(build_native.LIBRARY, kernel)


def bytes_of(blob: memoryview | bytes) -> np.ndarray:
    """Return the bytes of an image as uint8 [size], without a copy."""
    return np.frombuffer(blob, np.uint8) if len(blob) else np.empty(0, np.uint8)


def build_info() -> tuple[bool, str]:
    """Return whether the native decoder works here, and in words which kernel it uses or why it does not."""
    try:
        name = library().functions["kernel_name"](0).decode()
    except RuntimeError as error:
        return False, str(error)
    return True, f"built, {name} kernel"
