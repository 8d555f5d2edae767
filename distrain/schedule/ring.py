"""Rings: every rank always sends to one neighbour and receives from the other.

Each rank sends and receives ``2 (n-1)/n`` of the payload, the least that any allreduce can do
(Patarasuk and Yuan 2009), in ``2 (n-1)`` steps: best for long messages, slow to start for many ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

from distrain.schedule.ir import Collective, Op, Schedule, Step
from distrain.schedule.orders import Order, ring_orders
from distrain.schedule.patterns import beside, halves, lift, ring_all_gather, ring_reduce_scatter


def ring(world_size: int, collective: Collective = Collective.ALLREDUCE) -> Schedule:
    """One ring over the ranks in their natural order."""
    return _rings("ring", world_size, collective, [tuple(range(world_size))])


def multicolor_ring(
    world_size: int,
    colors: int = 2,
    collective: Collective = Collective.ALLREDUCE,
    nodes: Sequence[int] | None = None,
) -> Schedule:
    """One ring for each color, over different orders of the ranks (`orders.ring_orders`).

    Args:
        world_size: number of ranks.
        colors: number of rings.
        collective: what is computed.
        nodes: ``nodes[r]`` is the node of rank ``r``; None: all ranks on one node.
    """
    return _rings("multicolor_ring", world_size, collective, ring_orders(world_size, colors, nodes))


def _rings(name: str, world_size: int, collective: Collective, orders: Sequence[Order]) -> Schedule:
    steps = beside(_one_ring(order, color, collective) for color, order in enumerate(orders))
    return Schedule(name, collective, world_size, len(orders), world_size, tuple(steps))


def _one_ring(order: Order, color: int, collective: Collective) -> list[Step]:
    size = len(order)
    blocks = [(rank,) for rank in order]  # the rank at a position owns the chunk of its own number
    reduces, gathers = halves(collective)
    steps = lift(ring_reduce_scatter(size), Op.REDUCE, order, blocks, color) if reduces else []
    if gathers:
        steps += lift(ring_all_gather(size), Op.COPY, order, blocks, color)
    return steps
