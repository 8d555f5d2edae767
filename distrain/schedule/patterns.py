"""Building blocks: what a group of ranks does among itself, by positions and blocks.

A pattern knows neither ranks nor chunks: block ``b`` belongs to position ``b``. `lift` places it
on ranks and chunks. A reduce-scatter followed by an all-gather of the same group is an allreduce.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import NamedTuple

from distrain.schedule.ir import Collective, Op, Step, Transfer


class Move(NamedTuple):
    """Position ``src`` sends block ``block`` to position ``dst``."""

    block: int
    src: int
    dst: int


Round = tuple[Move, ...]
Pattern = tuple[Round, ...]
Phase = tuple[Pattern, Op]  # and what its receivers do


def ring_reduce_scatter(size: int) -> Pattern:
    """Every block walks once around the ring and ends, complete, at its own position.

    ``size - 1`` rounds in which everyone sends one block to its right neighbour.
    """
    return tuple(
        tuple(Move((q - 1 - s) % size, q, (q + 1) % size) for q in range(size)) for s in range(size - 1)
    )


def ring_all_gather(size: int) -> Pattern:
    """Every block starts at its own position and walks once around the ring, to the right."""
    return tuple(tuple(Move((q - s) % size, q, (q + 1) % size) for q in range(size)) for s in range(size - 1))


def circulant_reduce_scatter(size: int) -> Pattern:
    """Recursive halving for any size: ``ceil(log2 size)`` rounds, ``size - 1`` blocks sent by each.

    Before a round everyone holds partial sums of a window of ``w`` blocks that starts with its own.
    It sends the upper part of the window over a distance of ``ceil(w / 2)`` to the position that
    keeps those blocks, and its window shrinks to ``ceil(w / 2)``. For powers of two these are the
    volumes and rounds of recursive halving. After Träff, "Optimal, non-pipelined reduce-scatter
    and allreduce algorithms" (arXiv 2410.14234).
    """
    rounds = []
    window = size
    while window > 1:
        kept = (window + 1) // 2
        rounds.append(
            tuple(
                Move((q + j) % size, q, (q + kept) % size) for q in range(size) for j in range(kept, window)
            )
        )
        window = kept
    return tuple(rounds)


def circulant_all_gather(size: int) -> Pattern:
    """Recursive doubling of windows, for any size: the reduce-scatter backwards in time."""
    return backwards(circulant_reduce_scatter(size))


def backwards(pattern: Pattern) -> Pattern:
    """Return a pattern backwards in time: what was collected is handed out again."""
    return tuple(tuple(Move(m.block, m.dst, m.src) for m in moves) for moves in reversed(pattern))


def lift(
    pattern: Pattern, op: Op, ranks: Sequence[int], blocks: Sequence[Iterable[int]], color: int
) -> list[Step]:
    """Place a pattern on ranks and chunks.

    Args:
        pattern: what happens, by position and block.
        op: what receivers do.
        ranks: ``ranks[p]`` is the rank at position ``p``.
        blocks: ``blocks[b]`` are the chunks of block ``b``.
        color: the color of the transfers.
    """
    return [
        tuple(
            Transfer(color, chunk, ranks[move.src], ranks[move.dst], op)
            for move in moves
            for chunk in blocks[move.block]
        )
        for moves in pattern
    ]


def beside(parts: Iterable[Sequence[Step]]) -> list[Step]:
    """Let parts run next to each other: step ``i`` of the result is step ``i`` of every part."""
    return [tuple(chain.from_iterable(steps)) for steps in zip_longest(*parts, fillvalue=())]


def halves(collective: Collective) -> tuple[bool, bool]:
    """Return whether a collective has a reducing half and whether it has a gathering half."""
    return collective is not Collective.ALL_GATHER, collective is not Collective.REDUCE_SCATTER
