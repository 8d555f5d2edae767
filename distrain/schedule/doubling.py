"""Recursive doubling: everyone exchanges all it has with one partner after another.

Before round ``i`` groups of ``2**i`` ranks hold the sum of their group; in it each rank and its partner at
distance ``2**i`` send each other that sum and add. ``log2 n`` steps, half of those of halving and doubling,
but the whole payload in each: for payloads so short that only steps count. Both partners add the same two
numbers, and ``a + b`` has the bits of ``b + a``. Where ``n`` is no power of two, surplus ranks hand their
contribution to a neighbour first and get the sum from it at the end: two steps more (Thakur, Rabenseifner and
Gropp 2005).
"""

from __future__ import annotations

from distrain.schedule.ir import Collective, Op, Schedule, Step
from distrain.schedule.patterns import Move, Pattern, Phase, backwards, beside, lift


def recursive_doubling(world_size: int, colors: int = 1) -> Schedule:
    """Double the groups that hold one sum until all ranks are in one; an allreduce.

    Args:
        world_size: number of ranks.
        colors: number of colors; each begins at another rank, and at another distance.
    """
    steps = beside(_one_color(world_size, color) for color in range(colors))
    return Schedule("recursive_doubling", Collective.ALLREDUCE, world_size, colors, 1, tuple(steps))


def _one_color(size: int, color: int) -> list[Step]:
    ranks = [(place + color) % size for place in range(size)]
    steps: list[Step] = []
    for pattern, op in doubling(size, color):
        steps += lift(pattern, op, ranks, [(0,)], color)
    return steps


def doubling(size: int, color: int = 0) -> list[Phase]:
    """Return the phases in which block 0 of all positions becomes their sum.

    Args:
        size: number of positions.
        color: says at which distance the exchanges begin.
    """
    distances = [1 << i for i in range(size.bit_length() - 1)]
    surplus = size - (1 << len(distances))
    fold: Pattern = (tuple(Move(0, 2 * i + 1, 2 * i) for i in range(surplus)),) if surplus else ()
    members = [*range(0, 2 * surplus, 2), *range(2 * surplus, size)]
    first = color % len(distances) if distances else 0
    exchanges = tuple(
        tuple(Move(0, members[p], members[p ^ distance]) for p in range(len(members)))
        for distance in distances[first:] + distances[:first]
    )
    return [(fold, Op.REDUCE), (exchanges, Op.REDUCE), (backwards(fold), Op.COPY)]
