"""Our whole loader in the benchmark, and which part of its CPU time is not the decoder's.

The store, the order, crops, threads and batches are those of a training run; one epoch is one pass. The
time inside the C functions is read on the clock of the thread that calls them, so the share outside needs
no second run and no quiet machine.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distrain.bench.errors import Unavailable
from distrain.bench.loader_contenders import Workload
from distrain.data.decode import build_native, indexed, native
from distrain.data.decode.library import Library
from distrain.data.format import ALIGNMENT, RECORD, Manifest, ShardEntry
from distrain.data.load import Piece
from distrain.data.loader import Batch, TrainLoader
from distrain.data.order import EpochOrder
from distrain.data.settings import DataSettings
from distrain.data.store import Store

_BATCH = 256
_IN_KERNEL = ("decode_batch", "resize_batch")


class Loader:
    """`TrainLoader` over a store in memory.

    Args:
        work: pictures, crops (drawn with ``seed`` for epoch 0), threads.
        seed: of the workload: with it the loader draws the workload's crops.

    Attributes:
        order: int64 [N], which picture of the workload each decoded image is.
    """

    name, exact = "distrain", True

    def __init__(self, work: Workload, seed: int) -> None:
        self._settings = DataSettings(
            train="-", val="-", batch_per_rank=min(_BATCH, len(work.blobs)), image_size=work.side,
            threads=work.threads, last_batch="drop",
        )  # fmt: skip
        try:
            self._library = _Timed()
            raw = work.is_raw
            self._store = store_of(work.blobs if raw else [indexed.index(b) or b for b in work.blobs], work)
        except RuntimeError as error:
            raise Unavailable(str(error)) from None
        self._engine = (
            native.NativeRawEngine(self._library, work.name) if raw else native.NativeEngine(self._library)
        )
        count = self._settings.batch_per_rank * (len(work.blobs) // self._settings.batch_per_rank)
        if count != len(work.blobs):
            raise Unavailable(f"{len(work.blobs)} pictures are not whole batches of {_BATCH}")
        self.order = EpochOrder(seed, 0, count).indices(np.arange(count))
        self._outside: list[float] = []
        self._loader = _Stopping(self._store, self._settings, self._engine, 0, 1, seed, pinned=False)

    def batches(self) -> Iterator[np.ndarray]:
        """Yield the batches of the next epoch; the first call those of epoch 0."""
        self._library.seconds.clear()
        started = time.process_time()
        for batch in self._loader.next_epoch():
            yield batch.images.numpy()
        self._outside.append(1 - sum(self._library.seconds) / (time.process_time() - started))

    def facts(self) -> dict[str, object]:
        """Return ``outside_kernel``: the median share of CPU time outside the decoder over all passes."""
        return {"outside_kernel": round(float(np.median(self._outside)), 4)}


class _Stopping(TrainLoader):
    """Decodes nothing ahead of the end of an epoch, so that a pass is exactly one epoch."""

    _epochs = 0

    def next_epoch(self) -> Iterator[Batch]:
        """Yield the batches of one more epoch."""
        self._epochs += 1
        return self.epoch(self._epochs - 1, total=self._epochs * self.steps_per_epoch)

    def _plan(self, number: int) -> Any:
        # What is planned past the end is forgotten before it is used; here it would count in every pass.
        return super()._plan(number) if number < self._epochs * self.steps_per_epoch else None


class _Timed(Library):
    """The native library; seconds that threads spent in its batch functions are kept."""

    def __init__(self) -> None:
        super().__init__(build_native.LIBRARY)
        self.seconds: list[float] = []  # `append` is atomic
        self.functions |= {name: self._clocked(self.functions[name]) for name in _IN_KERNEL}

    def _clocked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.thread_time()
            result = function(*arguments)
            self.seconds.append(time.thread_time() - started)
            return result

        return call


def store_of(blobs: list[bytes], work: Workload) -> Store:
    """Return a store in the memory of this process that holds the blobs of a workload, without labels."""
    records = np.zeros(len(blobs), RECORD)
    records["length"] = [len(blob) for blob in blobs]
    steps = -(-records["length"].astype(np.int64) // ALIGNMENT) * ALIGNMENT
    records["offset"] = np.cumsum(steps) - steps
    records["crc32"] = [zlib.crc32(blob) for blob in blobs]
    records["width"], records["height"] = work.sizes.T
    memory = bytearray(int(steps.sum()))
    for blob, start in zip(blobs, records["offset"].tolist(), strict=True):
        memory[start : start + len(blob)] = blob
    size, count = len(memory), len(blobs)
    shard = ShardEntry(file="-", count=count, bytes=size, payload_bytes=size, head_crc32=0, payload_crc32=0)
    manifest = Manifest(
        pack_id="-", name="-", source="-", encoding=work.name if work.is_raw else "jpeg-indexed",
        options={}, classes=("-",), class_counts=(count,), count=count,
        mean_width=float(work.sizes[:, 0].mean()), mean_height=float(work.sizes[:, 1].mean()),
        shards=(shard,),
    )  # fmt: skip
    piece = Piece(0, range(count), 0, 0, size)
    return Store(Path("memory"), manifest, records, [(piece, memoryview(memory))], range(count))
