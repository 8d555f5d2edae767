"""Pictures with the spectrum of photographs, seeded, and the reference decoder."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

SUBSAMPLINGS = ("444", "422", "420", "440", "gray")


def pink_picture(seed: int, width: int, height: int) -> np.ndarray:
    """Return uint8 [height, width, 3] with a 1/f spectrum, mostly in luma, as photographs have."""
    rng = np.random.default_rng(seed)
    noise = np.fft.rfft2(rng.standard_normal((3, height, width)))
    rows = np.fft.fftfreq(height)[:, None] * height
    columns = np.fft.rfftfreq(width)[None] * width
    radius = np.sqrt(rows**2 + columns**2)
    radius[0, 0] = 1
    noise /= radius**1.1
    noise[:, 0, 0] = 0
    channels = np.fft.irfft2(noise, (height, width))
    channels /= channels.std() + 1e-9
    mixed = channels.mean(0, keepdims=True) * 1.2 + 0.4 * channels
    return np.clip(mixed * 36 + 128, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def encode(pixels: np.ndarray, subsampling: str = "420", quality: int = 90, **options: object) -> bytes:
    """Return the JPEG of uint8 [H, W, 3]; subsampling is one of SUBSAMPLINGS, options are Pillow's."""
    if subsampling == "440":  # Pillow cannot write it
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, colorsubsampling="440")
    image = Image.fromarray(pixels)
    if subsampling == "gray":
        image = image.convert("L")
    else:
        options["subsampling"] = {"444": 0, "422": 1, "420": 2}[subsampling]
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


def reference(
    jpeg: bytes, crop: tuple[int, int, int, int], flip: bool, width: int, height: int
) -> np.ndarray:
    """Return Pillow's full decode, crop, antialiased bilinear resize and mirror: uint8 [height, width, 3]."""
    x, y, crop_width, crop_height = crop
    image = Image.open(io.BytesIO(jpeg)).convert("RGB").crop((x, y, x + crop_width, y + crop_height))
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return pixels[:, ::-1] if flip else pixels


def decode(engine, blobs, crops, flips, width: int, height: int) -> np.ndarray:
    """Run an engine and return its batch, uint8 [N, height, width, 3]."""
    out = np.full((len(blobs), height, width, 3), 77, np.uint8)
    views = [memoryview(blob) for blob in blobs]
    engine.decode_batch(views, np.asarray(crops, np.int32), np.asarray(flips, bool), out)
    return out
