"""Engines against Pillow, and against each other."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
from data_trees import jpeg, picture
from PIL import Image

from distrain.data.decode import engines
from distrain.data.decode.engine import DecodeEngine, DecodeError
from distrain.data.decode.engines import create
from distrain.data.ingest.convert import PackOptions, convert
from distrain.errors import ConfigError

SIDE = 48


def reference(data: bytes, crop: tuple[int, int, int, int], flip: bool) -> np.ndarray:
    x, y, w, h = crop
    image = Image.open(io.BytesIO(data)).convert("RGB").crop((x, y, x + w, y + h))
    image = image.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image)


def decode(
    engine: DecodeEngine, blobs: list[bytes], crops: list[tuple[int, ...]], flips: list[bool]
) -> np.ndarray:
    out = np.full((len(blobs), SIDE, SIDE, 3), 77, np.uint8)
    views = [memoryview(blob).toreadonly() for blob in blobs]
    engine.decode_batch(views, np.array(crops, np.int32).reshape(-1, 4), np.array(flips, bool), out)
    return out


IMAGES = [picture(i, 200 + 10 * i, 150 + 7 * i) for i in range(6)]
CROPS = [
    (0, 0, 200, 150),
    (5, 9, 48, 48),
    (100, 50, 30, 100),
    (0, 0, 1, 1),
    (3, 2, 160, 20),
    (249, 184, 1, 1),
]
FLIPS = [False, True, True, False, True, False]


def test_turbojpeg_gives_the_pixels_of_pillow() -> None:
    blobs = [jpeg(image) for image in IMAGES]
    out = decode(create("turbojpeg"), blobs, CROPS, FLIPS)
    expected = np.stack([reference(*args) for args in zip(blobs, CROPS, FLIPS, strict=True)])
    assert np.abs(out.astype(int) - expected).max() <= 2  # both decode with libjpeg-turbo


def test_grey_images_get_three_equal_channels() -> None:
    grey = jpeg(picture(3, 90, 70).convert("L"))
    out = decode(create("turbojpeg"), [grey], [(0, 0, 90, 70)], [False])
    assert (out == out[..., :1]).all()
    assert np.abs(out[0].astype(int) - reference(grey, (0, 0, 90, 70), False)).max() <= 1


def test_raw_gives_exactly_the_pixels_of_pillow() -> None:
    pngs = []
    for image in IMAGES:
        file = io.BytesIO()
        image.save(file, "PNG")
        pngs.append(file.getvalue())
    raw = [convert(data, PackOptions(encoding="raw")).data for data in pngs]
    out = decode(create("auto", "raw"), raw, CROPS, FLIPS)
    expected = np.stack([reference(*args) for args in zip(pngs, CROPS, FLIPS, strict=True)])
    assert np.array_equal(out, expected)


WHOLE = jpeg(IMAGES[0])


@pytest.mark.parametrize(
    ("name", "blob"),
    [
        ("turbojpeg", WHOLE[: len(WHOLE) // 2]),
        ("turbojpeg", b"no jpeg"),
        ("turbojpeg", b""),
        ("raw", b"1234"),
        ("raw", b"\x02\0\0\0\x02\0\0\0" + bytes(11)),
        ("raw", b"\xff\xff\xff\xff\xff\xff\xff\xff"),
    ],
)
def test_a_bad_image_is_named_by_its_position(name: str, blob: bytes) -> None:
    engine = create("auto", "raw") if name == "raw" else create(name)
    good = convert(WHOLE, PackOptions(encoding=name if name == "raw" else "jpeg")).data
    with pytest.raises(DecodeError) as caught:
        decode(engine, [good, good, blob, good], [(0, 0, 2, 2)] * 4, [False] * 4)
    assert caught.value.position == 2 and caught.value.reason


@pytest.mark.parametrize(
    "crop", [(0, 0, 201, 10), (0, 0, 10, 151), (-1, 0, 5, 5), (199, 0, 2, 2), (0, 0, 0, 5)]
)
def test_a_crop_outside_the_image_is_an_error(crop: tuple[int, ...]) -> None:
    with pytest.raises(DecodeError, match="not inside its 200x150 pixels"):
        decode(create("turbojpeg"), [WHOLE], [crop], [False])


def test_auto_falls_back_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "native_or_reason", lambda: "it was not built")
    engines._warn_slower.cache_clear()
    with caplog.at_level(logging.WARNING, "distrain.data"):
        assert create("auto").name == create("auto").name == "turbojpeg"
    assert [r.getMessage() for r in caplog.records if "slower" in r.getMessage()] == [
        "decoder: simplejpeg + Pillow (slower); the native decoder cannot be used: it was not built"
    ]
    with pytest.raises(ConfigError, match="'native' is not available: it was not built"):
        create("native")
    with pytest.raises(ConfigError, match="did you mean 'native'"):
        create("natve")
