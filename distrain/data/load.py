"""Reading shards into their places in memory: large, sequential, checked on the way."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np

from distrain.data.format import RECORD, Manifest, aligned
from distrain.data.shard import check_payload, read_head
from distrain.errors import DataError

_READ_BYTES = 16 << 20  # of one read: large for parallel file systems, and the checksum runs on warm cache


def layout(manifest: Manifest, view: memoryview) -> list[memoryview]:
    """Cut the memory: all records first, then the payloads of the shards, each aligned."""
    at = aligned(manifest.count * RECORD.itemsize)
    payloads: list[memoryview] = []
    for shard in manifest.shards:
        payloads.append(view[at : at + shard.payload_bytes])
        at += aligned(shard.payload_bytes)
    return payloads


def load_shard(path: Path, manifest: Manifest, number: int, payload: memoryview) -> np.ndarray:
    """Read one shard into its place in memory, front to back, and return its records.

    Raises:
        DataError: the shard cannot be read or is damaged.
    """
    head = read_head(path, manifest, number)
    entry = manifest.shards[number]
    file_path = path / entry.file
    crc = at = 0
    try:
        with file_path.open("rb", buffering=0) as file:
            file.seek(head.payload_offset)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while at < len(payload):
                got = file.readinto(payload[at : at + _READ_BYTES])
                if not got:
                    raise DataError(
                        str(file_path), f"it ends {len(payload) - at} bytes early", "copy it again"
                    )
                crc = zlib.crc32(payload[at : at + got], crc)
                at += got
    except OSError as error:
        raise DataError(str(file_path), f"it cannot be read: {error.strerror}", "copy it again") from None
    check_payload(file_path, entry, crc, head.records, payload)
    return head.records
