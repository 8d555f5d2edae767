"""Writing one shard: the job of one worker process, from source files to a finished file.

A shard appears under its name only when it is whole and on the disk; the note beside it
(``shard-00000.json``) is written last, so a note means that the shard needs no second try.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import BaseModel

from distrain.data.disk import disk_error, write_file
from distrain.data.format import (
    ALIGNMENT,
    HEADER,
    RECORD,
    ShardEntry,
    Skipped,
    aligned,
    build_head,
    shard_name,
)
from distrain.data.ingest.convert import Packed, PackOptions, Unusable, convert
from distrain.data.ingest.listing import SourceImage
from distrain.data.ingest.readers import Readers
from distrain.files import atomic_file


@dataclass(frozen=True)
class ShardJob:
    """What one worker packs into one shard.

    Attributes:
        folder: where the unfinished pack grows.
        number: of the shard.
        pack_id: 32 hexadecimal digits.
        images: the source files, in order.
    """

    folder: str
    number: int
    pack_id: str
    images: tuple[SourceImage, ...]
    options: PackOptions


class ShardNote(BaseModel):
    """What came out of a `ShardJob`; kept beside the shard until the pack is finished."""

    entry: ShardEntry
    class_counts: dict[int, int]
    converted: dict[str, int]
    skipped: list[Skipped]
    width_sum: int
    height_sum: int


def note_name(number: int) -> str:
    """Return the file name of the note of a shard."""
    return f"shard-{number:05d}.json"


def write_shard(job: ShardJob) -> ShardNote:
    """Pack the images of a job into ``shard-NNNNN.bin`` and return what came out.

    Raises:
        DataError: the disk is full, or the folder cannot be written.
    """
    path = Path(job.folder) / shard_name(job.number)
    try:
        with atomic_file(path) as file:
            note = _fill(file, job)
        write_file(path.with_name(note_name(job.number)), note.model_dump_json().encode())
    except OSError as error:
        again = "make room and run the same command again: finished shards are kept"
        raise disk_error(path, error, again) from None
    return note


def _fill(file: BinaryIO, job: ShardJob) -> ShardNote:
    """Write payload, then header and table in the room kept before it."""
    # Images that turn out to be unusable leave unused room after the table; it stays zero.
    payload_offset = aligned(HEADER.itemsize + len(job.images) * RECORD.itemsize)
    file.seek(payload_offset)
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    skipped: list[Skipped] = []
    converted: Counter[str] = Counter()
    offset = crc = 0
    for source, image in _usable(job, skipped):
        if image.converted:
            converted[image.converted] += 1
        data = image.data
        rows.append((offset, len(data), source.label, image.width, image.height, zlib.crc32(data), 0))
        padded = data + bytes(-len(data) % ALIGNMENT)
        file.write(padded)
        crc = zlib.crc32(padded, crc)
        offset += len(padded)
    records = np.array(rows, RECORD)
    head = build_head(job.number, job.pack_id, records, offset, payload_offset)
    file.seek(0)
    file.write(head)
    file.truncate(payload_offset + offset)  # a shard without images ends after its table
    entry = ShardEntry(
        file=shard_name(job.number),
        count=len(records),
        bytes=payload_offset + offset,
        payload_bytes=offset,
        head_crc32=int(np.frombuffer(head, HEADER, count=1)["head_crc32"][0]),
        payload_crc32=crc,
    )
    return ShardNote(
        entry=entry,
        class_counts=dict(Counter(records["label"].tolist())),
        converted=dict(converted),
        skipped=skipped,
        width_sum=int(records["width"].sum(dtype=np.int64)),
        height_sum=int(records["height"].sum(dtype=np.int64)),
    )


def _usable(job: ShardJob, skipped: list[Skipped]) -> Iterator[tuple[SourceImage, Packed]]:
    """Yield the images of a job that can be packed; note the others with their reasons."""
    with Readers() as readers:
        for source in job.images:
            try:
                yield source, convert(readers.read(source), job.options)
            except Unusable as error:
                skipped.append(Skipped(source=source.name, reason=str(error)))
