"""Laws of crops: inside the image, within the ranges, independent of the batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.data.augment import eval_crops, train_crops
from distrain.data.settings import AugmentSettings, DataSettings

sides = st.integers(1, 5000)


@given(
    st.lists(st.tuples(sides, sides), min_size=1, max_size=40), st.integers(0, 2**63), st.integers(0, 1000)
)
@settings(max_examples=150, deadline=None)
def test_crops_lie_inside(sizes: list[tuple[int, int]], seed: int, epoch: int) -> None:
    w, h = np.array(sizes).T
    crops, flips = train_crops(AugmentSettings(), seed, epoch, np.arange(len(w)), w, h)
    x, y, cw, ch = crops.T
    assert crops.dtype == np.int32 and flips.dtype == bool
    assert (x >= 0).all() and (y >= 0).all() and (cw >= 1).all() and (ch >= 1).all()
    assert (x + cw <= w).all() and (y + ch <= h).all()


@given(st.permutations(list(range(20))), st.integers(1, 20))
@settings(deadline=None)
def test_a_crop_depends_on_the_image_alone(order: list[int], take: int) -> None:
    w, h = 100 + np.arange(20) * 7, 80 + np.arange(20) * 3
    whole, whole_flips = train_crops(AugmentSettings(), 3, 4, np.arange(20), w, h)
    some = np.array(order[:take])
    crops, flips = train_crops(AugmentSettings(), 3, 4, some, w[some], h[some])
    assert np.array_equal(crops, whole[some]) and np.array_equal(flips, whole_flips[some])


def draw(count: int, width: int, height: int, epoch: int = 0, **options: object) -> np.ndarray:
    full = np.full(count, width), np.full(count, height)
    return train_crops(AugmentSettings(**options), 11, epoch, np.arange(count), *full)[0]


def test_areas_and_ratios_are_spread_as_the_settings_say() -> None:
    """A square image takes nearly all first tries: area uniform, log ratio uniform, place uniform."""
    crops = draw(40_000, 2000, 2000, scale=(0.1, 0.5))
    area = crops[:, 2].astype(float) * crops[:, 3] / 2000**2
    log_ratio = np.log(crops[:, 2] / crops[:, 3])
    for values, low, high in ((area, 0.1, 0.5), (log_ratio, np.log(3 / 4), np.log(4 / 3))):
        assert values.min() >= low - 0.002 and values.max() <= high + 0.002
        counts, _ = np.histogram(values, 10, (low, high))
        assert np.abs(counts / 4000 - 1).max() < 0.08
    across, down = crops[:, 0] / (2000 - crops[:, 2]), crops[:, 1] / (2000 - crops[:, 3])
    assert abs(across.mean() - 0.5) < 0.01 and abs(across.std() - 12**-0.5) < 0.01
    assert abs(np.corrcoef(across, down)[0, 1]) < 0.02


def test_epochs_differ() -> None:
    assert (draw(500, 300, 200, epoch=0) != draw(500, 300, 200, epoch=1)).any(axis=1).mean() > 0.99


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(1000, 10, (493, 0, 13, 10)), (10, 1000, (0, 493, 10, 13)), (1, 1, (0, 0, 1, 1))],
)
def test_what_no_try_fits_is_cropped_at_the_centre(
    width: int, height: int, expected: tuple[int, ...]
) -> None:
    crops = draw(50, width, height, scale=(0.9, 1.0))
    assert {tuple(row) for row in crops.tolist()} == {expected}


@pytest.mark.parametrize(("probability", "low", "high"), [(0, 0, 0), (1, 1, 1), (0.5, 0.48, 0.52)])
def test_flips(probability: float, low: float, high: float) -> None:
    sizes = np.full(20_000, 9), np.full(20_000, 9)
    flips = train_crops(AugmentSettings(flip=probability), 0, 0, np.arange(20_000), *sizes)[1]
    assert low <= flips.mean() <= high


@pytest.mark.parametrize(
    ("size", "expected"),
    [((500, 375), (86, 23, 328, 328)), ((256, 256), (16, 16, 224, 224)), ((1, 9), (0, 4, 1, 1))],
)
def test_centre_crops(size: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert eval_crops(256, 224, *(np.array([v]) for v in size))[0].tolist() == list(expected)


def test_an_evaluation_crop_larger_than_the_resize_takes_the_largest_square() -> None:
    assert eval_crops(224, 288, np.array([500]), np.array([375]))[0].tolist() == [62, 0, 375, 375]


def test_settings_say_which_range_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"scale=\[0.5, 0.1\]"):
        AugmentSettings(scale=(0.5, 0.1))
    with pytest.raises(ValueError, match="ratio="):
        AugmentSettings(ratio=(0.0, 1.0))
    assert DataSettings(train="a", val="b").eval_sides == (256, 224)
    assert DataSettings(train="a", val="b", image_size=32, eval_resize=40).eval_sides == (40, 32)
