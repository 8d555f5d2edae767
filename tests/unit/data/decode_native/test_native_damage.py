"""Damaged input is refused in words: a seeded corpus of mutations, headers, and wrong arguments."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from jpeg_pictures import SUBSAMPLINGS, decode, encode, pink_picture
from PIL import Image

from distrain.data.decode import indexed, native
from distrain.data.decode.engine import DecodeError
from distrain.data.decode.library import KERNELS, library
from distrain.data.raw_layout import RAW_ENCODINGS, to_raw, to_yuv420
from distrain.errors import DataError, UsageError


@pytest.fixture(scope="module")
def jpeg() -> bytes:
    return encode(pink_picture(11, 80, 60))


def refusal(engine, blob: bytes, crop=(0, 0, 80, 60)) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(engine, [blob], [crop], [False], 16, 16)
    return caught.value.reason


def test_every_truncation_is_an_error(engine, jpeg):
    blob = indexed.index(jpeg)
    for size in [*range(0, 700, 7), *range(700, len(jpeg), 41), len(jpeg) - 1]:
        assert refusal(engine, jpeg[:size])
        with pytest.raises(DataError):
            indexed.index(jpeg[:size])
    for size in [*range(0, 700, 7), *range(700, len(blob), 41), len(blob) - 1]:
        assert refusal(engine, blob[:size])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("form", ["plain", "indexed"])
def test_mutations_give_pixels_or_a_reason(form, kernel):
    """Flipped, overwritten, cut and repeated bytes. The build with sanitizers runs the same ideas longer."""
    rng = np.random.default_rng(20 + KERNELS[kernel])
    engine = native.NativeEngine(library(kernel))
    decoded = refused = 0
    for subsampling in SUBSAMPLINGS:
        original = encode(pink_picture(int(rng.integers(1 << 30)), 70, 50), subsampling)
        original = original if form == "plain" else indexed.index(original)
        for _ in range(400):
            data = bytearray(original)
            for _ in range(int(rng.integers(1, 5))):
                at = int(rng.integers(len(data)))
                if rng.random() < 0.6:  # headers are where the numbers are
                    at = int(rng.integers(min(len(data), 700)))
                kind = rng.integers(4)
                if kind == 0:
                    data[at] ^= 1 << int(rng.integers(8))
                elif kind == 1:
                    data[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
                elif kind == 2:
                    del data[at : at + int(rng.integers(1, 9))]
                else:
                    data[at:at] = data[at : at + int(rng.integers(1, 9))]
            try:
                decode(engine, [bytes(data)], [(8, 8, 60, 40)], [False], 16, 16)
                decoded += 1
            except DecodeError as error:
                assert error.reason
                refused += 1
    assert decoded > 50 and refused > 200


@pytest.mark.parametrize("encoding", RAW_ENCODINGS)
def test_mutated_pixels_are_judged_alike_by_all_kernels(encoding):
    """Flipped bits, mostly in width and height, and bytes too few or too many."""
    rng = np.random.default_rng(31)
    engines = [native.NativeRawEngine(library(kernel), encoding) for kernel in KERNELS]
    store = to_raw if encoding == "raw" else to_yuv420
    decoded = refused = 0
    for _ in range(300):
        width, height = (int(side) for side in rng.integers(1, 40, 2))
        data = bytearray(store(Image.fromarray(pink_picture(int(rng.integers(99)), width, height))))
        kind, at = rng.integers(4), int(rng.integers(len(data)))
        if kind == 0:
            data[int(rng.integers(8))] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = data[at : at + int(rng.integers(1, 40))]
        else:
            data[max(at, 8) - len(data)] ^= 0xFF
        results = []
        for engine in engines:
            try:
                results.append(decode(engine, [bytes(data)], [(0, 0, width, height)], [False], 12, 12))
            except DecodeError as error:
                results.append(error.reason)
        if isinstance(results[0], str):
            assert results == [results[0]] * 3
            refused += 1
        else:
            assert all(np.array_equal(results[0], other) for other in results)
            decoded += 1
    assert decoded > 50 and refused > 100


def test_refusals_say_what_is_wrong(engine, jpeg):
    blob = indexed.index(jpeg)
    assert "begin" in refusal(engine, b"PNG, perhaps")
    assert "too early" in refusal(engine, jpeg[:-2])
    assert "crop" in refusal(engine, jpeg, (40, 40, 41, 20))
    assert "crop" in refusal(engine, blob, (-1, 0, 4, 4))
    assert "crop" in refusal(engine, blob, (0, 0, 2**31 - 1, 1))
    assert "index" in refusal(engine, blob[:4] + b"\x02" + blob[5:])
    progressive = bytearray(blob.replace(b"\xff\xc0", b"\xff\xc2"))
    # The size of the scan: the way back to a JPEG, for the other engine, fails.
    progressive[12:16] = b"\xff" * 4
    reason = refusal(engine, bytes(progressive))
    assert "progressive" in reason and "contradict" in reason
    without_tables = jpeg.replace(b"\xff\xc4", b"\xff\xfe")  # DHT segments become comments
    assert "table" in refusal(engine, without_tables)


def test_a_huge_claim_in_few_bytes_is_refused_before_memory_is_reserved(engine, jpeg):
    at = jpeg.index(b"\xff\xc0") + 5
    huge = jpeg[:at] + b"\xff\xff\xff\xff" + jpeg[at + 4 :]
    assert "too early" in refusal(engine, huge, (0, 0, 65535, 65535))


def test_the_error_names_the_position_in_the_batch(engine, jpeg):
    with pytest.raises(DecodeError) as caught:
        decode(engine, [jpeg, jpeg, jpeg[:300], jpeg], [(0, 0, 80, 60)] * 4, [False] * 4, 8, 8)
    assert caught.value.position == 2


def test_wrong_arrays_are_refused(engine, jpeg):
    crops, flips = np.array([[0, 0, 80, 60]], np.int32), np.array([False])
    good = np.empty((1, 8, 8, 3), np.uint8)
    for out in (np.empty((1, 8, 8, 3), np.float32), np.empty((2, 8, 8, 3), np.uint8), good[:, :, ::2]):
        with pytest.raises(UsageError):
            engine.decode_batch([jpeg], crops, flips, out)
    with pytest.raises(UsageError):
        engine.decode_batch([jpeg], crops[:, :3], flips, good)
    with pytest.raises(DecodeError, match="output"):
        decode(engine, [jpeg], crops, flips, 5000, 1)


def test_no_images_is_nothing_to_do(engine):
    engine.decode_batch([], np.empty((0, 4), np.int32), np.empty(0, bool), np.empty((0, 8, 8, 3), np.uint8))


def test_threads_decode_at_once_with_the_same_result(engine):
    jpegs = [encode(pink_picture(seed, 100, 80), SUBSAMPLINGS[seed % 5]) for seed in range(10)]
    crops, flips = [(5, 5, 90, 70)] * 10, [seed % 2 == 0 for seed in range(10)]
    expected = decode(engine, jpegs, crops, flips, 40, 40)
    results: list[np.ndarray | None] = [None] * 4

    def work(slot: int) -> None:
        for _ in range(10):
            results[slot] = decode(engine, jpegs, crops, flips, 40, 40)

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result is not None and np.array_equal(result, expected) for result in results)
