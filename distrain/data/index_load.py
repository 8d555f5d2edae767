"""JPEGs that were packed without an index get theirs while they are loaded: `data.index: load`.

A shard is read into memory of this process and checked; then its images are written one after the other,
indexed, into the memory of the node, and their records follow. How long an indexed image is shows only
then, so that room is set aside for the longest that it can be. What stays free of it is never touched, and
the system never gives it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from distrain.data.checksum.crc import crc32
from distrain.data.decode.engines import native_or_reason
from distrain.data.decode.indexed import index
from distrain.data.format import Manifest, aligned, padded_lengths
from distrain.data.load import Piece, in_threads, load_piece
from distrain.errors import DataError

log = logging.getLogger("distrain.data")

_AROUND = 32  # bytes before and behind the JPEG's own (decode/csrc/blob.c)


def can_index(path: Path, manifest: Manifest) -> bool:
    """Return whether the images of a pack get an index here; say why not where that is a surprise."""
    if manifest.encoding != "jpeg":
        return False
    reason = native_or_reason()
    if isinstance(reason, str):
        log.warning("%s: data.index=load has no effect, the native decoder makes the index: %s", path, reason)
        return False
    return True


def indexed_room(records: np.ndarray) -> np.ndarray:
    """Return the most bytes that images take with an index and the zeros after them: int64 [N].

    8 bytes for 4 MCUs and 2 a row of MCUs; an MCU has at least 8 x 8 pixels.
    """
    columns = -(-records["width"].astype(np.int64) // 8)
    rows = -(-records["height"].astype(np.int64) // 8)
    return padded_lengths(records["length"].astype(np.int64) + _AROUND + rows * (2 + 8 * -(-columns // 4)))


def widened(pieces: Sequence[Piece], manifest: Manifest, records: np.ndarray) -> list[Piece]:
    """Return pieces, all of whole shards, with room for indexed images, one after the other in memory."""
    room = indexed_room(records)
    firsts = np.cumsum([0] + [shard.count for shard in manifest.shards])
    found: list[Piece] = []
    at = 0
    for piece in pieces:
        size = int(room[firsts[piece.shard] : firsts[piece.shard + 1]].sum())
        found.append(replace(piece, at=at, bytes=size))
        at += aligned(size)
    return found


def scratch_bytes(manifest: Manifest, shards_at_once: int) -> int:
    """Return the memory that the ranks of a node need besides while they load, together."""
    return sum(sorted(shard.payload_bytes for shard in manifest.shards)[-shards_at_once:])


def load_indexed(
    path: Path,
    manifest: Manifest,
    placed: Sequence[tuple[Piece, memoryview]],
    records: np.ndarray,
    threads: int,
) -> None:
    """Read whole shards, several at once, check them, and place their images with an index.

    Args:
        path: folder of the pack.
        manifest: of the pack.
        placed: pieces from `widened`, and memory of exactly their bytes, all zero.
        records: structured array `RECORD` [count] of the whole pack; those of these pieces are changed.
        threads: how many pieces at once.

    Raises:
        DataError: a shard cannot be read or is damaged.
    """
    firsts = np.cumsum([0] + [shard.count for shard in manifest.shards])
    in_threads(
        [
            partial(
                _load_shard, path, manifest, piece, memory,
                records[firsts[piece.shard] : firsts[piece.shard + 1]],
            )
            for piece, memory in placed
        ],
        threads,
    )  # fmt: skip


def _load_shard(
    path: Path, manifest: Manifest, piece: Piece, memory: memoryview, records: np.ndarray
) -> None:
    payload = memoryview(bytearray(manifest.shards[piece.shard].payload_bytes))
    load_piece(path, manifest, replace(piece, at=0, bytes=len(payload)), payload)
    room = indexed_room(records).tolist()
    at = 0
    for number, most in enumerate(room):
        start, size = int(records["offset"][number]), int(records["length"][number])
        blob = _indexed(payload[start : start + size], most)
        memory[at : at + len(blob)] = blob
        records["offset"][number], records["length"][number] = at, len(blob)
        records["crc32"][number] = crc32(blob)
        at += aligned(len(blob))


def _indexed(jpeg: memoryview, room: int) -> bytes | memoryview:
    """Return the indexed form of a JPEG, or its own bytes where it has none or is damaged.

    Whoever decodes a damaged one says so, by the rule of `data.on_bad_image`.
    """
    try:
        blob = index(jpeg)
    except DataError:
        return jpeg
    # Longer than its record promises only if the record names another size than the JPEG itself.
    return jpeg if blob is None or len(blob) > room else blob
