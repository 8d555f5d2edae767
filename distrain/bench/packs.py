"""Packs whose images are noise: for what moves bytes or counts images and decodes none."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from distrain.data.format import (
    HEADER,
    MANIFEST,
    RECORD,
    Manifest,
    ShardEntry,
    aligned,
    build_head,
    shard_name,
)

_PACK_ID = "00" * 16


def write_noise(folder: Path, count: int, image_bytes: int, per_shard: int, seed: int = 1) -> Manifest:
    """Write a pack of images that are random bytes, all of one size.

    Args:
        folder: of the pack; it is made.
        count: images in all.
        image_bytes: of each image, a multiple of 64.
        per_shard: images of a shard; the last one may have fewer.
        seed: of the bytes. A shard repeats its first image where images are smaller than 4 KiB: they are for
            counting, and a checksum an image would take longer than everything else.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    shards = [
        _write_shard(folder, number, min(per_shard, count - first), image_bytes, rng)
        for number, first in enumerate(range(0, count, per_shard))
    ]
    manifest = Manifest(
        pack_id=_PACK_ID,
        name=folder.name,
        source="noise",
        encoding="jpeg",
        options={},
        classes=("noise",),
        class_counts=(count,),
        count=count,
        mean_width=1.0,
        mean_height=1.0,
        shards=tuple(shards),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())
    return manifest


def _write_shard(
    folder: Path, number: int, count: int, image_bytes: int, rng: np.random.Generator
) -> ShardEntry:
    if image_bytes < 4096:
        payload = rng.bytes(image_bytes) * count
        crcs = [zlib.crc32(payload[:image_bytes])] * count
    else:
        payload = rng.bytes(image_bytes * count)
        crcs = [zlib.crc32(payload[at : at + image_bytes]) for at in range(0, len(payload), image_bytes)]
    records = np.zeros(count, RECORD)
    records["offset"] = np.arange(count) * image_bytes
    records["length"] = image_bytes
    records["width"] = records["height"] = 1
    records["crc32"] = crcs
    reserve = aligned(HEADER.itemsize + records.nbytes)
    head = build_head(number, _PACK_ID, records, len(payload), reserve)
    path = folder / shard_name(number)
    path.write_bytes(head + payload)
    return ShardEntry(
        file=path.name,
        count=count,
        bytes=len(head) + len(payload),
        payload_bytes=len(payload),
        head_crc32=int(np.frombuffer(head, HEADER, count=1)["head_crc32"][0]),
        payload_crc32=zlib.crc32(payload),
    )
