"""What whoever works does in a round: start operations, move those in flight, end them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from distrain.comm.engine.gate import Gate
from distrain.comm.engine.lineup import Lineup
from distrain.comm.messages.compiled import advance_all
from distrain.comm.operation import Completion, Priority
from distrain.comm.process.rest import Pace

# So often operations under way are asked what other ranks told of them, while C moves them.
LOOK_SECONDS = 0.01


class Motion:
    """Moves the operations of a lineup. For one thread at a time, which may call MPI.

    Args:
        lineup: what waits and what is in flight.
        lock: under which the lineup changes.
        gate: says whether a caller works, and whether something was submitted.

    Attributes:
        current: the one whose code runs now, to blame if it raises.
    """

    def __init__(self, lineup: Lineup, lock: threading.RLock, gate: Gate) -> None:
        self._lineup, self._lock, self._gate, self._news = lineup, lock, gate, gate.news_cell
        self.current: Completion | None = None
        self._has_waited = False  # the last round slept already
        self._looked = 0.0  # when all in flight were asked whether they may end
        self._awaits_payload = False  # it left something that cannot start yet

    def round(self, pace: Pace) -> None:
        """Start what may start, move all that is in flight, end what is complete; then rest."""
        moved = self._start_what_may() | self._progress_all()
        self.current = None
        patient = not self._awaits_payload and all(c.operation.by_message for _, c in self._lineup.flight)
        pace.after(moved or self._has_waited, patient)

    def _start_what_may(self) -> bool:
        started = False
        self._news.value = 0  # before looking: what comes now is seen, or sets it again
        while (completion := self._next()) is not None:
            self.current = completion
            if completion.operation.before is not None:
                completion.operation.before()
            completion.operation.start()
            if completion.operation.guard is not None:
                completion.operation.guard.begin()  # the data goes first: it takes longer
            completion.is_begun = started = True
        return started

    def _next(self) -> Completion | None:
        with self._lock:
            return self._lineup.start_next(self._news)

    def _progress_all(self) -> bool:
        with self._lock:
            self._awaits_payload = self._lineup.awaits_payload
        flight = tuple(self._lineup.flight)
        over = self._wait_together(flight)
        if over is None:
            return self._progress_each(flight)
        self._has_waited = True
        moved = False
        looks = time.perf_counter() - self._looked > LOOK_SECONDS
        for (_, completion), is_over in zip(flight, over, strict=True):
            self.current = completion
            if is_over:
                completion.carried_out = completion.operation.progress()
            if is_over or looks:
                moved |= self._end(completion)
        if looks:
            self._looked = time.perf_counter()
        return moved

    def _progress_each(self, flight: Sequence[tuple[Priority, Completion]]) -> bool:
        alone = len(flight) == 1 and not self._awaits_payload
        self._has_waited = moved = False
        for priority, completion in flight:
            self.current, operation = completion, completion.operation
            operation.is_alone, operation.caller_waits = alone, bool(self._gate.works)
            operation.is_behind = flight[0][0] < priority  # they are in this order
            before = operation.moved
            if not completion.carried_out:
                completion.carried_out = operation.progress()
                self._has_waited |= alone and operation.waits and not completion.carried_out
            moved |= self._end(completion) or operation.moved != before
        return moved

    def _end(self, completion: Completion) -> bool:
        """Hand back an operation that is carried out, if it may end; return whether it did."""
        operation = completion.operation
        may_end = completion.carried_out
        if operation.guard is not None:
            may_end = operation.guard.may_end(completion.carried_out)
        if may_end:
            if operation.after is not None:
                operation.after()
            self._lineup.remove(completion)
            completion.finish()
        return may_end

    def _wait_together(self, flight: Sequence[tuple[Priority, Completion]]) -> list[bool] | None:
        """Move all by C, and wait for their messages there, without the GIL, if it can move all of several.

        Return which of them it has nothing more to do for; None: it cannot.
        """
        if len(flight) < 2 or self._awaits_payload:
            return None
        drivers = [None if c.carried_out else c.operation.driver for _, c in flight]
        if None in drivers:
            return None
        return advance_all([driver for driver in drivers if driver is not None], self._news)
