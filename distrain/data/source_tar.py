"""WebDataset shards: tar files in which the entries of a sample share a name and differ in extension.

``0001.jpg`` with ``0001.cls`` (a number or a name, as text) or ``0001.json`` (its key ``label``) is an
image with its class. The layout is that of the webdataset library; it is not needed to read it.
"""

from __future__ import annotations

import glob
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from distrain.data.sources import Listing, SourceImage, sorted_classes
from distrain.errors import DataError

_IMAGES = frozenset(("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"))
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def expand(pattern: str) -> list[Path]:
    """Return the files of a pattern, sorted: wildcards, or number ranges such as ``{000..146}``.

    Raises:
        DataError: no file matches, or one of a range is missing.
    """
    found = _RANGE.search(pattern)
    if found is None:
        paths = [Path(path) for path in sorted(glob.glob(pattern))]
    else:
        first, last = found[1], found[2]
        numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
        paths = [Path(pattern[: found.start()] + number + pattern[found.end() :]) for number in numbers]
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise DataError(str(missing[0]), "this file does not exist", f"check the range in {pattern!r}")
    if not paths:
        raise DataError(pattern, "no file has such a name", "check the pattern, and quote it for the shell")
    return paths


def list_tars(pattern: str) -> Listing:
    """List the samples of WebDataset shards, in the order in which they lie in the files.

    Raises:
        DataError: no file matches, one is no plain tar file, or a sample has an image and no class.
    """
    samples = [sample for path in expand(pattern) for sample in _samples(path)]
    if not samples:
        raise DataError(pattern, "there is no image in these files", "give shards with .jpg and .cls entries")
    classes = sorted_classes({name for _, name in samples})
    labels = {name: label for label, name in enumerate(classes)}
    images = (
        SourceImage(
            image.path, image.name, labels[name], image.bytes, image.mtime_ns, image.reader, image.place
        )
        for image, name in samples
    )
    return Listing(classes, tuple(images))


def _samples(path: Path) -> Iterator[tuple[SourceImage, str]]:
    """Yield the images of a shard, their labels still 0, with the names of their classes."""
    image: SourceImage | None = None
    key = name = None
    for entry, text in _entries(path):
        stem, _, extension = Path(entry.name).name.partition(".")
        this = str(Path(entry.name).parent / stem)
        if this != key:
            if image is not None:
                yield image, _named(path, image, name)
            key, image, name = this, None, None
        if extension.lower() in _IMAGES:
            mtime = path.stat().st_mtime_ns
            place = entry.offset_data
            image = SourceImage(
                str(path.absolute()), f"{path.name}/{entry.name}", 0, entry.size, mtime, "tar", place
            )
        elif text is not None:
            name = text
    if image is not None:
        yield image, _named(path, image, name)


def _named(path: Path, image: SourceImage, name: str | None) -> str:
    if name is None:
        raise DataError(
            str(path),
            f"{image.name} has no class beside it",
            "write an entry .cls, or .json with a key 'label', with each image, right before or after it",
        )
    return name


def _entries(path: Path) -> Iterator[tuple[tarfile.TarInfo, str | None]]:
    """Yield the files in a tar file, with the class that an entry says, if that is what it is for."""
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                if not entry.isfile():
                    continue
                extension = Path(entry.name).name.partition(".")[2].lower()
                text = None
                if extension in ("cls", "json"):
                    content = tar.extractfile(entry)
                    text = _class_in(extension, content.read()) if content is not None else None
                yield entry, text
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(
            str(path),
            f"it is no plain tar file: {error}",
            "unpack it if compressed, else copy it again",
        ) from None


def _class_in(extension: str, content: bytes) -> str | None:
    """Return the class in a .cls or .json entry, None if it says none."""
    text = content.decode("utf-8").strip()
    if extension == "json":
        told = json.loads(text)
        label = told.get("label") if isinstance(told, dict) else None
        return None if label is None else str(label)
    return text or None
