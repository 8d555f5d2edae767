"""Colour jitter: brightness, contrast and saturation of training images.

The factors come from a hash of (seed, epoch, image), like crops and flips. The three changes are made
in this order, not in a random one.
"""

from __future__ import annotations

import numpy as np

from distrain.data import pixels as px
from distrain.data.hashing import key, streams, uniforms
from distrain.data.settings import JitterSettings

_COLOUR = 0x636F6C  # keeps these numbers apart from those of crops and order
_CHANGES = (px.brightness, px.contrast, px.saturation)


def jitter_factors(settings: JitterSettings, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """Draw brightness, contrast and saturation of images int64 [N]: float64 [N, 3] around 1."""
    reach = np.array([settings.brightness, settings.contrast, settings.saturation])
    draws = uniforms(streams(key(seed, epoch, _COLOUR), indices), 3)
    factors: np.ndarray = 1 + reach * (2 * draws - 1)
    return factors


def jitter(images: np.ndarray, factors: np.ndarray) -> None:
    """Change the colours of images uint8 [N, H, W, 3] in place by factors float64 [N, 3]; 1: no change."""
    for image, wanted in zip(images, factors.tolist(), strict=True):
        changed = image
        for change, factor in zip(_CHANGES, wanted, strict=True):
            if factor != 1:
                changed = change(changed, factor)
        if changed is not image:
            image[...] = changed
