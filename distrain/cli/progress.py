"""How far a long command is: a bar on a terminal, a line now and then in a batch job's log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SECONDS = 30.0  # between two lines


class ProgressLines:
    """Prints how far a command is and how long it will take, at most every 30 seconds.

    Args:
        what: is being done.
        write: takes a line.
        clock: seconds.
    """

    def __init__(
        self, what: str, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what, self._write, self._clock = what, write, clock
        self._told, self._done = clock(), sys.maxsize
        self._begun = self._told, 0  # after what an earlier run had done already

    def __call__(self, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` are done; of fewer than before: something else has begun."""
        now = self._clock()
        if done < self._done:
            self._begun = now, done
        self._done = done
        if now - self._told < _SECONDS or done == self._begun[1]:
            return
        self._told = now
        left = (now - self._begun[0]) / (done - self._begun[1]) * (total - done)
        self._write(f"{self._what}: {done} of {total}, {left // 60:.0f} min {left % 60:.0f} s left\n")


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows on stderr how many of how many are done, and the time left."""
    if not sys.stderr.isatty():
        yield ProgressLines(what, sys.stderr.write)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)

        def show(done: int, total: int) -> None:
            if done < bar.tasks[0].completed:
                bar.reset(task)
            bar.update(task, completed=done, total=total)

        yield show
