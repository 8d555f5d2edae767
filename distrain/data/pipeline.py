"""Batches decoded ahead by threads, handed out in order.

There is no dispatcher: whoever takes a batch submits further ones, so at most ``ahead`` batches are
decoded or being decoded at any time. A batch is cut into pieces that threads decode; the decoder releases
the GIL. Order and crops of a batch are drawn in a thread, before the pieces of the batch before it are
decoded, so that no thread waits for them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from distrain.timeline import span

# Images that a thread decodes in one call: fewer cost Python's share, more let other threads wait.
_SMALLEST, _LARGEST = 32, 256

Owner = TypeVar("Owner")
Plan = TypeVar("Plan")


@dataclass
class Work(Generic[Owner, Plan]):
    """One batch to be decoded.

    Attributes:
        owner: what holds the pixels (a tensor).
        pixels: uint8 [N, S, S, 3], a view of it.
        fill: decodes a range of the batch, by its plan, into the view of it; returns the indices now there.
    """

    owner: Owner
    pixels: np.ndarray
    fill: Callable[[Plan, range, np.ndarray], np.ndarray]
    parts: list[range] = field(default_factory=list)
    pieces: list[Future[np.ndarray]] = field(default_factory=list)


class Pipeline(Generic[Owner, Plan]):
    """Decodes batch ``number``, ``number + 1``, ... ahead of the one who takes them.

    Args:
        plan: draws what is needed for any batch; called in a thread.
        begin: gives the work of a batch, or None past the last one.
        threads: number of decoder threads.
        ahead: batches decoded in advance.

    Attributes:
        wait_seconds: how long all calls of `take` so far have waited for pixels.
    """

    def __init__(
        self,
        plan: Callable[[int], Plan],
        begin: Callable[[int], Work[Owner, Plan] | None],
        threads: int,
        ahead: int,
    ) -> None:
        self.wait_seconds = 0.0
        self._plan = plan
        self._plans: dict[int, Future[Plan]] = {}
        self._begin = begin
        self._threads, self._ahead = threads, ahead
        self._next = 0
        self._pending: deque[tuple[int, Work[Owner, Plan]]] = deque()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="distrain-decode")

    def take(self, number: int) -> tuple[Owner, np.ndarray]:
        """Return the pixels' owner and the indices int64 [M] of a batch; M < N if images were left out.

        Batches that were begun are kept if they follow each other; a jump discards them.

        Raises:
            DataError: an image of the batch cannot be decoded.
        """
        if not self._pending or self._pending[0][0] != number:
            self._discard()
            self._next = number
        self._top_up(self._ahead)
        started = time.perf_counter()
        _, work = self._pending.popleft()
        with span("data wait"):
            wait(work.pieces)  # all of them: a buffer must not be used again while a thread writes to it
        self.wait_seconds += time.perf_counter() - started
        self._top_up(self._ahead)
        used = [piece.result() for piece in work.pieces]
        return work.owner, _compacted(work.pixels, work.parts, used)

    def close(self) -> None:
        """End the threads; batches in the making are dropped."""
        self._discard()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _top_up(self, ahead: int) -> None:
        while len(self._pending) < ahead:
            work = self._begin(self._next)
            if work is None:
                return
            # Those of the next batch too. Pieces stand behind their plan in the queue of the threads, so
            # that none waits for a plan that nobody has begun.
            for number in (self._next, self._next + 1):
                if number not in self._plans:
                    self._plans[number] = self._pool.submit(self._plan, number)
            plan, count = self._plans.pop(self._next), len(work.pixels)
            size = min(max(-(-count // self._threads), _SMALLEST), _LARGEST)
            for start in range(0, count, size):
                part = range(start, min(start + size, count))
                view = work.pixels[part.start : part.stop]
                work.parts.append(part)
                work.pieces.append(self._pool.submit(_decode, work.fill, plan, part, view))
            self._pending.append((self._next, work))
            self._next += 1

    def _discard(self) -> None:
        pieces = [piece for _, work in self._pending for piece in work.pieces]
        wait([piece for piece in pieces if not piece.cancel()])
        self._pending.clear()
        self._plans.clear()


def _decode(
    fill: Callable[[Plan, range, np.ndarray], np.ndarray], plan: Future[Plan], part: range, view: np.ndarray
) -> np.ndarray:
    drawn = plan.result()
    with span("decode", threading.current_thread().name, images=len(part)):
        return fill(drawn, part, view)


def _compacted(pixels: np.ndarray, parts: list[range], used: list[np.ndarray]) -> np.ndarray:
    """Close the gaps that left-out images made in their pieces; return all indices in order."""
    at = 0
    for part, indices in zip(parts, used, strict=True):
        if at != part.start:
            pixels[at : at + len(indices)] = pixels[part.start : part.start + len(indices)].copy()
        at += len(indices)
    return np.concatenate(used)
