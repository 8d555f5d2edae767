"""Raw pictures: the same semantics as Pillow's crop and antialiased resize."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_pictures import decode, pink_picture
from PIL import Image

from distrain.data.decode import native
from distrain.data.decode.engine import DecodeError
from distrain.data.decode.library import KERNELS, library
from distrain.data.raw_layout import RAW_HEAD


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


def test_wrong_sizes_and_crops_are_refused():
    engine, blob = native.load_raw(), raw(pink_picture(1, 20, 10))
    for damaged in (b"", blob[:7], blob[:-1], blob + b"x", RAW_HEAD.pack(2**32 - 1, 2**32 - 1)):
        with pytest.raises(DecodeError):
            decode(engine, [blob, damaged], [(0, 0, 5, 5)] * 2, [False] * 2, 4, 4)
    with pytest.raises(DecodeError, match="crop"):
        decode(engine, [blob], [(16, 0, 5, 5)], [False], 4, 4)
