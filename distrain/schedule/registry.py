"""The algorithms by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from distrain.errors import UsageError, nearest
from distrain.schedule.doubling import recursive_doubling
from distrain.schedule.halving import halving_doubling
from distrain.schedule.hierarchical import hierarchical, hierarchical_doubling, hierarchical_tree
from distrain.schedule.ir import Collective, Schedule
from distrain.schedule.ring import multicolor_ring, ring
from distrain.schedule.tree import multicolor_tree

Nodes = tuple[int, ...] | None
Generator = Callable[[int, int, Collective, Nodes], Schedule]
ALL = tuple(Collective)


@dataclass(frozen=True)
class Family:
    """One algorithm.

    Attributes:
        generate: called as ``generate(world_size, colors, collective, nodes)``.
        collectives: what it can compute.
    """

    generate: Generator
    collectives: tuple[Collective, ...]


_FAMILIES = {
    # Always one color.
    "ring": Family(lambda size, colors, collective, nodes: ring(size, collective), ALL),
    "multicolor_ring": Family(multicolor_ring, ALL),
    "multicolor_tree": Family(
        lambda size, colors, collective, nodes: multicolor_tree(size, colors), (Collective.ALLREDUCE,)
    ),
    "halving_doubling": Family(
        lambda size, colors, collective, nodes: halving_doubling(size, colors, collective), ALL
    ),
    "recursive_doubling": Family(
        lambda size, colors, collective, nodes: recursive_doubling(size, colors), (Collective.ALLREDUCE,)
    ),
    "hierarchical": Family(hierarchical, ALL),
    "hierarchical_halving": Family(partial(hierarchical, halving=True), ALL),
    "hierarchical_tree": Family(
        lambda size, colors, collective, nodes: hierarchical_tree(size, colors, nodes),
        (Collective.ALLREDUCE,),
    ),
    "hierarchical_doubling": Family(
        lambda size, colors, collective, nodes: hierarchical_doubling(size, colors, nodes),
        (Collective.ALLREDUCE,),
    ),
}


def names() -> tuple[str, ...]:
    """Return the names of all algorithms."""
    return tuple(_FAMILIES)


def family(name: str) -> Family:
    """Return an algorithm by name.

    Raises:
        UsageError: there is none of this name; names the nearest.
    """
    if name not in _FAMILIES:
        raise UsageError(
            "schedule",
            f"algorithm={name!r} is unknown{nearest(name, names())}",
            f"choose one of {', '.join(names())}",
        )
    return _FAMILIES[name]


def generate(
    name: str,
    world_size: int,
    colors: int = 1,
    collective: Collective = Collective.ALLREDUCE,
    nodes: Sequence[int] | None = None,
) -> Schedule:
    """Return the Schedule of an algorithm; the same object for the same arguments.

    Args:
        name: one of `names`.
        world_size: number of ranks, at least 1; a world of one rank has nothing to do.
        colors: number of colors, at least 1. An algorithm may use another number: see
            ``Schedule.colors``.
        collective: what is computed.
        nodes: ``nodes[r]`` is the node of rank ``r``; None: all ranks on one node.

    Raises:
        UsageError: an unknown name, a count below 1, `nodes` of another length, or a collective that
            the algorithm cannot compute.
    """
    if collective not in family(name).collectives:
        able = [other for other in names() if collective in family(other).collectives]
        raise UsageError(
            "schedule", f"algorithm={name!r} has no {collective.value}", f"choose one of {', '.join(able)}"
        )
    for what, value in (("world_size", world_size), ("colors", colors)):
        if value < 1:
            raise UsageError("schedule", f"{what}={value} is not at least 1", f"raise {what}")
    return _generate(name, world_size, colors, collective, None if nodes is None else tuple(nodes))


@lru_cache(maxsize=128)
def _generate(name: str, world_size: int, colors: int, collective: Collective, nodes: Nodes) -> Schedule:
    return family(name).generate(world_size, colors, collective, nodes)
