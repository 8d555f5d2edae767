"""Training steps on the timeline."""

from __future__ import annotations

import time

from distrain import timeline


class StepSpans:
    """One span a step, from the end of the step before.

    Args:
        step: steps done before.
    """

    def __init__(self, step: int) -> None:
        self._begin = time.perf_counter()
        trace = timeline.current()
        if trace is not None:
            trace.at_step(step + 1)

    def mark(self, step: int) -> None:
        """Step number `step` (from 1) is done."""
        trace = timeline.current()
        if trace is not None:
            now = time.perf_counter()
            trace.add("step", timeline.MAIN, self._begin, now, step=step)
            trace.at_step(step + 1)
            self._begin = now
