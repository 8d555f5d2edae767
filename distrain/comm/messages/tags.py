"""Tags of messages: apart from each other in time, and apart where ranks call different things.

Ranks that call different collectives use different tags, so their messages never meet, and none of them
completes: that a collective by a Schedule is complete proves that all ranks have called the same.
"""

from __future__ import annotations

import ctypes
import zlib
from typing import Any

from distrain.comm.callbacks import Callback
from distrain.comm.supervision.call import Call

# Operations in flight together must not share a tag: one takes up to 128, and between the first and the
# last of them lie fewer than half as many as fit (see `LEAD` of `engine/lineup.py`).
RANGE = 1 << 16
# With fewer marks than so many, ranks compare their calls by notes.
FEWEST_MARKS = 1024
MARKS_KEPT = 1024
MOST_TAGS = 128  # of a call


class _State(ctypes.Structure):
    """`tags` of the C side."""

    _fields_ = (("next", ctypes.c_int64), ("limit", ctypes.c_int64))

    next: int
    limit: int


class Tags:
    """Hands out ranges of tags, round and round.

    Args:
        limit: tags there are.

    Attributes:
        state: of the C side too, which takes as `take` does.
        tell_calls_apart: tags differ where calls differ, but for one in a thousand or fewer.
    """

    def __init__(self, limit: int) -> None:
        self.state = _State(0, min(limit, RANGE))
        self._marks = limit // self.state.limit
        self.tell_calls_apart = self._marks >= FEWEST_MARKS
        self._known: dict[tuple[Any, ...], int] = {}  # marks of calls, without their numbers

    def take(self, count: int) -> int:
        """Return the first of `count` consecutive tags; the same on all ranks that ask alike."""
        state = self.state
        if state.next + count > state.limit:
            state.next = 0
        first = state.next
        state.next += count
        return first

    def take_within(self, callback: Callback, count: int, marked: bool) -> int:
        """Return those of what a callback calls, which has no place in the order of the group.

        They meet those of another call in flight by chance, once in some millions: `marked` calls, to whose
        tags a `mark` is added, and others, to which that of the callback is added here.
        """
        place = (callback.cause.code + callback.tags[self]) % (self.state.limit - MOST_TAGS)
        callback.tags[self] += count
        return place + (0 if marked else self.state.limit * (callback.cause.code % self._marks))

    def mark(self, call: Call) -> int:
        """Return what is added to the tags of a call: other calls have another, whatever their number."""
        if not self.tell_calls_apart:
            return 0
        if call.within:  # it comes once
            return self._new_mark(call)
        known = self._known.get(call[1:])
        if known is None:
            if len(self._known) >= MARKS_KEPT:
                self._known.clear()
            known = self._known[call[1:]] = self._new_mark(call)
        return known

    def _new_mark(self, call: Call) -> int:
        return self.state.limit * (zlib.crc32(call._replace(number=0).pack()) % self._marks)
