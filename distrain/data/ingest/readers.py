"""Reading the bytes of a source's images, one shard of the pack after the other.

A `Reader` serves one worker while it packs one shard, so it may keep a file open and the rows that it
read last.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from distrain.data.ingest.convert import Unusable
from distrain.data.ingest.listing import SourceImage


class Reader(Protocol):
    """Reads images of one kind of source."""

    def read(self, image: SourceImage) -> bytes:
        """Return the bytes of an image.

        Raises:
            Unusable: the entry holds none.
            OSError: the file cannot be read.
        """

    def close(self) -> None:
        """Close what is open."""


class FileReader:
    """An image is a file."""

    def read(self, image: SourceImage) -> bytes:
        """See `Reader.read`."""
        # Without O_NONBLOCK, to open a named pipe would wait for ever for somebody who writes to it.
        handle = os.open(image.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Unusable("not a plain file")
            with open(handle, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(handle)

    def close(self) -> None:
        """See `Reader.close`."""


class TarReader:
    """An image is a stretch of an uncompressed tar file."""

    def __init__(self) -> None:
        self._path = ""
        self._file: BinaryIO | None = None

    def read(self, image: SourceImage) -> bytes:
        """See `Reader.read`."""
        if self._file is None or self._path != image.path:
            self.close()
            self._file, self._path = Path(image.path).open("rb"), image.path  # noqa: SIM115 (kept open)
        self._file.seek(image.place)
        data = self._file.read(image.bytes)
        if len(data) < image.bytes:
            raise Unusable("truncated: the tar file ends before it does")
        return data

    def close(self) -> None:
        """See `Reader.close`."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _parquet() -> Reader:
    from distrain.data.ingest.source_parquet import ParquetReader

    return ParquetReader()


_KINDS: dict[str, Callable[[], Reader]] = {"file": FileReader, "tar": TarReader, "parquet": _parquet}


class Readers:
    """The readers of one shard, by the kind of each image; closes them at the end of a ``with``."""

    def __init__(self) -> None:
        self._open: dict[str, Reader] = {}

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *exc: object) -> None:
        for reader in self._open.values():
            reader.close()

    def read(self, image: SourceImage) -> bytes:
        """Return the bytes of an image.

        Raises:
            Unusable: it has vanished or cannot be read.
        """
        if image.reader not in self._open:
            self._open[image.reader] = _KINDS[image.reader]()
        try:
            return self._open[image.reader].read(image)
        except FileNotFoundError:
            raise Unusable("the file has vanished") from None
        except OSError as error:
            raise Unusable(f"it cannot be read: {error.strerror or error}") from None
