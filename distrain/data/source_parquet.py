"""Parquet files as Hugging Face data sets write them: columns ``image`` (bytes and path) and ``label``.

Needs pyarrow, an optional dependency (``pip install 'distrain[parquet]'``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distrain.data.convert import Unusable
from distrain.data.source_tar import expand
from distrain.data.sources import Listing, SourceImage, sorted_classes
from distrain.errors import DataError, UsageError

_IMAGE, _LABEL = "image", "label"


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "SOURCE", "parquet files need pyarrow, which is not installed", "pip install 'distrain[parquet]'"
        ) from None
    return pyarrow


def list_parquet(pattern: str) -> Listing:
    """List the rows of parquet files, in the order of the files' names and of the rows.

    Classes are the names that the data set's own metadata gives to its numbers, else the labels.

    Raises:
        UsageError: pyarrow is not installed.
        DataError: no file matches, one is damaged, or lacks the columns.
    """
    rows: list[tuple[SourceImage, str]] = []
    names: list[str] | None = None
    for path in expand(pattern):
        file = _open(path)
        names = names or _class_names(file)
        labels = file.read(columns=[_LABEL]).column(_LABEL).to_pylist()
        each = _mean_image_bytes(file)
        mtime = path.stat().st_mtime_ns
        for row, label in enumerate(labels):
            if label is None or (names is not None and not 0 <= int(label) < len(names)):
                raise DataError(f"{path}, row {row}", f"label={label} is no class", "correct the file")
            image = SourceImage(str(path.absolute()), f"{path.name}/{row}", 0, each, mtime, "parquet", row)
            rows.append((image, names[int(label)] if names is not None else str(label)))
    if not rows:
        raise DataError(pattern, "there is no row in these files", "give files with images")
    classes = tuple(names) if names is not None else sorted_classes({name for _, name in rows})
    numbers = {name: number for number, name in enumerate(classes)}
    images = (
        SourceImage(i.path, i.name, numbers[name], i.bytes, i.mtime_ns, i.reader, i.place) for i, name in rows
    )
    return Listing(classes, tuple(images))


def _open(path: Path) -> Any:
    arrow = _pyarrow()
    try:
        file = arrow.parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as error:
        raise DataError(str(path), f"it is no parquet file: {error}", "copy it again") from None
    columns = file.schema_arrow.names
    for column in (_IMAGE, _LABEL):
        if column not in columns:
            raise DataError(
                str(path), f"it has no column {column!r}, only {', '.join(columns)}", "rename its columns"
            )
    return file


def _class_names(file: Any) -> list[str] | None:
    """Return the names that Hugging Face keeps for the numbers of a ClassLabel, if it does."""
    kept = (file.schema_arrow.metadata or {}).get(b"huggingface")
    if kept is None:
        return None
    label = json.loads(kept).get("info", {}).get("features", {}).get(_LABEL, {})
    names = label.get("names")
    return [str(name) for name in names] if isinstance(names, list) else None


def _mean_image_bytes(file: Any) -> int:
    """Return about how many bytes an image of the file has; the sizes of single ones stand nowhere."""
    total = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
    return total // max(1, file.metadata.num_rows)


class ParquetReader:
    """Reads rows; keeps the row group that was read last, since rows are read in order."""

    def __init__(self) -> None:
        self._path = ""
        self._file: Any = None
        self._starts: list[int] = []
        self._group = -1
        self._images: Any = None

    def read(self, image: SourceImage) -> bytes:
        """See `distrain.data.readers.Reader.read`."""
        arrow = _pyarrow()
        try:
            if self._path != image.path:
                self._begin(arrow.parquet.ParquetFile(image.path), image.path)
            group = max(number for number, start in enumerate(self._starts) if start <= image.place)
            if group != self._group:
                self._images = self._file.read_row_group(group, columns=[_IMAGE]).column(_IMAGE)
                self._group = group
            value = self._images[image.place - self._starts[group]].as_py()
        except arrow.ArrowException as error:
            raise Unusable(f"damaged: {error}") from None
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise Unusable("the row holds no bytes of an image")
        return data

    def _begin(self, file: Any, path: str) -> None:
        self.close()
        self._file, self._path, self._group = file, path, -1
        self._starts, start = [], 0
        for number in range(file.num_row_groups):
            self._starts.append(start)
            start += file.metadata.row_group(number).num_rows

    def close(self) -> None:
        """See `distrain.data.readers.Reader.close`."""
        if self._file is not None:
            self._file.close()
            self._file, self._path, self._images = None, "", None
