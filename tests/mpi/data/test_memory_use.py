"""What a pack costs a node: its bytes, a small index and a bounded queue, for any number of ranks."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mpi4py import MPI

from distrain.bench.packs import write_noise
from distrain.data.format import RECORD, aligned
from distrain.data.loader import TrainLoader
from distrain.data.settings import DataSettings
from distrain.data.store import Store

WORLD = MPI.COMM_WORLD
COUNT, IMAGE_BYTES = 1024, 64 << 10
PAYLOAD = COUNT * IMAGE_BYTES
BATCH, SIDE, QUEUE = 16, 64, 3
MIB = 1 << 20


class Blind:
    """A decoder that looks at every image and leaves the pixels as they are."""

    name = "blind"

    def decode_batch(
        self, blobs: Sequence[memoryview], crops: np.ndarray, flips: np.ndarray, out: np.ndarray
    ) -> None:
        """See `DecodeEngine.decode_batch`."""
        out[:] = 0
        for blob in blobs:
            np.frombuffer(blob, np.uint8).max()


@pytest.fixture()
def pack(shared_folder: Any) -> Iterator[Path]:
    """A pack of 64 MiB, the same for all ranks."""
    with shared_folder(lambda folder: write_noise(folder / "pack", COUNT, IMAGE_BYTES, 64)) as folder:
        yield folder / "pack"


def private_bytes() -> int:
    """Memory of this process alone."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def shared_bytes() -> int:
    """Memory of the node that distrain has mapped here."""
    found = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/memfd:distrain" in line:
            first, end = line.split()[0].split("-")
            found += int(end, 16) - int(first, 16)
    return found


def test_a_node_holds_the_bytes_of_the_pack_once(pack: Path) -> None:
    settings = DataSettings(
        train="-", val="-", batch_per_rank=BATCH, image_size=SIDE, queue_batches=QUEUE, threads=2
    )
    before = private_bytes(), shared_bytes()
    store = Store.open(pack, settings, WORLD)
    opened = private_bytes() - before[0], shared_bytes() - before[1]
    loader = TrainLoader(store, settings, Blind(), WORLD.rank, WORLD.size, seed=1)
    for epoch in range(2):
        for _ in loader.epoch(epoch):
            pass
    used = private_bytes() - before[0]
    loader.close()

    index = aligned(COUNT * RECORD.itemsize)
    assert index < 0.02 * PAYLOAD
    if WORLD.size > 1:
        assert opened[1] == PAYLOAD + index  # once for all ranks, to the byte
    own = WORLD.allgather(used - (PAYLOAD + index if WORLD.size == 1 else 0))
    # Room for what the allocator and the threads keep. The pack again in each rank would be 64 MiB.
    queue = (QUEUE + 3) * BATCH * SIDE * SIDE * 3
    assert max(own) < queue + 16 * MIB, [f"{size / MIB:.1f} MiB" for size in own]
    store.close()
    assert private_bytes() - before[0] < queue + 16 * MIB and shared_bytes() == before[1]
