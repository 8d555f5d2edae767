"""Two levels: inside the node first, then between the nodes, then inside the node again.

The ranks of a node reduce-scatter their payload, so that each carries a shard of it; ranks with the
same shard allreduce it between the nodes, one lane for each shard; the node gathers the shards. Only
``2 (M-1)/M`` of the payload leaves a node of ``M``, spread over all its ranks and rails, in
``2 (L-1) + 2 (M-1)`` steps for ``L`` ranks a node instead of the ``2 (L M - 1)`` of a flat ring.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distrain.schedule.doubling import doubling
from distrain.schedule.ir import Collective, Op, Schedule, Step
from distrain.schedule.orders import Order, by_node, hamiltonian_cycles
from distrain.schedule.patterns import (
    Pattern,
    Phase,
    backwards,
    beside,
    circulant_all_gather,
    circulant_reduce_scatter,
    halves,
    lift,
    ring_all_gather,
    ring_reduce_scatter,
)
from distrain.schedule.tree import tree_reduce

Blocks = Sequence[int]  # chunks that move together


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
        halving: between the nodes take few steps (messages of middle length, many nodes) instead of a ring.
    """
    groups = by_node(world_size, nodes)
    steps = beside(_one_color(groups, color, collective, halving) for color in range(colors))
    name = "hierarchical_halving" if halving else "hierarchical"
    return Schedule(name, collective, world_size, colors, world_size, tuple(steps))


def hierarchical_tree(
    world_size: int, colors: int = 2, nodes: Sequence[int] | None = None, arity: int | None = None
) -> Schedule:
    """Rings inside the nodes; between them one tree for each color, as in `multicolor_tree`.

    An allreduce. Chunk ``i`` is the shard of the ranks with the local number ``i``.

    Args:
        world_size: number of ranks.
        colors: number of colors.
        nodes: ``nodes[r]`` is the node of rank ``r``; None: all ranks on one node.
        arity: children of an interior node; by default the number of colors, at least 2.
    """
    arity = max(2, colors) if arity is None else arity

    def between(size: int, color: int) -> list[Phase]:
        up = tree_reduce(size, color, arity)
        return [(up, Op.REDUCE), (backwards(up), Op.COPY)]

    return _of_shards("hierarchical_tree", by_node(world_size, nodes), colors, between)


def hierarchical_doubling(world_size: int, colors: int = 1, nodes: Sequence[int] | None = None) -> Schedule:
    """Rings inside the nodes; between them everyone exchanges its shard, as in `recursive_doubling`.

    An allreduce. Chunk ``i`` is the shard of the ranks with the local number ``i``.

    Args:
        world_size: number of ranks.
        colors: number of colors.
        nodes: ``nodes[r]`` is the node of rank ``r``; None: all ranks on one node.
    """
    return _of_shards("hierarchical_doubling", by_node(world_size, nodes), colors, doubling)


def _of_shards(
    name: str, groups: Sequence[Order], colors: int, between: Callable[[int, int], Sequence[Phase]]
) -> Schedule:
    """Shards that are not cut any further: ``between(nodes, color)`` is what happens to each of them."""
    shards = [[shard] for shard in range(max(len(ranks) for ranks in groups))]
    blocks = [[shard] for shard in shards]

    def one_color(color: int) -> list[Step]:
        steps = _inside(groups, shards, color, Op.REDUCE)
        for pattern, op in between(len(groups), color):
            steps += _lanes(groups, range(len(groups)), blocks, pattern, op, color)
        return steps + _inside(groups, shards, color, Op.COPY)

    steps = beside(one_color(color) for color in range(colors))
    size = sum(len(ranks) for ranks in groups)
    return Schedule(name, Collective.ALLREDUCE, size, colors, len(shards), tuple(steps))


def _one_color(groups: Sequence[Order], color: int, collective: Collective, halving: bool) -> list[Step]:
    scatter = circulant_reduce_scatter if halving else ring_reduce_scatter
    gather = circulant_all_gather if halving else ring_all_gather
    reduces, gathers = halves(collective)
    shards = [[g[i] for g in groups if i < len(g)] for i in range(max(len(g) for g in groups))]
    tour = _tour(len(groups), color)
    # In the lane of a shard each node's block is the chunk of its own rank, if it has that many ranks.
    blocks = [[groups[node][i : i + 1] for node in tour] for i in range(len(shards))]
    steps: list[Step] = []
    if reduces:
        steps += _inside(groups, shards, color, Op.REDUCE)
        steps += _lanes(groups, tour, blocks, scatter(len(groups)), Op.REDUCE, color)
    if gathers:
        steps += _lanes(groups, tour, blocks, gather(len(groups)), Op.COPY, color)
        steps += _inside(groups, shards, color, Op.COPY)
    return steps


def _tour(size: int, color: int) -> Order:
    """The order of a color among `size` stops: tours in pairs of opposite directions."""
    tours = hamiltonian_cycles(size)
    tour = tours[(color // 2) % len(tours)]
    return tour if color % 2 == 0 else tour[::-1]


def _inside(groups: Sequence[Order], shards: Sequence[Blocks], color: int, op: Op) -> list[Step]:
    """All nodes at once: a ring over the ranks of the node, in which shards are the blocks."""
    parts = []
    for ranks in groups:
        size = len(ranks)
        tour = _tour(size, color)
        carried = [[chunk for shard in shards[local::size] for chunk in shard] for local in tour]
        pattern = ring_reduce_scatter(size) if op is Op.REDUCE else ring_all_gather(size)
        parts.append(lift(pattern, op, [ranks[local] for local in tour], carried, color))
    return beside(parts)


def _lanes(
    groups: Sequence[Order],
    tour: Sequence[int],
    blocks: Sequence[Sequence[Blocks]],
    pattern: Pattern,
    op: Op,
    color: int,
) -> list[Step]:
    """All shards at once: a pattern over the nodes of a tour, between the ranks that carry the shard."""
    carriers = [[groups[node][shard % len(groups[node])] for node in tour] for shard in range(len(blocks))]
    return beside(lift(pattern, op, ranks, lane, color) for ranks, lane in zip(carriers, blocks, strict=True))
