"""Whose turn it is to call MPI: what the engine and calls of C know of each other.

One thread at a time calls MPI. Besides the engine's thread that may be a caller that waits: in Python (see
`Engine.wait`), or inside a call of C (`csrc/caller.c`), which cannot ask the engine's lock.
"""

from __future__ import annotations

import ctypes


class Gate(ctypes.Structure):
    """`gate` of the C side. Written under the GIL.

    Attributes:
        busy: operations wait or are in flight, or the engine has ended: calls of C go the general way.
        works: a caller calls MPI in place of the engine's thread, which leaves it alone meanwhile.
        news: something was submitted: ends a call of C that waits.
    """

    _fields_ = (("busy", ctypes.c_int), ("works", ctypes.c_int), ("news", ctypes.c_int))

    busy: int
    works: int
    news: int

    @property
    def news_cell(self) -> ctypes.c_int:
        """`news` alone, shared."""
        return ctypes.c_int.from_buffer(self, Gate.news.offset)  # type: ignore[attr-defined]
