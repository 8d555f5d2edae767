"""What becomes of each kind of source file: kept, converted, or refused with a reason."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from data_trees import jpeg, odd_exif, picture
from PIL import Image

from distrain.data.ingest.convert import PackOptions, Unusable, convert
from distrain.data.raw_layout import RAW_HEAD


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def close(data: bytes, expected: Image.Image, mean: float = 6.0) -> bool:
    found = pixels(data)
    return bool(np.abs(found - np.asarray(expected.convert("RGB")).astype(int)).mean() < mean)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_upright_baseline_jpeg_is_kept_byte_for_byte(mode: str) -> None:
    data = jpeg(picture(1).convert(mode))
    packed = convert(data, PackOptions())
    assert packed.data is data and (packed.width, packed.height, packed.converted) == (40, 30, "")


WHITE = Image.new("RGBA", (40, 30), (255, 255, 255, 255))
HALF = picture(3).convert("RGBA")
HALF.putalpha(Image.fromarray(np.repeat(np.linspace(0, 255, 30).astype(np.uint8)[:, None], 40, axis=1)))
WIDE = np.asarray(picture(5).convert("L")).astype(np.uint16) * 257
CASES = {
    "PNG RGB": (encoded(picture(2), "PNG"), picture(2)),
    "PNG RGBA": (encoded(HALF, "PNG"), Image.alpha_composite(WHITE, HALF)),
    "PNG P": (encoded(picture(4).quantize(200), "PNG"), picture(4).quantize(200)),
    "PNG I;16": (encoded(Image.fromarray(WIDE), "PNG"), picture(5).convert("L")),
    "PNG LA": (encoded(picture(6).convert("LA"), "PNG"), picture(6).convert("L")),
    "PNG 1": (encoded(picture(6).convert("1"), "PNG"), picture(6).convert("1")),
    "GIF P": (encoded(picture(7).quantize(100), "GIF"), picture(7).quantize(100)),
    "BMP RGB": (encoded(picture(8), "BMP"), picture(8)),
    "WEBP RGB": (encoded(picture(9), "WEBP", lossless=True), picture(9)),
    "JPEG CMYK": (jpeg(picture(10).convert("CMYK")), picture(10)),
    "JPEG not baseline": (jpeg(picture(11), progressive=True), picture(11)),
}


@pytest.mark.parametrize("reason", CASES)
def test_other_kinds_are_converted_to_the_same_picture(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distrain.data.ingest.convert.to_baseline", lambda data: None)  # as without jpeglib
    data, expected = CASES[reason]
    packed = convert(data, PackOptions(quality=95))
    assert packed.converted == reason
    assert (packed.width, packed.height) == expected.size
    assert simplejpeg.decode_jpeg_header(packed.data)[:2] == (30, 40)
    assert convert(packed.data, PackOptions()).converted == ""  # what was written needs no second conversion
    assert close(packed.data, expected, mean=24.0 if reason == "PNG 1" else 8.0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(picture(1), exif=exif.tobytes())
    packed = convert(data, PackOptions(quality=95))
    turned = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # to Pillow's numbers of Transpose
    expected = picture(1)
    if orientation > 1:
        expected = expected.transpose(Image.Transpose(turned[orientation]))
    assert packed.converted == ("EXIF rotation" if orientation > 1 else "")
    assert (packed.width, packed.height) == expected.size
    assert close(packed.data, expected)
    assert Image.open(io.BytesIO(packed.data)).getexif().get(0x0112, 1) == 1


def test_exif_that_pillow_cannot_write_is_turned_all_the_same() -> None:
    packed = convert(jpeg(picture(1), exif=odd_exif(6)), PackOptions(quality=95))
    assert packed.converted == "EXIF rotation"
    assert close(packed.data, picture(1).transpose(Image.Transpose.ROTATE_270))


def test_whatever_pillow_raises_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(image: Image.Image) -> Image.Image:
        raise TypeError("an odd tag")

    monkeypatch.setattr("distrain.data.ingest.convert.upright", fails)
    with pytest.raises(Unusable, match="damaged: an odd tag"):
        convert(encoded(picture(2), "PNG"), PackOptions())


def test_short_side_shrinks_and_never_enlarges() -> None:
    packed = convert(jpeg(picture(1, 400, 300)), PackOptions(short_side=64))
    assert (packed.width, packed.height, packed.converted) == (85, 64, "resized")
    assert convert(jpeg(picture(1, 400, 300)), PackOptions(short_side=300)).converted == ""
    small = convert(encoded(picture(1), "PNG"), PackOptions(short_side=64))
    assert (small.width, small.height) == (40, 30)


def test_raw_encoding_holds_the_pixels() -> None:
    packed = convert(encoded(picture(2), "PNG"), PackOptions(encoding="raw"))
    assert RAW_HEAD.unpack_from(packed.data) == (40, 30)
    assert packed.data[RAW_HEAD.size :] == picture(2).tobytes()
    assert convert(jpeg(picture(2)), PackOptions(encoding="raw")).converted == "to raw"


WHOLE = jpeg(picture(1, 200, 150))
PNG = encoded(picture(1, 200, 150), "PNG")
BAD = {
    "zero bytes": b"",
    "not an image": b"this is a text file, whatever its name says",
    "truncated": WHOLE[: len(WHOLE) // 2],
    "truncated with an end marker: ": WHOLE[: len(WHOLE) // 2] + b"\xff\xd9",
    "damaged": PNG[: len(PNG) // 2],
    "floating-point": encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
    "damaged: Truncated": WHOLE[:10],
}


@pytest.mark.parametrize("reason", BAD)
def test_unusable_files_have_a_reason(reason: str) -> None:
    with pytest.raises(Unusable, match=reason.partition(" with")[0].strip()):
        convert(BAD[reason], PackOptions())


@pytest.mark.parametrize("seed", range(200))
def test_damaged_bytes_are_an_image_or_a_reason(seed: int) -> None:
    """Whatever is flipped: no other exception, and what is accepted decodes strictly."""
    rng = np.random.default_rng(seed)
    data = bytearray([WHOLE, PNG, CASES["GIF P"][0], CASES["WEBP RGB"][0]][seed % 4])
    for at in rng.integers(0, len(data), 5):
        data[at] = rng.integers(256)
    try:
        packed = convert(bytes(data), PackOptions())
    except Unusable as error:
        assert str(error)
    else:
        assert simplejpeg.decode_jpeg(packed.data, strict=True).shape[:2] == (packed.height, packed.width)
