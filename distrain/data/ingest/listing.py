"""What a source is made of: files with labels, in an order that never varies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

IMAGE_EXTENSIONS = frozenset(("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"))


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


def is_image_name(name: str) -> bool:
    """Tell whether a file's name ends as that of an image."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and "." in name
