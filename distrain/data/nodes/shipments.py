"""Which images travel in a window of steps, from whom to whom: pure, so every rank plans alone.

The home of an image never changes: the node that read it from the disk keeps it. What a rank reads in
the next steps and its node does not hold is sent to it ahead of time, by the rank of the home node
that serves it. Both sides work the list out from (seed, epoch, position); no request is ever sent.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        *of_peers, own = self.reads([*self._served, self._rank], steps)
        for peer, needed in zip(self._served, of_peers, strict=True):
            mine = needed[(needed >= first) & (needed < end)]
            if len(mine):
                sends.append(Shipment(peer, mine))
        receives = []
        cuts = np.searchsorted(own, self._bounds)
        for member in range(self._groups.nodes_each):
            theirs = own[cuts[member] : cuts[member + 1]]
            if member != self._member and len(theirs):
                receives.append(Shipment(self._groups.server(self._rank, member), theirs))
        return Shipments(tuple(sends), tuple(receives))

    def reads(self, ranks: Sequence[int], steps: range) -> list[np.ndarray]:
        """Return the images that each of some ranks reads in some steps, ascending, each once: int64 [N]."""
        epoch, within = np.divmod(np.array(steps), self._reading.steps_per_epoch)
        found = []
        for number in range(epoch[0], epoch[-1] + 1):
            # All at once: of a few images a call of numpy is the larger part.
            positions = [self._reading.positions(within[epoch == number], rank) for rank in ranks]
            images = self._reading.order(number).indices(np.ravel(positions))
            found.append(images.reshape(len(ranks), -1))
        return [np.unique(images) for images in np.concatenate(found, axis=1)]
