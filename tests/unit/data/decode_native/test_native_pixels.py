"""Pixels of the native decoder beside Pillow's, and the same bits from every path through it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpeg_pictures import SUBSAMPLINGS, decode, encode, pink_picture, reference
from PIL import Image

from distrain.data.decode import indexed, native
from distrain.data.decode.library import KERNELS, library

SIZES = [(1, 1), (7, 5), (5, 7), (8, 8), (16, 16), (17, 16), (15, 33), (33, 64), (97, 61), (320, 240)]


def assert_close(got: np.ndarray, want: np.ndarray, few_pixels: bool = False) -> None:
    """The stated bound: mean |d| at most 0.6, and 99.9 % of the values within 8 levels."""
    difference = np.abs(got.astype(int) - want)
    assert difference.mean() <= (1.0 if few_pixels else 0.6)
    assert np.quantile(difference, 0.999) <= 8


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size", SIZES)
def test_whole_pictures_of_all_sizes_and_subsamplings(engine, subsampling, size):
    jpeg = encode(pink_picture(3, *size), subsampling)
    got = decode(engine, [jpeg], [(0, 0, *size)], [False], 32, 32)
    assert_close(got[0], reference(jpeg, (0, 0, *size), False, 32, 32), few_pixels=size[0] * size[1] < 1000)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize(
    "crop",
    [
        (0, 0, 200, 150),
        (16, 16, 64, 64),
        (15, 17, 33, 31),
        (199, 149, 1, 1),
        (0, 149, 200, 1),
        (120, 3, 80, 147),
    ],
)
def test_crops_inside_and_at_borders(engine, subsampling, crop):
    jpeg = encode(pink_picture(5, 200, 150), subsampling)
    for side in (24, 224):
        got = decode(engine, [jpeg, jpeg], [crop, crop], [False, True], side, side)
        assert_close(got[0], reference(jpeg, crop, False, side, side))
        assert_close(got[1], reference(jpeg, crop, True, side, side))
        assert np.array_equal(got[1], got[0][:, ::-1])


@st.composite
def cases(draw):
    width, height = draw(st.integers(1, 220)), draw(st.integers(1, 220))
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    crop = (x, y, draw(st.integers(1, width - x)), draw(st.integers(1, height - y)))
    return {
        "picture": (draw(st.integers(0, 1000)), width, height),
        "crop": crop,
        "subsampling": draw(st.sampled_from(SUBSAMPLINGS)),
        "quality": draw(st.integers(40, 97)),
        "flip": draw(st.booleans()),
        "out": (draw(st.integers(1, 70)), draw(st.integers(1, 70))),
    }


@settings(max_examples=150, deadline=None)
@given(cases())
def test_plain_indexed_portable_and_fast_give_the_same_bits(case):
    jpeg = encode(pink_picture(*case["picture"]), case["subsampling"], case["quality"])
    blob = indexed.index(jpeg)
    batches = [
        decode(native.NativeEngine(library(kernel)), [jpeg, blob], [case["crop"]] * 2, [case["flip"]] * 2,
               *case["out"])
        for kernel in KERNELS
    ]  # fmt: skip
    first = batches[0][0]
    assert all(np.array_equal(first, image) for batch in batches for image in batch)


def test_optimised_huffman_tables_and_table_changes_between_images(engine):
    pictures = [pink_picture(seed, 120, 90) for seed in range(6)]
    jpegs = [encode(p, optimize=bool(i % 2), quality=50 + 8 * i) for i, p in enumerate(pictures)]
    crops = [(i, 2 * i, 100, 70) for i in range(6)]
    got = decode(engine, jpegs, crops, [False] * 6, 48, 48)
    for image, jpeg, crop in zip(got, jpegs, crops, strict=True):
        assert_close(image, reference(jpeg, crop, False, 48, 48))


def test_restart_markers_decode_and_are_not_indexed(engine):
    jpeg = encode(pink_picture(2, 150, 100), restart_marker_blocks=3)
    assert b"\xff\xdd" in jpeg
    got = decode(engine, [jpeg], [(20, 30, 100, 60)], [False], 64, 64)
    assert_close(got[0], reference(jpeg, (20, 30, 100, 60), False, 64, 64))
    assert indexed.index(jpeg) is None


def test_saturated_colours_and_flat_picture(engine):
    flat = np.empty((40, 56, 3), np.uint8)
    flat[:] = (255, 0, 3)
    jpeg = encode(flat, "444", 95)
    got = decode(engine, [jpeg], [(3, 3, 30, 30)], [False], 20, 20)
    assert np.abs(got[0].astype(int) - reference(jpeg, (3, 3, 30, 30), False, 20, 20)).max() <= 1


def test_rgb_without_colour_transform(engine):
    jpeg = encode(pink_picture(8, 90, 80), "444", keep_rgb=True)
    got = decode(engine, [jpeg], [(0, 0, 90, 80)], [False], 40, 40)
    assert_close(got[0], reference(jpeg, (0, 0, 90, 80), False, 40, 40))


def test_strong_reduction(engine):
    jpeg = encode(pink_picture(4, 900, 700))
    for side in (1, 2, 3, 9):  # 1 is past what the kernel does: it falls back
        got = decode(engine, [jpeg], [(0, 0, 900, 700)], [False], side, side)
        assert_close(got[0], reference(jpeg, (0, 0, 900, 700), False, side, side), few_pixels=True)


def test_rows_of_the_batch_are_written_exactly(engine):
    jpeg = encode(pink_picture(1, 64, 48))
    memory = np.full((3, 21, 19, 3), 200, np.uint8)
    engine.decode_batch([jpeg], np.array([[0, 0, 64, 48]], np.int32), np.array([False]), memory[1:2])
    assert (memory[0] == 200).all() and (memory[2] == 200).all()
    assert_close(memory[1], reference(jpeg, (0, 0, 64, 48), False, 19, 21))


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_what_the_kernel_rejects_falls_back(engine, mode):
    pixels = pink_picture(9, 120, 80)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "JPEG", quality=92, progressive=mode == "RGB")
    plain = encode(pixels, quality=92)
    crops = [(10, 10, 60, 50)] * 3
    got = decode(engine, [plain, stream.getvalue(), plain], crops, [False, True, True], 32, 32)
    assert_close(got[1], reference(stream.getvalue(), crops[1], True, 32, 32), few_pixels=mode == "CMYK")
    assert_close(got[0], reference(plain, crops[0], False, 32, 32))
    assert np.array_equal(got[2], got[0][:, ::-1])
