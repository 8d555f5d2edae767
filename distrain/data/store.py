"""The images of a pack, ready to be read at random: from the memory of the node, or the disk.

MPI is called only in `Store.open` and `Store.close`, by the caller's thread: between them the engine
of the wire owns MPI.
"""

from __future__ import annotations

import logging
import mmap
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distrain import node_memory
from distrain.data.format import RECORD, Manifest, read_manifest
from distrain.data.load import layout, load_shard
from distrain.data.room import check_room, free_bytes, shm_free_bytes
from distrain.data.settings import DataSettings
from distrain.data.shard import read_head
from distrain.errors import CommError, ConfigError, DataError, DistrainError
from distrain.node_memory import agree
from distrain.units import format_bytes

if TYPE_CHECKING:
    from mpi4py import MPI

log = logging.getLogger("distrain.data")


class Store:
    """Random access to the images of a pack. Reading is thread-safe.

    Attributes:
        manifest: of the pack.
        records: structured array `RECORD` [count], read-only: label, width, height, ... of each image.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        records: np.ndarray,
        payloads: list[memoryview],
        window: MPI.Win | None = None,
        check_on_read: bool = False,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.records = records
        self.records.setflags(write=False)
        self._payloads = [payload.toreadonly() for payload in payloads]
        self._first = np.cumsum([0] + [shard.count for shard in manifest.shards])
        self._window = window
        self._unchecked = np.ones(manifest.count, bool) if check_on_read else None

    @classmethod
    def open(cls, path: str | Path, settings: DataSettings, node_comm: MPI.Comm | None = None) -> Store:
        """Open the pack in folder ``path``. Collective over ``node_comm``.

        With ``settings.memory="node"`` the ranks of the node read the pack into memory that they
        share, each its share of the shards, and verify every checksum; with ``"disk"`` each rank
        maps the shards, and an image is verified when it is first read.

        Args:
            path: folder of the pack.
            settings: ``memory`` is read.
            node_comm: the ranks of this node; None: this rank alone.

        Raises:
            DataError: the pack is missing or damaged.
            ConfigError: the node has too little free memory; said before anything is loaded.
            DistrainError: of another rank of the node: all raise or none does.
        """
        where = Path(path)
        manifest = _agreed_manifest(where, node_comm)
        if settings.memory == "disk":
            return _open_disk(where, manifest, node_comm)
        return _open_node(where, manifest, node_comm)

    @property
    def count(self) -> int:
        """Number of images."""
        return self.manifest.count

    @property
    def encoding(self) -> str:
        """How the images are stored; `distrain.data.decode.engine.create` wants to know."""
        return self.manifest.encoding

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.manifest.classes

    def blob(self, index: int) -> memoryview:
        """Return the bytes of an image: read-only, in place, valid until `close`.

        Raises:
            DataError: from disk only: the bytes are not those that were packed.
        """
        return self.blobs(np.array([index]))[0]

    def blobs(self, indices: np.ndarray) -> list[memoryview]:
        """Return the bytes of some images, like `blob`; indices: int [N]."""
        shards = np.searchsorted(self._first, indices, side="right") - 1
        records = self.records[indices]
        starts = records["offset"].tolist()
        ends = (records["offset"] + records["length"]).tolist()
        found = [
            self._payloads[shard][start:end]
            for shard, start, end in zip(shards.tolist(), starts, ends, strict=True)
        ]
        if self._unchecked is not None:
            self._check(indices, records, found)
        return found

    def _check(self, indices: np.ndarray, records: np.ndarray, found: list[memoryview]) -> None:
        assert self._unchecked is not None
        for position in np.flatnonzero(self._unchecked[indices]):
            if zlib.crc32(found[position]) != records["crc32"][position]:
                where = self.shard_of(int(indices[position]))
                raise DataError(where, "its checksum is wrong", "copy the pack again from where it was made")
        self._unchecked[indices] = False

    def shard_of(self, index: int) -> str:
        """Return in words where an image is, for messages: its shard, and its place in it."""
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        file = self.path / self.manifest.shards[shard].file
        return f"{file}, image {index - int(self._first[shard])} of the shard (index {index})"

    def close(self) -> None:
        """Give the memory back. Collective over the node; blobs and records are invalid afterwards."""
        self.records = np.empty(0, RECORD)
        self._payloads = []
        if self._window is not None:  # other memory goes with its last view
            self._window.Free()
            self._window = None


def _agreed_manifest(path: Path, node_comm: MPI.Comm | None) -> Manifest:
    error: DistrainError | None = None
    manifest: Manifest | None = None
    try:
        manifest = read_manifest(path)
    except DistrainError as found:
        error = found
    agree(node_comm, error)
    assert manifest is not None
    return manifest


def _open_disk(path: Path, manifest: Manifest, node_comm: MPI.Comm | None) -> Store:
    tables: list[np.ndarray] = []
    payloads: list[memoryview] = []
    error: DistrainError | None = None
    try:
        for number, entry in enumerate(manifest.shards):
            head = read_head(path, manifest, number)
            with (path / entry.file).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            tables.append(head.records)
            payloads.append(memoryview(mapped)[head.payload_offset :])
    except DistrainError as found:
        error = found
    except OSError as found:
        error = DataError(str(path), f"it cannot be mapped: {found.strerror}", "check the file system")
    agree(node_comm, error)
    return Store(path, manifest, np.concatenate(tables), payloads, check_on_read=True)


def _open_node(path: Path, manifest: Manifest, node_comm: MPI.Comm | None) -> Store:
    rank, ranks = (0, 1) if node_comm is None else (node_comm.rank, node_comm.size)
    needed, free = manifest.bytes_in_memory, free_bytes()
    error: DistrainError | None = None
    try:
        check_room(str(path), needed, free)
    except DistrainError as found:
        error = found
    agree(node_comm, error)
    if rank == 0:
        log.info(
            "%s: %d images, %s in memory on this node, %s free",
            path, manifest.count, format_bytes(needed), format_bytes(free),
        )  # fmt: skip
    view, window = _allocate(node_comm, needed)
    payloads = layout(manifest, view)
    records = np.frombuffer(view, RECORD, count=manifest.count)
    firsts = np.cumsum([0] + [shard.count for shard in manifest.shards])
    try:
        for number in range(rank, len(manifest.shards), ranks):
            table = load_shard(path, manifest, number, payloads[number])
            records[firsts[number] : firsts[number + 1]] = table
    except DistrainError as found:
        error = found
    agree(node_comm, error)  # also the barrier after which all shards are there
    return Store(path, manifest, records, payloads, window)


def _allocate(node_comm: MPI.Comm | None, size: int) -> tuple[memoryview, MPI.Win | None]:
    """Return memory for the node, and the window that must be freed if it lies in one. Collective."""
    if node_comm is None or node_comm.size == 1:
        return node_memory.private(size), None
    shared = node_memory.share(node_comm, size)
    return (shared, None) if shared is not None else _window(node_comm, size)


def _window(comm: MPI.Comm, size: int) -> tuple[memoryview, MPI.Win]:
    """Return ``size`` bytes in an MPI shared window: the way where files cannot be shared. Collective.

    Raises:
        ConfigError: the shared-memory file system has no room for it; on all ranks.
        CommError: MPI cannot make it.
    """
    from mpi4py import MPI

    free = comm.bcast(shm_free_bytes())
    if size > free:
        raise ConfigError(
            "/dev/shm",
            f"free={free} bytes ({format_bytes(free)}) is less than the {size} bytes "
            f"({format_bytes(size)}) of the data",
            "enlarge it (docker: --shm-size or --ipc=host), let ranks see each other's /proc, "
            "or set data.memory=disk",
        )
    try:
        window = MPI.Win.Allocate_shared(size if comm.rank == 0 else 0, 1, comm=MPI.Intracomm(comm))
    except MPI.Exception as error:
        raise CommError("MPI shared window", f"{size} bytes: {error}", "set data.memory=disk") from None
    buffer, _ = window.Shared_query(0)
    return np.asarray(buffer).view(np.uint8).data, window
