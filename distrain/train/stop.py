"""Stopping cleanly: signals become a flag, and the ranks agree on the step at which they stop."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist

from distrain.train import ranks

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Stop:
    """Context in which SIGTERM, SIGUSR1 and Ctrl-C ask for a checkpoint and a clean end.

    A second Ctrl-C interrupts at once. The ranks' flags meet in a one-element allreduce that is
    started at the end of each step and read at the end of the next, so it hides behind that step
    and all ranks stop after the same one, at most one step late.
    """

    def __init__(self) -> None:
        self.requested = False
        self._flag: torch.Tensor | None = None
        self._work: Any = None
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if exception[0] is None:
            self._read()  # a collective that is under way must complete before others begin

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        name = signal.Signals(number).name
        log.warning("%s: stopping after this step or batch of an evaluation, with a checkpoint", name)

    def agreed(self) -> bool:
        """Called by every rank at the end of every step: True, on all alike, if it is the last one."""
        if not ranks.together():
            return self.requested
        stop = self._read()
        self._flag = torch.tensor([int(self.requested)], dtype=torch.int32)
        self._work = dist.all_reduce(self._flag, op=dist.ReduceOp.MAX, async_op=True)
        return stop

    def _read(self) -> bool:
        if self._work is None or self._flag is None:
            return False
        self._work.wait()
        self._work = None
        return bool(self._flag.item())
