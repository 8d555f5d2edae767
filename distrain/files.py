"""Files that are either whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

TEMPORARY = ".tmp"  # ends the names of files that are being written


def temporary_of(path: Path) -> Path:
    """Return where a file is written before it gets its name: beside it, hidden."""
    return path.with_name(f".{path.name}{TEMPORARY}")


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to write so that a crash, kill or full disk leaves the old one (or none), never a part.

    The bytes go to a temporary name in the same folder, are flushed to the disk, then renamed; the
    folder is flushed too, so that the name survives a power cut.

    Raises:
        OSError: nothing was changed, unless the last flush failed; the temporary file is gone.
    """
    temporary = temporary_of(path)
    try:
        with temporary.open("wb") as file:
            yield file
            to_disk(file)
        temporary.replace(path)
    except BaseException:
        remove_quietly(temporary)
        raise
    sync_folder(path.parent)


def write_atomic(path: Path, payload: bytes | memoryview) -> None:
    """Write all of a file as `atomic_file` does.

    Raises:
        OSError: as there.
    """
    with atomic_file(path) as file:
        file.write(payload)


def remove_quietly(file: Path) -> None:
    """Remove a file that may not be there, in a folder that may not be one: another error is on its way."""
    try:
        file.unlink()
    except OSError:  # what stays is a hidden file that the next run removes
        return


def sync_folder(folder: Path) -> None:
    """Make the renames in a folder survive a crash of the machine."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def to_disk(file: BinaryIO) -> None:
    """Have what was written to a file on the disk, not in memory."""
    file.flush()
    os.fsync(file.fileno())
