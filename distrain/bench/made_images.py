"""Images that nobody packed, in memory: what an image holds is a function of its number.

So every rank can make any part of a set without a disk, and tell for each byte that arrives whether it is
the right one.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

import numpy as np
from mpi4py import MPI

from distrain.data.format import RECORD, Manifest, ShardEntry, aligned, padded_lengths
from distrain.data.hashing import key, streams, uniforms
from distrain.data.load import Piece
from distrain.data.store import Store
from distrain.world import split

SHORTEST, LONGEST = 64 << 10, 128 << 10  # bytes; about those of a JPEG of 400 x 350 pixels
MEAN_BYTES = (SHORTEST + LONGEST) // 2
_SEED = 0x696D67


def lengths(count: int) -> np.ndarray:
    """Return the bytes of each image: uint32 [count], no two neighbours alike."""
    drawn = uniforms(streams(key(_SEED), np.arange(count)), 1)[:, 0]
    return (SHORTEST + drawn * (LONGEST - SHORTEST)).astype(np.uint32)


def content(image: int, length: int) -> np.ndarray:
    """Return the bytes of an image: uint8 [length], length up to `LONGEST`."""
    return (_noise() ^ key(_SEED, image)).view(np.uint8)[:length]


@cache
def _noise() -> np.ndarray:
    return streams(key(_SEED, 0), np.arange(LONGEST // 8))


def manifest(count: int) -> Manifest:
    """Return the description of a pack of one shard with so many images."""
    payload = int(padded_lengths(lengths(count)).sum())
    shard = ShardEntry(
        file="made", count=count, bytes=payload, payload_bytes=payload, head_crc32=0, payload_crc32=0
    )
    return Manifest(
        pack_id="00" * 16, name="made images", source="made", encoding="jpeg", options={}, classes=("one",),
        class_counts=(count,), count=count, mean_width=400, mean_height=350, shards=(shard,),
    )  # fmt: skip


def checksums(count: int, comm: MPI.Intracomm) -> np.ndarray:
    """Return the checksum of each image: uint32 [count]; each rank makes its share (collective)."""
    mine = split(count, comm.size)[comm.rank]
    sizes = lengths(count)[mine].tolist()
    crcs = [zlib.crc32(content(i, size).data) for i, size in zip(mine, sizes, strict=True)]
    return np.concatenate(comm.allgather(np.array(crcs, np.uint32)))


def records(count: int, crcs: np.ndarray) -> np.ndarray:
    """Return the table of a made set: `RECORD` [count].

    Args:
        count: images.
        crcs: uint32 [count], checksum of each.
    """
    table = np.zeros(count, RECORD)
    table["length"], table["crc32"] = lengths(count), crcs
    ends = np.cumsum(padded_lengths(table["length"]))
    table["offset"] = np.concatenate([[0], ends[:-1]])
    return table


def store(table: np.ndarray, part: range) -> Store:
    """Return a store with a part of the set in memory of this process.

    Args:
        table: of `records`.
        part: images that are here, at least one.
    """
    first, last = table[part.start], table[part.stop - 1]
    base = int(first["offset"])
    size = int(last["offset"]) + aligned(int(last["length"])) - base
    memory = np.zeros(size, np.uint8)
    for image, at, length in zip(
        part, (table["offset"][part] - base).tolist(), table["length"][part].tolist(), strict=True
    ):
        memory[at : at + length] = content(image, length)
    piece = Piece(0, part, base, 0, size)
    return Store(Path("made"), manifest(len(table)), table, [(piece, memory.data)], part)
