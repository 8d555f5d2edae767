"""Where the time of a step goes, and what the loss is, read rarely so that the device never waits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from distrain.train import ranks
from distrain.train.errors import diverged
from distrain.train.parts import TrainLoader

_NEVER = 2**62


@dataclass(frozen=True)
class Interval:
    """Sums over some steps and all ranks; times are the mean of the ranks.

    Attributes:
        steps: optimizer steps.
        images: images.
        loss_sum: loss, summed over images.
        correct: images that were classified rightly while training.
        wall_seconds: duration of the steps.
        data_seconds: of which waiting for the loader.
        comm_seconds: of which blocked on gradients; nan if that is not known.
    """

    steps: int = 0
    images: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    wall_seconds: float = 0.0
    data_seconds: float = 0.0
    comm_seconds: float = 0.0

    @property
    def compute_seconds(self) -> float:
        """The rest of the step: forward, backward, update, logging, and communication if it is not known."""
        return max(0.0, self.wall_seconds - self.data_seconds - _known(self.comm_seconds))

    @property
    def images_per_second(self) -> float:
        """Over all ranks."""
        return self.images / self.wall_seconds if self.wall_seconds else 0.0

    def shares(self) -> tuple[float, float, float]:
        """Data, compute and communication as parts of the step time; those that are known add up to 1."""
        parts = (self.data_seconds, self.compute_seconds, self.comm_seconds)
        total = sum(map(_known, parts))
        return (parts[0] / total, parts[1] / total, parts[2] / total) if total else (0.0, 0.0, 0.0)

    def __add__(self, other: Interval) -> Interval:
        return Interval(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def _known(seconds: float) -> float:
    return 0.0 if math.isnan(seconds) else seconds


class Meter:
    """Adds up what each step did.

    Losses stay on the device until `settle`: reading one costs a host-device synchronisation, which
    would let the device run dry once a step.

    Args:
        loader: whose waits are the data time.
        exposed_comm_seconds: whose growth is the communication time; None if it is not known.
        rank: this rank's number.
        world_size: number of ranks.
    """

    def __init__(
        self,
        loader: TrainLoader,
        exposed_comm_seconds: Callable[[], float] | None,
        rank: int,
        world_size: int,
    ) -> None:
        self._loader = loader
        self._exposed = exposed_comm_seconds or (lambda: math.nan)
        self._rank = rank
        self._world_size = world_size
        self._pending: list[tuple[int, Tensor, Tensor, int]] = []
        self._sums = Interval()
        self._began = self._clocks()
        self.total = Interval()

    def _clocks(self) -> tuple[float, float, float]:
        return time.perf_counter(), self._loader.wait_seconds, self._exposed()

    def add(self, step: int, loss: Tensor, correct: Tensor, images: int) -> None:
        """Note step number `step` (from 1): mean loss and right answers on this rank, on the device."""
        self._pending.append((step, loss, correct, images))
        self._exposed()  # it may remember one step only, so it is asked after each

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clocks, for what is not training, once the device has done what it was given."""
        if self._pending and self._pending[-1][1].is_cuda:
            torch.cuda.synchronize(self._pending[-1][1].device)
        self._stop()
        yield
        self._began = self._clocks()

    def _stop(self) -> None:
        wall, data, comm = (now - then for now, then in zip(self._clocks(), self._began, strict=True))
        self._sums += Interval(wall_seconds=wall, data_seconds=data, comm_seconds=comm)

    def settle(self) -> None:
        """Read the losses since the last call; a collective, after which the device is idle.

        Raises:
            TrainingError: a loss is not finite; on all ranks, naming the first such step and rank.
        """
        bad = _NEVER
        if self._pending:
            steps, losses, corrects, images = zip(*self._pending, strict=True)
            values = torch.stack(losses).double().tolist()
            right = int(torch.stack(corrects).sum().item())
            for step, value, count in zip(steps, values, images, strict=True):
                self._sums += Interval(steps=1, images=count, loss_sum=value * count)
                if bad == _NEVER and not -float("inf") < value < float("inf"):
                    bad = step * self._world_size + self._rank
            self._sums += Interval(correct=right)
            self._pending.clear()
        first = ranks.minimum(bad)
        if first != _NEVER:
            step, rank = divmod(first, self._world_size)
            raise diverged(f"step {step}, rank {rank}", "the loss is")

    def read(self) -> Interval:
        """Sums since the last call over all ranks; a collective. Call it within `paused`."""
        self.settle()
        mine = self._sums
        steps = mine.steps  # the same on all ranks
        images, correct = ranks.sum_ints([mine.images, mine.correct])
        loss_sum, *times = ranks.sum_floats(
            [mine.loss_sum, mine.wall_seconds, mine.data_seconds, mine.comm_seconds]
        )
        wall, data, comm = (seconds / self._world_size for seconds in times)
        interval = Interval(steps, images, loss_sum, correct, wall, data, comm)
        self._sums = Interval()
        self.total += interval
        return interval
