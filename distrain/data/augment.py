"""Which part of an image is looked at: crops and flips, vectorised over a batch.

Training crops follow the random resized crop of Szegedy et al. 2014 ("Going deeper with
convolutions", section 6) as torchvision draws it: up to ten tries of an area and an aspect ratio,
else the largest central crop with an allowed ratio. The numbers come from a hash of (seed, epoch,
image), so they do not depend on ranks, threads or batches.
"""

from __future__ import annotations

import numpy as np

from distrain.data.hashing import key, streams, uniforms
from distrain.data.settings import AugmentSettings

_TRIES = 10
_FLIP = 4 * _TRIES  # number of the draw for the flip; area, ratio, x and y of each try come before
_AUGMENT = 0x617567  # keeps these numbers apart from those of the epoch's order


def train_crops(
    settings: AugmentSettings,
    seed: int,
    epoch: int,
    indices: np.ndarray,
    widths: np.ndarray,
    heights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw crop and flip of each image.

    Args:
        settings: kind of crop, ranges of area and aspect ratio, probability of a flip.
        seed, epoch: of the run.
        indices: int [N], image indices.
        widths, heights: int [N], of the images in pixels.

    Returns:
        crops int32 [N, 4], rows of (x, y, width, height) inside the images, and flips bool [N].
    """
    root = streams(key(seed, epoch, _AUGMENT), indices)
    flips = uniforms(root, 1, _FLIP)[:, 0] < settings.flip
    if settings.crop == "whole":
        return whole_crops(widths, heights), flips
    if settings.crop == "center":
        return eval_crops(1, 1, widths, heights), flips
    w, h = widths.astype(np.float64), heights.astype(np.float64)
    crops, fits = _tries(settings, uniforms(root, 4).reshape(-1, 1, 4), w, h)
    again = np.flatnonzero(~fits)  # about a tenth of the images; all further tries of these at once
    if len(again):
        draws = uniforms(root[again], 4 * (_TRIES - 1), 4).reshape(-1, _TRIES - 1, 4)
        crops[again], fits[again] = _tries(settings, draws, w[again], h[again])
        none = ~fits
        crops[none] = _central(settings.ratio, w[none], h[none])
    return crops.astype(np.int32), flips


def _tries(
    settings: AugmentSettings, draws: np.ndarray, widths: np.ndarray, heights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each image the first crop that fits, and whether one does.

    Args:
        settings: see `train_crops`.
        draws: float64 [N, tries, 4] in [0, 1): area, ratio, x and y of each try.
        widths, heights: float64 [N].

    Returns:
        crops float64 [N, 4], bool [N].
    """
    w, h = widths[:, None], heights[:, None]
    low, high = settings.scale
    area = w * h * (low + draws[:, :, 0] * (high - low))
    log_low, log_high = np.log(settings.ratio)
    ratio = np.exp(log_low + draws[:, :, 1] * (log_high - log_low))
    crop_w, crop_h = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
    fits = (crop_w >= 1) & (crop_w <= w) & (crop_h >= 1) & (crop_h <= h)
    x, y = np.floor(draws[:, :, 2] * (w - crop_w + 1)), np.floor(draws[:, :, 3] * (h - crop_h + 1))
    tries = np.stack([x, y, crop_w, crop_h], axis=2)
    return tries[np.arange(len(tries)), fits.argmax(axis=1)], fits.any(axis=1)


def _central(ratio: tuple[float, float], w: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Return the largest central crop whose aspect ratio is allowed: float64 [N, 4]."""
    low, high = ratio
    crop_w = np.where(w / h > high, np.minimum(w, np.maximum(1, np.rint(h * high))), w)
    crop_h = np.where(w / h < low, np.minimum(h, np.maximum(1, np.rint(w / low))), h)
    return np.stack([(w - crop_w) // 2, (h - crop_h) // 2, crop_w, crop_h], axis=1)


def eval_crops(resize: int, size: int, widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return the central squares that a resize of the short side and a centre crop would leave.

    Cropping first and resizing once reads the same pixels as resizing to ``resize`` and cropping
    ``size`` (to rounding, half a pixel of the source). A ``size`` above ``resize`` takes the largest
    central square.

    Args:
        resize: length that the short side would be brought to, pixels.
        size: side of the crop after that, pixels.
        widths, heights: int [N], of the images.

    Returns:
        int32 [N, 4], rows of (x, y, side, side).
    """
    short = np.minimum(widths, heights).astype(np.int64)
    side = np.clip(np.rint(short * (size / resize)), 1, short).astype(np.int64)
    x, y = (widths.astype(np.int64) - side) // 2, (heights.astype(np.int64) - side) // 2
    return np.stack([x, y, side, side], axis=1).astype(np.int32)


def whole_crops(widths: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Return crops that are all of each image: int32 [N, 4]; a resize makes them square."""
    zeros = np.zeros(len(widths), np.int64)
    return np.stack([zeros, zeros, widths, heights], axis=1).astype(np.int32)
