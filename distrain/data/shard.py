"""Reading one shard: every way in which it can be wrong has its own sentence."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from distrain.data.checksum.crc import crc32, crc32_each
from distrain.data.format import HEADER, MAGIC, RECORD, VERSION, Manifest, ShardEntry, ShardHead
from distrain.errors import DataError

COPY_AGAIN = "copy the pack again from where it was made, or pack the data set again"


def read_head(folder: Path, manifest: Manifest, number: int) -> ShardHead:
    """Read and check header and table of shard ``number``; the payload is not touched.

    Raises:
        DataError: the shard is missing, cut short, damaged, of another format version, of another
            pack or in another place of this one, or has records that point outside.
    """
    entry = manifest.shards[number]
    path = folder / entry.file
    head_bytes = HEADER.itemsize + entry.count * RECORD.itemsize
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            raw = file.read(head_bytes)
    except OSError as error:
        raise DataError(str(path), f"the shard cannot be read: {error.strerror}", COPY_AGAIN) from None
    header = _header(path, raw, manifest, number)
    if size != entry.bytes:
        raise DataError(
            str(path), f"bytes={size} is not the {entry.bytes} of the manifest (cut short?)", COPY_AGAIN
        )
    blank = header.copy()
    blank["head_crc32"] = 0
    crc = crc32(memoryview(raw)[HEADER.itemsize :], crc32(blank.tobytes()))
    if not crc == int(header["head_crc32"]) == entry.head_crc32:
        raise DataError(str(path), f"checksum={crc:08x} of its table of images is wrong", COPY_AGAIN)
    records = np.frombuffer(raw, RECORD, offset=HEADER.itemsize)
    check_records(str(path), records, entry.payload_bytes, len(manifest.classes))
    return ShardHead(int(header["payload_offset"]), records)


def _header(path: Path, raw: bytes, manifest: Manifest, number: int) -> np.ndarray:
    """Return the header, a structured scalar array, once it belongs to this pack and place."""
    if len(raw) < HEADER.itemsize:
        raise DataError(str(path), f"bytes={len(raw)} is shorter than a header (cut short?)", COPY_AGAIN)
    header = np.frombuffer(raw, HEADER, count=1).reshape(())
    if bytes(header["magic"]) != MAGIC:
        raise DataError(str(path), f"magic={bytes(header['magic'])!r} is not that of a shard", COPY_AGAIN)
    if header["version"] != VERSION:
        raise DataError(
            str(path),
            f"version={header['version']} of the format is not {VERSION}, the one that is read here",
            "pack the data set again with this distrain",
        )
    owner = header["pack_id"].tobytes().hex()
    if owner != manifest.pack_id:
        raise DataError(
            str(path),
            f"pack_id={owner} is not the {manifest.pack_id} of the manifest: "
            "shards of two data sets are mixed up",
            COPY_AGAIN,
        )
    if header["shard"] != number:
        raise DataError(
            str(path),
            f"it is shard {header['shard']} of its pack, not {number}: was it renamed?",
            COPY_AGAIN,
        )
    return header


def check_records(where: str, records: np.ndarray, payload_bytes: int, classes: int) -> None:
    """Check that every image lies in the payload and has a label that is a class.

    Raises:
        DataError: naming the first image that does not.
    """
    ends = records["offset"] + records["length"]
    outside = np.flatnonzero((ends > payload_bytes) | (ends < records["offset"]) | (records["length"] == 0))
    if outside.size:
        raise DataError(
            where, f"image {outside[0]} of the shard lies outside its {payload_bytes} bytes", COPY_AGAIN
        )
    wrong = np.flatnonzero((records["label"] < 0) | (records["label"] >= classes))
    if wrong.size:
        label = int(records["label"][wrong[0]])
        raise DataError(
            where,
            f"image {wrong[0]} of the shard has label={label}, outside the {classes} classes of the manifest",
            "pack the data set again",
        )


def check_payload(path: Path, entry: ShardEntry, crc: int, records: np.ndarray, payload: memoryview) -> None:
    """Compare the checksum of a payload that was read; on a difference find the images concerned.

    Raises:
        DataError: naming shard and images.
    """
    if crc == entry.payload_crc32:
        return
    check_images(path, records, payload, 0, 0)
    raise DataError(
        str(path),
        f"checksum={crc:08x} of its images is not {entry.payload_crc32:08x}; "
        "images of the shard: none damaged, only the gaps between them",
        COPY_AGAIN,
    )


def check_images(path: Path, records: np.ndarray, memory: memoryview, first: int, base: int) -> None:
    """Compare the checksum of each of some images that follow each other in a shard.

    Args:
        path: of the shard.
        records: structured array `RECORD` [N], of these images.
        memory: their bytes.
        first: position of the first of them in the shard.
        base: where it begins in the payload.

    Raises:
        DataError: naming shard and images.
    """
    starts = records["offset"].astype(np.int64) - base
    packed = records["crc32"]
    found = crc32_each(memory, starts, records["length"].astype(np.int64))
    damaged = np.flatnonzero(found != packed).tolist()
    if damaged:
        places = ", ".join(str(first + place) for place in damaged[:5])
        raise DataError(
            str(path),
            f"checksum={found[damaged[0]]:08x} of an image is not {packed[damaged[0]]:08x}; images of the "
            f"shard: {len(damaged)} damaged, the first at position {places}"
            + (", ..." if len(damaged) > 5 else ""),
            COPY_AGAIN,
        )
