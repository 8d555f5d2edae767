"""The error of this room: a Schedule that would compute something wrong, or never end."""

from __future__ import annotations

from distrain.errors import DistrainError


class ScheduleError(DistrainError):
    """A Schedule breaks a law of its contract (exit code 1)."""


def place(rank: int | None = None, color: int | None = None, step: int | None = None) -> str:
    """Return where in a Schedule something happens: ``"rank 2 color 0 step 5"``."""
    parts = (("rank", rank), ("color", color), ("step", step))
    return " ".join(f"{word} {number}" for word, number in parts if number is not None)
