"""Which images travel in a window of steps, from whom to whom: pure, so every rank plans alone.

The home of an image never changes: the node that read it from the disk keeps it. What a rank reads in
the next steps and its node does not hold is sent to it ahead of time, by the rank of the home node
that serves it. Both sides work the list out from (seed, epoch, position); no request is ever sent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distrain.data.nodes.groups import Groups
from distrain.data.reading import Reading


@dataclass(frozen=True)
class Shipment:
    """Images that travel between this rank and another one.

    Attributes:
        peer: rank of the world.
        images: int64 [N], ascending; in this order their bytes follow each other.
    """

    peer: int
    images: np.ndarray


@dataclass(frozen=True)
class Shipments:
    """What a rank sends and receives for one window."""

    sends: tuple[Shipment, ...]
    receives: tuple[Shipment, ...]


class Planner:
    """Plans the windows of one rank.

    Args:
        reading: who reads what.
        groups: who holds what, with ``bounds``.
        bounds: int64 [parts + 1], of the parts of the set.
        rank: this rank.
    """

    def __init__(self, reading: Reading, groups: Groups, bounds: np.ndarray, rank: int) -> None:
        self._reading, self._groups, self._bounds, self._rank = reading, groups, bounds, rank
        self._served = groups.served(rank)
        self._member = groups.member(rank)

    def plan(self, steps: range) -> Shipments:
        """Return what travels so that this rank, and those that it serves, can read in some steps.

        Args:
            steps: counted from the start of epoch 0; they may span epochs.
        """
        sends = []
        first, end = self._bounds[self._member : self._member + 2]
        for peer in self._served:
            needed = self.reads(peer, steps)
            mine = needed[(needed >= first) & (needed < end)]
            if len(mine):
                sends.append(Shipment(peer, mine))
        receives = []
        needed = self.reads(self._rank, steps)
        cuts = np.searchsorted(needed, self._bounds)
        for member in range(self._groups.nodes_each):
            theirs = needed[cuts[member] : cuts[member + 1]]
            if member != self._member and len(theirs):
                receives.append(Shipment(self._groups.server(self._rank, member), theirs))
        return Shipments(tuple(sends), tuple(receives))

    def reads(self, rank: int, steps: range) -> np.ndarray:
        """Return the images that a rank reads in some steps, ascending, each once: int64 [N]."""
        found = []
        epochs = self._reading.steps_per_epoch
        for epoch in range(steps.start // epochs, -(-steps.stop // epochs)):
            within = range(max(steps.start - epoch * epochs, 0), min(steps.stop - epoch * epochs, epochs))
            positions = [self._reading.positions(step, rank) for step in within]
            found.append(self._reading.order(epoch).indices(np.concatenate(positions)))
        return np.unique(np.concatenate(found))
