"""Callbacks of Futures take turns: one runs at a time, the next when it ends or waits.

With NCCL callbacks run in the thread that asks for them, and programs rely on it: the hooks with which DDP
steps ZeroRedundancyOptimizer count in every callback, without a lock, which of them is the last. A callback
that waits for a collective or a Future gives up its turn meanwhile, since what it waits for may be brought
about by another callback, here or on another rank.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Who has the turn may wait for others by means that are not seen here: after so long they run all the same.
TURN_PATIENCE_SECONDS = 10.0

_here = threading.local()
_turn = threading.Lock()


def _forget() -> None:
    """In a forked process: whoever had the turn runs in the parent."""
    global _turn
    _turn, _here.has_it = threading.Lock(), False


os.register_at_fork(after_in_child=_forget)


@contextmanager
def taken() -> Iterator[None]:
    """Have the turn, or go on having it: a callback may run inside another one."""
    if has_it():
        yield
        return
    _take()
    try:
        yield
    finally:
        _give()


@contextmanager
def given_up() -> Iterator[None]:
    """Let other callbacks run while this thread waits, if it has the turn."""
    if not has_it():
        yield
        return
    _give()
    try:
        yield
    finally:
        _take()


def has_it() -> bool:
    """Return whether this thread has the turn."""
    return getattr(_here, "has_it", False)


def _take() -> None:
    _here.has_it = _turn.acquire(timeout=TURN_PATIENCE_SECONDS)


def _give() -> None:
    if has_it():
        _here.has_it = False
        _turn.release()
