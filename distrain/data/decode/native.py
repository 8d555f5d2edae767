"""The native engine: our C decoder (`csrc/`), called through ctypes.

It decodes only the blocks that a crop needs, and starts in the middle of an image whose JPEG was
indexed (`distrain.data.decode.indexed`). What it does not do (progressive, CMYK, ...) the turbojpeg
engine does, image by image.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from distrain.data.decode.engine import DecodeEngine, DecodeError
from distrain.data.decode.indexed import is_indexed
from distrain.data.decode.library import Library, build_info, bytes_of, library
from distrain.errors import UsageError

__all__ = ["NativeEngine", "build_info", "load"]


class NativeEngine:
    """A `DecodeEngine` that runs in C.

    Args:
        library: the loaded shared library.
    """

    name = "native"

    def __init__(self, library: Library) -> None:
        self._library = library

    def decode_batch(
        self, blobs: Sequence[memoryview | bytes], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """Decode, crop, resize and mirror images into ``out`` (see `DecodeEngine`).

        A blob is a JPEG or what `index` made of one; both give the same pixels.

        Raises:
            DecodeError: an image is damaged, or neither this nor the turbojpeg engine can decode it.
            UsageError: the arrays do not have the shapes or types that `DecodeEngine` says.
        """
        count = len(blobs)
        if count == 0:
            return
        crops, flips = _checked(count, crops, flips, out)
        views = [bytes_of(blob) for blob in blobs]
        pointers = (ctypes.c_void_p * count)(*[view.ctypes.data for view in views])
        sizes = (ctypes.c_size_t * count)(*[view.size for view in views])
        status = np.empty(count, np.int32)
        failures = self._library.functions["decode_batch"](
            self._library.decoder(), count, ctypes.addressof(pointers), ctypes.addressof(sizes),
            crops.ctypes.data, flips.ctypes.data, out.shape[2], out.shape[1],
            out.ctypes.data, status.ctypes.data,
        )  # fmt: skip
        if failures:
            for position in np.flatnonzero(status):
                self._fall_back(int(position), int(status[position]), blobs, crops, flips, out)

    def _fall_back(
        self, position: int, status: int, blobs: Sequence[memoryview | bytes], crops: np.ndarray,
        flips: np.ndarray, out: np.ndarray,
    ) -> None:  # fmt: skip
        reason = self._library.text(status)
        if not self._library.functions["status_is_unsupported"](status) or is_indexed(blobs[position]):
            raise DecodeError(position, reason)
        from distrain.data.decode.turbojpeg import TurboJpegEngine

        one = slice(position, position + 1)
        blob = memoryview(blobs[position])
        try:
            TurboJpegEngine().decode_batch([blob], crops[one], flips[one].astype(bool), out[one])
        except DecodeError as error:
            raise DecodeError(position, f"{reason}; turbojpeg says: {error.reason}") from error


def _checked(
    count: int, crops: np.ndarray, flips: np.ndarray, out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return crops as int32 and flips as uint8, both contiguous, after checking every shape."""
    if crops.shape != (count, 4) or flips.shape != (count,):
        raise UsageError(
            "native decoder", f"{count} images with crops {crops.shape} and flips {flips.shape}",
            "give crops [N, 4] and flips [N]",
        )  # fmt: skip
    if out.dtype != np.uint8 or out.ndim != 4 or out.shape[0] != count or out.shape[3] != 3:
        raise UsageError(
            "native decoder", f"out is {out.dtype} {out.shape}", f"give uint8 [{count}, height, width, 3]"
        )
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise UsageError(
            "native decoder", "out is not contiguous or read-only", "give a C-contiguous writable array"
        )
    return np.ascontiguousarray(crops, np.int32), np.ascontiguousarray(flips, np.bool_).view(np.uint8)


def load() -> DecodeEngine:
    """Return the native engine.

    Raises:
        RuntimeError: the shared library is not built or not usable; the text says why.
    """
    return NativeEngine(library())
