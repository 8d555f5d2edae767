"""Errors of training that are neither about data nor about settings."""

from __future__ import annotations

from pathlib import Path

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


def checkpoint_late(folder: Path, done: str, limit_seconds: float) -> CheckpointError:
    """Return the error of a checkpoint that has not been read or written (`done`) in time."""
    return CheckpointError(
        str(folder),
        f"the checkpoint has not been {done} within {limit_seconds:g} s (train.checkpoint_seconds)",
        f"see whether the file system hangs, or raise train.checkpoint_seconds; then {GO_ON}",
    )
