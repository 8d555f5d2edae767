"""Changes of the pixels of one image, by OpenCV: of Pillow's operations those that training wants.

The formulas are Pillow's (`ImageEnhance`, `ImageOps`), rounded once. Both libraries let go of the GIL;
OpenCV takes a twentieth (saturation) to a half (look-up tables) of Pillow's time.

All functions take uint8 [H, W, 3] and return an array of the same shape and dtype.
"""

from __future__ import annotations

import cv2
import numpy as np

cv2.setNumThreads(1)  # the threads are the loader's

_LUMA = np.array([299, 587, 114]) / 1000  # ITU-R 601-2, as Pillow's "L"
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13  # Pillow's ImageFilter.SMOOTH
_LEVELS = np.arange(256)
_FILL = (128, 128, 128)  # what comes in from outside


def look_up(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each value: table float or int [256] or [256, 3], rounded and clipped to 0..255."""
    wanted = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return _array(cv2.LUT(pixels, wanted if wanted.ndim == 1 else wanted[:, None]))


def brightness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Move from black (0) past the image (1)."""
    return look_up(pixels, _LEVELS * factor)


def contrast(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Move from the mean grey (0) past the image (1)."""
    mean = round(float(np.dot(cv2.mean(pixels)[:3], _LUMA)))
    return look_up(pixels, mean + (_LEVELS - mean) * factor)


def saturation(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Move from grey (0) past the image (1)."""
    return _array(cv2.transform(pixels, factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1))))


def sharpness(pixels: np.ndarray, factor: float) -> np.ndarray:
    """Move from a smoothed image (0) past the image (1)."""
    kernel = (1 - factor) * _SMOOTH
    kernel[1, 1] += factor
    return _array(cv2.filter2D(pixels, -1, kernel))


def solarize(pixels: np.ndarray, threshold: float) -> np.ndarray:
    """Invert the values from a threshold on; none at 256."""
    return look_up(pixels, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def posterize(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Keep so many of the highest bits, 1 to 8."""
    return look_up(pixels, _LEVELS & ~(2 ** (8 - bits) - 1))


def autocontrast(pixels: np.ndarray) -> np.ndarray:
    """Stretch each channel to 0..255; a channel of one value stays."""
    return look_up(pixels, np.stack([_stretching(counts) for counts in _histograms(pixels)], axis=1))


def _stretching(counts: np.ndarray) -> np.ndarray:
    used = np.flatnonzero(counts)
    low, high = int(used[0]), int(used[-1])
    return (_LEVELS - low) * (255 / (high - low)) if high > low else _LEVELS


def equalize(pixels: np.ndarray) -> np.ndarray:
    """Give each channel a flat histogram, as `ImageOps.equalize` does."""
    return look_up(pixels, np.stack([_equalizing(counts) for counts in _histograms(pixels)], axis=1))


def _equalizing(counts: np.ndarray) -> np.ndarray:
    used = counts[counts > 0]
    step = int(used[:-1].sum()) // 255
    return (step // 2 + np.cumsum(counts) - counts) // step if step else _LEVELS


def _histograms(pixels: np.ndarray) -> list[np.ndarray]:
    """Return how often each value occurs in each channel: three times int64 [256]."""
    planes = cv2.split(pixels)
    # The shape of the result depends on the version of OpenCV.
    return [
        cv2.calcHist([plane], [0], None, [256], [0, 256]).reshape(256).astype(np.int64) for plane in planes
    ]


def affine(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Move the pixels, bilinear; what comes in from outside is grey.

    Args:
        pixels: the image.
        matrix: float [2, 3], from places (x, y, 1) of the result to places of the source; a place is the
            middle of a pixel, and (0, 0) is that of the image.
    """
    height, width = pixels.shape[:2]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    linear = matrix[:, :2]
    shift = matrix[:, 2] + middle - linear @ middle
    return _array(
        cv2.warpAffine(
            pixels, np.column_stack([linear, shift]), (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT, borderValue=_FILL,
        )
    )  # fmt: skip


def _array(found: object) -> np.ndarray:
    """Say to the type checker what OpenCV returns."""
    return np.asarray(found)
