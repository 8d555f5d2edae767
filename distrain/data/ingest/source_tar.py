"""WebDataset shards: tar files in which the entries of a sample share a name and differ in extension.

``0001.jpg`` with ``0001.cls`` (a number or a name, as text) or ``0001.json`` (its key ``label``) is an
image with its class. The layout is that of the webdataset library; it is not needed to read it. Its rule:
what stands before the first dot is the key of a sample, what stands after it the extension. Names with
more dots are taken where the class lies beside the image under the same name but for the last extension.
What looks like an image and is not taken is in `Listing.left_out`, with the reason.
"""

from __future__ import annotations

import glob
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distrain.data.ingest.listing import Listing, SourceImage, is_image_name, printable, sorted_classes
from distrain.errors import DataError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_BLOCK = 512  # bytes; two blocks of zeros end a tar file
_TAIL = 1 << 20  # bytes after its end in which another tar file would begin

_LeftOut = list[tuple[str, str]]


def expand(pattern: str) -> list[Path]:
    """Return the files of a pattern, sorted: wildcards, or number ranges such as ``{000..146}``.

    Raises:
        DataError: no file matches, one of a range is missing, or one is a folder, a pipe, a device.
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
    for path in paths:
        if not path.is_file():  # to open a pipe would wait for ever
            raise DataError(str(path), "it is not a plain file", "give a pattern that leaves it out")
    return paths


@dataclass
class _Sample:
    """Entries that follow each other and share a key.

    Attributes:
        images: names without their last extension, and images.
        classes: by name without the last extension: extension, name of the entry, bytes.
    """

    key: str = ""
    images: list[tuple[str, SourceImage]] = field(default_factory=list)
    classes: dict[str, list[tuple[str, str, bytes]]] = field(default_factory=dict)


def list_tars(pattern: str) -> Listing:
    """List the samples of WebDataset shards, in the order in which they lie in the files.

    Raises:
        DataError: no file matches, one is no plain tar file or cut, or a sample has an image and no class.
    """
    left_out: _LeftOut = []
    samples = [sample for path in expand(pattern) for sample in _images(path, left_out)]
    if not samples:
        first = f" (left out: {left_out[0][0]}, {left_out[0][1]})" if left_out else ""
        problem = f"there is no image in these files{first}"
        raise DataError(pattern, problem, "give shards with .jpg and .cls entries")
    classes = sorted_classes({name for _, name in samples})
    labels = {name: label for label, name in enumerate(classes)}
    images = (
        SourceImage(
            image.path, image.name, labels[name], image.bytes, image.mtime_ns, image.reader, image.place
        )
        for image, name in samples
    )
    return Listing(classes, tuple(images), tuple(left_out))


def _images(path: Path, left_out: _LeftOut) -> Iterator[tuple[SourceImage, str]]:
    """Yield the images of a shard, their labels still 0, with the names of their classes."""
    sample = _Sample()
    mtime = path.stat().st_mtime_ns
    for entry, content in _entries(path, left_out):
        folder, slash, base = entry.name.rpartition("/")
        key = folder + slash + base.partition(".")[0]
        stem, _, extension = entry.name.rpartition(".")
        if key != sample.key:
            yield from _labelled(path, sample, left_out)
            sample = _Sample(key)
        if content is not None:
            sample.classes.setdefault(stem, []).append((extension.lower(), entry.name, content))
        elif is_image_name(base):
            name = printable(f"{path.name}/{entry.name}")
            place = str(path.absolute()), name, 0, entry.size, mtime, "tar", entry.offset_data
            sample.images.append((stem, SourceImage(*place)))
    yield from _labelled(path, sample, left_out)


def _labelled(path: Path, sample: _Sample, left_out: _LeftOut) -> Iterator[tuple[SourceImage, str]]:
    """Yield the images of a sample with the names of their classes; note those that it cannot have."""
    taken: dict[str, str] = {}
    for stem, image in sample.images:
        name = _class_of(path, sample.classes.get(stem, ()))
        if stem in taken:
            left_out.append((image.name, f"a second image of one sample: {taken[stem]} is taken"))
        elif name is not None:
            taken[stem] = image.name
            yield image, name
        elif stem == sample.key:
            raise DataError(
                str(path),
                f"{image.name} has no class beside it",
                "write an entry .cls, or .json with a key 'label', with each image, right before or after it",
            )
        else:
            left_out.append((image.name, "several dots in its name, and no .cls with the same ones"))
    for stem, entries in sample.classes.items():
        if stem not in dict(sample.images):
            names = (name for extension, name, _ in entries if extension == "cls")
            left_out += ((printable(f"{path.name}/{name}"), "a class without an image") for name in names)


def _entries(path: Path, left_out: _LeftOut) -> Iterator[tuple[tarfile.TarInfo, bytes | None]]:
    """Yield the files in a tar file, with the bytes of those that say a class."""
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115 (closed below; its errors mean something else)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(
            str(path), f"it is no plain tar file: {error}", "unpack it if compressed, else copy it again"
        ) from None
    with tar:
        try:
            for entry in tar:
                base = entry.name.rpartition("/")[2]
                if base.startswith(".") or entry.isdir():
                    continue
                if not entry.isfile() or entry.issparse():
                    if is_image_name(base):
                        kind = "of a sparse file" if entry.issparse() else "a link or a device"
                        left_out.append((printable(f"{path.name}/{entry.name}"), f"its entry is {kind}"))
                    continue
                content = None
                if base.rpartition(".")[2].lower() in ("cls", "json"):
                    file = tar.extractfile(entry)
                    content = file.read() if file is not None else None
                yield entry, content
        except (tarfile.TarError, OSError, ValueError, EOFError) as error:
            raise DataError(str(path), f"it is truncated or damaged: {error}", "copy it again") from None
        _check_end(path, tar.offset, left_out)


def _check_end(path: Path, offset: int, left_out: _LeftOut) -> None:
    """Look at what follows the last entry: tarfile takes all that is no entry for the end.

    Raises:
        DataError: it is no end of a tar file; entries are missing.
    """
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(_BLOCK)
        rest = file.read(_TAIL)
    if any(block):
        problem = f"it is truncated or damaged: at byte {offset} no entry begins and it does not end"
        raise DataError(str(path), problem, "copy it again")
    if not block:  # tar reads such files, and some programs write them
        left_out.append(
            (
                path.name,
                f"perhaps truncated: no end-of-archive at byte {offset}; compare it",
            )
        )
    elif any(rest):
        left_out.append(
            (path.name, f"bytes after its end, from byte {offset} on, are not read; join tar files by tar -A")
        )


def _class_of(path: Path, entries: Sequence[tuple[str, str, bytes]]) -> str | None:
    """Return the class that the last of some .cls and .json entries says, None if none says one."""
    told = [_class_in(path, *entry) for entry in entries]
    return next((name for name in reversed(told) if name is not None), None)


def _class_in(path: Path, extension: str, entry: str, content: bytes) -> str | None:
    """Return the class in a .cls or .json entry, None if it says none."""
    where = printable(f"{path}: {entry}")
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        problem = f"the class is no UTF-8 text: {error.reason} at byte {error.start}"
        raise DataError(where, problem, "write a number or a name as text") from None
    if extension == "cls":
        return text or None
    try:
        told = json.loads(text)
    except ValueError as error:
        raise DataError(where, f"it is no JSON: {error}", 'write e.g. {"label": 3}') from None
    label = told.get("label") if isinstance(told, dict) else None
    return None if label is None else printable(str(label))
