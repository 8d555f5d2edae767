"""Progressive and arithmetic JPEG to baseline without loss: the same coefficients, coded anew.

Needs jpeglib, an optional dependency (``pip install 'distrain[lossless]'``); without it such images are
decoded and encoded anew.
"""

from __future__ import annotations

import functools
import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg


@functools.cache
def _library() -> Any:
    try:
        library = importlib.import_module("jpeglib")
    except ImportError:
        return None
    library.version.set("turbo210")  # its default, libjpeg 6b, refuses arithmetic coding
    return library


def to_baseline(data: bytes) -> bytes | None:
    """Return the JPEG with the same pixels in baseline coding.

    Returns:
        None if jpeglib is not installed, does not read the file, or does not give the same pixels.
    """
    library = _library()
    if library is None:
        return None
    with tempfile.TemporaryDirectory() as folder:  # the library reads and writes files only
        source, out = Path(folder, "in.jpg"), Path(folder, "out.jpg")
        source.write_bytes(data)
        try:
            image = library.read_dct(str(source))
            image.load()
            image.progressive_mode = False
            image.write_dct(str(out), flags=["-PROGRESSIVE_MODE"])
            made = out.read_bytes()
            same = np.array_equal(simplejpeg.decode_jpeg(made), simplejpeg.decode_jpeg(data))
        except (OSError, RuntimeError, ValueError):  # what it cannot do is said with these
            return None
    return made if same else None
