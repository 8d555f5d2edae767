"""What training is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from distrain.comm.sync.synchroniser import Synchroniser
from distrain.errors import EXIT_STOPPED
from distrain.train.settings import TrainSettings
from distrain.world import World


class Batch(Protocol):
    """One rank's part of a global batch, on the CPU."""

    @property
    def images(self) -> Tensor:
        """Pixels, uint8 [N, H, W, 3]."""

    @property
    def labels(self) -> Tensor:
        """Classes, int64 [N]."""


class TrainLoader(Protocol):
    """Batches of the training set in an order that every rank knows."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the same on every rank."""

    @property
    def wait_seconds(self) -> float:
        """How long the loop has waited for batches so far, accumulated."""

    def epoch(self, epoch: int, start_step: int = 0, total: int | None = None) -> Iterator[Batch]:
        """The batches of an epoch from `start_step` on; none is made ahead past `total` steps of the run."""


@dataclass(frozen=True)
class Parts:
    """Everything that a run is made of.

    Attributes:
        settings: the recipe.
        model: on the CPU, not wrapped (see ``distrain.train.models.create``).
        loader: this rank's batches; one is a step, whatever `settings.accumulate`.
        eval_loader: this rank's exact part of the held-out set, iterated anew for each evaluation.
        world: who this rank is; for more than one rank a torch process group must be up.
        device: where to compute (see ``distrain.train.device.pick_device``).
        folder: the run folder, which exists; rank 0 writes into it.
        global_batch: images per step, over all ranks.
        seed: of random layers (dropout, stochastic depth); each rank adds its number.
        config_digest: fingerprint of the resolved configuration, kept in checkpoints.
        channels_last: memory format of the images.
        buckets: arguments of DistributedDataParallel that say how large its buckets are.
        synchroniser: who averages the gradients.
        exposed_comm_seconds: how long the main thread has been blocked on gradients so far; asked after
            each step, before anything else is sent. None if nobody can tell.
        skipped_images: pack and index of each image that this rank has left out so far because it did not
            decode.
        resume: go on from the newest valid checkpoint of the folder, if it has one.
        show: let rank 0 print progress to stderr and the final table to stdout.
    """

    settings: TrainSettings
    model: nn.Module
    loader: TrainLoader
    eval_loader: Iterable[Batch]
    world: World
    device: torch.device
    folder: Path
    global_batch: int
    seed: int = 0
    config_digest: str = ""
    channels_last: bool = True
    buckets: Mapping[str, Any] = field(default_factory=dict)
    synchroniser: Synchroniser = Synchroniser()  # noqa: RUF009  # immutable
    exposed_comm_seconds: Callable[[], float] | None = lambda: 0.0
    skipped_images: Callable[[], set[tuple[str, int]]] = set
    resume: bool = False
    show: bool = True


@dataclass(frozen=True)
class Result:
    """The outcome of a run; `result.json` holds the same fields.

    Attributes:
        status: "completed", or "stopped" by a signal after writing a checkpoint.
        steps: optimizer steps in all, those before a resume included.
        epochs: the same in epochs.
        top1: share of the held-out images whose most likely class is right; None if stopped.
        top5: share of those whose label is among the five most likely (or all, if fewer) classes.
        eval_loss: mean cross-entropy on the held-out set, without label smoothing.
        eval_images: held-out images that were counted, over all ranks.
        train_images: images trained on since this start, over all ranks.
        skipped_images: images that did not decode and were left out, each counted once over all ranks.
        wall_seconds: from the call of `train` to its end.
        images_per_second: over all ranks, while training (without evaluation and checkpoints).
        data_share: part of the step time that the loop waited for batches, mean of the ranks.
        compute_share: part spent on everything else.
        comm_share: part that it was blocked on gradients (what backward did not hide); nan if it is not
            known, and then part of `compute_share`.
        world_size: ranks.
        global_batch: images per step.
        resumed_from: step of the checkpoint that this start began with, or None.
        checkpoint: path of the last checkpoint, relative to the run folder.
    """

    status: str
    steps: int
    epochs: float
    top1: float | None
    top5: float | None
    eval_loss: float | None
    eval_images: int
    train_images: int
    skipped_images: int
    wall_seconds: float
    images_per_second: float
    data_share: float
    compute_share: float
    comm_share: float
    world_size: int
    global_batch: int
    resumed_from: int | None
    checkpoint: str | None

    @property
    def exit_code(self) -> int:
        """What the rank's process should end with."""
        return 0 if self.status == "completed" else EXIT_STOPPED
