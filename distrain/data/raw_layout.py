"""Pictures that are stored as pixels: how their bytes are laid out, both ways.

Encoding ``raw``: width and height (u32, little-endian), then rows of RGB: 3 bytes a pixel, no loss.

Encoding ``yuv420``: width and height, then what a decoder of 4:2:0 JPEG has before it makes colours
(full-range YCbCr of JFIF): the Y plane, the Cb and Cr planes with a sample for 2 x 2 pixels (uneven sides
rounded up), and 32 zero bytes, which vector loops may read. 1.5 bytes a pixel.
"""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

RAW_ENCODINGS = ("raw", "yuv420")  # in the order of the layouts of decode/csrc/raw.c
RAW_HEAD = struct.Struct("<II")  # width, height
_PADDING = 32


def to_raw(image: Image.Image) -> bytes:
    """Return a picture in encoding ``raw``; of any mode that Pillow converts to RGB."""
    return RAW_HEAD.pack(*image.size) + image.convert("RGB").tobytes()


def to_yuv420(image: Image.Image) -> bytes:
    """Return a picture in encoding ``yuv420``; of any mode that Pillow converts to RGB.

    A chroma sample is the mean of its 2 x 2 pixels, or of those that exist at uneven borders.
    """
    import cv2  # here, so that who reads no such pack does not wait for it

    whole = cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2YCrCb)
    luma, cr, cb = (Image.fromarray(plane) for plane in cv2.split(whole))
    planes = [luma, cb.reduce(2), cr.reduce(2)]
    return b"".join([RAW_HEAD.pack(*image.size), *(plane.tobytes() for plane in planes), bytes(_PADDING)])


def rgb_pixels(blob: memoryview | bytes) -> np.ndarray:
    """Return the pixels uint8 [H, W, 3] of encoding ``raw``, without a copy.

    Raises:
        ValueError: the bytes are not as many as their head says.
    """
    width, height = _size(blob)
    _demand(blob, width, height, 3 * width * height)
    return np.frombuffer(blob, np.uint8, offset=RAW_HEAD.size).reshape(height, width, 3)


def yuv420_planes(blob: memoryview | bytes) -> list[np.ndarray]:
    """Return Y uint8 [H, W], Cb and Cr uint8 [(H + 1) / 2, (W + 1) / 2] of encoding ``yuv420``, in place.

    Raises:
        ValueError: the bytes are not as many as their head says.
    """
    width, height = _size(blob)
    half = ((height + 1) // 2, (width + 1) // 2)
    _demand(blob, width, height, width * height + 2 * half[0] * half[1] + _PADDING)
    planes, at = [], RAW_HEAD.size
    for rows, columns in ((height, width), half, half):
        planes.append(np.frombuffer(blob, np.uint8, rows * columns, at).reshape(rows, columns))
        at += rows * columns
    return planes


def yuv420_pixels(blob: memoryview | bytes) -> np.ndarray:
    """Return the pixels uint8 [H, W, 3] of encoding ``yuv420``.

    Chroma is enlarged as libjpeg does it: 3/4 of the nearer sample and 1/4 of the farther one an axis;
    repeated where a row has only one or two.

    Raises:
        ValueError: the bytes are not as many as their head says.
    """
    import cv2

    luma, cb, cr = yuv420_planes(blob)
    rule = cv2.INTER_LINEAR if cb.shape[1] > 2 else cv2.INTER_NEAREST
    whole = (2 * cb.shape[1], 2 * cb.shape[0])
    chroma = [
        cv2.resize(plane, whole, interpolation=rule)[: luma.shape[0], : luma.shape[1]] for plane in (cr, cb)
    ]
    return cv2.cvtColor(cv2.merge([luma, *chroma]), cv2.COLOR_YCrCb2RGB)


def _size(blob: memoryview | bytes) -> tuple[int, int]:
    if len(blob) < RAW_HEAD.size:
        raise ValueError(f"{len(blob)} bytes are no raw image")
    width, height = RAW_HEAD.unpack_from(blob)
    if not width or not height:
        raise ValueError(f"a raw image of {width}x{height} has no pixels")
    return width, height


def _demand(blob: memoryview | bytes, width: int, height: int, size: int) -> None:
    if len(blob) != RAW_HEAD.size + size:
        raise ValueError(f"{len(blob)} bytes are not those of {width}x{height} raw pixels")
