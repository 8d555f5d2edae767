"""Trees of many colors: short chains of adders, and every rank adds for one color only.

After the multi-color allreduce of Kumar et al. 2017 (arXiv 1711.00705): the payload is cut into
``k`` colors, each color has a tree of arity ``k``, and the interior ranks of a color, those that add
and pass on, are leaves for all others. Sums go up the tree and come down again; long payloads are
pipelined in segments by the executor.

A tree of arity ``k`` over ``n`` ranks needs ``I = ceil((n-1)/k)`` interior ranks. Color ``c`` takes
ranks ``c I, ..., c I + I - 1`` (modulo ``n``) for them, level by level, and its leaves go on from
there. The interiors are disjoint exactly if ``k I <= n``, that is ``n mod k`` in {0, 1}; for other
``n`` the number of colors for which a rank is interior differs by at most one between any two ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

from distrain.schedule.ir import Collective, Op, Schedule, Step
from distrain.schedule.patterns import Move, Pattern, backwards, beside, lift


def multicolor_tree(world_size: int, colors: int = 2, arity: int | None = None) -> Schedule:
    """One tree for each color; an allreduce.

    Args:
        world_size: number of ranks.
        colors: number of trees.
        arity: children of an interior rank; by default the number of colors, at least 2.
    """
    arity = max(2, colors) if arity is None else arity
    steps = beside(_one_color(world_size, color, arity) for color in range(colors))
    return Schedule("multicolor_tree", Collective.ALLREDUCE, world_size, colors, 1, tuple(steps))


def _one_color(world_size: int, color: int, arity: int) -> list[Step]:
    up = tree_reduce(world_size, color, arity)
    ranks = range(world_size)
    return lift(up, Op.REDUCE, ranks, [(0,)], color) + lift(backwards(up), Op.COPY, ranks, [(0,)], color)


def tree_reduce(size: int, color: int, arity: int) -> Pattern:
    """Block 0 goes up the tree of a color, level by level, to the root at ``color * I``."""
    root = color * -(-(size - 1) // arity)

    def up(place: int) -> Move:
        return Move(0, (root + place) % size, (root + (place - 1) // arity) % size)

    below_root = list(_levels(size, arity))[1:]
    return tuple(tuple(up(place) for place in level) for level in reversed(below_root))


def _levels(size: int, arity: int) -> Iterator[range]:
    """Places of a complete tree, level by level: place ``p`` has the parent ``(p - 1) // arity``."""
    start, width = 0, 1
    while start < size:
        yield range(start, min(start + width, size))
        start, width = start + width, width * arity
