"""What a batch shows: which images, which parts of them, mirrored or not."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from distrain.data.augment import train_crops
from distrain.data.reading import Reading
from distrain.data.settings import DataSettings
from distrain.data.store import Store

# Images that are drawn at once, about: numpy's price of a call is paid once for them. It takes half a
# millisecond, also where an epoch is entered in the middle.
_AT_ONCE = 1024


@dataclass(frozen=True)
class BatchPlan:
    """What a batch shows.

    Attributes:
        indices: int64 [N], wanted images.
        crops: int32 [N, 4].
        flips: bool [N].
    """

    indices: np.ndarray
    crops: np.ndarray
    flips: np.ndarray


class TrainPlanner:
    """Draws the training batches of a rank, several at once. Thread-safe.

    Args:
        store: of the training set; its records are looked up at each use, since they end with it.
        settings: batch size and augmentation.
        reading: who reads what.
        rank: of the world.
        seed: of the run.
    """

    def __init__(self, store: Store, settings: DataSettings, reading: Reading, rank: int, seed: int) -> None:
        self._store, self._rule, self._seed = store, settings.augment, seed
        self._reading, self._rank, self._batch = reading, rank, settings.batch_per_rank
        self._steps = max(1, _AT_ONCE // settings.batch_per_rank)
        self._lock = threading.Lock()
        # Two, because threads ask for the next batch before the one before it.
        self._block = lru_cache(maxsize=2)(self._draw)

    def plan(self, number: int) -> BatchPlan:
        """Return the plan of step ``number``, counted from the start of epoch 0."""
        epoch, step = divmod(number, self._reading.steps_per_epoch)
        with self._lock:
            drawn = self._block(epoch, step // self._steps)
        start = step % self._steps * self._batch
        part = slice(start, start + self._batch)
        return BatchPlan(drawn.indices[part], drawn.crops[part], drawn.flips[part])

    def crops(self, epoch: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return crops int32 [N, 4] and flips bool [N] of images int64 [N] in an epoch."""
        chosen = self._store.records[indices]
        return train_crops(self._rule, self._seed, epoch, indices, chosen["width"], chosen["height"])

    def _draw(self, epoch: int, block: int) -> BatchPlan:
        first = block * self._steps
        steps = range(first, min(first + self._steps, self._reading.steps_per_epoch))
        positions = self._reading.positions(np.array(steps), self._rank).ravel()
        indices = self._reading.order(epoch).indices(positions)
        return BatchPlan(indices, *self.crops(epoch, indices))
