"""Small trees of real JPEG files whose pixels tell which image they are."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def picture(number: int, width: int = 40, height: int = 30) -> Image.Image:
    """A smooth colour picture, different for each number."""
    y, x = np.mgrid[:height, :width]
    red = (x * 4 + number * 3) % 256
    green = (y * 5 + number * 7) % 256
    blue = np.full_like(x, (number * 31) % 256)
    return Image.fromarray(np.stack([red, green, blue], axis=2).astype(np.uint8))


def jpeg(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92, **options)
    return out.getvalue()


def odd_exif(orientation: int) -> bytes:
    """EXIF whose XResolution is text, which Pillow reads and does not write."""
    entries = [
        struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0),
        struct.pack("<HHI4s", 0x011A, 2, 3, b"72"),
    ]
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + bytes(4)


def write_tree(root: Path, per_class: dict[str, int]) -> Path:
    """Write class folders with numbered pictures; the sizes vary a little."""
    number = 0
    for name, count in per_class.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            data = jpeg(picture(number, 40 + number % 5, 30 + number % 3))
            (root / name / f"{i:03d}.jpg").write_bytes(data)
            number += 1
    return root


def multi_shard(monkeypatch: pytest.MonkeyPatch, shards: int = 5) -> None:
    """Make small sources fall into several shards."""
    monkeypatch.setattr("distrain.data.pack._SHARD_BYTES_LEAST", 1)
    monkeypatch.setattr("distrain.data.pack._SHARDS_WANTED", shards)
