"""What keeps a contender out of a benchmark."""

from __future__ import annotations


class Unavailable(Exception):
    """The contender cannot run here, and why; the benchmark prints the reason in its line."""
