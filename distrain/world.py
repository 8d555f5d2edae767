"""Arithmetic on ranks and nodes: a list of host names in, every derived number out.

Nothing here talks to MPI: the functions are pure, so the launcher can use them on a login
node and the tests can try any cluster.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def split(count: int, parts: int) -> list[range]:
    """Cut ``range(count)`` into ``parts`` contiguous ranges whose lengths differ by at most one.

    The first ``count % parts`` ranges are the longer ones; ranges may be empty.
    """
    short, longer = divmod(count, parts)
    bounds = [i * short + min(i, longer) for i in range(parts + 1)]
    return [range(bounds[i], bounds[i + 1]) for i in range(parts)]


def rank_name(rank: int) -> str:
    """Return how files of a rank are named in the run folder, without their ending: ``rank-0003``."""
    return f"rank-{rank:04d}"


@dataclass(frozen=True)
class World:
    """Who this process is among all others.

    Attributes:
        rank: number of this process, ``0 <= rank < size``.
        hosts: ``hosts[r]`` is the name of the node on which rank ``r`` runs.
    """

    rank: int
    hosts: tuple[str, ...]

    @classmethod
    def of(cls, rank: int, hosts: Sequence[str]) -> World:
        """Build the world that rank ``rank`` sees, from one host name a rank."""
        if not 0 <= rank < len(hosts):
            raise ValueError(f"rank={rank} is not in a world of {len(hosts)}")
        return cls(rank, tuple(hosts))

    @classmethod
    def alone(cls) -> World:
        """A world of one rank."""
        return cls(0, ("localhost",))

    @property
    def size(self) -> int:
        """Number of ranks in all."""
        return len(self.hosts)

    @property
    def node_names(self) -> tuple[str, ...]:
        """Names of the nodes, in the order of their lowest rank."""
        return tuple(dict.fromkeys(self.hosts))

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return len(self.node_names)

    @property
    def node(self) -> int:
        """Number of this rank's node, ``0 <= node < nodes``."""
        return self.node_names.index(self.hosts[self.rank])

    def ranks_on(self, node: int) -> tuple[int, ...]:
        """Ranks that run on a node, ascending."""
        name = self.node_names[node]
        return tuple(r for r, host in enumerate(self.hosts) if host == name)

    @property
    def local_ranks(self) -> tuple[int, ...]:
        """Ranks on this node, ascending."""
        return self.ranks_on(self.node)

    @property
    def local_rank(self) -> int:
        """Number of this rank among those of its node."""
        return self.local_ranks.index(self.rank)

    @property
    def local_size(self) -> int:
        """Number of ranks on this node."""
        return len(self.local_ranks)
