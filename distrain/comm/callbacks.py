"""Whose callback runs in this thread: what it communicates finds its partners by that.

Ranks call the collectives of a group in one order, and by their place in it they find each other. Callbacks
of Futures have no such place: they run in threads of their own when something is complete, on each rank at
another time. What one calls therefore does not count among the collectives of its group. It is known by the
collective whose callback calls it, and by its place in that callback, which are the same on all ranks.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from typing import Any

_here = threading.local()
_running = 0  # threads in a callback: where there are none, nobody need look
_lock = threading.Lock()


class Callback:
    """One callback that runs.

    Attributes:
        cause: stands for the collective whose Future calls back, and for which callback this is; not 0, the
            same on all ranks.
        calls: collectives that it has called.
        tags: messages' tags that those have taken.
    """

    __slots__ = ("calls", "cause", "tags")

    def __init__(self, cause: int) -> None:
        self.cause = cause
        self.calls = self.tags = 0


def cause_of(group: str, number: int, within: int) -> int:
    """Return what stands for a collective, or for a callback.

    Args:
        group: key of the collective's group.
        number: of the collective there; of the callback among those of its Future.
        within: what stands for the callback that has called it, or for the Future; 0: none.
    """
    return zlib.crc32(f"{group} {number} {within}".encode()) or 1


def current() -> Callback | None:
    """Return the callback that runs in this thread, if one does."""
    return getattr(_here, "callback", None) if _running else None


def of(cause: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs as the callback of a collective; with a cause of 0 just the function."""
    if not cause:
        return function

    def run(*args: Any) -> Any:
        global _running
        before = getattr(_here, "callback", None)
        with _lock:
            _running += 1
        _here.callback = Callback(cause)
        try:
            return function(*args)
        finally:
            _here.callback = before
            with _lock:
                _running -= 1

    return run
