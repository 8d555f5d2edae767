"""A list file: lines of ``PATH<tab or blanks>CLASS``."""

from __future__ import annotations

from pathlib import Path

from distrain.data.ingest.listing import Listing, is_image_name, sorted_classes, stat_image
from distrain.errors import DataError


def list_file(place: str) -> Listing:
    """List lines of ``PATH<tab or blanks>CLASS``; relative paths start at the folder of the list."""
    file = Path(place)
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # some editors begin with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(str(file), f"the list cannot be read: {error}", "give a text file") from None
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        path, *rest = line.strip().rsplit("\t" if "\t" in line else None, 1)
        # Without a tab, "a b.jpg" is a path with a blank and no class, not a file "a" of a class "b.jpg".
        if not rest or ("\t" not in line and is_image_name(rest[0])):
            raise DataError(f"{file}:{number}", f"{line!r} has no class", "write PATH, a tab and the class")
        pairs.append((path.strip(), rest[0].strip()))
    if not pairs:
        raise DataError(str(file), "the list is empty", "write one line an image: PATH, a tab and the class")
    classes = sorted_classes({name for _, name in pairs})
    labels = {name: label for label, name in enumerate(classes)}
    base = file.parent
    return Listing(classes, tuple(stat_image(base / path, path, labels[name]) for path, name in pairs))
