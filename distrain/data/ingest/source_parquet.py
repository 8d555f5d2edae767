"""Parquet files as Hugging Face data sets write them: columns ``image`` (bytes and path) and ``label``.

Needs pyarrow, an optional dependency (``pip install 'distrain[parquet]'``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distrain.data.ingest.convert import Unusable
from distrain.data.ingest.listing import Listing, SourceImage, printable, sorted_classes
from distrain.data.ingest.source_tar import expand
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
        DataError: no file matches, one is damaged, or lacks the columns, or a label is no class.
    """
    rows: list[tuple[SourceImage, Any]] = []
    names: list[str] | None = None
    for path in expand(pattern):
        file = _open(path)
        own = _class_names(file, path)
        if names is not None and own is not None and own != names:
            raise DataError(str(path), "its names of the classes differ from those before", "pack it alone")
        names = names or own
        try:
            labels = file.read(columns=[_LABEL]).column(_LABEL).to_pylist()
        except (_pyarrow().ArrowException, OSError) as error:
            raise DataError(str(path), f"it is damaged: {error}", "copy it again") from None
        each = _mean_image_bytes(file)
        mtime = path.stat().st_mtime_ns
        for row, label in enumerate(labels):
            name = printable(f"{path.name}/{row}")
            rows.append((SourceImage(str(path.absolute()), name, 0, each, mtime, "parquet", row), label))
    if not rows:
        raise DataError(pattern, "there is no row in these files", "give files with images")
    told = [_class_of(image, label, names) for image, label in rows]
    classes = tuple(names) if names is not None else sorted_classes(set(told))
    numbers = {name: number for number, name in enumerate(classes)}
    images = (
        SourceImage(i.path, i.name, numbers[name], i.bytes, i.mtime_ns, i.reader, i.place)
        for (i, _), name in zip(rows, told, strict=True)
    )
    return Listing(classes, tuple(images))


def _class_of(image: SourceImage, label: Any, names: list[str] | None) -> str:
    """Return the class that a label stands for: a number of one of the names, a name, or any text."""
    if names is None and label is not None:
        return printable(str(label))
    if names is not None and isinstance(label, str) and label in names:
        return label
    # A float, as from a column with gaps, is a number of a class if it is whole.
    if names is not None and isinstance(label, (int, float)) and label in range(len(names)):
        return names[int(label)]
    raise DataError(f"{image.path}, row {image.place}", f"label={label!r} is no class", "correct the file")


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


def _class_names(file: Any, path: Path) -> list[str] | None:
    """Return the names that Hugging Face keeps for the numbers of a ClassLabel, if it does.

    Raises:
        DataError: what it keeps is damaged.
    """
    kept = (file.schema_arrow.metadata or {}).get(b"huggingface")
    if kept is None:
        return None
    try:
        told = json.loads(kept)
    except ValueError as error:
        raise _damaged_names(path, f"no JSON: {error}") from None
    for key in ("info", "features", _LABEL):
        if not isinstance(told, dict):
            raise _damaged_names(path, f"no table around {key!r}")
        told = told.get(key) or {}
    names = told.get("names") if isinstance(told, dict) else None
    if names is None:
        return None
    if (
        not isinstance(names, list)
        or not all(isinstance(n, str) for n in names)
        or len({*names}) < len(names)
    ):
        raise _damaged_names(path, "the names of the classes are no list of different texts")
    return [printable(name) for name in names]


def _damaged_names(path: Path, problem: str) -> DataError:
    return DataError(str(path), f"its metadata 'huggingface' is damaged: {problem}", "write the file again")


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
        """See `distrain.data.ingest.readers.Reader.read`."""
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
        """See `distrain.data.ingest.readers.Reader.close`."""
        if self._file is not None:
            self._file.close()
            self._file, self._path, self._images = None, "", None
