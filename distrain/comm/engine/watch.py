"""Supervision of the engine: what is stuck, and what waiting costs the caller."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from distrain import timeline
from distrain.comm.operation import Completion

log = logging.getLogger(__name__)


class Watch:
    """A thread that reports operations which take too long, and ends the job when they take far too long.

    It is not the engine's thread, so it also sees one that is stuck inside MPI.

    Args:
        name: who reports, e.g. ``"rank 3 on node7"``.
        stall_seconds: report an operation once after so long.
        abort_seconds: give up after so long, unless the operation has a patience of its own.
        flight: returns what is in flight.
        inquire: asks other ranks and returns lines to add to a report; None where there are none.
        give_up: ends the job.
    """

    def __init__(
        self,
        name: str,
        stall_seconds: float,
        abort_seconds: float,
        flight: Callable[[], Sequence[Completion]],
        inquire: Callable[[Completion], str] | None,
        give_up: Callable[[], Any],
    ) -> None:
        self._name, self._stall, self._abort = name, stall_seconds, abort_seconds
        self._flight, self._inquire, self._give_up = flight, inquire, give_up
        self._period = min(stall_seconds, abort_seconds, 2.0) / 4
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="distrain-watch", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._period):
            if any(self._is_hopeless(completion) for completion in self._flight()):
                self._give_up()
                return

    def _is_hopeless(self, completion: Completion) -> bool:
        """Report the operation if it is late; return True, after a last word, if it is far too late."""
        if completion.started is None or completion.is_done:
            return False
        age = time.perf_counter() - max(completion.started, completion.operation.moved_at)
        limit = completion.operation.patience_seconds
        if age > self._stall and not completion.reported:
            completion.reported = True
            log.warning("%s%s", self.describe(completion), self.ask(completion))
        if limit is None:
            limit = self._abort
        if age > limit and not completion.is_done:
            log.critical(
                "%s, and may for %g s (comm.abort_seconds, or the timeout of its group): ending the job",
                self.describe(completion),
                limit,
            )
            return True
        return False

    def ask(self, completion: Completion) -> str:
        """Ask the other ranks about an operation; return lines for a report, or nothing."""
        if self._inquire is None:
            return ""
        try:
            return self._inquire(completion)
        except Exception:  # a report must not kill the thread that ends hopeless jobs
            log.exception("%s: the other ranks cannot be asked", self._name)
            return ""

    def describe(self, completion: Completion) -> str:
        """Say what an operation is, how long it has been in flight and what it waits for."""
        begin = completion.started or completion.submitted
        age = time.perf_counter() - max(begin, completion.operation.moved_at)
        try:
            whom = completion.operation.waiting_for()
        except Exception:  # another thread moves it meanwhile
            log.exception("%s: %s cannot say what it waits for", self._name, completion)
            whom = "what it cannot name"
        return f"{self._name}: {completion} has been waiting for {age:.1f} s for {whom}"

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()


class Exposure:
    """The communication that compute had to wait for.

    Two kinds of callers exist. Those that wait on a Completion are timed where they block, or count their
    time themselves (`ask`).
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
        self._askable: list[Callable[[], float]] = []

    def ask(self, take_waited: Callable[[], float]) -> None:
        """Ask this from now on for the seconds in which its callers were blocked since it was asked last."""
        self._askable.append(take_waited)

    def forget(self, take_waited: Callable[[], float]) -> None:
        """Ask it a last time."""
        self._askable.remove(take_waited)
        seconds = take_waited()
        with self._lock:
            self._blocked += seconds

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
                now = time.perf_counter()
                self._tail = now - self._last_submission
                _record(self._last_submission, now)

    def blocked(self, seconds: float) -> None:
        """A caller was blocked for so long."""
        now = time.perf_counter()
        _record(now - seconds, now)
        with self._lock:
            self._blocked += seconds

    def take(self) -> float:
        """Return the exposed seconds since the last call, and begin anew."""
        waited = sum(take_waited() for take_waited in tuple(self._askable))
        with self._lock:
            seconds = self._blocked + self._tail + waited
            self._blocked = self._tail = 0.0
            return seconds


def _record(begin: float, end: float) -> None:
    trace = timeline.current()
    if trace is not None:
        trace.add_parallel("exposed communication", "waiting for communication", begin, end)
