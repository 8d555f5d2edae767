"""Pictures as they are meant to be seen: turned by what their EXIF says."""

from __future__ import annotations

from PIL import Image

ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image) -> Image.Image:
    """Return the picture upright, its pixels read; it keeps its EXIF, orientation and all.

    ``ImageOps.exif_transpose`` would write the EXIF anew, which fails on entries that Pillow reads and does
    not write, such as a resolution that is stored as text.
    """
    image.load()  # first: some formats are turned by it, and say so by dropping their orientation
    turn = _TURNS.get(image.getexif().get(ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)
