"""Image folders: each folder in a folder is a class; all files below it are candidates."""

from __future__ import annotations

import os
from pathlib import Path

from distrain.data.ingest.listing import Listing, SourceImage, printable, stat_image
from distrain.errors import DataError

_Seen = dict[tuple[int, int], str]  # device and inode of a folder: its name, for messages


def list_folder(place: str) -> Listing:
    """List the folders of a folder as classes, sorted by name; every file in them is a candidate.

    Names that begin with a dot are not looked at. Files of any other name are candidates, so that
    what is not an image appears among the skipped, with its reason. Links are followed, but a folder
    is listed once a class: a link to a folder above it would make a class many times as large.

    Raises:
        DataError: the folder is missing, holds no class folders, or a folder in it cannot be read.
    """
    root = Path(place)
    try:
        if not root.is_dir():
            raise DataError(
                str(root), "this folder does not exist", "give the folder that holds one folder a class"
            )
        folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
        above: _Seen = {_identity(p): str(p) for p in (root.resolve(), *root.resolve().parents)}
    except OSError as error:
        raise _unreadable(error, root) from None
    if not folders:
        raise DataError(
            str(root), "it holds no class folders", "put the images of each class in a folder of its own"
        )
    images: list[SourceImage] = []
    left_out: list[tuple[str, str]] = []
    for label, folder in enumerate(folders):
        files = _files_below(root, folder, above, left_out)
        if not files:
            raise DataError(str(folder), "this class is empty", "add images to the folder, or remove it")
        images.extend(stat_image(file, str(file.relative_to(root)), label) for file in files)
    return Listing(tuple(printable(folder.name) for folder in folders), tuple(images), tuple(left_out))


def _files_below(root: Path, folder: Path, above: _Seen, left_out: list[tuple[str, str]]) -> list[Path]:
    """Return the files below a class folder, sorted within each folder; note folders met twice."""
    seen = dict(above)
    if not _is_new(folder, seen, left_out, root):
        raise DataError(str(folder), "this class is a link to a folder that it lies in", "remove the link")
    found: list[Path] = []
    try:
        for place, below, names in os.walk(folder, onerror=_fail, followlinks=True):
            wanted = (name for name in sorted(below) if not name.startswith("."))
            below[:] = [name for name in wanted if _is_new(Path(place, name), seen, left_out, root)]
            found.extend(Path(place, name) for name in sorted(names) if not name.startswith("."))
    except OSError as error:
        raise _unreadable(error, folder) from None
    return found


def _is_new(folder: Path, seen: _Seen, left_out: list[tuple[str, str]], root: Path) -> bool:
    identity, name = _identity(folder), printable(str(folder.relative_to(root)))
    if identity in seen:
        left_out.append((name, f"linked in a circle or twice: it is the folder {seen[identity]}"))
        return False
    seen[identity] = name
    return True


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _fail(error: OSError) -> None:
    raise error  # os.walk would leave the folder out


def _unreadable(error: OSError, folder: Path) -> DataError:
    where = printable(str(error.filename or folder))
    return DataError(where, f"it cannot be read: {error.strerror or error}", "get permission, or remove it")
