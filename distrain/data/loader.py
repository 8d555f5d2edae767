"""What a training loop iterates: batches of decoded images in the exact order of the epoch."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from distrain.data.assemble import Assembler
from distrain.data.augment import eval_crops, whole_crops
from distrain.data.decode.engine import DecodeEngine
from distrain.data.nodes.windows import Windows
from distrain.data.order import eval_part
from distrain.data.pipeline import Pipeline, Work
from distrain.data.plan import BatchPlan, TrainPlanner
from distrain.data.reading import GlobalReading, Reading
from distrain.data.settings import DataSettings
from distrain.data.store import Store


@dataclass(frozen=True)
class Batch:
    """Some images of this rank.

    Attributes:
        images: uint8 [N, H, W, 3], RGB. The memory is used again only when no tensor refers to it.
        labels: int64 [N].
        indices: int64 [N], which images of the pack these are.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: torch.Tensor


class _Buffers:
    """Memory of batches, allocated once and used again when the last tensor on it has gone.

    With CUDA the memory is pinned and torch's own cache of pinned memory does the same, and waits
    for copies to the device that are still under way.
    """

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._free: dict[tuple[int, ...], list[np.ndarray]] = {}

    def take(self, count: int, side: int) -> tuple[torch.Tensor, np.ndarray]:
        """Return a tensor uint8 [count, side, side, 3] and a view of its memory."""
        shape = (count, side, side, 3)
        if self._pinned:
            tensor = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
            return tensor, tensor.numpy()
        free = self._free.setdefault(shape, [])
        memory = free.pop() if free else np.empty(shape, np.uint8)
        lent = memory.view()  # the tensor's storage holds this very object: its end is that of all uses
        weakref.finalize(lent, free.append, memory).atexit = False
        return torch.from_numpy(lent), lent


class _Loader(ABC):
    """What training and evaluation have in common: store, decoder, threads, bookkeeping."""

    def __init__(
        self,
        store: Store,
        settings: DataSettings,
        engine: DecodeEngine,
        replace: bool,
        pinned: bool | None,
    ) -> None:
        self._store = store
        self._assembler = Assembler(store, engine, settings.on_bad_image, replace)
        self._buffers = _Buffers(torch.cuda.is_available() if pinned is None else pinned)
        self._pipeline: Pipeline[torch.Tensor, BatchPlan] = Pipeline(
            self._plan, self._begin, settings.threads, settings.queue_batches
        )

    @abstractmethod
    def _plan(self, number: int) -> BatchPlan:
        """Draw which images a batch shows and how; in a thread of the pipeline."""

    @abstractmethod
    def _begin(self, number: int) -> Work[torch.Tensor, BatchPlan] | None:
        """Lay out a batch for the pipeline; None past the last one."""

    def _take(self, number: int) -> Batch:
        images, indices = self._pipeline.take(number)
        labels = self._store.records["label"][indices].astype(np.int64)
        return Batch(images[: len(indices)], torch.from_numpy(labels), torch.from_numpy(indices))

    @property
    def wait_seconds(self) -> float:
        """How long batches have kept the loop waiting so far, seconds; it grows from step to step."""
        return self._pipeline.wait_seconds

    @property
    def bad_images(self) -> dict[int, str]:
        """Why, for each image index that this rank found undecodable and left out."""
        return self._assembler.bad_images

    def close(self) -> None:
        """End the decoder threads. The store may be closed afterwards, not before."""
        self._pipeline.close()


class TrainLoader(_Loader):
    """This rank's batches of the training set, one of equal size for every step.

    Args:
        store: the packed training set.
        settings: batch size, augmentation, threads and so on.
        engine: the decoder.
        rank, size: of the world: which part of each global batch is taken.
        seed: of the run; order and augmentation depend on it, the epoch and the image alone.
        pinned: page-locked memory for copies to a GPU; default: where CUDA is available.
        reading: who reads what; default: global batches of the whole set.
        windows: where the images of other nodes arrive, if the store holds only a part.

    Attributes:
        steps_per_epoch: number of global batches of an epoch.

    Raises:
        ConfigError: the pack has fewer images than one global batch.
    """

    def __init__(
        self,
        store: Store,
        settings: DataSettings,
        engine: DecodeEngine,
        rank: int,
        size: int,
        seed: int,
        pinned: bool | None = None,
        reading: Reading | None = None,
        windows: Windows | None = None,
    ) -> None:
        self._reading = reading or GlobalReading(
            seed, store.count, size, settings.batch_per_rank, settings.last_batch
        )
        self.steps_per_epoch = self._reading.steps_per_epoch
        self._settings = settings
        self._seed, self._windows = seed, windows
        self._total: int | None = None
        self._planner = TrainPlanner(store, settings, self._reading, rank, seed)
        super().__init__(store, settings, engine, True, pinned)

    def epoch(self, epoch: int, start_step: int = 0, total: int | None = None) -> Iterator[Batch]:
        """Yield the batches of an epoch from a step on; beginning in the middle costs nothing extra.

        Leaving the iteration early is fine. Towards the end of an epoch the first batches of the
        next one are decoded already.

        Args:
            epoch: number of the epoch.
            start_step: of the epoch.
            total: steps of the whole run, the same on all ranks: there is nothing after them.

        Raises:
            DataError: an image cannot be decoded and ``data.on_bad_image`` is ``fail``; it names
                the image and its shard.
        """
        self._total = total
        first = epoch * self.steps_per_epoch
        end = first + self.steps_per_epoch if total is None else min(first + self.steps_per_epoch, total)
        for number in range(first + start_step, end):
            if self._windows is not None:
                self._windows.taking(number)
            batch = self._take(number)
            if self._windows is not None:
                self._windows.done(number)
            yield batch

    def close(self) -> None:
        """End the threads. With images of other nodes: collective, and before the engine is closed."""
        if self._windows is not None:
            self._windows.give_up()
        super().close()
        if self._windows is not None:
            self._windows.close()

    def _plan(self, number: int) -> BatchPlan:
        return self._planner.plan(number)

    def _begin(self, number: int) -> Work[torch.Tensor, BatchPlan] | None:
        """Lay out the batch of step ``number``, counted from the start of epoch 0."""
        if self._total is not None and number >= self._total:
            return None
        epoch = number // self.steps_per_epoch
        settings = self._settings
        crops = partial(self._planner.crops, epoch)
        blobs = self._store.blobs if self._windows is None else self._windows.want(number, self._total).blobs

        def fill(plan: BatchPlan, part: range, out: np.ndarray) -> np.ndarray:
            piece = slice(part.start, part.stop)
            drawn = plan.crops[piece], plan.flips[piece]
            used = self._assembler.fill(plan.indices[piece], drawn, crops, out, blobs)
            self._recolour(epoch, used, out)
            return used

        images, pixels = self._buffers.take(settings.batch_per_rank, settings.image_size_of(epoch))
        return Work(images, pixels, fill)

    def _recolour(self, epoch: int, indices: np.ndarray, images: np.ndarray) -> None:
        """Change decoded training crops in place, each by its own draws."""
        rule = self._settings.augment
        if rule.jitter.is_on:
            from distrain.data.colour import jitter, jitter_factors  # OpenCV, only where it is used

            jitter(images, jitter_factors(rule.jitter, self._seed, epoch, indices))
        if rule.randaugment.ops:
            from distrain.data import randaugment

            randaugment.apply(images, *randaugment.draw(rule.randaugment, self._seed, epoch, indices))


class EvalLoader(_Loader):
    """This rank's part of a held-out set: over all ranks every image exactly once, nothing padded.

    Ranks may have different numbers of batches, even none; the last one may be short. Iterate it
    any number of times.

    Args:
        store: the packed held-out set.
        settings: batch size, sizes and so on.
        engine: the decoder.
        rank, size: of the world.
        pinned: see `TrainLoader`.

    Attributes:
        count: images of this rank's part.
    """

    def __init__(
        self,
        store: Store,
        settings: DataSettings,
        engine: DecodeEngine,
        rank: int,
        size: int,
        pinned: bool | None = None,
    ) -> None:
        self._part = eval_part(store.count, rank, size)
        self.count = len(self._part)
        self._batch = settings.eval_batch_per_rank
        self._resize, self._size = settings.eval_sides
        self._whole = settings.eval_crop == "whole"
        super().__init__(store, settings, engine, False, pinned)

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return -(-self.count // self._batch)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches; images that were left out make theirs shorter.

        Raises:
            DataError: as `TrainLoader.epoch`.
        """
        for number in range(len(self)):
            batch = self._take(number)
            if len(batch.indices):  # else all of its images were left out
                yield batch

    def _plan(self, number: int) -> BatchPlan:
        indices = np.array(self._part[number * self._batch : (number + 1) * self._batch], np.int64)
        return BatchPlan(indices, *self._crops(indices))

    def _crops(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._store.records[indices]
        if self._whole:
            found = whole_crops(chosen["width"], chosen["height"])
        else:
            found = eval_crops(self._resize, self._size, chosen["width"], chosen["height"])
        return found, np.zeros(len(indices), bool)

    def _begin(self, number: int) -> Work[torch.Tensor, BatchPlan] | None:
        if number >= len(self):
            return None

        def fill(plan: BatchPlan, part: range, out: np.ndarray) -> np.ndarray:
            piece = slice(part.start, part.stop)
            drawn = plan.crops[piece], plan.flips[piece]
            return self._assembler.fill(plan.indices[piece], drawn, self._crops, out)

        count = min(self._batch, self.count - number * self._batch)
        images, pixels = self._buffers.take(count, self._size)
        return Work(images, pixels, fill)
