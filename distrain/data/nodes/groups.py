"""Groups of nodes that own a data set together: who holds which images, and who sends them to whom.

Pure arithmetic. Nodes are numbered as in `distrain.world.World`; group ``k`` is the nodes
``[k*g, (k+1)*g)``, and member ``m`` of each group holds the m-th part of the set: a range of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from distrain.data.format import padded_lengths
from distrain.data.settings import DataSettings
from distrain.errors import ConfigError
from distrain.world import World, split


@dataclass(frozen=True)
class Groups:
    """Nodes of a world in groups of equal size.

    Attributes:
        node_of: node of each rank.
        nodes_each: nodes in a group.
    """

    node_of: tuple[int, ...]
    nodes_each: int

    @classmethod
    def of(cls, world: World, group_nodes: int) -> Groups:
        """Cut the nodes of a world into groups.

        Raises:
            ConfigError: the number of nodes is not a multiple of ``group_nodes``.
        """
        check_group_nodes(group_nodes, world.nodes)
        numbers = {name: number for number, name in enumerate(world.node_names)}
        return cls(tuple(numbers[host] for host in world.hosts), group_nodes)

    @classmethod
    def of_slots(cls, slots: Sequence[int], group_nodes: int) -> Groups:
        """Cut nodes into groups whose ranks are numbered node by node; slots: ranks of each node.

        Raises:
            ConfigError: as `of`.
        """
        check_group_nodes(group_nodes, len(slots))
        return cls(tuple(node for node, ranks in enumerate(slots) for _ in range(ranks)), group_nodes)

    @cached_property
    def ranks_on(self) -> tuple[tuple[int, ...], ...]:
        """Ranks of each node, ascending."""
        found: list[list[int]] = [[] for _ in range(max(self.node_of) + 1)]
        for rank, node in enumerate(self.node_of):
            found[node].append(rank)
        return tuple(map(tuple, found))

    @cached_property
    def local_rank(self) -> tuple[int, ...]:
        """Number of each rank among those of its node."""
        return tuple(self.ranks_on[node].index(rank) for rank, node in enumerate(self.node_of))

    def group(self, rank: int) -> int:
        """Return the group to which the node of a rank belongs."""
        return self.node_of[rank] // self.nodes_each

    def member(self, rank: int) -> int:
        """Return the number of a rank's node in its group, which is also that of the part it holds."""
        return self.node_of[rank] % self.nodes_each

    def readers(self, member: int) -> tuple[int, ...]:
        """Return the ranks of all groups whose node holds part ``member``, ascending."""
        return tuple(r for r, node in enumerate(self.node_of) if node % self.nodes_each == member)

    def server(self, rank: int, member: int) -> int:
        """Return the rank that sends images of part ``member`` to a rank: one on that node of its group."""
        there = self.ranks_on[self.group(rank) * self.nodes_each + member]
        return there[self.local_rank[rank] % len(there)]

    def served(self, server: int) -> tuple[int, ...]:
        """Return the ranks of other nodes to which a rank sends images, ascending."""
        group, node = self.group(server), self.node_of[server]
        ranks = range(len(self.node_of))
        others = (r for r in ranks if self.group(r) == group and self.node_of[r] != node)
        return tuple(r for r in others if self.server(r, self.member(server)) == server)


def check_group_nodes(group_nodes: int, nodes: int) -> None:
    """Check that the nodes of a job can be cut into groups.

    Raises:
        ConfigError: ``nodes`` is not a multiple of ``group_nodes``.
    """
    if nodes % group_nodes:
        fitting = ", ".join(str(n) for n in range(1, nodes + 1) if nodes % n == 0)
        raise ConfigError(
            "data.group_nodes",
            f"{group_nodes} does not divide the {nodes} nodes of the job",
            f"use one of {fitting}, or another number of nodes",
        )


def cut_by_bytes(lengths: np.ndarray, parts: int) -> np.ndarray:
    """Cut a set into ranges of images with about equal bytes: bounds int64 [parts + 1].

    A part differs from ``1/parts`` of the bytes by less than one image at each end; with fewer images
    than parts some are empty.

    Args:
        lengths: uint32 [count], bytes of each image.
        parts: how many.
    """
    cuts = np.concatenate([[0], np.cumsum(padded_lengths(lengths))])  # bytes before each image, and all
    targets = int(cuts[-1]) * np.arange(1, parts) // parts
    above = np.searchsorted(cuts, targets, side="right").clip(max=len(lengths))
    nearer_below = targets - cuts[above - 1] < cuts[above] - targets
    inner = np.where(nearer_below, above - 1, above)
    return np.concatenate([[0], inner, [len(lengths)]]).astype(np.int64)


def cut_by_readers(count: int, groups: Groups) -> np.ndarray:
    """Cut a set into ranges of images in proportion to the ranks that read each: int64 [parts + 1].

    Without a global reshuffle a part is read where it lies, so its readers must share it evenly.
    """
    readers = [len(groups.readers(member)) for member in range(groups.nodes_each)]
    return count * np.concatenate([[0], np.cumsum(readers)]).astype(np.int64) // sum(readers)


def bounds_of(lengths: np.ndarray, groups: Groups, settings: DataSettings) -> np.ndarray:
    """Return where the parts of the training set begin and end: int64 [nodes_each + 1]."""
    if settings.reshuffle == "global":
        return cut_by_bytes(lengths, groups.nodes_each)
    return cut_by_readers(len(lengths), groups)


def eval_rank(groups: Groups, rank: int) -> int:
    """Return the number of a rank when ranks are counted node by node.

    With it each node evaluates one contiguous range of the held-out set, however ranks are mapped.
    """
    before: Sequence[tuple[int, ...]] = groups.ranks_on[: groups.node_of[rank]]
    return sum(map(len, before)) + groups.local_rank[rank]


def eval_range(groups: Groups, rank: int, count: int) -> range:
    """Return the images of the held-out set that the node of a rank evaluates."""
    here = groups.ranks_on[groups.node_of[rank]]
    parts = split(count, len(groups.node_of))
    first, last = eval_rank(groups, here[0]), eval_rank(groups, here[-1])
    return range(parts[first].start, parts[last].stop)
