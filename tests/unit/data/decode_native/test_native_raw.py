"""Raw pictures: the same semantics as Pillow's crop and antialiased resize."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_pictures import decode, encode, pink_picture
from PIL import Image

from distrain.data.decode import native
from distrain.data.decode.engine import DecodeError
from distrain.data.decode.library import KERNELS, library
from distrain.data.raw_layout import RAW_ENCODINGS, RAW_HEAD, to_raw, to_yuv420, yuv420_pixels


def raw(pixels: np.ndarray) -> bytes:
    return RAW_HEAD.pack(pixels.shape[1], pixels.shape[0]) + pixels.tobytes()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_pixels_are_pillows_within_one_level(data):
    width, height = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    crop = (x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    out = (data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60)))
    flip = data.draw(st.booleans())
    pixels = pink_picture(data.draw(st.integers(0, 99)), width, height)
    part = Image.fromarray(pixels).crop((x, y, x + crop[2], y + crop[3]))
    want = np.asarray(part.resize(out, Image.Resampling.BILINEAR))
    want = want[:, ::-1] if flip else want
    batches = [
        decode(native.NativeRawEngine(library(kernel)), [raw(pixels)], [crop], [flip], *out)
        for kernel in KERNELS
    ]
    assert all(np.array_equal(batches[0], batch) for batch in batches)
    assert np.abs(batches[0][0].astype(int) - want).max() <= 1


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_planes_give_the_pixels_of_a_whole_decode_within_the_bound(data):
    width, height = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    crop = (x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))
    out = (data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60)))
    flip = data.draw(st.booleans())
    blob = to_yuv420(Image.fromarray(pink_picture(data.draw(st.integers(0, 99)), width, height)))
    part = Image.fromarray(yuv420_pixels(blob)).crop((x, y, x + crop[2], y + crop[3]))
    want = np.asarray(part.resize(out, Image.Resampling.BILINEAR))
    want = want[:, ::-1] if flip else want
    batches = [
        decode(native.NativeRawEngine(library(kernel), "yuv420"), [blob], [crop], [flip], *out)
        for kernel in KERNELS
    ]
    assert all(np.array_equal(batches[0], batch) for batch in batches)
    difference = np.abs(batches[0][0].astype(int) - want)
    assert difference.mean() <= (0.6 if crop[2] * crop[3] >= 1000 else 1.0)
    assert difference.max() <= 8


def test_planes_are_those_of_a_jpeg():
    """The planes of a 4:2:0 JPEG give what the JPEG gives: one resampler, one colour step."""
    grey = np.repeat(pink_picture(4, 64, 48)[..., :1], 3, axis=2)
    jpeg = encode(grey, quality=100)
    crop, out = (5, 3, 50, 40), (32, 32)
    blob = to_yuv420(Image.open(io.BytesIO(jpeg)))
    got = decode(native.load_raw("yuv420"), [blob], [crop], [False], *out)
    assert np.abs(got.astype(int) - decode(native.load(), [jpeg], [crop], [False], *out)).max() <= 1


@pytest.mark.parametrize("encoding", RAW_ENCODINGS)
def test_wrong_sizes_and_crops_are_refused(encoding):
    engine = native.load_raw(encoding)
    store = to_raw if encoding == "raw" else to_yuv420
    blob = store(Image.fromarray(pink_picture(1, 20, 10)))
    for damaged in (b"", blob[:7], blob[:-1], blob + b"x", RAW_HEAD.pack(2**32 - 1, 2**32 - 1)):
        with pytest.raises(DecodeError):
            decode(engine, [blob, damaged], [(0, 0, 5, 5)] * 2, [False] * 2, 4, 4)
    with pytest.raises(DecodeError, match="crop"):
        decode(engine, [blob], [(16, 0, 5, 5)], [False], 4, 4)
