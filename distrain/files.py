"""Files that are either whole or absent, whatever happens while they are written."""

from __future__ import annotations

import os
from pathlib import Path

TEMPORARY = ".tmp"


def write_atomic(path: Path, payload: bytes | memoryview) -> None:
    """Write a file so that a crash, kill or full disk leaves the old one (or none), never a part.

    The bytes go to a temporary name in the same folder, are flushed to the disk, then renamed; the
    folder is flushed too, so that the name survives a power cut.

    Raises:
        OSError: nothing was changed; the temporary file is gone.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with open(temporary, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
