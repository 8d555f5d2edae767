"""An operation that needs no MPI, for tests of the engine."""

from __future__ import annotations

import threading

from distrain.comm.operation import Operation

LONG = 30.0


class Gate(Operation):
    """Notes when it starts; is complete once opened; may break."""

    kind = "gate"

    def __init__(self, log: list[str], name: str, queue: str = "q", limit: int | None = 1) -> None:
        self.queue, self.concurrency = queue, limit
        self.log, self.name = log, name
        self.open = threading.Event()
        self.started = threading.Event()
        self.error: BaseException | None = None
        self.ready = True

    def is_ready(self) -> bool:
        return self.ready

    def start(self) -> None:
        self.log.append(self.name)
        self.started.set()

    def progress(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.open.is_set()

    def waiting_for(self) -> str:
        return f"rank 7 to open {self.name}"
