"""`distrain digits`: scikit-learn's 1,797 real handwritten digits as class folders of JPEG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from distrain.data.disk import growing, new_folder
from distrain.errors import DataError

SIDE = 32  # pixels; the scans have 8 x 8
HELD_OUT_OF = 5  # every fifth image of a class is held out


def write_digits(out: str | Path) -> dict[str, int]:
    """Write ``out/train/0 ... 9`` and ``out/val/0 ... 9`` and return the number of images of each part.

    The split is fixed and stratified: of each digit every fifth scan is held out. Scans of one
    writer follow each other in this set, so both parts hold most writers. Images are grey JPEG
    files, 32 x 32 pixels (bicubic from 8 x 8), quality 95.

    Raises:
        UsageError: ``out`` exists.
        DataError: scikit-learn is not installed, or the disk is full or cannot be written.
    """
    out = new_folder(out)
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError(
            "scikit-learn", "it holds the digits and is not installed", "pip install 'distrain[digits]'"
        ) from None
    with growing(out) as partial:  # half of the digits would look like all of them
        return _write(load_digits(), partial)


def _write(data: Any, out: Path) -> dict[str, int]:
    counts = {"train": 0, "val": 0}
    for digit in range(10):
        for number, row in enumerate(np.flatnonzero(data.target == digit)):
            part = "val" if number % HELD_OUT_OF == HELD_OUT_OF - 1 else "train"
            folder = out / part / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            grey = Image.fromarray(np.rint(data.images[row] * (255 / 16)).astype(np.uint8))
            large = grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            large.save(folder / f"{row:04d}.jpeg", quality=95)
            counts[part] += 1
    return counts
