"""The trees that distrain writes itself: digits, and synthetic pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distrain.data.ingest.digits import write_digits
from distrain.data.ingest.pool import run_jobs
from distrain.data.ingest.synthesize import draw, synthesize
from distrain.errors import DataError, UsageError


def test_digits_are_all_there_once_and_split_by_class(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    assert write_digits(tmp_path / "d") == {"train": 1442, "val": 355}
    data = load_digits()
    files = sorted((tmp_path / "d").glob("*/*/*.jpeg"))
    assert sorted(int(f.stem) for f in files) == list(range(1797))
    assert all(int(f.parent.name) == data.target[int(f.stem)] for f in files)
    for digit in range(10):
        held_out = len(list((tmp_path / "d/val" / str(digit)).iterdir()))
        assert held_out == int((data.target == digit).sum()) // 5
    for file in files[::97]:
        small = np.asarray(Image.open(file).resize((8, 8), Image.Resampling.BOX)).astype(float) * 16 / 255
        assert np.abs(small - data.images[int(file.stem)]).mean() < 1.0  # of 16 grey levels
    with pytest.raises(UsageError, match="exists already"):
        write_digits(tmp_path / "d")


def test_synthetic_trees_depend_on_the_seed_alone(tmp_path: Path) -> None:
    assert synthesize(tmp_path / "a", 3, 7, 4, seed=1) == {"train": 7, "val": 4}
    synthesize(tmp_path / "b", 3, 7, 4, seed=1, workers=2)
    synthesize(tmp_path / "c", 3, 7, 4, seed=2)
    read = {
        n: {f.relative_to(tmp_path / n): f.read_bytes() for f in (tmp_path / n).rglob("*.jpeg")}
        for n in "abc"
    }
    assert read["a"] == read["b"]
    assert read["a"].keys() == read["c"].keys() and all(read["a"][f] != read["c"][f] for f in read["a"])
    counts = [len(list(folder.iterdir())) for folder in sorted((tmp_path / "a").glob("*/*"))]
    assert counts == [3, 2, 2, 2, 1, 1]
    assert len(set(read["a"].values())) == 11  # training and held-out pictures differ


def test_pictures_have_the_sizes_and_weight_of_photographs() -> None:
    pictures = [draw(np.random.default_rng(i), i % 10, 10) for i in range(60)]
    widths, heights = [p.shape[1] for p in pictures], [p.shape[0] for p in pictures]
    assert np.median(widths) == 500 and 333 <= np.median(heights) <= 400
    assert any(w < h for w, h in zip(widths, heights, strict=True))
    weights = []
    for picture in pictures[:20]:
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "JPEG", quality=95)
        weights.append(8 * out.tell() / picture.shape[0] / picture.shape[1])
    assert 3 < np.mean(weights) < 6  # bits per pixel; ImageNet has about 4.5


def test_classes_of_pictures_can_be_told_apart() -> None:
    """Even by mean colour alone, the nearest class mean is right most of the time."""
    mean = {
        (c, i): draw(np.random.default_rng((c, i)), c, 4).mean(axis=(0, 1))
        for c in range(4)
        for i in range(12)
    }
    tint = {k: v - v.mean() for k, v in mean.items()}
    centres = [np.mean([tint[c, i] for i in range(6)], axis=0) for c in range(4)]
    right = [
        int(np.argmin([np.abs(tint[c, i] - centre).sum() for centre in centres])) == c
        for c in range(4)
        for i in range(6, 12)
    ]
    assert np.mean(right) > 0.9


@pytest.mark.parametrize(("classes", "images", "val"), [(0, 5, None), (5, 4, None), (5, 5, 4)])
def test_numbers_that_make_no_sense(tmp_path: Path, classes: int, images: int, val: int | None) -> None:
    with pytest.raises(UsageError, match="is less than"):
        synthesize(tmp_path / "x", classes, images, val)


def _double_or_die(number: int) -> int:
    import os

    if number == 3:
        os._exit(9)
    return 2 * number


def test_a_worker_that_dies_is_an_error_not_a_hang() -> None:
    assert sorted(run_jobs(_double_or_die, [1, 2, 4, 5], 2)) == [2, 4, 8, 10]
    with pytest.raises(DataError, match="killed or crashed"):
        list(run_jobs(_double_or_die, [1, 2, 3, 4], 2))
