"""Small stand-ins for the data room, made of numbers that a test can predict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distrain.train.models import create
from distrain.train.parts import Parts
from distrain.train.settings import ModelSettings, TrainSettings
from distrain.world import World, split

CLASSES = 4


@dataclass
class FakeBatch:
    images: Tensor
    labels: Tensor


def pictures(count: int, seed: int = 0) -> FakeBatch:
    """Noise images of 8x8 with a bright quadrant that tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.randint(0, 120, (count, 8, 8, 3), dtype=torch.uint8, generator=generator)
    for number, label in enumerate(labels.tolist()):
        row, column = 4 * (label // 2), 4 * (label % 2)
        images[number, row : row + 4, column : column + 4] += 100
    return FakeBatch(images, labels)


class FakeLoader:
    """Batches of a shuffled set; each rank takes its contiguous part of every global batch."""

    def __init__(self, data: FakeBatch, global_batch: int, rank: int = 0, world_size: int = 1) -> None:
        self.data = data
        self.global_batch = global_batch
        self.part = split(global_batch, world_size)[rank]
        self.steps_per_epoch = len(data.labels) // global_batch
        self.wait_seconds = 0.0
        self.served: list[tuple[int, int]] = []

    def epoch(self, epoch: int, start_step: int = 0, total: int | None = None) -> Iterator[FakeBatch]:
        order = torch.randperm(len(self.data.labels), generator=torch.Generator().manual_seed(epoch))
        for step in range(start_step, self.steps_per_epoch):
            self.served.append((epoch, step))
            at = order[step * self.global_batch :][self.part.start : self.part.stop]
            yield FakeBatch(self.data.images[at], self.data.labels[at])


def eval_batches(data: FakeBatch, batch: int, rank: int = 0, world_size: int = 1) -> list[FakeBatch]:
    """This rank's exact part of a held-out set."""
    mine = split(len(data.labels), world_size)[rank]
    images, labels = data.images[mine.start : mine.stop], data.labels[mine.start : mine.stop]
    if not len(labels):
        return []
    return [FakeBatch(i, k) for i, k in zip(images.split(batch), labels.split(batch), strict=True)]


def make_settings(**changes: Any) -> TrainSettings:
    values: dict[str, Any] = {
        "duration": "12st",
        "optimizer": {"lr": 0.1, "lr_batch": 16},
        "schedule": {"warmup": "2st", "decay": "cosine"},
        "log_every": "4st",
        "eval_every": "6st",
        "checkpoint_every": "5st",
        "tensorboard": False,
        **changes,
    }
    return TrainSettings(**values)


def make_parts(
    folder: Path, rank: int = 0, world_size: int = 1, norm: str = "batch", **changes: Any
) -> Parts:
    """A run on 67 images with a global batch of 16, so 4 steps are an epoch."""
    global_batch = changes.pop("global_batch", 16)
    train_changes = changes.pop("train", {})
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {
        "settings": make_settings(**train_changes),
        "model": create(ModelSettings(name="resnet8", norm=norm), CLASSES, seed=5),
        "loader": FakeLoader(pictures(67), global_batch, rank, world_size),
        "eval_loader": eval_batches(pictures(23, seed=9), 8, rank, world_size),
        "world": World.of(rank, ["localhost"] * world_size),
        "device": torch.device("cpu"),
        "folder": folder,
        "global_batch": global_batch,
        "show": False,
        **changes,
    }
    return Parts(**values)
