"""What is kept until the process ends, because MPI may still write to its memory.

A message that nobody waits for any more comes all the same, if it was asked for once.
"""

from __future__ import annotations

from typing import Any

_kept: list[Any] = []


def for_ever(thing: Any) -> None:
    """Keep it, and all that it holds."""
    _kept.append(thing)
