"""The native engines: our C decoder (`csrc/`), called through ctypes.

It decodes only the blocks that a crop needs, and starts in the middle of an image whose JPEG was
indexed (`distrain.data.decode.indexed`). What it does not do (progressive, CMYK, ...) the turbojpeg
engine does, image by image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distrain.data.decode.engine import DecodeEngine, DecodeError
from distrain.data.decode.indexed import is_indexed, to_jpeg
from distrain.data.decode.library import Library, build_info, library
from distrain.data.decode.native_batch import BatchArguments
from distrain.data.raw_layout import RAW_ENCODINGS
from distrain.errors import DataError

__all__ = ["NativeEngine", "NativeRawEngine", "build_info", "load", "load_raw"]


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
        if not len(blobs):
            return
        batch = BatchArguments(blobs, crops, flips, out)
        decode = self._library.functions["decode_batch"]
        if decode(self._library.decoder(), *batch.images, *batch.rest):
            for position in np.flatnonzero(batch.status).tolist():
                self._fall_back(position, blobs[position], batch)

    def _fall_back(self, position: int, blob: memoryview | bytes, batch: BatchArguments) -> None:
        status = int(batch.status[position])
        reason = self._library.text(status)
        if not self._library.functions["status_is_unsupported"](status):
            raise DecodeError(position, reason)
        from distrain.data.decode.turbojpeg import TurboJpegEngine

        one = slice(position, position + 1)
        try:
            jpeg = memoryview(to_jpeg(blob) if is_indexed(blob) else blob)
            TurboJpegEngine().decode_batch([jpeg], batch.crops[one], batch.flips[one], batch.out[one])
        except DecodeError as error:
            raise DecodeError(position, f"{reason}; turbojpeg says: {error.reason}") from error
        except DataError as error:
            raise DecodeError(position, f"{reason}; {error.problem}") from error


class NativeRawEngine:
    """A `DecodeEngine` for packs of pixels that runs in C.

    Args:
        library: the loaded shared library.
        encoding: ``raw`` (RGB rows) or ``yuv420`` (planes), see `distrain.data.raw_layout`.
    """

    name = "native"

    def __init__(self, library: Library, encoding: str = "raw") -> None:
        self._library = library
        self._layout = RAW_ENCODINGS.index(encoding)

    def decode_batch(
        self, blobs: Sequence[memoryview | bytes], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """Crop, resize and mirror raw pictures into ``out`` (see `DecodeEngine`).

        Raises:
            DecodeError: a blob is not as long as its head says, or a crop is not inside its picture.
            UsageError: the arrays do not have the shapes or types that `DecodeEngine` says.
        """
        if not len(blobs):
            return
        batch = BatchArguments(blobs, crops, flips, out)
        resize = self._library.functions["resize_batch"]
        if resize(self._library.decoder(), self._layout, *batch.images, *batch.rest):
            position = int(np.flatnonzero(batch.status)[0])
            raise DecodeError(position, self._library.text(int(batch.status[position])))


def load() -> DecodeEngine:
    """Return the native engine for JPEGs.

    Raises:
        RuntimeError: the shared library is not built or not usable; the text says why.
    """
    return NativeEngine(library())


def load_raw(encoding: str = "raw") -> DecodeEngine:
    """Return the native engine for raw pictures of an encoding, ``raw`` or ``yuv420``.

    Raises:
        RuntimeError: the shared library is not built or not usable; the text says why.
    """
    return NativeRawEngine(library(), encoding)
