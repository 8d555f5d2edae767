"""The recipe of Goyal et al. 2017 (arXiv 1706.02677): optimizer, learning rate over time, loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distrain.train.settings import OptimizerSettings, TrainSettings


def make_optimizer(model: nn.Module, settings: OptimizerSettings, learning_rate: float) -> torch.optim.SGD:
    """SGD with momentum; weight decay on the weights of convolutions and linear layers only.

    Parameters of at most one dimension are biases and the gamma and beta of normalisation layers:
    decaying them costs accuracy with large batches (Jia et al., arXiv 1807.11205, 3.2).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
    )


@dataclass(frozen=True)
class LearningRate:
    """Learning rate as a pure function of the step: ``rate(step)``, ``step`` counted from 0.

    The peak is ``lr * global_batch / lr_batch`` (linear scaling). The warm-up rises linearly from
    `lr`, or from the peak where that is lower, so a small batch has no warm-up to speak of.

    Attributes:
        settings: the recipe.
        steps_per_epoch: optimizer steps in an epoch.
        global_batch: images per step, over all ranks.
    """

    settings: TrainSettings
    steps_per_epoch: int
    global_batch: int

    @property
    def peak(self) -> float:
        """The learning rate that the warm-up ends with."""
        optimizer = self.settings.optimizer
        return optimizer.lr * self.global_batch / optimizer.lr_batch

    def __call__(self, step: int) -> float:
        """The learning rate of step `step`."""
        warmup = self.settings.schedule.warmup.steps(self.steps_per_epoch)
        if step < warmup:
            start = min(self.settings.optimizer.lr, self.peak)
            return start + (self.peak - start) * step / warmup
        return self.peak * self._decay(step, warmup)

    def _decay(self, step: int, warmup: int) -> float:
        schedule = self.settings.schedule
        if schedule.decay == "step":
            passed = sum(step >= m.steps(self.steps_per_epoch) for m in schedule.milestones)
            return float(schedule.gamma**passed)
        if schedule.decay == "cosine":
            length = max(1, self.settings.duration.steps(self.steps_per_epoch) - warmup)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / length)))
        return 1.0


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean loss over the images, in float32.

    Args:
        logits: float [N, classes], of any precision.
        labels: int64 [N].
        label_smoothing: share of the target that is spread evenly over all classes.
    """
    return nn.functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
