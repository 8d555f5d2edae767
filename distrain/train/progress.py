"""What a person sees while training: a bar on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from distrain.train.metrics import Record, percent

log = logging.getLogger(__name__)


class View(Protocol):
    """Shows records as they come."""

    def step(self, step: int) -> None:
        """A step is done."""

    def show(self, record: Record) -> None:
        """A record was written."""

    def close(self) -> None:
        """Training is over."""


def on_terminal() -> bool:
    """True if a terminal shows this rank's stderr; the launcher says so in DISTRAIN_TERMINAL=1 or 0."""
    said = os.environ.get("DISTRAIN_TERMINAL")
    return said == "1" if said else sys.stderr.isatty()


def sentence(record: Record) -> str:
    """A record in one line for people."""
    at = f"step {record['step']} (epoch {record['epoch']:.2f})"
    if record["kind"] == "train":
        return (
            f"{at}: loss {record['loss']:.4f}, top-1 {record['top1']:.2%}, lr {record['lr']:.4g}, "
            f"{record['images_per_s']:.0f} images/s, {_shares(record)}"
        )
    if record["kind"] == "eval":
        return (
            f"{at}: evaluation on {record['images']} images: top-1 {record['top1']:.2%}, "
            f"top-5 {record['top5']:.2%}, loss {record['loss']:.4f} ({record['seconds']:.1f} s)"
        )
    return f"{at}: checkpoint {record['file']} ({record['seconds']:.1f} s)"


def _shares(record: Record) -> str:
    names = {"data": "data_share", "compute": "compute_share", "comm": "comm_share"}
    return " ".join(f"{name} {percent(record[key])}" for name, key in names.items())


class Lines:
    """Every record is a line of the log."""

    def step(self, step: int) -> None:
        """Nothing: lines come with records."""

    def show(self, record: Record) -> None:
        """Log the record."""
        log.info("%s", sentence(record))

    def close(self) -> None:
        """Nothing to close."""


class Bar:
    """A bar on stderr; evaluations and checkpoints scroll above it.

    Args:
        total: steps in all.
        step: steps done already.
        steps_per_epoch: optimizer steps in an epoch.
    """

    def __init__(self, total: int, step: int, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        # Under mpirun stderr is a pipe that ends in the launcher's terminal, so rich must be told.
        console = Console(stderr=True, force_terminal=True)
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]:.2f}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
            refresh_per_second=4,
        )
        self._task = self._progress.add_task("", total=total, completed=step, epoch=0.0, numbers="")
        self.step(step)
        self._progress.start()

    def step(self, step: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=step, epoch=step / self._steps_per_epoch)

    def show(self, record: Record) -> None:
        """Put a training interval beside the bar, anything else above it."""
        if record["kind"] == "train":
            self._progress.update(
                self._task,
                numbers=f"{record['images_per_s']:.0f} images/s, loss {record['loss']:.3f}, "
                f"top-1 {record['top1']:.1%}, {_shares(record)}",
            )
        else:
            self._progress.console.print(sentence(record), highlight=False)

    def close(self) -> None:
        """Leave the bar as it is and give the cursor back."""
        self._progress.stop()
