"""Who is next: the operations that wait in their queues, and those in flight. Pure bookkeeping."""

from __future__ import annotations

import ctypes
import time
from collections import deque
from collections.abc import Collection, Hashable

from distrain.comm.callbacks import InnerQueue
from distrain.comm.operation import Completion, Priority

# How far the first and the last operation of a queue that are in flight may be apart; see `messages/tags.py`.
LEAD = 200
_PRIORITIES = tuple(Priority)  # to walk through an Enum costs a frame a member


def _outer(queue: Hashable) -> Hashable:
    return queue.outer if isinstance(queue, InnerQueue) else queue


class Lineup:
    """The operations of an engine. Nothing here waits or calls MPI; whoever uses it holds a lock.

    Attributes:
        flight: what is in flight, the urgent first, then by age. Only who moves it changes it.
    """

    def __init__(self) -> None:
        self._waiting: dict[Priority, dict[Hashable, deque[Completion]]] = {p: {} for p in _PRIORITIES}
        self.flight: list[tuple[Priority, Completion]] = []
        self._in_flight_of: dict[Hashable, int] = {}

    @property
    def is_empty(self) -> bool:
        """True if nothing waits or is in flight."""
        return not self.flight and not any(self._waiting[p] for p in _PRIORITIES)

    @property
    def awaits_payload(self) -> bool:
        """Whether an operation could start if its payload were ready; nothing tells when it is."""
        queues = (queue for p in _PRIORITIES for queue in self._waiting[p].values())
        return any(not queue[0].operation.is_ready() for queue in queues)

    def holds(self, queue: Hashable) -> bool:
        """Return whether an operation of this queue waits or is in flight."""
        return queue in self._in_flight_of or any(queue in self._waiting[p] for p in _PRIORITIES)

    def is_only(self, completion: Completion) -> bool:
        """Return whether this one waits, and nothing else does or is in flight."""
        waiting = [queue for p in _PRIORITIES for queue in self._waiting[p].values()]
        return not self.flight and len(waiting) == 1 == len(waiting[0]) and waiting[0][0] is completion

    def add(self, priority: Priority, completion: Completion) -> None:
        """Put it at the end of its queue."""
        self._waiting[priority].setdefault(completion.operation.queue, deque()).append(completion)

    def start(self, priority: Priority, completion: Completion, news: ctypes.c_int) -> None:
        """Add it to those in flight. `news` tells it that something was submitted."""
        operation, completion.started = completion.operation, time.perf_counter()
        self.flight.append((priority, completion))
        self.flight.sort(key=lambda entry: entry[0])  # stable: gradients first, then by age
        self._in_flight_of[operation.queue] = self._in_flight_of.get(operation.queue, 0) + 1
        operation.news = news

    def start_next(self, news: ctypes.c_int) -> Completion | None:
        """Let the next operation that may start now take off from its queue; None: none may."""
        for priority in _PRIORITIES:
            queues = self._waiting[priority]
            for key, queue in queues.items():
                if not self._may_start(queue[0]):
                    continue
                completion = queue.popleft()
                if not queue:
                    del queues[key]
                self.start(priority, completion, news)
                return completion
        return None

    def _may_start(self, completion: Completion) -> bool:
        operation, number = completion.operation, completion.number
        if operation.blocks:
            # A collective in flight could not move meanwhile, and a peer that waits for it would never make
            # the call. Point to point moves inside MPI.
            return all(c.operation.concurrency is None for _, c in self.flight)
        if not operation.is_ready():
            return False
        limit = operation.concurrency
        same = [c.number for _, c in self.flight if c.operation.queue == operation.queue]
        return limit is None or (len(same) < limit and number - min(same, default=number) <= LEAD)

    def remove(self, completion: Completion) -> None:
        """Take one in flight out: it is complete."""
        self.flight = [entry for entry in self.flight if entry[1] is not completion]
        key = completion.operation.queue
        self._in_flight_of[key] -= 1
        if self._in_flight_of[key] == 0:
            del self._in_flight_of[key]

    def everything(self) -> list[Completion]:
        """Return all, those in flight first."""
        waiting = [queue for p in _PRIORITIES for queue in self._waiting[p].values()]
        return [completion for _, completion in self.flight] + [c for queue in waiting for c in queue]

    def of(self, queues: Collection[Hashable]) -> list[Completion]:
        """Return those of some queues, what callbacks have called in them too."""
        return [c for c in self.everything() if _outer(c.operation.queue) in queues]

    def take_out(self, unwanted: Collection[Completion]) -> None:
        """Forget them, wherever they are."""
        in_flight = [completion for _, completion in self.flight]
        for completion in unwanted:
            if completion in in_flight:
                self.remove(completion)
        for priority, queues in self._waiting.items():
            left = {key: deque(c for c in queue if c not in unwanted) for key, queue in queues.items()}
            self._waiting[priority] = {key: queue for key, queue in left.items() if queue}

    def take_all(self) -> list[Completion]:
        """Return all, those in flight first. None waits any more."""
        found = self.everything()
        for queues in self._waiting.values():
            queues.clear()
        return found
