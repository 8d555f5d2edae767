"""Where images come from: a listing of files with labels, in an order that never varies.

A further kind of source is a function that lists it, named in `SOURCES`, and, if its images are not files
of their own, a `Reader` (`distrain.data.ingest.readers`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from distrain.errors import DataError, UsageError, nearest

IMAGE_EXTENSIONS = frozenset(("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"))
_PARTS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One file, or one entry of a file, that may become an image of the pack.

    Attributes:
        path: of the file, absolute.
        name: of the image below the root of the source, for messages.
        label: position of its class in the list of classes.
        bytes: size of the image when it was listed; from parquet about.
        mtime_ns: when the file was last changed, to notice that a source changed between two runs.
        reader: how to read it: ``file``, ``tar`` or ``parquet``.
        place: where in the file: the byte at which it begins (tar), its row (parquet).
    """

    path: str
    name: str
    label: int
    bytes: int
    mtime_ns: int
    reader: str = "file"
    place: int = 0


@dataclass(frozen=True)
class Listing:
    """All files of a source.

    Attributes:
        classes: names of the classes, in the order of their labels.
        images: the files, in the order in which they are packed.
        left_out: what is not among them though it looks as if it should be: name, reason.
    """

    classes: tuple[str, ...]
    images: tuple[SourceImage, ...]
    left_out: tuple[tuple[str, str], ...] = ()


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


def sorted_classes(names: set[str]) -> tuple[str, ...]:
    """Return class names in the order of their labels: as numbers if all of them are, else as text."""
    numeric = all(name.isdecimal() for name in names)  # classes 0 ... 10 keep the order of numbers
    return tuple(sorted(names, key=lambda name: (int(name) if numeric else 0, name)))


def printable(name: str) -> str:
    """Return a name as text that can be written anywhere: bytes that are not UTF-8 as ``\\udcNN``."""
    return name.encode("utf-8", "backslashreplace").decode()


def stat_image(path: Path, name: str, label: int) -> SourceImage:
    """Return a file as an image of a listing, with its size and age."""
    name = printable(name)
    try:
        status = path.stat()
    except OSError:  # a broken link, or gone: the worker that packs it reports why it is skipped
        return SourceImage(str(path.absolute()), name, label, 0, 0)
    return SourceImage(str(path.absolute()), name, label, status.st_size, status.st_mtime_ns)


def _list_file(place: str) -> Listing:
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


def is_image_name(name: str) -> bool:
    """Tell whether a file's name ends as that of an image."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and "." in name


def _imagefolder(place: str) -> Listing:
    from distrain.data.ingest.source_folder import list_folder

    return list_folder(place)


def _webdataset(place: str) -> Listing:
    from distrain.data.ingest.source_tar import list_tars

    return list_tars(place)


def _parquet(place: str) -> Listing:
    from distrain.data.ingest.source_parquet import list_parquet

    return list_parquet(place)


SOURCES: dict[str, Callable[[str], Listing]] = {
    "imagefolder": _imagefolder,
    "list": _list_file,
    "webdataset": _webdataset,
    "parquet": _parquet,
}
