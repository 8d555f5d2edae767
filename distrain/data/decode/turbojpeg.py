"""JPEG by libjpeg-turbo (simplejpeg) and Pillow's antialiased resize: the engine that is always there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import simplejpeg

from distrain.data.decode.engine import DecodeError
from distrain.data.decode.indexed import is_indexed, to_jpeg
from distrain.data.decode.resample import crop_resize
from distrain.errors import DataError


class TurboJpegEngine:
    """Decodes whole images, then crops; both libraries release the GIL while they work."""

    name = "turbojpeg"

    def decode_batch(
        self, blobs: Sequence[memoryview], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """See `DecodeEngine.decode_batch`."""
        for position, blob in enumerate(blobs):
            try:
                # strict: libjpeg's warnings are errors, otherwise damaged pixels pass as grey.
                jpeg = to_jpeg(blob) if is_indexed(blob) else blob
                pixels = simplejpeg.decode_jpeg(jpeg, colorspace="RGB", strict=True)
                crop_resize(pixels, crops[position], bool(flips[position]), out[position])
            except (ValueError, DataError) as error:
                raise DecodeError(position, str(error)) from None
