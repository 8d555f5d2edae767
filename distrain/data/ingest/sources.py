"""The kinds of sources: where images come from.

A further kind is a function that lists it, named in `SOURCES`, and, if its images are not files
of their own, a `Reader` (`distrain.data.ingest.readers`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from distrain.data.ingest.listing import Listing
from distrain.data.ingest.source_folder import list_folder
from distrain.data.ingest.source_list import list_file
from distrain.errors import UsageError, nearest

_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}


def list_source(source: str) -> Listing:
    """List a source that is written ``KIND:PLACE``; the kinds are those of `SOURCES`.

    Raises:
        UsageError: there is no such kind, or no place.
        DataError: it is missing or empty, or a class has no file at all.
    """
    kind, colon, place = source.partition(":")
    if not colon or kind not in SOURCES or not place:
        raise UsageError(
            "SOURCE",
            f"{source!r} is no source{nearest(kind, SOURCES) if colon else ''}",
            "write imagefolder:PATH, list:FILE, webdataset:PATTERN or parquet:PATTERN",
        )
    return SOURCES[kind](place)


def check_classes(source: str, listing: Listing) -> None:
    """Refuse an image folder whose "classes" are the parts of a data set, train and val, with classes below.

    Raises:
        UsageError: it is one; says what to type.
    """
    kind, _, place = source.partition(":")
    names = {name.lower() for name in listing.classes}
    if kind != "imagefolder" or len(names) < 2 or not names <= _PARTS:
        return
    if all(image.name.count("/") > 1 for image in listing.images):
        parts = [f"imagefolder:{Path(place, name)}" for name in listing.classes]
        raise UsageError(
            place,
            f"its folders {' and '.join(listing.classes)} look like parts of a data set, not like classes",
            f"pack each into a folder of its own, from {' and '.join(parts)}; or add --force-classes",
        )


def _webdataset(place: str) -> Listing:
    from distrain.data.ingest.source_tar import list_tars

    return list_tars(place)


def _parquet(place: str) -> Listing:
    from distrain.data.ingest.source_parquet import list_parquet

    return list_parquet(place)


SOURCES: dict[str, Callable[[str], Listing]] = {
    "imagefolder": list_folder,
    "list": list_file,
    "webdataset": _webdataset,
    "parquet": _parquet,
}
