"""A stretch of steps and the images of other nodes that are read in it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from distrain.data.blobs import Blobs, address_of
from distrain.data.checksum.crc import crc32_each
from distrain.data.format import ALIGNMENT, padded_lengths
from distrain.data.nodes.shipments import Shipment, Shipments
from distrain.data.store import Store

Incoming = tuple[int, np.ndarray]  # rank, memory uint8 [N] to fill
Outgoing = tuple[int, list[np.ndarray]]  # rank, pieces of memory uint8 [N] that follow each other


class Window:
    """Memory for the images of other nodes that this rank reads in some steps.

    Args:
        store: what this node holds.
        steps: counted from the start of epoch 0.

    Attributes:
        forgotten: True once nobody will read it any more.
        bytes: of the images, with their padding; known when it is laid out.
    """

    def __init__(self, store: Store, steps: range) -> None:
        self.steps = steps
        self.forgotten = False
        self.bytes = 0
        self.shipments: Shipments | None = None
        self._failure: BaseException | None = None
        self._store = store
        self._arrived = threading.Event()
        self._images = np.empty(0, np.int64)  # ascending; the next three belong to it
        self._starts = np.empty(0, np.int64)
        self._lengths = np.empty(0, np.int64)
        self._crcs = np.empty(0, np.uint32)
        self._memory = memoryview(b"")
        self._address = 0

    def lay_out(self, shipments: Shipments) -> None:
        """Give each image a place; no memory is taken yet."""
        self.shipments = shipments
        if not shipments.receives:
            return
        images = np.concatenate([shipment.images for shipment in shipments.receives])
        records = self._store.records[images]
        ends = np.cumsum(padded_lengths(records["length"]))
        order = np.argsort(images)
        self._images = images[order]
        self._starts = np.concatenate([[0], ends[:-1]])[order]
        self._lengths = records["length"][order].astype(np.int64)
        self._crcs = records["crc32"][order]
        self.bytes = int(ends[-1])

    def messages(self) -> tuple[list[Outgoing], list[Incoming]]:
        """Return what is to be sent, and the memory, made now, that is to be filled."""
        assert self.shipments is not None
        memory = _aligned_memory(self.bytes)
        self._memory = memory.data.toreadonly()
        self._address = address_of(memory)
        incoming: list[Incoming] = []
        at = 0
        for shipment in self.shipments.receives:
            size = self._bytes_of(shipment)
            incoming.append((shipment.peer, memory[at : at + size]))
            at += size
        outgoing = [(sent.peer, self._store.padded(sent.images)) for sent in self.shipments.sends]
        return outgoing, incoming

    def _bytes_of(self, shipment: Shipment) -> int:
        return int(padded_lengths(self._store.records["length"][shipment.images]).sum())

    @property
    def has_ended(self) -> bool:
        """True once its images may be read, or have failed to arrive."""
        return self._arrived.is_set()

    def damaged(self) -> int:
        """Return the index of an image whose bytes are not those that were packed, -1 if all are."""
        found = crc32_each(self._memory, self._starts, self._lengths)
        wrong = np.flatnonzero(found != self._crcs)
        return int(self._images[wrong[0]]) if wrong.size else -1

    def end(self, failure: BaseException | None = None) -> None:
        """Let those go on who wait for the images."""
        self._failure = failure
        self._arrived.set()

    def blobs(self, indices: np.ndarray) -> Sequence[memoryview]:
        """Return the bytes of images int64 [N], here or on this node; waits until they have arrived.

        Raises:
            DataError: an image of this window arrived damaged, at this rank or another of the group.
        """
        self._arrived.wait()
        if self._failure is not None:
            raise self._failure
        if not len(self._images):
            return self._store.blobs(indices)
        places = np.searchsorted(self._images, indices)
        places[places == len(self._images)] = 0
        came = self._images[places] == indices
        held = self._store.blobs(indices[~came])
        starts, sizes = self._starts[places], self._lengths[places]
        nth_held = np.cumsum(~came) - 1

        def view(position: int) -> memoryview:
            if not came[position]:
                return held[int(nth_held[position])]
            start = int(starts[position])
            return self._memory[start : start + int(sizes[position])]

        if not isinstance(held, Blobs):
            return [view(position) for position in range(len(indices))]
        addresses = self._address + starts
        addresses[~came], sizes[~came] = held.addresses, held.sizes
        return Blobs(addresses, sizes, view)


def _aligned_memory(size: int) -> np.ndarray:
    memory = np.empty(size + ALIGNMENT, np.uint8)
    skip = -memory.ctypes.data % ALIGNMENT
    return memory[skip : skip + size]
