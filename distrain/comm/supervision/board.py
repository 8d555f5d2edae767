"""What this process would say about itself if somebody asked: where it is, and what it called last."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from distrain.comm.supervision.call import Call

FRAMES = 8


@dataclass
class Board:
    """Notes that cost a few stores each, and are read when a collective stalls.

    Attributes:
        step: training step, if there is one.
        calls: the last collective of each group: what, and when (time.monotonic).
        quick: for groups whose last collective may not be in `calls`: returns it, or None.
        heard: for each group the rank whose notes come here, its last call and its step; see `Roll`.
        proved: for each group the last collective that all its ranks have called, since it completed here,
            and the step of this rank.
        earlier: when groups that have ended were last used (time.monotonic).
    """

    step: int | None = None
    calls: dict[str, tuple[Call, float]] = field(default_factory=dict)
    quick: dict[str, Callable[[], tuple[Call, float] | None]] = field(default_factory=dict)
    heard: dict[str, tuple[int, bytes, int]] = field(default_factory=dict)
    proved: dict[str, tuple[Call, int]] = field(default_factory=dict)
    earlier: float = 0.0

    def last_call(self) -> float:
        """Return when the program last called a collective (time.monotonic); 0: never."""
        noted = [since for _, since in self.calls.copy().values()]
        quick = (found for ask in self.quick.copy().values() if (found := ask()) is not None)
        return max([*noted, *(since for _, since in quick), self.earlier])

    def end(self, group: str) -> None:
        """Forget a group."""
        self.earlier = self.last_call()
        for notes in (self.calls, self.quick, self.heard, self.proved):
            notes.pop(group, None)

    def facts(self) -> dict[str, Any]:
        """Everything as JSON values, with the Python stack of the main thread, innermost frame last."""
        now = time.monotonic()
        return {
            "step": self.step,
            "calls": {
                group: {"number": call.number, "what": str(call), "age": now - since}
                for group, (call, since) in self._last_calls().items()
            },
            "heard": {
                group: {
                    "rank": rank,
                    "number": Call.number_of(call),
                    "what": str(Call.unpack(call)),
                    "step": step,
                }
                for group, (rank, call, step) in self.heard.copy().items()
            },
            "stack": main_stack(),
        }

    def _last_calls(self) -> dict[str, tuple[Call, float]]:
        found = self.calls.copy()
        for group, ask in self.quick.copy().items():
            last = ask()
            if last is not None and (group not in found or last[0].number > found[group][0].number):
                found[group] = last
        return found


def main_stack() -> list[str]:
    """Return where the main thread is: ``file:line in function: code``, innermost last."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    summary = traceback.extract_stack(frame)[-FRAMES:] if frame is not None else []
    return [f"{f.filename}:{f.lineno} in {f.name}: {f.line}" for f in summary]


board = Board()
"""Of this process."""
