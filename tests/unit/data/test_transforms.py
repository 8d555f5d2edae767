"""Transforms that a configuration may choose: whole images, colours, sizes that grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distrain.data.augment import train_crops
from distrain.data.colour import jitter, jitter_factors
from distrain.data.decode.engines import create
from distrain.data.format import Manifest
from distrain.data.loader import EvalLoader, TrainLoader
from distrain.data.settings import AugmentSettings, DataSettings, JitterSettings
from distrain.data.store import Store

SIZES = np.array([40, 41]), np.array([30, 50])


def settings(**options: object) -> DataSettings:
    return DataSettings(
        train="-", val="-", **{"image_size": 16, "batch_per_rank": 4, "threads": 2, **options}
    )


def test_crops_that_are_not_random() -> None:
    whole, _ = train_crops(AugmentSettings(crop="whole"), 1, 2, np.array([5, 6]), *SIZES)
    assert whole.tolist() == [[0, 0, 40, 30], [0, 0, 41, 50]]
    center, flips = train_crops(AugmentSettings(crop="center", flip=1.0), 1, 2, np.array([5, 6]), *SIZES)
    assert center.tolist() == [[5, 0, 30, 30], [0, 4, 41, 41]] and flips.all()


def test_factors_depend_on_the_image_alone_and_stay_in_range() -> None:
    rule = JitterSettings(brightness=0.4, saturation=0.1)
    together = jitter_factors(rule, 1, 2, np.arange(2000))
    assert np.array_equal(together[7:9], jitter_factors(rule, 1, 2, np.array([7, 8])))
    assert (together[:, 1] == 1).all()
    for column, reach in ((0, 0.4), (2, 0.1)):
        low, high = together[:, column].min(), together[:, column].max()
        assert 1 - reach <= low < 1 - 0.95 * reach and 1 + 0.95 * reach < high <= 1 + reach
    assert not np.array_equal(together, jitter_factors(rule, 1, 3, np.arange(2000)))


def test_jitter_does_what_its_names_say() -> None:
    image = np.random.default_rng(0).integers(60, 120, (1, 8, 8, 3), np.uint8)
    bright, flat, grey, same = (image.copy() for _ in range(4))
    jitter(bright, np.array([[1.5, 1.0, 1.0]]))
    assert np.abs(bright.astype(int) - image.astype(int) * 1.5).max() <= 1
    jitter(flat, np.array([[1.0, 0.01, 1.0]]))
    assert flat.std() < 1 and abs(flat.mean() - image.mean()) < 3
    jitter(grey, np.array([[1.0, 1.0, 0.0]]))
    expected = np.asarray(Image.fromarray(image[0]).convert("L"))
    assert np.abs(grey[0].astype(int) - expected[:, :, None]).max() <= 1
    jitter(same, np.ones((1, 3)))
    assert np.array_equal(same, image)


def test_jitter_in_batches_is_the_same_for_any_ranks(packed: tuple[Path, Manifest]) -> None:
    store = Store.open(packed[0], settings())
    augment = {"jitter": {"brightness": 0.5, "contrast": 0.5}}
    plain = TrainLoader(store, settings(batch_per_rank=8), create("turbojpeg"), 0, 1, seed=1)
    alone = TrainLoader(store, settings(batch_per_rank=8, augment=augment), create("turbojpeg"), 0, 1, seed=1)
    halves = [
        TrainLoader(store, settings(augment=augment), create("turbojpeg"), rank, 2, seed=1) for rank in (0, 1)
    ]
    for before, one, *parts in zip(*(x.epoch(0) for x in (plain, alone, *halves)), strict=True):
        assert np.array_equal(one.images.numpy(), np.concatenate([p.images.numpy() for p in parts]))
        assert not np.array_equal(one.images.numpy(), before.images.numpy())
    for loader in (plain, alone, *halves):
        loader.close()


def test_sizes_that_grow_from_epoch_to_epoch(packed: tuple[Path, Manifest]) -> None:
    grows = settings(image_size_from={0: 8, 2: 12, 3: 16}, queue_batches=5)
    assert [grows.image_size_of(epoch) for epoch in range(5)] == [8, 8, 12, 16, 16]
    assert settings(image_size_from={3: 8}).image_size_of(2) == 16
    store = Store.open(packed[0], grows)
    loader = TrainLoader(store, grows, create("turbojpeg"), 0, 1, seed=1)
    for epoch in (0, 1, 2, 3, 2):  # the first batches of an epoch are decoded during the one before
        sides = {tuple(batch.images.shape[1:3]) for batch in loader.epoch(epoch)}
        assert sides == {(grows.image_size_of(epoch),) * 2}
    loader.close()


@pytest.mark.parametrize("wrong", [{-1: 8}, {0: 17}, {0: 7}])
def test_sizes_that_make_no_sense(wrong: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="image_size_from="):
        settings(image_size_from=wrong)


def test_evaluation_of_whole_images(packed: tuple[Path, Manifest]) -> None:
    store = Store.open(packed[0], settings())
    loader = EvalLoader(store, settings(eval_crop="whole"), create("turbojpeg"), 0, 1)
    batch = next(iter(loader))
    with Image.open(__import__("io").BytesIO(bytes(store.blob(2)))) as image:
        expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
    assert np.abs(batch.images[2].numpy().astype(int) - expected).max() <= 2
    loader.close()
