"""The images of a pack, ready to be read at random: from the memory of the node, or the disk.

MPI is called only in `Store.open` and `Store.close`, by the caller's thread: between them the engine
of the wire owns MPI.
"""

from __future__ import annotations

import errno
import logging
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distrain.data.blobs import Blobs, address_of
from distrain.data.checksum.crc import crc32
from distrain.data.disk import allow_open_files
from distrain.data.format import RECORD, Manifest, aligned, padded_lengths, read_manifest
from distrain.data.index_load import can_index, load_indexed, scratch_bytes, widened
from distrain.data.load import Piece, load_pieces, pieces_of, read_image
from distrain.data.memory import Memory, allocate, check_room_of_all
from distrain.data.settings import DataSettings
from distrain.data.shard import COPY_AGAIN, read_head
from distrain.errors import DataError, DistrainError, agree
from distrain.machine import cores, free_bytes
from distrain.units import format_bytes

if TYPE_CHECKING:
    from mpi4py import MPI

log = logging.getLogger("distrain.data")

_LOAD_THREADS_MOST = 8

Part = Callable[[np.ndarray], range]


class Store:
    """Random access to the images of a pack. Reading is thread-safe.

    Attributes:
        manifest: of the pack.
        records: structured array `RECORD` [count], read-only: label, width, height, ... of each image.
        part: the images that are here; the others are read from the disk, one by one.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        records: np.ndarray,
        pieces: Sequence[tuple[Piece, memoryview]],
        part: range,
        memories: Sequence[Memory] = (),
        check_on_read: bool = False,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.records = records
        self.records.setflags(write=False)
        self.part = part
        self._memory = {piece.shard: np.frombuffer(memory, np.uint8) for piece, memory in pieces}
        self._views = {piece.shard: memory.toreadonly() for piece, memory in pieces}
        self._bases = {piece.shard: piece.base for piece, _ in pieces}
        # Where the payload of a shard would begin if all of it were here.
        self._addresses = np.zeros(len(manifest.shards), np.int64)
        for shard, memory in self._memory.items():
            self._addresses[shard] = address_of(memory) - self._bases[shard]
        self._first = np.cumsum([0] + [shard.count for shard in manifest.shards])
        self._memories = list(memories)
        self._unchecked = np.ones(manifest.count, bool) if check_on_read else None

    @classmethod
    def open(
        cls,
        path: str | Path,
        settings: DataSettings,
        node_comm: MPI.Intracomm | None = None,
        part: Part | None = None,
        extra_bytes: int = 0,
    ) -> Store:
        """Open the pack in folder ``path``. Collective over ``node_comm``.

        With ``settings.memory="node"`` the ranks of the node read the pack into memory that they
        share, each its share of the shards, and verify every checksum; with ``"disk"`` each rank
        maps the shards, and an image is verified when it is first read.

        Args:
            path: folder of the pack.
            settings: ``memory`` and ``index`` are read.
            node_comm: the ranks of this node; None: this rank alone.
            part: gives the images that this node holds, from the records of all; None: the whole pack.
                Only with ``memory="node"``.
            extra_bytes: memory that this node will need besides, for images of other nodes.

        Raises:
            DataError: the pack is missing or damaged.
            ConfigError: the node has too little free memory; said before anything is loaded.
            DistrainError: of another rank of the node: all raise or none does.
        """
        where = Path(path)
        manifest = _agreed_manifest(where, node_comm)
        if settings.memory == "disk":
            return _open_disk(where, manifest, node_comm)
        return _open_node(where, manifest, node_comm, part, extra_bytes, settings.index == "load")

    @property
    def count(self) -> int:
        """Number of images."""
        return self.manifest.count

    @property
    def encoding(self) -> str:
        """How the images are stored; `distrain.data.decode.engines.create` wants to know."""
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

    def blobs(self, indices: np.ndarray) -> Sequence[memoryview]:
        """Return the bytes of some images, like `blob`: `Blobs` if all are here; indices: int [N]."""
        shards = np.searchsorted(self._first, indices, side="right") - 1
        records = self.records[indices]
        starts, sizes = records["offset"].astype(np.int64), records["length"].astype(np.int64)

        def view(position: int) -> memoryview:
            shard, start = int(shards[position]), int(starts[position])
            start -= self._bases[shard]
            return self._views[shard][start : start + int(sizes[position])]

        here = (indices >= self.part.start) & (indices < self.part.stop)
        found: Sequence[memoryview]
        if here.all():
            found = Blobs(self._addresses[shards] + starts, sizes, view)
        else:
            found = [
                view(position) if is_here else self._from_disk(int(indices[position]), int(shards[position]))
                for position, is_here in enumerate(here.tolist())
            ]
        if self._unchecked is not None:
            self._check(indices, records, found)
        return found

    def padded(self, indices: np.ndarray) -> list[np.ndarray]:
        """Return the bytes of images of this part with the zeros after them: uint8 [N] each, in place."""
        shards = (np.searchsorted(self._first, indices, side="right") - 1).tolist()
        records = self.records[indices]
        starts = records["offset"].tolist()
        sizes = padded_lengths(records["length"]).tolist()
        return [
            self._memory[shard][start - self._bases[shard] : start - self._bases[shard] + size]
            for shard, start, size in zip(shards, starts, sizes, strict=True)
        ]

    def _from_disk(self, image: int, shard: int) -> memoryview:
        # Rare: a bad image of this part is replaced by one of another node's.
        blob = read_image(self.path, self.manifest, shard, self.records[image])
        if crc32(blob) != self.records["crc32"][image]:
            raise DataError(self.shard_of(image), "its checksum is wrong", COPY_AGAIN)
        return blob

    def _check(self, indices: np.ndarray, records: np.ndarray, found: Sequence[memoryview]) -> None:
        assert self._unchecked is not None
        for position in np.flatnonzero(self._unchecked[indices]).tolist():
            if crc32(found[position]) != records["crc32"][position]:
                where = self.shard_of(int(indices[position]))
                raise DataError(where, "its checksum is wrong", COPY_AGAIN)
        self._unchecked[indices] = False

    def shard_of(self, index: int) -> str:
        """Return in words where an image is, for messages: its shard, and its place in it."""
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        file = self.path / self.manifest.shards[shard].file
        return f"{file}, image {index - int(self._first[shard])} of the shard (index {index})"

    def close(self) -> None:
        """Give the memory back. Collective over the node; blobs and records are invalid afterwards."""
        self.records = np.empty(0, RECORD)
        self._memory, self._views = {}, {}
        for memory in self._memories:
            memory.free()
        self._memories = []


def _agreed_manifest(path: Path, node_comm: MPI.Intracomm | None) -> Manifest:
    error: DistrainError | None = None
    manifest: Manifest | None = None
    try:
        manifest = read_manifest(path)
    except DistrainError as found:
        error = found
    agree(node_comm, error)
    assert manifest is not None
    return manifest


def _open_disk(path: Path, manifest: Manifest, node_comm: MPI.Intracomm | None) -> Store:
    tables: list[np.ndarray] = []
    pieces: list[tuple[Piece, memoryview]] = []
    error: DistrainError | None = None
    try:
        allow_open_files(len(manifest.shards))  # a mapping keeps a descriptor
        for number, entry in enumerate(manifest.shards):
            head = read_head(path, manifest, number)
            with (path / entry.file).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            tables.append(head.records)
            piece = Piece(number, range(entry.count), 0, 0, entry.payload_bytes)
            pieces.append((piece, memoryview(mapped)[head.payload_offset :]))
    except DistrainError as found:
        error = found
    except OSError as found:
        error = _not_mapped(path, found)
    agree(node_comm, error)
    whole = range(manifest.count)
    return Store(path, manifest, np.concatenate(tables), pieces, whole, check_on_read=True)


def _not_mapped(path: Path, error: OSError) -> DataError:
    do = "check the file system"
    if error.errno == errno.EMFILE:
        do = "raise the hard limit of open files (RLIMIT_NOFILE, ulimit -Hn), or set data.memory=node"
    return DataError(str(path), f"it cannot be mapped: {error.strerror}", do)


def _open_node(
    path: Path, manifest: Manifest, comm: MPI.Intracomm | None, part: Part | None, extra: int, index: bool
) -> Store:
    rank, ranks = (0, 1) if comm is None else (comm.rank, comm.size)
    threads = load_threads(ranks)
    index = index and part is None and _agreed_index(path, manifest, comm)
    if part is None and not index:  # known before anything is read
        check_room_of_all(comm, path, manifest.bytes_in_memory, extra)
    records, table = _load_records(path, manifest, comm)
    held = range(manifest.count) if part is None else part(records)
    pieces = pieces_of(manifest, records, held)
    if index:
        pieces = widened(pieces, manifest, records)
        extra += scratch_bytes(manifest, ranks * threads)
    size = sum(piece.bytes for piece in pieces)
    if part is not None or index:
        check_room_of_all(comm, path, size, extra)
    if rank == 0:
        log.info(
            "%s: %d of %d images, %s in memory on this node, %s free",
            path, len(held), manifest.count, format_bytes(records.nbytes + size), format_bytes(free_bytes()),
        )  # fmt: skip
    memory = allocate(comm, size)
    placed = [(piece, memory.view[piece.at : piece.at + piece.bytes]) for piece in pieces]
    error: DistrainError | None = None
    try:
        if index:
            load_indexed(path, manifest, placed[rank::ranks], records, threads)
        else:
            load_pieces(path, manifest, placed[rank::ranks], memory.handle, threads)
    except DistrainError as found:
        error = found
    memory.filled()
    agree(comm, error)  # also the barrier after which all images are there
    return Store(path, manifest, records, placed, held, [table, memory])


def _agreed_index(path: Path, manifest: Manifest, comm: MPI.Intracomm | None) -> bool:
    """Return whether images are indexed here, as the first rank of the node finds. Collective."""
    if comm is None:
        return can_index(path, manifest)
    return comm.bcast(can_index(path, manifest) if comm.rank == 0 else False)


def load_threads(ranks: int) -> int:
    """Return how many shards each of the ranks of a node reads at once."""
    return max(1, min(_LOAD_THREADS_MOST, cores() // ranks))


def _load_records(path: Path, manifest: Manifest, comm: MPI.Intracomm | None) -> tuple[np.ndarray, Memory]:
    """Read the tables of all shards into memory of the node, each rank its share. Collective."""
    rank, ranks = (0, 1) if comm is None else (comm.rank, comm.size)
    memory = allocate(comm, aligned(manifest.count * RECORD.itemsize))
    memory.filled()  # not written as a file
    records = np.frombuffer(memory.view, RECORD, count=manifest.count)
    firsts = np.cumsum([0] + [shard.count for shard in manifest.shards])
    error: DistrainError | None = None
    try:
        for number in range(rank, len(manifest.shards), ranks):
            records[firsts[number] : firsts[number + 1]] = read_head(path, manifest, number).records
    except DistrainError as found:
        error = found
    agree(comm, error)
    return records, memory
