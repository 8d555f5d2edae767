"""Pictures for the loader benchmark: cut from photographs, recombined and grained, seeded.

Smooth or random pictures flatter one decoder or another: the time of a JPEG decoder follows the
bits a pixel and their spread. These have the sizes, bits and crops of ImageNet's (about 450 x 400,
quality 95, 4.4 bits a pixel). The photographs are those that scikit-learn and scikit-image ship;
without them the pictures are synthetic throughout.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
from PIL import Image

_PHOTOS = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "skimage": ("data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"),
}
# Usual sizes of ImageNet's pictures and how often they occur; the rest is drawn at random.
_SIZES = (((500, 375), 0.50), ((500, 333), 0.10), ((375, 500), 0.16), ((333, 500), 0.04))


def photographs() -> list[Image.Image]:
    """Return the sample photographs of the installed packages, without importing these."""
    found = []
    for package, names in _PHOTOS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        paths = [Path(spec.origin).parent / name for name in names]
        found += [Image.open(path).convert("RGB") for path in paths if path.exists()]
    return found


def spectrum_noise(rng: np.random.Generator, height: int, width: int, exponent: float) -> np.ndarray:
    """Return float64 [height, width, 3] of unit variance whose amplitude falls as 1/f**exponent.

    Mostly common to the three channels, as in photographs.
    """
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width)))
    rows = np.fft.fftfreq(height)[:, None] * height
    columns = np.fft.rfftfreq(width)[None] * width
    radius = np.hypot(rows, columns)
    radius[0, 0] = 1
    spectrum /= radius**exponent
    spectrum[:, 0, 0] = 0
    channels = np.fft.irfft2(spectrum, (height, width))
    channels /= channels.std((1, 2), keepdims=True)
    mixed = 1.5 * channels.mean(0, keepdims=True) + 0.25 * channels
    return mixed.transpose(1, 2, 0)


def _draw_size(rng: np.random.Generator) -> tuple[int, int]:
    draw = rng.random()
    for size, share in _SIZES:
        if draw < share:
            return size
        draw -= share
    width = int(rng.integers(180, 640))
    return width, int(np.clip(width * rng.uniform(0.65, 1.4), 150, 640))


def _cut(rng: np.random.Generator, photos: list[Image.Image], width: int, height: int) -> np.ndarray:
    """Return a random part of a random photograph, enlarged to the size: float32 [height, width, 3]."""
    if not photos:
        return (spectrum_noise(rng, height, width, 1.2) * 45 + 120).astype(np.float32)
    photo = photos[int(rng.integers(len(photos)))]
    cut_width = max(8, min(int(photo.width * rng.uniform(0.35, 1.0)), int(photo.height * width / height)))
    cut_height = max(8, min(int(cut_width * height / width), photo.height))
    x = int(rng.integers(photo.width - cut_width + 1))
    y = int(rng.integers(photo.height - cut_height + 1))
    box = (x, y, x + cut_width, y + cut_height)
    part = photo.resize((width, height), Image.Resampling.LANCZOS, box=box)
    return np.asarray(part, np.float32)


def picture(seed: int, photos: list[Image.Image]) -> np.ndarray:
    """Return one picture, uint8 [H, W, 3]: two cuts under a soft mask, contrast, grain."""
    rng = np.random.default_rng(seed)
    width, height = _draw_size(rng)
    shape = spectrum_noise(rng, height, width, 1.7)[..., :1]
    mask = np.clip((shape - rng.uniform(-1.2, 1.2)) * rng.uniform(3, 40) + 0.5, 0, 1)
    pixels = _cut(rng, photos, width, height) * (1 - mask) + _cut(rng, photos, width, height) * mask
    pixels = (pixels - 128) * rng.uniform(0.8, 1.15) + 128
    grain = float(np.clip(rng.lognormal(np.log(11), 0.6), 2, 34))
    pixels += spectrum_noise(rng, height, width, 0.85) * grain * 0.5
    pixels += rng.standard_normal((height, width, 1)) * grain * 0.25
    return np.clip(pixels, 0, 255).astype(np.uint8)


def to_jpeg(pixels: np.ndarray | Image.Image, quality: int) -> bytes:
    """Return the JPEG (4:2:0, standard tables) of a picture."""
    stream = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def original(seed: int, photos: list[Image.Image]) -> bytes:
    """Return a JPEG as it comes from the web: quality about 95."""
    quality = int(np.clip(np.random.default_rng(seed + 1_000_003).normal(95, 1.5), 90, 99))
    return to_jpeg(picture(seed, photos), quality)


def short256(jpeg: bytes) -> bytes:
    """Return the picture with its short side brought to 256 pixels, at quality 90."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    scale = 256 / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    return to_jpeg(image.resize(size, Image.Resampling.LANCZOS), 90)


def size_of(jpeg: bytes) -> tuple[int, int]:
    """Return (width, height) of a JPEG."""
    return Image.open(io.BytesIO(jpeg)).size
