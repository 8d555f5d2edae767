"""The pack on disk: what the bytes mean, and how damage is told from data.

A pack is a folder: ``manifest.json`` and ``shard-00000.bin``, ``shard-00001.bin``, ... A shard is a
header (`HEADER`), a table with one `RECORD` an image, and from ``payload_offset`` on the images'
bytes, each aligned to `ALIGNMENT`. All numbers are little-endian. ``docs/data_format.md`` has the
details. This file needs neither torch nor MPI, so a login node can read manifests.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from distrain.errors import DataError

MAGIC = b"DISTRAIN"
VERSION = 1
ALIGNMENT = 64  # a cache line: decoders may use aligned vector loads
MANIFEST = "manifest.json"

HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("shard", "<u4"),  # number of this shard in its pack
        ("pack_id", "V16"),
        ("count", "<u8"),  # images
        ("payload_offset", "<u8"),  # of the first image, from the start of the file
        ("payload_bytes", "<u8"),
        ("head_crc32", "<u4"),  # of this header with head_crc32 = 0, then the table
        ("reserved", "<u4"),
    ]
)
RECORD = np.dtype(
    [
        ("offset", "<u8"),  # of the image's bytes, from the start of the payload
        ("length", "<u4"),  # bytes
        ("label", "<i4"),
        ("width", "<u4"),  # pixels
        ("height", "<u4"),
        ("crc32", "<u4"),  # of the image's bytes
        ("flags", "<u4"),  # 0 in this version
    ]
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardEntry(_Model):
    """What the manifest says of one shard."""

    file: str
    count: int
    bytes: int
    payload_bytes: int
    head_crc32: int
    payload_crc32: int


class Skipped(_Model):
    """A source file that is not in the pack, and why."""

    source: str
    reason: str


class Duplicate(_Model):
    """A source file that is not in the pack because it looks like another one, which is."""

    source: str
    keeper: str
    distance: int


class Manifest(_Model):
    """What a pack holds.

    Attributes:
        count: images in all.
        classes: names of the classes; the label of an image is a position in this list.
        class_counts: images of each class.
        encoding: ``jpeg``, ``jpeg-indexed``, ``yuv420`` or ``raw``.
        options: what the pack was made with.
        converted: how many images were re-encoded, by reason.
        skipped: source files that were left out.
        duplicates: source files that were left out since they look like others.
        duplicates_at: how many files each distance (bits of the hash) would have left out.
    """

    format: str = "distrain-pack"
    version: int = VERSION
    pack_id: str
    name: str
    source: str
    encoding: str
    options: dict[str, int | str]
    classes: tuple[str, ...]
    class_counts: tuple[int, ...]
    count: int
    mean_width: float
    mean_height: float
    shards: tuple[ShardEntry, ...]
    converted: dict[str, int] = {}
    skipped: tuple[Skipped, ...] = ()
    duplicates: tuple[Duplicate, ...] = ()
    duplicates_at: tuple[int, ...] = ()

    @property
    def bytes_in_memory(self) -> int:
        """Bytes that the store of one node takes: all records and all payloads."""
        return aligned(self.count * RECORD.itemsize) + sum(aligned(s.payload_bytes) for s in self.shards)

    def bytes_of_part(self, parts: int) -> int:
        """Bytes that the store of one of ``parts`` nodes takes, about: all records, its payloads."""
        payloads = sum(shard.payload_bytes for shard in self.shards)
        return aligned(self.count * RECORD.itemsize) + -(-payloads // parts)

    @property
    def bytes_on_disk(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)


@dataclass(frozen=True)
class ShardHead:
    """Header and table of a shard.

    Attributes:
        payload_offset: where the images' bytes begin in the file.
        records: structured array `RECORD` [count].
    """

    payload_offset: int
    records: np.ndarray


def aligned(offset: int) -> int:
    """Return the next multiple of `ALIGNMENT` that is not below ``offset``."""
    return -(-offset // ALIGNMENT) * ALIGNMENT


def padded_lengths(lengths: np.ndarray) -> np.ndarray:
    """Return the bytes that images take in a payload, with the zeros after them: int64 [N]."""
    return -(-lengths.astype(np.int64) // ALIGNMENT) * ALIGNMENT


def shard_name(number: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{number:05d}.bin"


def build_head(number: int, pack_id: str, records: np.ndarray, payload_bytes: int, reserve: int) -> bytes:
    """Return header and table as bytes, padded to ``reserve``, the payload's offset in the file."""
    header = np.zeros((), HEADER)
    header["magic"] = MAGIC
    header["version"] = VERSION
    header["shard"] = number
    header["pack_id"] = np.void(bytes.fromhex(pack_id))
    header["count"] = len(records)
    header["payload_offset"] = reserve
    header["payload_bytes"] = payload_bytes
    header["head_crc32"] = zlib.crc32(header.tobytes() + records.tobytes())
    return (header.tobytes() + records.tobytes()).ljust(reserve, b"\0")


def read_manifest(path: str | Path) -> Manifest:
    """Read and check the manifest of the pack in folder ``path``.

    Raises:
        DataError: there is no pack, it has another format version, or its numbers contradict
            each other.
    """
    file = Path(path) / MANIFEST
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            str(path), "there is no pack here (no manifest.json)", "make one with `distrain pack SOURCE OUT`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            str(file), f"it cannot be read: {error}", "check the file and its permissions"
        ) from None
    try:
        versioned = _Version.model_validate_json(text)
        if versioned.format != "distrain-pack":
            raise DataError(str(file), f"format={versioned.format!r} is no pack", "give the folder of a pack")
        if versioned.version != VERSION:
            raise DataError(
                str(file),
                f"version={versioned.version} of the format is not {VERSION}, the one that is read here",
                "pack the data set again with this distrain",
            )
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(str(file), f"{key}: {first['msg']}", "pack the data set again") from None
    _check_totals(file, manifest)
    return manifest


class _Version(BaseModel):
    format: str
    version: int


def _check_totals(file: Path, manifest: Manifest) -> None:
    counts = {
        "count": manifest.count,
        "the sum of shards[].count": sum(shard.count for shard in manifest.shards),
        "the sum of class_counts": sum(manifest.class_counts),
    }
    if len(set(counts.values())) != 1 or len(manifest.classes) != len(manifest.class_counts):
        told = ", ".join(f"{name}={value}" for name, value in counts.items())
        raise DataError(
            str(file),
            f"{told}, {len(manifest.classes)} classes with {len(manifest.class_counts)} counts: "
            "these numbers contradict each other",
            "copy the whole pack again, or pack the data set again",
        )
