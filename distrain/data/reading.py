"""Which rank reads which images at which step: the pure rule behind every mode of reshuffling.

`GlobalReading` gives the same global batches on any number of ranks and nodes. `PartialReading` lets
each node read mostly the part that it holds; a fraction Q of each part changes places for an epoch,
as in Nguyen et al., "Why Globally Re-shuffle? Revisiting Data Shuffling in Large Scale Deep
Learning", IPDPS 2022. There images move on from where they came; here they come from their home
anew in each epoch, so that any position of any epoch is known without its history. Q = 0 is the local mode.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np

from distrain.data.hashing import key
from distrain.data.nodes.groups import Groups
from distrain.data.order import EpochOrder, rank_positions, steps_per_epoch
from distrain.errors import ConfigError

_HOME, _VISIT, _MIX = 0x686F6D65, 0x7669736974, 0x6D6978  # keep the permutations of an epoch apart


class Order(Protocol):
    """The order of one epoch."""

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """Return the image index int64 [N] at each position int64 [N]."""


class Reading(Protocol):
    """Who reads what, when.

    Attributes:
        steps_per_epoch: global batches of an epoch.
    """

    steps_per_epoch: int

    def order(self, epoch: int) -> Order:
        """Return the order of an epoch, a permutation of the whole set."""

    def positions(self, step: int | np.ndarray, rank: int) -> np.ndarray:
        """Return the positions that a rank takes at a step of an epoch, int64 [batch_per_rank].

        Of several steps, int64 [S], those of each: [S, batch_per_rank].
        """


class GlobalReading:
    """Each epoch a permutation of the whole set, dealt to the ranks in global batches.

    Args:
        seed: of the run.
        count: images of the set.
        ranks: of the world.
        batch_per_rank: images per rank and step.
        last_batch: see `distrain.data.order.steps_per_epoch`.

    Raises:
        ConfigError: there are fewer images than one global batch.
    """

    def __init__(self, seed: int, count: int, ranks: int, batch_per_rank: int, last_batch: str) -> None:
        self.steps_per_epoch = steps_per_epoch(count, ranks * batch_per_rank, last_batch)
        self._seed, self._count, self._ranks, self._batch = seed, count, ranks, batch_per_rank

    def order(self, epoch: int) -> EpochOrder:
        """See `Reading.order`."""
        return _epoch_order(self._seed, epoch, self._count)

    def positions(self, step: int | np.ndarray, rank: int) -> np.ndarray:
        """See `Reading.positions`."""
        return rank_positions(step, rank, self._ranks, self._batch, self._count)


_epoch_order = lru_cache(maxsize=8)(EpochOrder)


class PartialReading:
    """Each node reads its own part, but for a fraction that is dealt anew among the nodes of a group.

    All positions of part ``m`` are read by the ranks whose node holds it (in every group), so every
    image is read exactly once in an epoch over all groups together.

    Args:
        seed: of the run.
        groups: who holds which part.
        bounds: int64 [parts + 1], of the parts.
        fraction: of each part that changes places in an epoch, 0 to 1.
        batch_per_rank: images per rank and step.
        last_batch: ``drop`` or ``wrap``, for each part by itself.

    Raises:
        ConfigError: a part has fewer images than its ranks read in one step.
    """

    def __init__(
        self,
        seed: int,
        groups: Groups,
        bounds: np.ndarray,
        fraction: float,
        batch_per_rank: int,
        last_batch: str,
    ) -> None:
        self._seed, self._bounds, self._fraction = seed, bounds, fraction
        self._batch = batch_per_rank
        self._place = {
            rank: (member, number)
            for member in range(groups.nodes_each)
            for number, rank in enumerate(groups.readers(member))
        }
        self._readers = [len(groups.readers(member)) for member in range(groups.nodes_each)]
        self.steps_per_epoch = partial_steps(
            np.diff(bounds).tolist(), self._readers, batch_per_rank, last_batch
        )

    def order(self, epoch: int) -> PartialOrder:
        """See `Reading.order`."""
        return _partial_order(self._seed, epoch, tuple(self._bounds.tolist()), self._fraction)

    def positions(self, step: int | np.ndarray, rank: int) -> np.ndarray:
        """See `Reading.positions`."""
        member, number = self._place[rank]
        first, end = self._bounds[member : member + 2].tolist()
        return first + rank_positions(step, number, self._readers[member], self._batch, end - first)


def partial_steps(counts: list[int], readers: list[int], batch_per_rank: int, last_batch: str) -> int:
    """Return the steps of an epoch in which every part is read by its own ranks.

    With ``drop`` all ranks stop where the smallest part (for its ranks) ends, with ``wrap`` where the
    largest does.

    Args:
        counts: images of each part.
        readers: ranks that read each part.
        batch_per_rank, last_batch: see `PartialReading`.

    Raises:
        ConfigError: a part has fewer images than its ranks read in one step.
    """
    batches = [ranks * batch_per_rank for ranks in readers]
    for member, (count, batch) in enumerate(zip(counts, batches, strict=True)):
        if count < batch:
            raise ConfigError(
                "data.batch_per_rank",
                f"part {member} of the training set has {count} images, fewer than the {batch} that its "
                "ranks read in one step",
                "lower data.batch_per_rank, the number of ranks or data.group_nodes",
            )
    if last_batch == "drop":
        return min(count // batch for count, batch in zip(counts, batches, strict=True))
    return max(-(-count // batch) for count, batch in zip(counts, batches, strict=True))


class PartialOrder:
    """A permutation of the set in which part ``m`` of the positions holds mostly images of part ``m``.

    Each part is permuted; the first Q of it visit other parts: those of all parts are permuted
    together and dealt back, as many to each part as came from it. Then visitors and those at home
    are mixed. Position to image in constant time, like `EpochOrder`.

    Args:
        seed, epoch: of the run.
        bounds: of the parts.
        fraction: Q, 0 to 1.
    """

    def __init__(self, seed: int, epoch: int, bounds: tuple[int, ...], fraction: float) -> None:
        self._bounds = np.array(bounds, np.int64)
        sizes = np.diff(self._bounds)
        self._visitors = np.rint(sizes * fraction).astype(np.int64)
        self._first = np.concatenate([[0], np.cumsum(self._visitors)])

        def permutation(kind: int, part: int, count: int) -> EpochOrder | None:
            return EpochOrder(int(key(seed, kind, part)[0]), epoch, count) if count else None

        self._home = [permutation(_HOME, part, size) for part, size in enumerate(sizes.tolist())]
        self._mix = [permutation(_MIX, part, size) for part, size in enumerate(sizes.tolist())]
        self._pool = permutation(_VISIT, 0, int(self._first[-1]))

    def indices(self, positions: np.ndarray) -> np.ndarray:
        """Return the image index int64 [N] at each position int64 [N]."""
        part = np.searchsorted(self._bounds, positions, side="right") - 1
        place = _by_part(self._mix, part, positions - self._bounds[part])
        visits = place < self._visitors[part]
        if self._pool is not None and visits.any():
            slot = self._pool.indices(self._first[part[visits]] + place[visits])
            origin = np.searchsorted(self._first, slot, side="right") - 1
            part, place = part.copy(), place.copy()
            part[visits], place[visits] = origin, slot - self._first[origin]
        return self._bounds[part] + _by_part(self._home, part, place)


_partial_order = lru_cache(maxsize=8)(PartialOrder)


def _by_part(orders: list[EpochOrder | None], part: np.ndarray, positions: np.ndarray) -> np.ndarray:
    out = np.empty(len(positions), np.int64)
    for number in np.unique(part).tolist():
        chosen = part == number
        order = orders[number]
        assert order is not None  # a position in a part means that the part has images
        out[chosen] = order.indices(positions[chosen])
    return out
