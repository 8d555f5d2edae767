"""Images of other nodes, in memory before they are read: a few windows of steps ahead of the loop.

The loop asks for windows in its own thread, in an order that is the same on all ranks. A thread of
this room plans them, has their bytes sent while earlier windows are read, checks what arrived, and
agrees with the other ranks of the group that all is well.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np

from distrain.data.nodes.shipments import Shipments
from distrain.data.nodes.window import Incoming, Outgoing, Window
from distrain.data.store import Store
from distrain.errors import DataError

log = logging.getLogger("distrain.data")

WINDOWS_IN_ROOM = 4  # one is read, the others have arrived or are on their way
_IN_FLIGHT = 3  # while one is checked, or waits for the slowest of its peers, the next arrive


class Carrier(Protocol):
    """What moves the bytes. Each call returns a function that waits for the end of what it began."""

    def swap(self, sends: list[Outgoing], receives: list[Incoming]) -> Callable[[], object]:
        """Begin to send and receive; the peers make the calls that match, in the same order."""

    def largest(self, value: int) -> Callable[[], int]:
        """Begin to find the largest value among the ranks of the group; all call it, in the same order."""


class Windows:
    """The windows of one rank.

    All methods belong to the thread of the loop. Every rank of a group must call them with the same
    steps in the same order; then the same windows are asked for everywhere, and all of them are
    carried out, also those that nobody reads any more: a peer may already be waiting for its part.

    Args:
        store: what this node holds.
        plan: gives the shipments of some steps (`distrain.data.nodes.shipments.Planner.plan`).
        carrier: what moves the bytes.
        steps_each: steps of a window, the same on all ranks.
        room_bytes: most bytes of other nodes' images that this rank keeps. A single window that is
            larger passes alone.
        blame: makes the error for a damaged image, from its index and the rank at which it arrived.
        rank: this rank, for `blame`.
    """

    def __init__(
        self,
        store: Store,
        plan: Callable[[range], Shipments],
        carrier: Carrier,
        steps_each: int,
        room_bytes: int,
        blame: Callable[[int, int], DataError],
        rank: int,
    ) -> None:
        self._store, self._plan, self._carrier, self._blame = store, plan, carrier, blame
        self._steps, self._room, self._rank = steps_each, room_bytes, rank
        self._expected: int | None = None  # the step that the loop takes next
        self._asked_to = 0  # steps from the last jump to here have windows
        self._growth = 1
        self._current: deque[Window] = deque()  # asked for and not forgotten
        self._changed = threading.Condition()
        self._to_start: deque[Window] = deque()
        self._held: set[Window] = set()  # those that take memory
        self._closing = False
        self._broken: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="distrain-exchange", daemon=True)
        self._thread.start()

    def taking(self, step: int) -> None:
        """Say which step the loop takes now; a jump gives up the windows that were asked for."""
        if step != self._expected:
            self.give_up()
            self._asked_to, self._growth, self._expected = step, 1, step

    def want(self, step: int, total: int | None = None) -> Window:
        """Return the window of a step that will be taken, and ask for some that follow.

        Args:
            step: counted from the start of epoch 0.
            total: no step from here on will be taken.
        """
        ahead = step + (WINDOWS_IN_ROOM - 1) * self._steps
        last = ahead if total is None else min(ahead, total - 1)
        while self._asked_to <= last:
            # After a jump windows begin small, so that the first step waits for itself alone.
            size = min(self._growth, self._steps)
            if total is not None:
                size = min(size, total - self._asked_to)
            self._growth = min(2 * self._growth, self._steps)
            window = Window(self._store, range(self._asked_to, self._asked_to + size))
            self._asked_to = window.steps.stop
            self._current.append(window)
            with self._changed:
                if self._broken is not None:
                    window.end(self._broken)
                self._to_start.append(window)
                self._changed.notify()
        return next(window for window in self._current if step in window.steps)

    def done(self, step: int) -> None:
        """Say that the batch of a step is decoded; a window that ends with it is forgotten."""
        self._expected = step + 1
        self._forget(sum(window.steps.stop <= step + 1 for window in self._current))

    def settle(self) -> None:
        """Wait until all windows that were asked for have arrived; for those who measure.

        Raises:
            DataError, CommError: why one of them has not.
        """
        for window in tuple(self._current):
            window.blobs(np.empty(0, np.int64))

    def give_up(self) -> None:
        """Forget all windows that were asked for."""
        self._forget(len(self._current))
        self._expected = None

    def close(self) -> None:
        """End the thread once all that was asked for has arrived; the peers close as well."""
        self.give_up()
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _forget(self, count: int) -> None:
        with self._changed:
            for _ in range(count):
                window = self._current.popleft()
                window.forgotten = True
                if window.has_ended:
                    self._held.discard(window)
            self._changed.notify()

    # What follows runs in the thread of this object.

    def _run(self) -> None:
        try:
            flight: deque[tuple[Window, Callable[[], object]]] = deque()
            while True:
                window = self._next(wait=not flight) if len(flight) < _IN_FLIGHT else None
                if window is not None:
                    flight.append((window, self._carrier.swap(*window.messages())))
                elif flight:
                    self._finish(*flight.popleft())
                else:
                    return
        except BaseException as error:  # handed to the loop, which raises it at its next batch
            log.error("rank %d: the exchange of images has failed: %s", self._rank, error)
            self._break(error)

    def _next(self, wait: bool) -> Window | None:
        """Take the next window that may start; None if there is none, for now or (`wait`) for ever."""
        with self._changed:
            while not self._to_start:
                if self._closing or not wait:
                    return None
                self._changed.wait()
            window = self._to_start[0]
        if window.shipments is None:
            window.lay_out(self._plan(window.steps))
        with self._changed:
            while not self._fits(window):
                if not wait:
                    return None
                self._changed.wait()
            self._held.add(self._to_start.popleft())
        return window

    def _fits(self, window: Window) -> bool:
        taken = sum(other.bytes for other in self._held)
        return not taken or taken + window.bytes <= self._room

    def _finish(self, window: Window, arrived: Callable[[], object]) -> None:
        """Wait for a window, check it, and let its readers go on, on all ranks or on none."""
        arrived()
        damaged = window.damaged()
        # One number for "which image" and "at which rank", so that one reduction tells everybody.
        found = self._carrier.largest(-1 if damaged < 0 else (damaged << 32) | self._rank)()
        window.end(None if found < 0 else self._blame(found >> 32, found & 0xFFFFFFFF))
        with self._changed:
            if window.forgotten:
                self._held.discard(window)

    def _break(self, error: BaseException) -> None:
        with self._changed:
            self._broken = error
            for window in (*self._held, *self._to_start):
                if not window.has_ended:
                    window.end(error)
