"""Images that are stored as pixels, by Pillow alone: where the native engine was not built."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distrain.data.decode.engine import DecodeError
from distrain.data.decode.resample import crop_resize
from distrain.data.raw_layout import rgb_pixels, yuv420_pixels


class RawEngine:
    """Crops and resizes raw images straight from the store's memory.

    Args:
        encoding: ``raw`` or ``yuv420``, see `distrain.data.raw_layout`.
    """

    name = "raw"

    def __init__(self, encoding: str = "raw") -> None:
        self._pixels = yuv420_pixels if encoding == "yuv420" else rgb_pixels

    def decode_batch(
        self, blobs: Sequence[memoryview], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """See `DecodeEngine.decode_batch`."""
        for position, blob in enumerate(blobs):
            try:
                crop_resize(self._pixels(blob), crops[position], bool(flips[position]), out[position])
            except ValueError as error:
                raise DecodeError(position, str(error)) from None
