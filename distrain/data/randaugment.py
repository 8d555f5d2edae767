"""RandAugment: a few random changes of equal strength, on crops.

Cubuk, Zoph, Shlens and Le, "RandAugment: Practical automated data augmentation with a reduced search
space", NeurIPS 2020, section 3: of 14 operations ``ops`` are drawn, each time any of them with equal
chance, and all are made with the strength ``magnitude``. Ranges are torchvision's, where 30 is the
strongest; rotations, shears, shifts and enhancements go either way. Draws are a hash of (seed, epoch,
image), like crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from distrain.data import pixels as px
from distrain.data.hashing import key, streams, uniforms
from distrain.data.settings import RandAugmentSettings

MAX_MAGNITUDE = 30
_RANDAUGMENT = 0x72616E64  # keeps these numbers apart from those of crops, colours and order
_SHIFT = 150 / 331  # of the side


def _rotate(image: np.ndarray, strength: float) -> np.ndarray:
    angle = math.radians(30) * strength
    sine, cosine = math.sin(angle), math.cos(angle)
    return px.affine(image, np.array([[cosine, -sine, 0], [sine, cosine, 0]]))


def _move(
    image: np.ndarray, shear_x: float = 0, shear_y: float = 0, right: float = 0, down: float = 0
) -> np.ndarray:
    height, width = image.shape[:2]
    return px.affine(image, np.array([[1, shear_x, right * width], [shear_y, 1, down * height]]))


# Of each the strength is in [-1, 1]; its sign means nothing where there is only one way.
OPERATIONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "identity": lambda image, s: image,
    "autocontrast": lambda image, s: px.autocontrast(image),
    "equalize": lambda image, s: px.equalize(image),
    "rotate": _rotate,
    "solarize": lambda image, s: px.solarize(image, 256 - 256 * abs(s)),
    "color": lambda image, s: px.saturation(image, 1 + 0.9 * s),
    "posterize": lambda image, s: px.posterize(image, 8 - round(4 * abs(s))),
    "contrast": lambda image, s: px.contrast(image, 1 + 0.9 * s),
    "brightness": lambda image, s: px.brightness(image, 1 + 0.9 * s),
    "sharpness": lambda image, s: px.sharpness(image, 1 + 0.9 * s),
    "shear_x": lambda image, s: _move(image, shear_x=0.3 * s),
    "shear_y": lambda image, s: _move(image, shear_y=0.3 * s),
    "translate_x": lambda image, s: _move(image, right=_SHIFT * s),
    "translate_y": lambda image, s: _move(image, down=_SHIFT * s),
}
_FUNCTIONS = tuple(OPERATIONS.values())


def draw(
    settings: RandAugmentSettings, seed: int, epoch: int, indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw what is done to each image.

    Args:
        settings: number of operations, strength.
        seed, epoch: of the run.
        indices: int64 [N], images.

    Returns:
        Numbers in `OPERATIONS` int64 [N, ops], and strengths float64 [N, ops] of either sign.
    """
    numbers = uniforms(streams(key(seed, epoch, _RANDAUGMENT), indices), 2 * settings.ops)
    chosen = (numbers[:, ::2] * len(_FUNCTIONS)).astype(np.int64)
    signs = np.where(numbers[:, 1::2] < 0.5, -1.0, 1.0)
    return chosen, signs * (settings.magnitude / MAX_MAGNITUDE)


def apply(images: np.ndarray, chosen: np.ndarray, strengths: np.ndarray) -> None:
    """Change images uint8 [N, H, W, 3] in place by what `draw` gave for them."""
    for image, numbers, each in zip(images, chosen.tolist(), strengths.tolist(), strict=True):
        changed = image
        for number, strength in zip(numbers, each, strict=True):
            changed = _FUNCTIONS[number](changed, strength)
        if changed is not image:
            image[...] = changed
