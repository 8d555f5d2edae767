"""A pack in a few lines: what it holds, what was converted, what is missing and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distrain.data.format import Manifest
from distrain.units import format_bytes

_SHOWN = 20  # skipped files that are listed one by one
_CLASSES_SHOWN = 12  # manifest.json and --json have the counts of all


def as_json(path: Path, manifest: Manifest) -> dict[str, Any]:
    """Return the figures of a pack as one flat JSON object, skipped files included."""
    return {
        "pack": str(path),
        "source": manifest.source,
        "version": manifest.version,
        "pack_id": manifest.pack_id,
        "encoding": manifest.encoding,
        **manifest.options,
        "images": manifest.count,
        "classes": len(manifest.classes),
        "class_counts": dict(zip(manifest.classes, manifest.class_counts, strict=True)),
        "mean_width": round(manifest.mean_width, 1),
        "mean_height": round(manifest.mean_height, 1),
        "shards": len(manifest.shards),
        "bytes_on_disk": manifest.bytes_on_disk,
        "bytes_in_memory": manifest.bytes_in_memory,
        "converted": manifest.converted,
        "skipped": [skip.model_dump() for skip in manifest.skipped],
        "duplicates": [duplicate.model_dump() for duplicate in manifest.duplicates],
    }


def print_table(path: Path, manifest: Manifest, console: Console) -> None:
    """Print the figures of a pack as a table, and what needs the user's attention below it."""
    counts = manifest.class_counts
    size = ", ".join(f"{key} {value}" for key, value in manifest.options.items())
    table = Table(title=f"pack {path}", show_header=False, title_justify="left")
    rows = {
        "source": manifest.source,
        "images": f"{manifest.count} in {len(manifest.classes)} classes, {min(counts)} to {max(counts)} each",
        "size": f"{manifest.mean_width:.0f} x {manifest.mean_height:.0f} pixels on average",
        "encoding": f"{manifest.encoding} ({size})",
        "on disk": f"{format_bytes(manifest.bytes_on_disk)} in {len(manifest.shards)} shards",
        "in memory": f"{format_bytes(manifest.bytes_in_memory)} ({manifest.bytes_in_memory} bytes) per node",
        "converted": ", ".join(f"{reason}: {count}" for reason, count in manifest.converted.items())
        or "none",
        "skipped": str(len(manifest.skipped)),
        "duplicates": f"{len(manifest.duplicates)} left out ({manifest.options['dedup']})"
        if "dedup" in manifest.options
        else "not looked for",
        "images of classes": _per_class(manifest),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    for line in warnings(manifest):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _per_class(manifest: Manifest) -> str:
    """Return the images of each class, or of the smallest and largest if they are many."""
    pairs = list(zip(manifest.classes, manifest.class_counts, strict=True))
    if len(pairs) > _CLASSES_SHOWN:
        by_count = sorted(pairs, key=lambda pair: pair[1])
        pairs = [*by_count[: _CLASSES_SHOWN // 2], ("...", 0), *by_count[-_CLASSES_SHOWN // 2 :]]
    return ", ".join(name if name == "..." else f"{name}: {count}" for name, count in pairs)


def warnings(manifest: Manifest) -> list[str]:
    """Return a line for each thing that the user should know: classes left empty, files skipped."""
    empty = [name for name, count in zip(manifest.classes, manifest.class_counts, strict=True) if not count]
    lines = [f"warning: no image of class {name!r} was usable" for name in empty]
    lines += [f"skipped {skip.source}: {skip.reason}" for skip in manifest.skipped[:_SHOWN]]
    if len(manifest.skipped) > _SHOWN:
        reasons = Counter(skip.reason.partition(":")[0] for skip in manifest.skipped)
        told = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
        lines.append(f"... {len(manifest.skipped)} skipped in all ({told}); manifest.json lists them")
    return lines
