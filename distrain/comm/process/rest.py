"""How a thread waits until MPI may have something for it: `csrc/rest.c`, or naps where that is not compiled.

MPI libraries move data only inside MPI calls. So after the last movement a thread polls for a moment,
giving its core away between polls, and then sleeps for a tenth of the time already waited: a wait becomes at
most a tenth longer, and a long wait costs next to no CPU. Where an MPI over TCP lets itself be slept on, the
kernel ends the sleep when a message comes.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from distrain.comm import native
from distrain.native_load import INT, LONG, POINTER

SPIN_SECONDS = 20e-6
LONGEST_SECONDS = 1e-3

_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "rest": (None, [LONG, LONG, LONG, INT]),
    "rest_told": (None, [INT]),
    "rest_ring": (None, []),
    "rest_watch": (INT, [POINTER, INT]),
}
_SPIN, _LONGEST = round(SPIN_SECONDS * 1e9), round(LONGEST_SECONDS * 1e9)


@functools.cache
def _library() -> SimpleNamespace | None:
    """Return the C side; None: it was not compiled."""
    try:
        # The GIL is released for the sleep alone. Who gave it away after a movement would let others see what
        # it has completed before it has put its own house in order.
        return native.functions("distrain_", _SIGNATURES, keep_gil=("rest_told", "rest_ring", "rest_watch"))
    except RuntimeError:
        return None


def watch(sets: Iterable[int]) -> bool:
    """Sleep on these epoll sets of the MPI, if they prove to announce messages; return False if none can be.

    To be called once a process, after the start of MPI.
    """
    chosen = sorted(sets)
    library = _library()
    if library is None or not chosen:
        return False
    return bool(library.rest_watch((ctypes.c_int * len(chosen))(*chosen), len(chosen)) >= 0)


def ring() -> None:
    """Wake the thread that sleeps, if one does: there is something new to do. From any thread."""
    library = _library()
    if library is not None:
        library.rest_ring()


class Pace:
    """Pauses between two rounds of the engine."""

    def __init__(self) -> None:
        self._last_move = time.perf_counter()

    def after(self, moved: bool, patient: bool) -> None:
        """Pause as suits a round that did or did not move anything.

        Args:
            moved: it did.
            patient: whatever is waited for comes as a message.
        """
        now = time.perf_counter()
        library = _library()
        if patient and library is not None:
            library.rest_told(moved)
        if moved:
            self._last_move = now
            return
        waited = now - self._last_move
        if library is not None:
            library.rest(round(waited * 1e9), _SPIN, _LONGEST, patient)
        elif waited < SPIN_SECONDS:
            os.sched_yield()
        else:
            time.sleep(min(waited / 10, LONGEST_SECONDS))
