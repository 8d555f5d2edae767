"""Exact evaluation: every held-out image counts once, on any number of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from distrain.errors import ConfigError
from distrain.train import ranks
from distrain.train.parts import Batch
from distrain.train.preprocess import Preprocess
from distrain.train.recipe import cross_entropy
from distrain.train.step import autocast


@dataclass(frozen=True)
class Evaluation:
    """Sums over the whole held-out set.

    Attributes:
        images: how many images were counted.
        correct1: images whose most likely class is right.
        correct5: images whose label is among the five most likely classes (or all, if fewer).
        loss_sum: cross-entropy, summed.
    """

    images: int
    correct1: int
    correct5: int
    loss_sum: float

    @property
    def top1(self) -> float:
        """Share of images whose most likely class is right."""
        return self.correct1 / self.images

    @property
    def top5(self) -> float:
        """Share of images whose label is among the five most likely classes."""
        return self.correct5 / self.images

    @property
    def loss(self) -> float:
        """Mean cross-entropy, without label smoothing."""
        return self.loss_sum / self.images


@torch.no_grad()
def evaluate(
    module: nn.Module,
    batches: Iterable[Batch],
    preprocess: Preprocess,
    precision: str = "fp32",
    asked_to_stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Count on this rank's part of the held-out set, then add up the ranks; a collective.

    Ranks may have parts of any length, 0 included: they meet only once, at the end. Batch
    normalisation uses the running statistics of rank 0, which are sent to all ranks first: all
    ranks evaluate one model, and the answer does not depend on who evaluates which image.

    Args:
        module: the model.
        batches: of this rank.
        preprocess: brings them to the device.
        precision: ``fp32`` or ``bf16``.
        asked_to_stop: asked between batches, of this rank alone: one that says yes goes to the meeting at the
            end at once. Usually a signal reaches all ranks; whom it does not reach works on to its own end.

    Returns:
        None on all ranks if any was asked to stop before it had counted all its images.

    Raises:
        ConfigError: no rank has an image.
    """
    ranks.broadcast_tensors(module.buffers())
    was_training = module.training
    module.eval()
    counts = torch.zeros(3, dtype=torch.int64, device=preprocess.device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=preprocess.device)
    left_out = 0
    for batch in batches:
        if asked_to_stop():
            left_out = 1
            break
        images, labels = preprocess.move(batch.images, batch.labels)
        if len(labels) == 0:
            continue
        with autocast(preprocess.device, precision):
            logits = module(preprocess.normalise(images))
        hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        counts[0] += len(labels)
        counts[1] += hits[:, 0].sum()
        counts[2] += hits.sum()
        loss_sum += cross_entropy(logits, labels).double() * len(labels)
    module.train(was_training)
    seen, correct1, correct5, left_out = ranks.sum_ints([*counts.tolist(), left_out])
    (total_loss,) = ranks.sum_floats([loss_sum.item()])
    if left_out:
        return None
    if seen == 0:
        raise ConfigError("data.val", "the held-out set gave no image", "give a pack that has images")
    return Evaluation(seen, correct1, correct5, total_loss)
