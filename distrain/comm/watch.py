"""Supervision of the engine: how fast it polls, what is stuck, what waiting costs the caller."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence

from distrain.comm.operation import Completion

log = logging.getLogger(__name__)


class Pace:
    """How long to pause between two polls of MPI.

    MPI libraries move data only inside MPI calls, so after the last movement the engine spins
    (yielding the core) for a moment, and then sleeps for a tenth of the time already waited: a
    wait becomes at most a tenth longer, and a long wait costs next to no CPU.
    """

    SPIN_SECONDS = 100e-6
    LONGEST_SECONDS = 1e-3

    def __init__(self) -> None:
        self._last_move = time.perf_counter()

    def after(self, moved: bool) -> None:
        """Pause as suits a poll that did or did not move anything."""
        now = time.perf_counter()
        if moved:
            self._last_move = now
            return
        waited = now - self._last_move
        if waited < self.SPIN_SECONDS:
            os.sched_yield()
        else:
            time.sleep(min(waited / 10, self.LONGEST_SECONDS))


class StallWatch:
    """Reports operations that take too long, and says when to give up.

    Args:
        name: who reports, e.g. ``"rank 3 on node7"``.
        stall_seconds: report an operation once after so long.
        abort_seconds: give up after so long, unless the operation has a patience of its own.
    """

    def __init__(self, name: str, stall_seconds: float, abort_seconds: float) -> None:
        self._name, self._stall, self._abort = name, stall_seconds, abort_seconds
        self._period = min(stall_seconds, abort_seconds, 2.0) / 4
        self._next_check = 0.0

    def check(self, flight: Sequence[Completion]) -> Completion | None:
        """Report what stalls; return the first operation that is too old to go on, if there is one."""
        now = time.perf_counter()
        if now < self._next_check:
            return None
        self._next_check = now + self._period
        for completion in flight:
            age = now - (completion.started or now)
            limit = completion.operation.patience_seconds
            if age > self._stall and not completion.reported:
                completion.reported = True
                log.warning("%s", self.describe(completion))
            if age > (self._abort if limit is None else limit):
                return completion
        return None

    def describe(self, completion: Completion) -> str:
        """Say what an operation is, how long it has been in flight and what it waits for."""
        age = time.perf_counter() - (completion.started or completion.submitted)
        return (
            f"{self._name}: {completion} has been waiting for {age:.1f} s for "
            f"{completion.operation.waiting_for()}"
        )


class Exposure:
    """The communication that compute had to wait for.

    Two kinds of callers exist. Those that wait on a Completion are timed where they block.
    DDP instead waits inside torch for the futures of its buckets; there the exposed part is
    what follows the last submission of the step, when backward has nothing left to compute:
    from there to the moment when the last bucket is done. `take` closes a step.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocked = 0.0
        self._tail = 0.0
        self._open = 0
        self._last_submission = 0.0

    def submitted(self) -> None:
        """An operation that nobody waits for directly was submitted."""
        with self._lock:
            self._open += 1
            self._last_submission = time.perf_counter()

    def completed(self) -> None:
        """Such an operation is done."""
        with self._lock:
            self._open -= 1
            if self._open == 0:
                self._tail = time.perf_counter() - self._last_submission

    def blocked(self, seconds: float) -> None:
        """A caller was blocked for so long."""
        with self._lock:
            self._blocked += seconds

    def take(self) -> float:
        """Return the exposed seconds since the last call, and begin anew."""
        with self._lock:
            seconds = self._blocked + self._tail
            self._blocked = self._tail = 0.0
            return seconds
