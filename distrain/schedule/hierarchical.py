"""Two levels: inside the node first, then between the nodes, then inside the node again.

The ranks of a node reduce-scatter their payload, so that each carries a shard of it; ranks with the
same shard allreduce it between the nodes, one lane for each shard; the node gathers the shards. Only
``2 (M-1)/M`` of the payload leaves a node of ``M``, spread over all its ranks and rails, in
``2 (L-1) + 2 (M-1)`` steps for ``L`` ranks a node instead of the ``2 (L M - 1)`` of a flat ring.
"""

from __future__ import annotations

from collections.abc import Sequence

from distrain.schedule.ir import Collective, Op, Schedule, Step
from distrain.schedule.orders import Order, by_node, hamiltonian_cycles
from distrain.schedule.patterns import (
    Pattern,
    beside,
    circulant_all_gather,
    circulant_reduce_scatter,
    halves,
    lift,
    ring_all_gather,
    ring_reduce_scatter,
)


def hierarchical(
    world_size: int,
    colors: int = 2,
    collective: Collective = Collective.ALLREDUCE,
    nodes: Sequence[int] | None = None,
    halving: bool = False,
) -> Schedule:
    """Rings inside the nodes; rings, or halving and doubling, between them.

    Chunk ``r`` is owned by rank ``r`` and belongs to the shard of that rank's local number. A node
    with fewer ranks than another lets some of them carry several shards.

    Args:
        world_size: number of ranks.
        colors: number of colors; they go around nodes and ranks in different orders.
        collective: what is computed.
        nodes: ``nodes[r]`` is the node of rank ``r``; None: all ranks on one node.
        halving: between the nodes take few steps (short messages, many nodes) instead of a ring.
    """
    groups = by_node(world_size, nodes)
    steps = beside(_one_color(groups, color, collective, halving) for color in range(colors))
    name = "hierarchical_halving" if halving else "hierarchical"
    return Schedule(name, collective, world_size, colors, world_size, tuple(steps))


def _one_color(groups: Sequence[Order], color: int, collective: Collective, halving: bool) -> list[Step]:
    scatter = circulant_reduce_scatter if halving else ring_reduce_scatter
    gather = circulant_all_gather if halving else ring_all_gather
    reduces, gathers = halves(collective)
    steps: list[Step] = []
    if reduces:
        steps += _inside(groups, color, Op.REDUCE)
        steps += _between(groups, color, scatter(len(groups)), Op.REDUCE)
    if gathers:
        steps += _between(groups, color, gather(len(groups)), Op.COPY)
        steps += _inside(groups, color, Op.COPY)
    return steps


def _tour(size: int, color: int) -> Order:
    """The order of a color among `size` stops: tours in pairs of opposite directions."""
    tours = hamiltonian_cycles(size)
    tour = tours[(color // 2) % len(tours)]
    return tour if color % 2 == 0 else tour[::-1]


def _shards(groups: Sequence[Order]) -> list[list[int]]:
    """``shards[i]`` are the chunks whose owners have the local number ``i``."""
    return [[g[i] for g in groups if i < len(g)] for i in range(max(len(g) for g in groups))]


def _inside(groups: Sequence[Order], color: int, op: Op) -> list[Step]:
    """All nodes at once: a ring over the ranks of the node, in which shards are the blocks."""
    shards = _shards(groups)
    parts = []
    for ranks in groups:
        size = len(ranks)
        tour = _tour(size, color)
        carried = [[chunk for shard in shards[local::size] for chunk in shard] for local in tour]
        pattern = ring_reduce_scatter(size) if op is Op.REDUCE else ring_all_gather(size)
        parts.append(lift(pattern, op, [ranks[local] for local in tour], carried, color))
    return beside(parts)


def _between(groups: Sequence[Order], color: int, pattern: Pattern, op: Op) -> list[Step]:
    """All shards at once: a lane over the nodes, in which each block is the chunk of a node's own rank."""
    tour = _tour(len(groups), color)
    lanes = []
    for shard in range(max(len(ranks) for ranks in groups)):
        carriers = [groups[node][shard % len(groups[node])] for node in tour]
        blocks = [groups[node][shard : shard + 1] for node in tour]  # empty in a node that is too small
        lanes.append(lift(pattern, op, carriers, blocks, color))
    return beside(lanes)
