"""In which order a ring visits the ranks, so that the rings of several colors stay off each other.

Rings come in pairs that run the same way round in opposite directions, since links are full duplex.
Different pairs use different links as long as there are enough: the links between ``n`` stops can be
shared out among ``(n - 1) // 2`` such pairs and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from distrain.errors import UsageError

Order = tuple[int, ...]


def zigzag(size: int) -> Order:
    """Return ``0, 1, size-1, 2, size-2, ...``: all numbers below ``size``, steps of growing length.

    For even ``size`` the steps are different in length modulo ``size``, so that the ``size`` rotations
    ``(z + i) % size`` never take the same step twice, and start and end at different numbers.
    """
    return tuple((i + 1) // 2 if i % 2 else -(i // 2) % size for i in range(size))


def _shift(order: Sequence[int], by: int, size: int) -> list[int]:
    return [(stop + by) % size for stop in order]


@lru_cache(maxsize=64)
def hamiltonian_cycles(size: int) -> tuple[Order, ...]:
    """Return ``max(1, (size - 1) // 2)`` closed tours of all stops, no two of which share a link.

    Walecki's decomposition (Lucas 1892): rotations of a zigzag, closed over one more stop; for even
    ``size`` a second extra stop sits in the middle of each zigzag. The stops are named such that the
    first tour is ``0, 1, 2, ...``.
    """
    if size <= 3:
        return (tuple(range(size)),)
    outer = size - 1 if size % 2 else size - 2
    tours = []
    for turn in range((size - 1) // 2):
        tour = _shift(zigzag(outer), turn, outer)
        if size % 2 == 0:
            tour.insert(outer // 2, outer + 1)
        tours.append([outer, *tour])
    names = {stop: name for name, stop in enumerate(tours[0])}
    return tuple(_from_zero([names[stop] for stop in tour]) for tour in tours)


def _from_zero(tour: Sequence[int]) -> Order:
    start = tour.index(0)
    return (*tour[start:], *tour[:start])


def by_node(world_size: int, nodes: Sequence[int] | None) -> tuple[Order, ...]:
    """Return the ranks of each node, ascending, nodes in the order of their lowest rank.

    Args:
        world_size: number of ranks.
        nodes: ``nodes[r]`` is the node of rank ``r``; None: all ranks on one node.

    Raises:
        UsageError: there is not exactly one entry for each rank.
    """
    if nodes is None:
        return (tuple(range(world_size)),)
    if len(nodes) != world_size:
        raise UsageError(
            "schedule", f"nodes has {len(nodes)} entries for {world_size} ranks", "give the node of each rank"
        )
    groups: dict[int, list[int]] = {}
    for rank, node in enumerate(nodes):
        groups.setdefault(node, []).append(rank)
    return tuple(tuple(ranks) for ranks in groups.values())


def ring_orders(world_size: int, colors: int, nodes: Sequence[int] | None = None) -> tuple[Order, ...]:
    """Return for each color the ranks in the order in which its ring visits them.

    Colors ``2 i`` and ``2 i + 1`` run along tour ``i`` in opposite directions. On several nodes the
    tours are those of the nodes, and the ranks of a node follow each other; up to as many colors as a
    node has ranks, each color enters the node at another rank and leaves it from another rank, so that
    every rail carries a color.
    """
    groups = by_node(world_size, nodes)
    if len(groups) == 1:
        groups = tuple((rank,) for rank in groups[0])
    tours = hamiltonian_cycles(len(groups))
    return tuple(_visit(groups, tours[(c // 2) % len(tours)], c) for c in range(colors))


def _visit(groups: Sequence[Order], tour: Order, color: int) -> Order:
    """Walk one tour of the nodes, and inside each node one path over its ranks.

    Nodes with an even number of ranks reverse every other path, so that a ring leaves a node from the
    same local rank by which it enters the next: traffic stays on its rail. With an odd number that
    cannot be had together with different entries and exits for every color; those come first.
    """
    pair, backwards = divmod(color, 2)
    stops = list(enumerate(tour))
    order: list[int] = []
    for position, node in reversed(stops) if backwards else stops:
        ranks = groups[node]
        size = len(ranks)
        path = _shift(zigzag(size), color if size % 2 else pair, size)
        if size % 2 == 0 and (position + backwards) % 2:
            path.reverse()
        order += [ranks[local] for local in path]
    return _from_zero(order)
