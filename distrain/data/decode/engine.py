"""The interface of all decoders.

An engine turns the compressed bytes of some images into a part of a batch: each image is
cropped, resized with antialiasing to the side of the batch, mirrored if asked, and written in
place. Everything random has been decided before (`distrain.data.augment`), so every engine
gets the same crops for the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from distrain.errors import DataError


class DecodeError(DataError):
    """One image of a batch cannot be decoded.

    Args:
        position: which of the images handed to ``decode_batch``, from 0.
        reason: what is wrong with it, in words.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(
            f"image {position} of the batch",
            f"it cannot be decoded: {reason}",
            "pack the data set again, or set data.on_bad_image=skip",
        )
        self.position = position
        self.reason = reason

    def __reduce__(self) -> tuple[type[DecodeError], tuple[int, str]]:  # type: ignore[override]
        return type(self), (self.position, self.reason)


class DecodeEngine(Protocol):
    """From the bytes of images to pixels in a batch.

    One engine object is shared by all decoder threads of a rank: ``decode_batch`` must be safe to
    call from several threads at once and must release the GIL in its heavy parts.
    """

    name: str

    def decode_batch(
        self, blobs: Sequence[memoryview], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """Decode, crop, resize and mirror ``N`` images into ``out``.

        Args:
            blobs: the bytes of ``N`` images, read-only; never written, not kept after the call.
            crops: int32 [N, 4], rows of (x, y, width, height) in source pixels. Each lies inside
                its image as the pack recorded it, with width and height at least 1.
            flips: bool [N], True: mirror left and right after the resize.
            out: uint8 [N, S, S, 3], C-contiguous, RGB, filled in place. S is read from its shape.
                The resize is bilinear and antialiased (Pillow's ``BILINEAR`` is the reference) and
                sees no pixel outside the crop. Grey images get three equal channels.

        Raises:
            DecodeError: one image cannot be decoded, or its crop does not fit the picture that the
                bytes hold. ``out`` is then undefined, all of it.
        """
        ...
