"""`distrain pack`: from a source to a pack, by a pool of processes, resumable and all or nothing.

The pack grows in the folder ``OUT.partial``, shard by shard. When the last shard is there the
manifest is written and the folder is renamed to ``OUT``: what is called ``OUT`` is whole. A run
that was killed goes on from its finished shards when the same command is given again; the cut into
shards depends on the source alone, not on the number of workers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from distrain.data.decode.engines import native_or_reason
from distrain.data.disk import new_folder, write_file
from distrain.data.format import MANIFEST, Duplicate, Manifest, Skipped, shard_name
from distrain.data.ingest.convert import ENCODINGS, PackOptions
from distrain.data.ingest.dedup import Found, Rule, find_once, without
from distrain.data.ingest.listing import Listing, SourceImage, printable
from distrain.data.ingest.pack_lock import OWNER, locked
from distrain.data.ingest.pool import run_jobs
from distrain.data.ingest.shard_writer import ShardJob, ShardNote, note_name, write_shard
from distrain.data.ingest.sources import check_classes, list_source
from distrain.errors import DataError, UsageError
from distrain.files import TEMPORARY, sync_folder

log = logging.getLogger("distrain.data")

_PLAN = "plan.json"
_DUPLICATES = "duplicates.json"
_SHARD_BYTES_MOST = 256 << 20  # long enough for parallel file systems, short enough to redo
_SHARD_BYTES_LEAST = 1 << 20
_SHARDS_WANTED = 64  # small sets: enough shards for all workers and all ranks of a node

Progress = Callable[[int, int], None]


def _silent(done: int, total: int) -> None:
    """Show no progress."""


def pack(
    source: str,
    out: str | Path,
    options: PackOptions | None = None,
    *,
    workers: int = 1,
    progress: Progress | None = None,
    hashed: Progress | None = None,
    tell: Callable[[Found], None] | None = None,
    force_classes: bool = False,
) -> Manifest:
    """Pack a source into the new folder ``out`` and return its manifest.

    Args:
        source: ``KIND:PLACE``, see `distrain.data.ingest.sources`.
        out: the folder, or a link to where it is to be; it must not exist yet, or be empty.
        options: sizes and encoding.
        workers: number of processes.
        progress: called with (images done, images in all) as shards end.
        hashed: the same while images are compared, with ``options.dedup``.
        tell: is shown what that found, before anything is left out.
        force_classes: take folders named train and val, with folders below, for classes.

    Raises:
        UsageError: ``out`` exists, options make no sense, or the classes look like parts of a set.
        DataError: the source is missing or empty, no image is usable, the disk is full, an unfinished
            pack of something else is in the way, or another process packs into it.
    """
    options = options or PackOptions()
    _check_options(options, workers)
    out = new_folder(out)
    listing = list_source(source)
    if not force_classes:
        check_classes(source, listing)
    pack_id = _pack_id(source, listing, options)
    partial = out.with_name(out.name + ".partial")
    with locked(partial):
        new_folder(out)  # another run may have made it while this one listed the source
        _begin_or_resume(partial, pack_id)
        found = None
        if options.dedup:
            rule = Rule.parse(options.dedup)
            found = find_once(partial / _DUPLICATES, listing, rule, options, workers, hashed or _silent)
            if tell is not None:
                tell(found)
        kept = listing if found is None else without(listing, found)
        jobs = _jobs(partial, pack_id, kept, options)
        notes = _run(jobs, workers, progress or _silent)
        _check_usable(source, partial, notes)
        manifest = _manifest(source, out.name, pack_id, listing, options, notes, found)
        _finish(partial, out, manifest, jobs)
    return manifest


def _check_options(options: PackOptions, workers: int) -> None:
    if not 1 <= options.quality <= 100:
        raise UsageError("--quality", f"{options.quality} is not from 1 to 100", "give e.g. 90")
    if options.short_side < 0:
        raise UsageError(
            "--short-side", f"{options.short_side} is negative", "give pixels, or 0 for no resize"
        )
    if options.encoding not in ENCODINGS:
        known = ", ".join(ENCODINGS)
        raise UsageError("--encoding", f"{options.encoding!r} is no encoding", f"use one of {known}")
    if options.index:
        _check_index(options)
    if options.dedup:
        Rule.parse(options.dedup)
    if workers < 1:
        raise UsageError("--workers", f"{workers} is not positive", "give 1 or more")


def _check_index(options: PackOptions) -> None:
    if options.encoding != "jpeg":
        raise UsageError("--index", f"images of encoding {options.encoding} have none", "leave it out")
    reason = native_or_reason()
    if isinstance(reason, str):
        raise UsageError("--index", f"it is made by the native decoder: {reason}", "leave it out")


def _pack_id(source: str, listing: Listing, options: PackOptions) -> str:
    """Return a name for exactly this source, as listed now, packed with exactly these options."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([source, listing.classes, asdict(options)]).encode())
    for image in listing.images:
        digest.update(f"{image.name}\0{image.label}\0{image.bytes}\0{image.mtime_ns}\n".encode())
    return digest.hexdigest()


def _jobs(folder: Path, pack_id: str, listing: Listing, options: PackOptions) -> list[ShardJob]:
    """Cut the listing into shards of about equal source bytes."""
    total = sum(image.bytes for image in listing.images)
    target = min(max(total // _SHARDS_WANTED, _SHARD_BYTES_LEAST), _SHARD_BYTES_MOST)
    cuts: list[list[SourceImage]] = [[]]
    size = 0
    for image in listing.images:
        if size >= target:
            cuts.append([])
            size = 0
        cuts[-1].append(image)
        size += image.bytes
    return [ShardJob(str(folder), i, pack_id, tuple(cut), options) for i, cut in enumerate(cuts)]


def _begin_or_resume(partial: Path, pack_id: str) -> None:
    for leftover in partial.glob(f".*{TEMPORARY}"):  # of a run that was killed while it wrote them
        leftover.unlink()
    plan = partial / _PLAN
    if plan.exists():
        if json.loads(plan.read_bytes())["pack_id"] != pack_id:
            raise DataError(
                str(partial),
                "an unfinished pack of another source, of other options or of a changed source is here",
                "remove this folder to begin anew",
            )
    elif any(path.name != OWNER for path in partial.iterdir()):
        raise DataError(str(partial), "it holds files that are no unfinished pack", "remove this folder")
    else:
        write_file(plan, json.dumps({"pack_id": pack_id}).encode())


def _run(jobs: list[ShardJob], workers: int, progress: Progress) -> list[ShardNote]:
    """Return the notes of all shards in order, packing those that have none yet."""
    notes: dict[str, ShardNote] = {}
    sizes = {shard_name(job.number): len(job.images) for job in jobs}
    for job in jobs:
        note = Path(job.folder) / note_name(job.number)
        if note.exists():
            notes[shard_name(job.number)] = ShardNote.model_validate_json(note.read_bytes())
    done = sum(sizes[name] for name in notes)
    total = sum(sizes.values())
    if notes:
        log.info("%d of %d shards are there already; going on with the rest", len(notes), len(jobs))
    progress(done, total)
    for result in run_jobs(
        write_shard, [job for job in jobs if shard_name(job.number) not in notes], workers
    ):
        notes[result.entry.file] = result
        done += sizes[result.entry.file]
        progress(done, total)
    return [notes[name] for name in sorted(notes)]


def _check_usable(source: str, partial: Path, notes: list[ShardNote]) -> None:
    if not any(note.entry.count for note in notes):
        shutil.rmtree(partial)  # nothing in it is worth resuming
        first = notes[0].skipped[0]
        raise DataError(
            source,
            f"none of its {sum(len(note.skipped) for note in notes)} files is a usable image "
            f"(the first, {first.source}: {first.reason})",
            "check the source",
        )


def _manifest(
    source: str,
    name: str,
    pack_id: str,
    listing: Listing,
    options: PackOptions,
    notes: list[ShardNote],
    found: Found | None,
) -> Manifest:
    counts: Counter[int] = Counter()
    converted: Counter[str] = Counter()
    for note in notes:
        counts.update(note.class_counts)
        converted.update(note.converted)
    count = sum(note.entry.count for note in notes)
    return Manifest(
        pack_id=pack_id,
        name=printable(name),
        source=printable(source),
        encoding="jpeg-indexed" if options.index else options.encoding,
        options={
            "short_side": options.short_side,
            "quality": options.quality,
            **({"dedup": options.dedup} if options.dedup else {}),
        },
        classes=listing.classes,
        class_counts=tuple(counts[label] for label in range(len(listing.classes))),
        count=count,
        mean_width=sum(note.width_sum for note in notes) / count,
        mean_height=sum(note.height_sum for note in notes) / count,
        shards=tuple(note.entry for note in notes),
        converted=dict(sorted(converted.items())),
        skipped=(
            *(Skipped(source=name, reason=reason) for name, reason in listing.left_out),
            *(skip for note in notes for skip in note.skipped),
        ),
        duplicates=tuple(
            Duplicate(source=listing.images[i].name, keeper=listing.images[k].name, distance=bits)
            for i, k, bits in (found.duplicates if found else ())
        ),
        duplicates_at=found.curve if found else (),
    )


def _finish(partial: Path, out: Path, manifest: Manifest, jobs: list[ShardJob]) -> None:
    """Write the manifest, give the folder its name and take the scaffolding away."""
    write_file(partial / MANIFEST, (manifest.model_dump_json(indent=1) + "\n").encode())
    try:
        partial.replace(out)
        sync_folder(out.parent)
    except OSError as error:
        raise DataError(
            str(out), f"the pack cannot be finished: {error.strerror}", "make room and run again"
        ) from None
    # From here on the pack is whole: a kill leaves at most these small files in it, which nobody reads.
    for job in jobs:
        (out / note_name(job.number)).unlink()
    (out / _DUPLICATES).unlink(missing_ok=True)
    (out / _PLAN).unlink()
