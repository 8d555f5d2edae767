"""From the bytes of a source file to the bytes of an image in a pack, or a reason why not.

A JPEG that every decoder reads (baseline, 8 bits, grey or YCbCr, upright) and that needs no resize
is kept byte for byte. All else that Pillow opens is turned upright, brought to 8-bit RGB or grey
and encoded anew; the pack counts these by reason.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, replace

import numpy as np
import simplejpeg
from PIL import Image

from distrain.data.decode.indexed import index
from distrain.data.ingest.lossless import to_baseline
from distrain.data.ingest.upright import ORIENTATION, upright
from distrain.data.raw_layout import RAW_ENCODINGS, to_raw, to_yuv420
from distrain.errors import DataError

ENCODINGS = ("jpeg", *RAW_ENCODINGS)
_BASELINE = 0xC0
_NOT_BASELINE = "JPEG not baseline"
_SIDE_LIMIT = 65_500  # of libjpeg


class Unusable(Exception):
    """The file is not an image that can be packed; the text is the reason."""


@dataclass(frozen=True)
class PackOptions:
    """What the pack is made with.

    Attributes:
        short_side: images whose short side is longer are shrunk to it, in pixels; 0: never.
        quality: of JPEG encoding, 1 to 100.
        encoding: ``jpeg``, ``yuv420`` (planes) or ``raw`` (RGB rows), see `distrain.data.raw_layout`.
        index: store JPEG with an index, with which the native decoder reads only what a crop needs.
        dedup: which near-duplicates are left out, e.g. ``phash:4``; empty: none.
    """

    short_side: int = 0
    quality: int = 90
    encoding: str = "jpeg"
    index: bool = False
    dedup: str = ""


@dataclass(frozen=True)
class Packed:
    """One image as it stands in a pack.

    Attributes:
        data: its bytes.
        width, height: of the upright image, in pixels.
        converted: why it was encoded anew, or empty if the source's bytes were kept.
    """

    data: bytes
    width: int
    height: int
    converted: str = ""


def convert(data: bytes, options: PackOptions) -> Packed:
    """Return the image in ``data`` as the pack wants it.

    With ``options.index`` a JPEG gets its index; one that cannot have it (restart markers) stays as it is.

    Raises:
        Unusable: the file is empty, truncated, no image, or of a kind that has no 8-bit meaning.
    """
    packed = _as_encoding(data, options)
    if options.index:
        try:
            packed = replace(packed, data=index(packed.data) or packed.data)
        except DataError as error:
            raise Unusable(f"damaged: {error.problem}") from None
    return packed


def _as_encoding(data: bytes, options: PackOptions) -> Packed:
    """Return the image as JPEG or pixels.

    Raises:
        Unusable: the file is empty, truncated, no image, or of a kind that has no 8-bit meaning.
    """
    if not data:
        raise Unusable("zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF data and of very large images
            image = Image.open(io.BytesIO(data))
            reason = _reason_to_convert(image, data, options)
            if not reason:
                return Packed(data, *image.size)
            if reason == _NOT_BASELINE and not _needs_pixels(image, options):
                baseline = to_baseline(data)
                if baseline is not None:
                    return Packed(baseline, *image.size, "JPEG to baseline without loss")
            pixels = _eight_bits(upright(image))
    except Unusable:
        raise
    except Image.UnidentifiedImageError:
        raise Unusable("not an image that Pillow knows") from None
    except Image.DecompressionBombError:
        raise Unusable("too many pixels") from None
    except Exception as error:
        # What Pillow raises on damaged files has no end: SyntaxError, struct.error, TypeError, ...
        raise Unusable(f"damaged: {error}") from None
    pixels = _shrink(pixels, options.short_side)
    return Packed(_encode(pixels, options), *pixels.size, reason)


def _reason_to_convert(image: Image.Image, data: bytes, options: PackOptions) -> str:
    """Return why the bytes cannot be kept, or an empty text if they can and decode without complaint."""
    if image.format != "JPEG":
        return f"{image.format} {image.mode}"
    damage = _damage(data) if image.mode != "CMYK" else ""
    if "premature" in damage.lower():
        raise Unusable(f"truncated: {damage}")
    if image.mode not in ("RGB", "L"):
        return f"JPEG {image.mode}"
    if image.getexif().get(ORIENTATION, 1) != 1:
        return "EXIF rotation"
    if _sof(data) != _BASELINE:
        return _NOT_BASELINE
    if image.mode == "RGB" and image.info.get("adobe_transform") == 0:
        return "JPEG stored as RGB"
    if damage:
        return "JPEG with warnings"
    return _needs_pixels(image, options)


def _needs_pixels(image: Image.Image, options: PackOptions) -> str:
    """Return which option asks for other pixels or another encoding, or an empty text."""
    if options.encoding != "jpeg":
        return f"to {options.encoding}"
    if options.short_side and min(image.size) > options.short_side:
        return "resized"
    return ""


def _damage(data: bytes) -> str:
    """Return what libjpeg-turbo says about a JPEG when it is strict, or an empty text."""
    try:
        simplejpeg.decode_jpeg(data, strict=True)
    except ValueError as error:
        return str(error)
    return ""


def _sof(data: bytes) -> int:
    """Return the start-of-frame marker of a JPEG (0xC0 baseline, 0xC2 progressive), 0 if there is none."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return 0
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return the picture in mode RGB or L, its pixels read (which is where truncation shows)."""
    image.load()
    if image.mode in ("RGB", "L"):
        return image
    if image.mode.startswith("I"):  # 16-bit grey
        wide = np.asarray(image).astype(np.int64)
        if wide.min() < 0 or wide.max() > 0xFFFF:
            raise Unusable(f"pixel values {wide.min()} to {wide.max()} are outside 16 bits")
        return Image.fromarray((wide >> 8).astype(np.uint8))
    if image.mode == "F":
        raise Unusable("floating-point pixels have no defined range")
    if image.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV"):
        return image.convert("L" if image.mode == "1" else "RGB")
    upright = image.convert("RGBA")  # palette or alpha: what is transparent shows white
    white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, upright).convert("RGB")


def _shrink(image: Image.Image, short_side: int) -> Image.Image:
    width, height = image.size
    if not short_side or min(width, height) <= short_side:
        return image
    scale = short_side / min(width, height)
    return image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)


def _encode(image: Image.Image, options: PackOptions) -> bytes:
    if options.encoding != "jpeg":
        return to_raw(image) if options.encoding == "raw" else to_yuv420(image)
    if max(image.size) > _SIDE_LIMIT:
        raise Unusable(f"{image.width}x{image.height} pixels are more than a JPEG can hold")
    out = io.BytesIO()
    image.save(out, "JPEG", quality=options.quality, subsampling="4:2:0")
    return out.getvalue()
