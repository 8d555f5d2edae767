"""Images that are stored as pixels: width and height (little-endian, 32 bits each), then RGB rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distrain.data.decode.engine import DecodeError
from distrain.data.decode.resample import crop_resize
from distrain.data.format import RAW_HEAD


class RawEngine:
    """Crops and resizes raw images straight from the store's memory."""

    name = "raw"

    def decode_batch(
        self, blobs: Sequence[memoryview], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """See `DecodeEngine.decode_batch`."""
        for position, blob in enumerate(blobs):
            try:
                crop_resize(_pixels(blob), crops[position], bool(flips[position]), out[position])
            except ValueError as error:
                raise DecodeError(position, str(error)) from None


def _pixels(blob: memoryview) -> np.ndarray:
    """Return the pixels uint8 [H, W, 3] of a raw image, without a copy."""
    if len(blob) < RAW_HEAD.size:
        raise ValueError(f"{len(blob)} bytes are no raw image")
    width, height = RAW_HEAD.unpack_from(blob)
    if len(blob) != RAW_HEAD.size + width * height * 3:
        raise ValueError(f"{len(blob)} bytes are not those of {width}x{height} raw pixels")
    return np.frombuffer(blob, np.uint8, offset=RAW_HEAD.size).reshape(height, width, 3)
