"""How a job shares its packs among nodes: which part a node holds, how much memory that takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from distrain.data.format import ALIGNMENT, RECORD, Manifest
from distrain.data.index_load import indexed_room
from distrain.data.nodes.groups import Groups, bounds_of, cut_by_readers, eval_range, eval_rank
from distrain.data.nodes.shipments import Planner
from distrain.data.nodes.windows import WINDOWS_IN_ROOM, Carrier, Windows
from distrain.data.order import steps_per_epoch
from distrain.data.reading import GlobalReading, PartialReading, Reading, partial_steps
from distrain.data.settings import DataSettings
from distrain.data.store import Part, Store
from distrain.errors import DataError


@dataclass(frozen=True)
class Sharing:
    """The parts of a training set and of a held-out set among the nodes of a job.

    With ``data.group_nodes: 1`` every node holds both sets whole.

    Attributes:
        settings: with ``batch_per_rank`` the images of a rank in one optimizer step.
        groups: who is where.
        train: manifest of the training set.
        val: manifest of the held-out set.
    """

    settings: DataSettings
    groups: Groups
    train: Manifest
    val: Manifest

    @property
    def is_whole(self) -> bool:
        """True if every node holds everything."""
        return self.settings.group_nodes == 1

    @property
    def moves_images(self) -> bool:
        """True if nodes are sent images of other nodes while training goes on."""
        return self.settings.moving_fraction > 0

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch.

        Raises:
            ConfigError: there are fewer images than one global batch, or a part has too few.
        """
        batch, rule = self.settings.batch_per_rank, self.settings.last_batch
        if self.is_whole or self.settings.reshuffle == "global":
            return steps_per_epoch(self.train.count, len(self.groups.node_of) * batch, rule)
        readers = [len(self.groups.readers(member)) for member in range(self.groups.nodes_each)]
        counts = np.diff(cut_by_readers(self.train.count, self.groups)).tolist()
        return partial_steps(counts, readers, batch, rule)

    @property
    def bytes_per_node(self) -> int:
        """Bytes that a node needs for both packs, about; with what arrives from other nodes."""
        if self.is_whole:
            return sum(pack.bytes_in_memory + self._index_bytes(pack) for pack in (self.train, self.val))
        parts = self.train.bytes_of_part(self.groups.nodes_each)
        return parts + self.room_per_node + self.val.bytes_of_part(len(self.groups.ranks_on))

    def _index_bytes(self, pack: Manifest) -> int:
        """Bytes that indexes take which are made while a pack is loaded, about."""
        if self.settings.index != "load" or pack.encoding != "jpeg":
            return 0
        mean = np.zeros(1, RECORD)
        mean["width"], mean["height"] = math.ceil(pack.mean_width), math.ceil(pack.mean_height)
        return pack.count * int(indexed_room(mean)[0])

    @property
    def room_per_node(self) -> int:
        """Bytes in which the ranks of a node keep images of other nodes, together."""
        return self._room_per_rank * max(map(len, self.groups.ranks_on))

    @property
    def window_steps(self) -> int:
        """Steps of a window, the same on all ranks."""
        each = self._arriving_per_step
        return max(1, int(self._room_per_rank / WINDOWS_IN_ROOM / each)) if each else 1

    @property
    def _arriving_per_step(self) -> float:
        """Bytes that a rank is sent for one step, on average."""
        if not self.moves_images:
            return 0.0
        payload = sum(shard.payload_bytes for shard in self.train.shards) / self.train.count
        elsewhere = 1 - 1 / self.groups.nodes_each
        return self.settings.batch_per_rank * payload * elsewhere * self.settings.moving_fraction

    @property
    def _room_per_rank(self) -> int:
        if not self.moves_images:
            return 0
        payload = sum(shard.payload_bytes for shard in self.train.shards)
        wanted = payload / self.groups.nodes_each * self.settings.exchange_window
        share = wanted / max(map(len, self.groups.ranks_on))
        # Never less than one step being read and one on its way, else nothing is hidden.
        return math.ceil(max(share, WINDOWS_IN_ROOM * self._arriving_per_step) / ALIGNMENT) * ALIGNMENT

    def train_part(self, rank: int) -> Part | None:
        """Return what tells `Store.open` the part of the training set that a rank's node holds."""
        return None if self.is_whole else partial(self._train_range, self.groups.member(rank))

    def _train_range(self, member: int, records: np.ndarray) -> range:
        first, end = bounds_of(records["length"], self.groups, self.settings)[member : member + 2].tolist()
        return range(first, end)

    def val_part(self, rank: int) -> Part | None:
        """Return the same of the held-out set: what the ranks of the node evaluate."""
        return None if self.is_whole else lambda records: eval_range(self.groups, rank, len(records))

    def eval_rank(self, rank: int) -> int:
        """Return which part of the held-out set a rank evaluates: one that its node holds."""
        return rank if self.is_whole else eval_rank(self.groups, rank)

    def reading(self, store: Store, seed: int) -> Reading:
        """Return who reads what of the training set."""
        settings = self.settings
        if self.is_whole or settings.reshuffle == "global":
            ranks = len(self.groups.node_of)
            return GlobalReading(seed, store.count, ranks, settings.batch_per_rank, settings.last_batch)
        bounds = bounds_of(store.records["length"], self.groups, settings)
        return PartialReading(
            seed, self.groups, bounds, settings.moving_fraction, settings.batch_per_rank, settings.last_batch
        )

    def windows(self, store: Store, reading: Reading, rank: int, carrier: Carrier) -> Windows:
        """Begin the exchange of images for a rank; all ranks of a group do.

        Args:
            store: of the training set, with this node's part.
            reading: what the loader reads.
            rank: this rank.
            carrier: what moves the bytes.
        """
        bounds = bounds_of(store.records["length"], self.groups, self.settings)

        def blame(image: int, arrived_at: int) -> DataError:
            member = int(np.searchsorted(bounds, image, side="right")) - 1
            sender = self.groups.server(arrived_at, member)
            return DataError(
                store.shard_of(image),
                f"checksum of it is wrong as rank {arrived_at} received it from rank {sender} (node "
                f"{self.groups.node_of[sender]})",
                "look for faulty memory or network of these nodes and leave them out; then resume the run",
            )

        plan = self.planner(store, reading, rank).plan
        return Windows(store, plan, carrier, self.window_steps, self._room_per_rank, blame, rank)

    def planner(self, store: Store, reading: Reading, rank: int) -> Planner:
        """Return what knows which images travel from and to a rank."""
        return Planner(
            reading, self.groups, bounds_of(store.records["length"], self.groups, self.settings), rank
        )
