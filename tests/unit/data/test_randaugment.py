"""RandAugment: draws that depend on the image alone, operations beside Pillow's, batches on any ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from distrain.data import pixels as px
from distrain.data import randaugment
from distrain.data.decode.engines import create
from distrain.data.format import Manifest
from distrain.data.loader import TrainLoader
from distrain.data.randaugment import OPERATIONS, apply, draw
from distrain.data.settings import DataSettings, RandAugmentSettings
from distrain.data.store import Store

NAMES = tuple(OPERATIONS)


def picture(seed: int, side: int = 40) -> np.ndarray:
    """Soft structure in the middle of the range, so that little is clipped."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(40, 216, (5, 5, 3), np.uint8))
    return np.array(coarse.resize((side, side), Image.Resampling.BICUBIC))


@given(st.integers(0, 2**40), st.integers(0, 99), st.integers(1, 4), st.floats(0, 30))
def test_draws_depend_on_the_image_alone(seed: int, epoch: int, ops: int, magnitude: float) -> None:
    rule = RandAugmentSettings(ops=ops, magnitude=magnitude)
    chosen, strengths = draw(rule, seed, epoch, np.arange(300))
    assert chosen.shape == strengths.shape == (300, ops)
    some = np.array([7, 290, 7])
    again = draw(rule, seed, epoch, some)
    assert np.array_equal(again[0], chosen[some]) and np.array_equal(again[1], strengths[some])
    assert chosen.min() >= 0 and chosen.max() < 14
    assert np.allclose(np.abs(strengths), magnitude / 30)


def test_all_operations_come_as_often_either_way_and_differ_between_epochs() -> None:
    rule = RandAugmentSettings(ops=2, magnitude=9)
    chosen, strengths = draw(rule, 1, 2, np.arange(14_000))
    for column in (0, 1):
        counts = np.bincount(chosen[:, column], minlength=14)
        assert counts.min() > 850 and counts.max() < 1150  # 1000 expected, standard deviation 30
    assert abs((strengths > 0).mean() - 0.5) < 0.02
    assert abs((chosen[:, 0] == chosen[:, 1]).mean() - 1 / 14) < 0.01  # drawn independently
    assert (draw(rule, 1, 3, np.arange(14_000))[0] != chosen).mean() > 0.9


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("autocontrast", "equalize")])
def test_magnitude_0_changes_nothing(name: str) -> None:
    images = np.stack([picture(i) for i in range(4)])
    images[0, :3], images[0, 3:6] = 0, 255
    before = images.copy()
    apply(images, np.full((4, 1), NAMES.index(name)), np.array([[0.0], [-0.0], [0.0], [0.0]]))
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "identity"])
def test_strength_shows_and_grows(name: str) -> None:
    image = picture(3)[None]
    differences = []
    for magnitude in (3, 9, 30):
        changed = image.copy()
        apply(changed, np.array([[NAMES.index(name)]]), np.array([[magnitude / 30]]))
        differences.append(float(np.abs(changed.astype(int) - image).mean()))
    if name in ("autocontrast", "equalize"):
        assert differences[0] == differences[1] == differences[2] > 0
    else:
        assert differences[0] <= differences[1] < differences[2]


def by_pillow(name: str, image: Image.Image, s: float) -> Image.Image:
    enhancers = {
        "color": ImageEnhance.Color, "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness, "sharpness": ImageEnhance.Sharpness,
    }  # fmt: skip
    if name in enhancers:
        return enhancers[name](image).enhance(1 + 0.9 * s)
    if name == "rotate":
        return image.rotate(30 * s, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))
    return {
        "autocontrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "solarize": lambda: ImageOps.solarize(image, round(256 - 256 * abs(s))),
        "posterize": lambda: ImageOps.posterize(image, 8 - round(4 * abs(s))),
    }[name]()


@pytest.mark.parametrize("strength", [0.25, -0.25, 1.0, -1.0])
@pytest.mark.parametrize(
    "name",
    [
        "autocontrast", "equalize", "solarize", "posterize", "color", "contrast", "brightness", "sharpness",
        "rotate",
    ],
)  # fmt: skip
def test_operations_are_those_of_pillow(name: str, strength: float) -> None:
    image = picture(5)
    expected = np.asarray(by_pillow(name, Image.fromarray(image), strength)).astype(int)
    got = OPERATIONS[name](image, strength)
    assert got.dtype == np.uint8 and got.shape == image.shape
    inner = np.abs(got - expected)[2:-2, 2:-2]  # Pillow leaves the outermost pixels unsharpened
    if name == "rotate":  # bilinear in both; at the edge of the turned image they mix grey differently
        assert np.median(inner) <= 1 and (inner > 3).mean() < 0.1
    else:
        assert inner.max() <= 2


def test_shifts_and_shears_go_where_their_names_say() -> None:
    image = picture(6, 331)
    right = OPERATIONS["translate_x"](image, 0.2)  # 30 pixels
    assert np.array_equal(right[:, :-30], image[:, 30:]) and (right[:, -30:] == 128).all()
    down = OPERATIONS["translate_y"](image, -0.2)
    assert np.array_equal(down[30:], image[:-30]) and (down[:30] == 128).all()
    for name in ("shear_x", "shear_y"):
        sheared = OPERATIONS[name](image, 0.5)
        middle = (slice(165, 166), slice(30, 300)) if name == "shear_x" else (slice(30, 300), slice(165, 166))
        assert np.abs(sheared[middle].astype(int) - image[middle]).max() <= 1  # the middle line stays
        assert (sheared == 128).all(axis=2).sum() > 1000


def test_flat_images() -> None:
    flat = np.full((8, 8, 3), 77, np.uint8)
    for change in (px.autocontrast, px.equalize):
        assert np.array_equal(change(flat), flat)


def test_batches_are_the_same_for_any_ranks(packed: tuple[Path, Manifest]) -> None:
    def loader(rank: int, ranks: int, **augment: object) -> TrainLoader:
        settings = DataSettings(
            train="-", val="-", image_size=16, batch_per_rank=8 // ranks, threads=2, augment=augment
        )
        return TrainLoader(
            Store.open(packed[0], settings), settings, create("turbojpeg"), rank, ranks, seed=1
        )

    rule = {"ops": 2, "magnitude": 9}
    loaders = [
        loader(0, 1),
        *(loader(rank, ranks, randaugment=rule) for rank, ranks in ((0, 1), (0, 2), (1, 2))),
        loader(0, 1, randaugment={"ops": 0, "magnitude": 30}),
    ]
    for plain, one, left, right, off in zip(*(each.epoch(0) for each in loaders), strict=True):
        assert np.array_equal(one.images.numpy(), np.concatenate([left.images.numpy(), right.images.numpy()]))
        assert not np.array_equal(one.images.numpy(), plain.images.numpy())
        assert np.array_equal(off.images.numpy(), plain.images.numpy())
    for each in loaders:
        each.close()


def test_the_numbers_of_the_operations_are_kept() -> None:
    """Their order is part of what a seed means."""
    assert randaugment.MAX_MAGNITUDE == 30
    assert NAMES == (
        "identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast",
        "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y",
    )  # fmt: skip
