"""Errors of training that are neither about data nor about settings."""

from __future__ import annotations

from distrain.errors import DistrainError


class TrainingError(DistrainError):
    """Training cannot go on: the loss is not finite, or a loader broke its promise (exit code 1)."""


class CheckpointError(DistrainError):
    """A checkpoint cannot be written, or does not belong to this run (exit code 1)."""
