"""Whose callback runs in this thread: what it communicates finds its partners by that.

Ranks call the collectives of a group in one order, and by their place in it they find each other. Callbacks
of Futures have no such place: they run in threads of their own when something is complete, on each rank at
another time. What one calls therefore does not count among the collectives of its group. It is known by the
collective whose callback calls it, and by its place in that callback, which are the same on all ranks of the
collective. In a group with other ranks too, which do not have the callback, it keeps the order of the group.
"""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from distrain.comm import turns

_here = threading.local()
_threads: set[int] = set()  # those in a callback: where there are none, nobody need look


class Cause(NamedTuple):
    """What stands for a collective, for its Future, or for a callback of that.

    Attributes:
        code: of 32 bits, not 0; the same on all ranks.
        ranks: of the world, that have it; None: of a group that does not know its ranks.
        calls: the collectives themselves, for reports: `Call`, as this rank has numbered them.
    """

    code: int
    ranks: frozenset[int] | None
    calls: tuple[Any, ...]

    def part(self, *which: object) -> Cause:
        """Return what stands for a part of it."""
        return self._replace(code=_code(self.code, *which))

    @classmethod
    def of_call(cls, call: Any, group: str, ranks: frozenset[int] | None) -> Cause:
        """Return that of a collective: a `Call` of a group."""
        return cls(_code(group, call.number, call.within), ranks, (call,))

    @classmethod
    def of_all(cls, causes: Sequence[Cause]) -> Cause:
        """Return that of all together."""
        known = [cause.ranks for cause in causes if cause.ranks is not None]
        ranks = frozenset.intersection(*known) if len(known) == len(causes) else None
        calls = tuple(call for cause in causes for call in cause.calls)
        return cls(_code(*(cause.code for cause in causes)), ranks, calls)


class Callback:
    """One callback that runs.

    Attributes:
        cause: what stands for it.
        calls: collectives that it has called, by group.
        tags: tags of messages that those have taken, by group.
    """

    __slots__ = ("calls", "cause", "tags")

    def __init__(self, cause: Cause) -> None:
        self.cause = cause
        self.calls: Counter[Hashable] = Counter()
        self.tags: Counter[Hashable] = Counter()


class InnerQueue(NamedTuple):
    """The queue of what one callback calls in a group.

    Attributes:
        outer: that of the group.
        code: of the cause.
    """

    outer: Hashable
    code: int


def current() -> Callback | None:
    """Return the callback that runs in this thread, if one does."""
    return getattr(_here, "callback", None) if _threads else None


def of(cause: Cause | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs as the callback that a cause stands for; None: as one of nothing known.

    Only the former takes turns with others (see `turns.py`): the latter's collectives keep the order of their
    group, and may wait in C.
    """

    def run(*args: Any) -> Any:
        if cause is None:
            return marked(*args)
        with turns.taken():
            return marked(*args)

    def marked(*args: Any) -> Any:
        before, thread = getattr(_here, "callback", None), threading.get_ident()
        _here.callback = None if cause is None else Callback(cause)
        _threads.add(thread)
        try:
            return function(*args)
        finally:
            _here.callback = before
            if before is None:
                _threads.discard(thread)

    return run


def _code(*words: object) -> int:
    return zlib.crc32(" ".join(map(str, words)).encode()) or 1
