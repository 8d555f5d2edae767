"""Progressive JPEG becomes baseline with the same pixels, bit for bit."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from data_trees import jpeg, picture
from PIL import Image

from distrain.data.ingest import lossless
from distrain.data.ingest.convert import PackOptions, convert

pytest.importorskip("jpeglib", reason="the optional dependency 'lossless' is not installed")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_progressive_becomes_baseline_with_the_same_pixels(mode: str, subsampling: int) -> None:
    data = jpeg(picture(3, 61, 47).convert(mode), progressive=True, subsampling=subsampling)
    packed = convert(data, PackOptions())
    assert packed.converted == "JPEG to baseline without loss" and (packed.width, packed.height) == (61, 47)
    assert "progressive" not in Image.open(io.BytesIO(packed.data)).info
    assert np.array_equal(simplejpeg.decode_jpeg(packed.data), simplejpeg.decode_jpeg(data))
    assert convert(packed.data, PackOptions()).converted == ""


def markers(data: bytes) -> set[int]:
    """Kinds of the segments before the first scan."""
    found, at = set(), 2
    while data[at + 1] != 0xDA:
        found.add(data[at + 1])
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return found


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_arithmetic_coding_becomes_huffman_with_the_same_pixels(tmp_path: Path, mode: str) -> None:
    (tmp_path / "plain.jpg").write_bytes(jpeg(picture(3, 61, 47).convert(mode)))
    library = lossless._library()
    image = library.read_dct(str(tmp_path / "plain.jpg"))
    image.load()
    image.write_dct(str(tmp_path / "arithmetic.jpg"), flags=["+ARITH_CODE"])
    data = (tmp_path / "arithmetic.jpg").read_bytes()
    assert 0xC9 in markers(data)  # the frame of sequential arithmetic coding
    packed = convert(data, PackOptions())
    assert packed.converted == "JPEG to baseline without loss" and (packed.width, packed.height) == (61, 47)
    assert 0xC0 in markers(packed.data) and not markers(packed.data) & {0xC9, 0xCC}
    assert np.array_equal(simplejpeg.decode_jpeg(packed.data), simplejpeg.decode_jpeg(data))


def test_pixels_are_made_anew_where_the_options_ask_for_other_ones() -> None:
    data = jpeg(picture(3, 61, 47), progressive=True)
    small = convert(data, PackOptions(short_side=20))
    assert small.converted == "JPEG not baseline" and (small.width, small.height) == (26, 20)
    assert convert(data, PackOptions(encoding="raw")).converted == "JPEG not baseline"


def test_what_the_library_cannot_read_is_left_to_others() -> None:
    assert lossless.to_baseline(b"no image") is None
    assert lossless.to_baseline(jpeg(picture(1), progressive=True)[:300]) is None
