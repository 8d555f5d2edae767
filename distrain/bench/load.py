"""The load benchmark: a pack from page cache into the memory of a node, beside a plain copy of as many bytes.

All contenders fill new memory, that is pages which the kernel must find and clear first, except
``memcpy, old pages``, which copies over what another contender filled: the rate of the memory itself. They
take turns; a time is that of the slowest rank, from a barrier until its share is there.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from mpi4py import MPI

from distrain.bench import results
from distrain.bench.packs import write_noise
from distrain.comm.process import mpi
from distrain.data.copy_in import Target, copy_in
from distrain.data.format import Manifest
from distrain.data.load import Piece, pieces_of
from distrain.data.memory import Memory, allocate
from distrain.data.settings import DataSettings
from distrain.data.shard import read_head
from distrain.data.store import Store, load_threads

_IMAGE_BYTES = 110 << 10  # ImageNet: 144 GB in 1.28 million files
_SHARDS = 64
_COPY_BYTES = 4 << 20  # of one call of a plain copy

Line = dict[str, object]


class Node:
    """What the ranks of this benchmark have in common: the pack, its pieces, and copies of their bytes.

    Args:
        comm: all ranks; they are on one node.
        folder: of the pack.
        manifest: of it.
    """

    def __init__(self, comm: MPI.Intracomm, folder: Path, manifest: Manifest) -> None:
        self.comm, self.folder, self.manifest = comm, folder, manifest
        self.threads = load_threads(comm.size)
        heads = [read_head(folder, manifest, number) for number in range(len(manifest.shards))]
        records = np.concatenate([head.records for head in heads])
        pieces = pieces_of(manifest, records, range(manifest.count))
        self.bytes = sum(piece.bytes for piece in pieces)
        self.mine = pieces[comm.rank :: comm.size]
        self.offsets = {piece.shard: heads[piece.shard].payload_offset for piece in self.mine}
        self.sources = {piece.shard: self._read(piece) for piece in self.mine}

    def _read(self, piece: Piece) -> np.ndarray:
        path = self.folder / self.manifest.shards[piece.shard].file
        return np.fromfile(path, np.uint8, piece.bytes, offset=self.offsets[piece.shard])

    def together(self, work: Callable[[Piece], object]) -> None:
        """Do something for each piece of this rank, as many at once as the store loads."""
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(work, self.mine))

    def is_right(self, memory: memoryview) -> bool:
        """Say whether this rank's share has arrived."""
        parts = [(piece, memory[piece.at : piece.at + piece.bytes]) for piece in self.mine]
        return all(np.array_equal(np.frombuffer(part, np.uint8), self.sources[p.shard]) for p, part in parts)

    def fill_new(self, fill: Callable[[Piece, memoryview, int], object]) -> tuple[float, bool]:
        """Fill new memory of the node; return seconds and whether it is right."""
        self.comm.Barrier()
        start = time.perf_counter()
        memory: Memory = allocate(self.comm, self.bytes)
        view = memory.view
        self.together(lambda p: fill(p, view[p.at : p.at + p.bytes], memory.handle))
        seconds = time.perf_counter() - start
        right = self.is_right(view)
        memory.filled()
        memory.free()
        return seconds, right


def distrain(node: Node) -> tuple[float, bool]:
    """Open the pack as a job does: tables, all images, all checksums."""
    settings = DataSettings(train="-", val="-")
    node.comm.Barrier()
    start = time.perf_counter()
    store = Store.open(node.folder, settings, node.comm)
    seconds = time.perf_counter() - start
    first = np.cumsum([0] + [shard.count for shard in node.manifest.shards])
    right = all(
        np.array_equal(np.concatenate(store.padded(np.arange(*first[p.shard : p.shard + 2]))), source)
        for p, source in zip(node.mine, node.sources.values(), strict=True)
    )
    store.close()
    return seconds, right


def unchecked(node: Node) -> tuple[float, bool]:
    """Read all images as the store does, without their checksums."""

    def fill(piece: Piece, memory: memoryview, handle: int) -> None:
        path = node.folder / node.manifest.shards[piece.shard].file
        copy_in(path, node.offsets[piece.shard], Target(memory, handle, piece.at), check=False)

    return node.fill_new(fill)


def _copy(source: np.ndarray, memory: memoryview) -> None:
    target = np.frombuffer(memory, np.uint8)
    for at in range(0, len(source), _COPY_BYTES):
        target[at : at + _COPY_BYTES] = source[at : at + _COPY_BYTES]


def memcpy(node: Node) -> tuple[float, bool]:
    """Copy the bytes, which every rank holds in its own memory, into new memory of the same kind."""
    return node.fill_new(lambda piece, memory, handle: _copy(node.sources[piece.shard], memory))


def memcpy_old_pages(node: Node) -> tuple[float, bool]:
    """Copy the bytes into memory that has been written to before."""
    memory = allocate(node.comm, node.bytes)
    view = memory.view

    def once() -> float:
        node.comm.Barrier()
        start = time.perf_counter()
        node.together(lambda p: _copy(node.sources[p.shard], view[p.at : p.at + p.bytes]))
        return time.perf_counter() - start

    once()
    seconds, right = once(), node.is_right(view)
    memory.filled()
    memory.free()
    return seconds, right


CONTENDERS: dict[str, Callable[[Node], tuple[float, bool]]] = {
    "distrain": distrain,
    "distrain, no checksums": unchecked,
    "memcpy": memcpy,
    "memcpy, old pages": memcpy_old_pages,
}


def run(comm: MPI.Intracomm, folder: Path, size: int, rounds: int) -> list[Line]:
    """Run the benchmark; every rank gets the lines.

    Args:
        comm: all ranks, on one node.
        folder: for the pack; its file system should have a page cache.
        size: bytes of the pack, about.
        rounds: timed turns of each contender; there is one more before.
    """
    per_shard = max(1, size // _IMAGE_BYTES // _SHARDS)
    manifest = None
    if comm.rank == 0:
        manifest = write_noise(folder / "pack", per_shard * _SHARDS, _IMAGE_BYTES, per_shard)
    node = Node(comm, folder / "pack", comm.bcast(manifest))
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    correct = dict.fromkeys(CONTENDERS, True)
    for number in range(-1, rounds):
        for name, contender in CONTENDERS.items():
            seconds, right = contender(node)
            seconds = comm.allreduce(seconds, MPI.MAX)
            correct[name] &= comm.allreduce(right, MPI.LAND)
            if number >= 0:
                times[name].append(seconds)
    plain = statistics.median(times["memcpy"])
    lines: list[Line] = []
    for name, seconds_of in times.items():
        median = statistics.median(seconds_of)
        line: Line = {"bench": "load", "name": name, "ranks": comm.size, "threads": node.threads}
        line |= {"bytes": node.bytes, "median_s": median, "gbytes_per_s": node.bytes / median / 1e9}
        lines.append({**line, "of_memcpy": plain / median, "rounds": rounds, "correct": correct[name]})
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Parse what `distrain bench load` passes on, run, and let rank 0 write its lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--out", required=True, help="file that rank 0 writes, one JSON object a line")
    given = parser.parse_args(argv)
    comm = mpi.initialize()
    lines = run(comm, Path(given.out).parent, given.bytes, given.rounds)  # a folder that is cleared away
    if comm.rank == 0:
        results.write(given.out, lines)


if __name__ == "__main__":
    main()
