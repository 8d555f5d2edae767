"""Every held-out image is counted once, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mpi4py import MPI
from PIL import Image

from distrain.data.decode.engines import create as create_decoder
from distrain.data.loader import EvalLoader
from distrain.data.pack import pack
from distrain.data.settings import DataSettings
from distrain.data.store import Store
from distrain.train.evaluate import Evaluation, evaluate
from distrain.train.models import create
from distrain.train.preprocess import Preprocess
from distrain.train.settings import ModelSettings
from distrain.world import World

CLASSES, COUNT = 9, 43
SETTINGS = DataSettings(
    train="-", val="-", image_size=16, eval_resize=16, batch_per_rank=2, eval_batch_per_rank=4, threads=1
)


def write_pack(root: Path) -> None:
    for number in range(COUNT):
        folder = root / "src" / str(number % CLASSES)
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03d}.jpg", quality=95)
    pack(f"imagefolder:{root}/src", root / "pack")


@pytest.fixture(scope="module")
def root(shared_folder: Any) -> Iterator[Path]:
    """A folder with a pack of noise, the same on all ranks."""
    with shared_folder(write_pack) as path:
        yield path


def test_evaluation_does_not_depend_on_the_ranks(world: World, root: Path) -> None:
    """Together the ranks count what one alone counts; where each of P counts all, it is P times that."""
    store = Store.open(root / "pack", SETTINGS, MPI.COMM_WORLD)
    model = create(ModelSettings(name="resnet8", zero_init_last_gamma=False), CLASSES, seed=2)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer += 0.1 + world.rank  # only those of rank 0 may count
    preprocess = Preprocess(torch.device("cpu"), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    def counted(rank: int, size: int) -> Evaluation:
        loader = EvalLoader(store, SETTINGS, create_decoder("turbojpeg"), rank, size)
        try:
            found = evaluate(model, loader, preprocess)
            assert found is not None
            return found
        finally:
            loader.close()

    shared, by_each = counted(world.rank, world.size), counted(0, 1)
    store.close()
    assert shared.images == COUNT and 0 < shared.correct1 < shared.correct5 < COUNT
    assert by_each.images == world.size * COUNT
    assert by_each.correct1 == world.size * shared.correct1
    assert by_each.correct5 == world.size * shared.correct5
    assert by_each.loss == pytest.approx(shared.loss, rel=1e-6)
