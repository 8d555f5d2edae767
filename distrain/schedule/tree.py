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

from distrain.schedule.ir import Collective, Op, Schedule, Step, Transfer
from distrain.schedule.patterns import beside


def multicolor_tree(world_size: int, colors: int = 2, arity: int | None = None) -> Schedule:
    """One tree for each color; an allreduce.

    Args:
        world_size: number of ranks.
        colors: number of trees.
        arity: children of an interior rank; by default the number of colors, at least 2.
    """
    arity = max(2, colors) if arity is None else arity
    interior = -(-(world_size - 1) // arity)
    steps = beside(_one_tree(world_size, color, color * interior, arity) for color in range(colors))
    return Schedule("multicolor_tree", Collective.ALLREDUCE, world_size, colors, 1, tuple(steps))


def _levels(world_size: int, arity: int) -> Iterator[range]:
    """Places of a complete tree, level by level: place ``p`` has the parent ``(p - 1) // arity``."""
    start, width = 0, 1
    while start < world_size:
        yield range(start, min(start + width, world_size))
        start, width = start + width, width * arity


def _one_tree(world_size: int, color: int, root: int, arity: int) -> list[Step]:
    """Reduce up level by level, then the same links backwards; place ``p`` is rank ``root + p``."""

    def link(place: int) -> tuple[int, int]:
        return (root + place) % world_size, (root + (place - 1) // arity) % world_size

    below = list(_levels(world_size, arity))[1:]
    links = [[link(place) for place in level] for level in below]
    up = [tuple(Transfer(color, 0, child, parent, Op.REDUCE) for child, parent in level) for level in links]
    down = [tuple(Transfer(color, 0, parent, child, Op.COPY) for child, parent in level) for level in links]
    return [*reversed(up), *down]
