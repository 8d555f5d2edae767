"""Who the ranks of a group are, for people."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from distrain.world import World


@dataclass(frozen=True)
class Members:
    """The ranks of a group, as people know them.

    Attributes:
        key: name of the group, the same on all members.
        ranks: `ranks[r]` is the rank in the world of rank r of the group.
        world: who runs where.
    """

    key: str
    ranks: tuple[int, ...]
    world: World

    @functools.cached_property
    def all(self) -> frozenset[int]:
        """Return `ranks` as a set."""
        return frozenset(self.ranks)

    def name(self, rank: int) -> str:
        """Name a rank of the group: ``"rank 3 on node7"``."""
        return name(self.world, self.ranks[rank])

    @property
    def title(self) -> str:
        """Which group this is, in words."""
        if len(self.ranks) == self.world.size:
            return "all ranks"
        shown = ", ".join(str(rank) for rank in self.ranks[:8])
        return f"the group of ranks {shown}{', ...' if len(self.ranks) > 8 else ''}"

    @property
    def nodes(self) -> tuple[int, ...]:
        """Number of the node of each member."""
        numbers = {host: number for number, host in enumerate(self.world.node_names)}
        return tuple(numbers[self.world.hosts[rank]] for rank in self.ranks)


def name(world: World, rank: int) -> str:
    """Name a rank of the world: ``"rank 3 on node7"``."""
    return f"rank {rank} on {world.hosts[rank]}"
