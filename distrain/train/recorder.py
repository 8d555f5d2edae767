"""One place for rank 0 to tell of: the metrics file, TensorBoard, and the person who watches."""

from __future__ import annotations

import logging

from distrain.train.metrics import MetricsFile, Record, TensorBoard
from distrain.train.parts import Parts
from distrain.train.progress import Bar, Lines, View, on_terminal
from distrain.train.run import METRICS, Run

log = logging.getLogger(__name__)


class Recorder:
    """Context that spreads records; on ranks other than 0 it does nothing."""

    def __init__(self, parts: Parts, run: Run) -> None:
        self._sinks: list[MetricsFile | TensorBoard] = []
        self._view: View | None = None
        if parts.world.rank != 0:
            return
        self._sinks.append(MetricsFile(parts.folder / METRICS, run.step))
        if parts.settings.tensorboard:
            self._sinks.append(TensorBoard(parts.folder / "tensorboard", run.step))
        if parts.show:
            self._view = Bar(run.total, run.step, run.steps_per_epoch) if on_terminal() else Lines()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._view is not None:
            self._view.close()
        for sink in self._sinks:
            try:
                sink.close()
            except OSError as error:  # all was flushed when it was written; another error may be under way
                log.warning("%s: cannot be closed: %s", type(sink).__name__, error)

    def step(self, step: int) -> None:
        """A step is done."""
        if self._view is not None:
            self._view.step(step)

    def write(self, record: Record) -> None:
        """Give a record to everyone who listens."""
        for sink in self._sinks:
            sink.write(record)
        if self._view is not None:
            self._view.show(record)
