"""Operations of rooms that know nothing of the engine, behind the gradients on the same wire."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from typing import Protocol

from distrain.comm.engine.engine import Engine
from distrain.comm.operation import Completion, Operation, Priority


class Guest(Protocol):
    """What another room wants to have done; see `Operation` for the meaning of all this."""

    kind: str
    algorithm: str
    size_bytes: int
    queue: Hashable
    concurrency: int | None
    moved: int
    is_behind: bool

    def start(self) -> None:
        """Put the first messages on their way."""

    def progress(self) -> bool:
        """Move on without blocking; return True once complete."""

    def waiting_for(self) -> str:
        """Say in words who is missing."""

    def missing_ranks(self) -> Sequence[int]:
        """Return the ranks of the world that it may wait for."""


class GuestOperation(Operation):
    """A `Guest` as the engine wants it."""

    def __init__(self, guest: Guest) -> None:
        self.kind, self.algorithm, self.size_bytes = guest.kind, guest.algorithm, guest.size_bytes
        self.queue, self.concurrency = guest.queue, guest.concurrency
        self._guest = guest

    def start(self) -> None:
        """See `Operation.start`."""
        self._guest.start()

    def progress(self) -> bool:
        """See `Operation.progress`."""
        self._guest.is_behind = self.is_behind
        done = self._guest.progress()
        if self.moved != self._guest.moved:  # behind gradients it may take long; standing still is a fault
            self.moved, self.moved_at = self._guest.moved, time.perf_counter()
        return done

    def waiting_for(self) -> str:
        """See `Operation.waiting_for`."""
        return self._guest.waiting_for()

    def missing_ranks(self) -> Sequence[int]:
        """See `Operation.missing_ranks`."""
        return self._guest.missing_ranks()


def submit_bulk(engine: Engine, guest: Guest) -> Completion:
    """Hand work to the engine that may wait for gradients.

    Raises:
        CommError: the engine has failed or was closed.
    """
    return engine.submit(GuestOperation(guest), Priority.BULK)
