"""The indexed form: size, what it keeps, the way back to a JPEG."""

from __future__ import annotations

import io

import numpy as np
import pytest
from jpeg_pictures import SUBSAMPLINGS, encode, pink_picture
from PIL import Image

from distrain.data.decode import indexed
from distrain.errors import DataError


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_the_way_back_gives_the_same_picture(subsampling):
    jpeg = encode(pink_picture(6, 200, 130), subsampling, optimize=subsampling == "422")
    blob = indexed.index(jpeg)
    assert indexed.is_indexed(blob) and not indexed.is_indexed(jpeg)
    back = indexed.to_jpeg(blob)
    original, again = (np.asarray(Image.open(io.BytesIO(data))) for data in (jpeg, back))
    assert np.array_equal(original, again)
    assert indexed.index(back) == blob


def test_exif_and_comments_are_left_out_and_the_rest_stays():
    pixels = pink_picture(6, 100, 100)
    exif = Image.Exif()
    exif[0x010E] = "a long description " * 50
    plain, full = encode(pixels), encode(pixels, exif=exif.tobytes(), comment=b"note")
    assert len(full) > len(plain) + 900
    assert indexed.index(full) == indexed.index(plain)


def test_index_costs_at_most_two_percent_of_a_photograph():
    jpeg = encode(pink_picture(7, 500, 375), quality=95)
    assert len(indexed.index(jpeg)) <= 1.02 * len(jpeg)


def test_sizes_are_read_from_both_forms():
    jpeg = encode(pink_picture(1, 123, 45))
    assert indexed.image_size(jpeg) == indexed.image_size(indexed.index(jpeg)) == (123, 45)


def test_progressive_has_no_indexed_form_and_damage_is_an_error():
    assert indexed.index(encode(pink_picture(1, 64, 64), progressive=True)) is None
    with pytest.raises(DataError, match="begin"):
        indexed.index(b"")
    with pytest.raises(DataError, match="not one"):
        indexed.to_jpeg(b"\xff\xd8")
    blob = indexed.index(encode(pink_picture(1, 64, 64)))
    with pytest.raises(DataError, match="contradict"):
        indexed.to_jpeg(blob[:700])
