"""What one optimizer step asks of the device."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from train_fakes import make_parts, pictures

from distrain.train.preprocess import Preprocess
from distrain.train.run import prepare
from distrain.train.step import optimizer_step


class Counting(Preprocess):
    """Notes how many images go to the device at once."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), (0.5,) * 3, (0.25,) * 3)
        self.moved: list[int] = []

    def move(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        self.moved.append(len(images))
        return super().move(images, labels)


def test_one_micro_batch_at_a_time_is_on_the_device(tmp_path: Path) -> None:
    parts = make_parts(tmp_path, train={"accumulate": 3})
    run, preprocess = prepare(parts), Counting()
    optimizer_step(run.model, run.optimizer, pictures(16), preprocess, parts.settings)
    assert preprocess.moved == [6, 6, 4]
