"""Reading shards into their places in memory: large, sequential, checked on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from distrain.data.copy_in import Target, copy_in
from distrain.data.format import Manifest, aligned, padded_lengths
from distrain.data.shard import check_images, check_payload, read_head
from distrain.errors import DataError


@dataclass(frozen=True)
class Piece:
    """Some images of a shard that follow each other, and where they are in the memory of the node.

    Attributes:
        shard: number of the shard.
        images: positions in the shard.
        base: where the first of them begins in the payload of the shard.
        at: where it begins in memory.
        bytes: of all of them, with the zeros between.
    """

    shard: int
    images: range
    base: int
    at: int
    bytes: int


def pieces_of(manifest: Manifest, records: np.ndarray, part: range) -> list[Piece]:
    """Return the pieces of shards that make up a range of images, packed one after the other.

    Args:
        manifest: of the pack.
        records: structured array `RECORD` [count], of the whole pack.
        part: the images.

    Raises:
        DataError: the images of a shard that is cut do not follow each other as the format says.
    """
    found: list[Piece] = []
    first = at = 0
    for number, entry in enumerate(manifest.shards):
        start, stop = max(part.start, first), min(part.stop, first + entry.count)
        if start < stop:
            whole = stop - start == entry.count
            base, size = (0, entry.payload_bytes) if whole else _extent(manifest, number, records[start:stop])
            found.append(Piece(number, range(start - first, stop - first), base, at, size))
            at += aligned(size)
        first += entry.count
    return found


def _extent(manifest: Manifest, shard: int, records: np.ndarray) -> tuple[int, int]:
    """Return where some images of a shard begin in its payload, and their bytes."""
    ends = records["offset"].astype(np.int64) + padded_lengths(records["length"])
    if not np.array_equal(records["offset"][1:].astype(np.int64), ends[:-1]):
        raise DataError(
            manifest.shards[shard].file, "its images do not follow each other", "pack the data set again"
        )
    base = int(records["offset"][0])
    return base, int(ends[-1]) - base


def load_pieces(
    path: Path, manifest: Manifest, placed: Sequence[tuple[Piece, memoryview]], handle: int, threads: int
) -> None:
    """Read pieces into their places, several at once, and check them.

    Args:
        path: folder of the pack.
        manifest: of the pack.
        placed: what to read, and memory of exactly its bytes.
        handle: file descriptor of the memory in which the pieces lie at ``piece.at``; -1: it is no file.
        threads: how many pieces at once.

    Raises:
        DataError: a shard cannot be read or is damaged; that of the first such piece.
    """
    in_threads(
        [partial(load_piece, path, manifest, piece, memory, handle) for piece, memory in placed], threads
    )


def in_threads(jobs: Sequence[Callable[[], None]], threads: int) -> None:
    """Run jobs, ``threads`` at once; after an error none begins any more, and the first one is raised."""
    with ThreadPoolExecutor(threads, thread_name_prefix="distrain-load") as pool:
        loads = [pool.submit(job) for job in jobs]
        wait(loads, return_when=FIRST_EXCEPTION)
        pool.shutdown(cancel_futures=True)  # after an error; those that run end
    for load in loads:
        if not load.cancelled():
            load.result()


def load_piece(path: Path, manifest: Manifest, piece: Piece, memory: memoryview, handle: int = -1) -> None:
    """Read a piece of a shard into its place, front to back, and check it.

    Args:
        path: folder of the pack.
        manifest: of the pack.
        piece: what to read.
        memory: of exactly ``piece.bytes``.
        handle: see `load_pieces`.

    Raises:
        DataError: the shard cannot be read or is damaged.
    """
    head = read_head(path, manifest, piece.shard)
    entry = manifest.shards[piece.shard]
    file_path = path / entry.file
    is_whole = len(piece.images) == entry.count
    offset = head.payload_offset + piece.base
    crc = copy_in(file_path, offset, Target(memory, handle, piece.at), check=is_whole)
    if is_whole:
        check_payload(file_path, entry, crc, head.records, memory)
    else:
        chosen = head.records[piece.images.start : piece.images.stop]
        check_images(file_path, chosen, memory, piece.images.start, piece.base)


def read_image(path: Path, manifest: Manifest, shard: int, record: np.ndarray) -> memoryview:
    """Return the bytes of one image of another node from its shard on the disk; they are not checked.

    Args:
        path: folder of the pack.
        manifest: of the pack.
        shard: number of the shard.
        record: of the image.

    Raises:
        DataError: the shard cannot be read.
    """
    entry = manifest.shards[shard]
    try:
        with (path / entry.file).open("rb", buffering=0) as file:
            file.seek(entry.bytes - entry.payload_bytes + int(record["offset"]))
            return memoryview(file.read(int(record["length"])))
    except OSError as error:
        raise DataError(
            str(path / entry.file),
            "an image in it must replace one that does not decode; this node does not hold it in memory, and "
            f"the file cannot be read: {error.strerror}",
            "keep the pack readable on all nodes during the run",
        ) from None
