"""Packs of pixels: what is stored, and the same crops from every engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distrain.data.decode.engine import DecodeError
from distrain.data.decode.engines import create, native_or_reason
from distrain.data.ingest.convert import PackOptions
from distrain.data.pack import pack
from distrain.data.raw_layout import rgb_pixels, to_raw, to_yuv420, yuv420_pixels, yuv420_planes
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.errors import UsageError

SETTINGS = DataSettings(train="-", val="-", image_size=16, batch_per_rank=8, threads=1)
needs_native = pytest.mark.skipif(isinstance(native_or_reason(), str), reason="no native decoder here")


def gradient(width: int, height: int) -> np.ndarray:
    """Return uint8 [height, width, 3] whose colours change slowly."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([60 + x, 200 - y, 90 + (x + y) // 2], axis=2).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (5, 3), (40, 30), (41, 31)])
def test_planes_keep_the_picture(size: tuple[int, int]) -> None:
    pixels = gradient(*size)
    blob = to_yuv420(Image.fromarray(pixels))
    luma, *chroma = yuv420_planes(blob)
    half = ((size[1] + 1) // 2, (size[0] + 1) // 2)
    assert luma.shape == (size[1], size[0]) and [plane.shape for plane in chroma] == [half, half]
    assert len(blob) == 8 + luma.size + 2 * chroma[0].size + 32
    assert np.abs(yuv420_pixels(blob).astype(int) - pixels).max() <= 3
    assert np.array_equal(rgb_pixels(to_raw(Image.fromarray(pixels))), pixels)


def test_grey_pictures_have_neutral_chroma() -> None:
    luma, cb, cr = yuv420_planes(to_yuv420(Image.new("L", (6, 4), 77)))
    assert (luma == 77).all() and (cb == 128).all() and (cr == 128).all()


@needs_native
@pytest.mark.parametrize("encoding", ["raw", "yuv420"])
def test_engines_agree_on_a_pack(tree: Path, tmp_path: Path, encoding: str) -> None:
    manifest = pack(f"imagefolder:{tree}", tmp_path / "pack", PackOptions(encoding=encoding))
    jpegs = pack(f"imagefolder:{tree}", tmp_path / "jpegs")
    assert manifest.encoding == encoding and manifest.count == jpegs.count == 41
    stores = [Store.open(path, SETTINGS) for path in (tmp_path / "pack", tmp_path / "jpegs")]
    records = stores[0].records
    crops = np.stack([np.zeros(41), np.zeros(41), records["width"], records["height"]], 1).astype(np.int32)
    flips = np.arange(41) % 2 == 0
    batches = []
    for store, engine in ((stores[0], "native"), (stores[0], "turbojpeg"), (stores[1], "native")):
        out = np.empty((41, 16, 16, 3), np.uint8)
        create(engine, store.encoding).decode_batch(store.blobs(np.arange(41)), crops, flips, out)
        batches.append(out.astype(int))
    for store in stores:
        store.close()
    assert np.abs(batches[0] - batches[1]).mean() <= 0.6
    assert np.abs(batches[0] - batches[2]).mean() <= 1.5  # chroma was averaged once more


@pytest.mark.parametrize("encoding", ["raw", "yuv420"])
def test_the_fallback_refuses_what_is_no_picture(encoding: str) -> None:
    engine = create("turbojpeg", encoding)
    blob = (to_raw if encoding == "raw" else to_yuv420)(Image.fromarray(gradient(8, 8)))
    out = np.empty((1, 4, 4, 3), np.uint8)
    for damaged in (b"", blob[:-1], blob + b"x", bytes(8) + blob[8:]):
        with pytest.raises(DecodeError):
            engine.decode_batch([memoryview(damaged)], np.array([[0, 0, 4, 4]]), np.array([False]), out)


def test_an_unknown_encoding_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use one of jpeg, raw, yuv420"):
        pack(f"imagefolder:{tree}", tmp_path / "pack", PackOptions(encoding="yuv444"))
