"""The shared library of the native decoder: loading, signatures, one C decoder for each thread."""

from __future__ import annotations

import ctypes
import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.decode import build_native

KERNELS = {"best": 0, "portable": 1, "avx2": 2}  # as csrc/decoder.c numbers them
_ABI = 5  # of csrc/decoder.c; a library of another version is not used
_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_REBUILD = "run `python -m distrain.data.decode.build_native`"
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "abi": (_INT, []),
    "decoder_new": (_POINTER, [_INT]),
    "decoder_free": (None, [_POINTER]),
    "kernel_name": (ctypes.c_char_p, [_INT]),
    "status_text": (ctypes.c_char_p, [_INT]),
    "status_is_unsupported": (_INT, [_INT]),
    "decode_batch": (_INT, [_POINTER, _INT] + [_POINTER] * 4 + [_INT, _INT, _POINTER, _POINTER]),
    "resize_batch": (_INT, [_POINTER, _INT, _INT] + [_POINTER] * 4 + [_INT, _INT, _POINTER, _POINTER]),
    "image_size": (_INT, [_POINTER, _POINTER, _SIZE, _POINTER]),
    "index_bound": (_INT, [_POINTER, _POINTER, _SIZE, _POINTER]),
    "index": (_INT, [_POINTER, _POINTER, _SIZE, _POINTER, _SIZE, _POINTER]),
}


def _why_missing() -> str:
    if build_native.find_compiler() is None:
        return "it is not built, and there is no C compiler (looked for $CC, cc, gcc, clang)"
    return f"it is not built; {_REBUILD}"


class Library:
    """The functions of the shared library, with one C decoder for each Python thread.

    Args:
        path: the shared library.
        kernel: ``best``, or only up to ``avx2`` or ``portable`` (tests compare them).

    Raises:
        RuntimeError: the library is missing, cannot be loaded or is of another version.
    """

    def __init__(self, path: Path, kernel: str = "best") -> None:
        if not path.exists():
            raise RuntimeError(_why_missing())
        try:
            library = ctypes.CDLL(str(path))  # calls through CDLL release the GIL
            self.functions = {name: getattr(library, f"distrain_{name}") for name in _SIGNATURES}
        except (OSError, AttributeError) as error:
            raise RuntimeError(f"{path} cannot be used ({error}); {_REBUILD}") from error
        for name, (result, arguments) in _SIGNATURES.items():
            self.functions[name].restype = result
            self.functions[name].argtypes = arguments
        if self.functions["abi"]() != _ABI:
            raise RuntimeError(f"{path} was built from another version; {_REBUILD}")
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
