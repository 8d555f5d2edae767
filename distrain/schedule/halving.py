"""Recursive halving and doubling for any number of ranks: few steps that move the least bytes.

``2 ceil(log2 n)`` steps and, like a ring, ``2 (n-1)/n`` of the payload through each rank, but over
growing distances: for messages of middle length. For powers of two the volumes are those of the classical
algorithm (Thakur, Rabenseifner and Gropp 2005); other counts need no folding of surplus ranks. In half the
steps, each with the whole payload, `doubling.py` does it.
"""

from __future__ import annotations

from distrain.schedule.ir import Collective, Op, Schedule, Step
from distrain.schedule.patterns import (
    beside,
    circulant_all_gather,
    circulant_reduce_scatter,
    halves,
    lift,
)


def halving_doubling(
    world_size: int, colors: int = 1, collective: Collective = Collective.ALLREDUCE
) -> Schedule:
    """Halve the window of chunks a rank works on until one is left, then double it again.

    Args:
        world_size: number of ranks.
        colors: number of colors; odd ones go over the ranks in the opposite direction.
        collective: what is computed.
    """
    steps = beside(_one_color(world_size, color, collective) for color in range(colors))
    return Schedule("halving_doubling", collective, world_size, colors, world_size, tuple(steps))


def _one_color(world_size: int, color: int, collective: Collective) -> list[Step]:
    ranks = [rank if color % 2 == 0 else -rank % world_size for rank in range(world_size)]
    blocks = [(rank,) for rank in ranks]
    reduces, gathers = halves(collective)
    steps = lift(circulant_reduce_scatter(world_size), Op.REDUCE, ranks, blocks, color) if reduces else []
    if gathers:
        steps += lift(circulant_all_gather(world_size), Op.COPY, ranks, blocks, color)
    return steps
