"""Errors of training that are neither about data nor about settings."""

from __future__ import annotations

from distrain.errors import DistrainError

GO_ON = "go on with --resume auto (distrain launch) or DISTRAIN_RESUME=1 in the environment of the ranks"
"""How a run is resumed, in each way of starting one."""


class TrainingError(DistrainError):
    """Training cannot go on: the loss is not finite, or a loader broke its promise (exit code 1)."""


def diverged(where: str, what: str) -> TrainingError:
    """Return the error of a training that has run away; `what` is not finite."""
    return TrainingError(
        where,
        f"{what} not finite, so training has diverged",
        "lower train.optimizer.lr or lengthen train.schedule.warmup, then resume an older checkpoint",
    )


class CheckpointError(DistrainError):
    """A checkpoint cannot be written, or does not belong to this run (exit code 1)."""
