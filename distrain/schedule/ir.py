"""A collective as data: transfers of chunks between ranks, in steps.

The payload of a collective is a flat array of elements. It is cut into ``chunks`` equal
parts, and each part into ``colors`` slices; the slot ``(color, chunk)`` is slice ``color`` of
part ``chunk`` (so chunk ``r`` of every color lies in part ``r``, which is what reduce-scatter
and all-gather need). Each color is an algorithm of its own that moves only its own slots, so
colors never depend on each other and use different links at once.

One Schedule is written for a payload of any size. Long slots are cut further into *segments*
by whoever executes it: segment ``s`` of all slots runs the same Schedule independently of the
other segments, which is what pipelines a tree or a ring.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from distrain.world import split


class Op(str, Enum):
    """What the receiver does with the chunk that arrives."""

    COPY = "copy"
    REDUCE = "reduce"


class Collective(str, Enum):
    """What a Schedule computes; the rank of a part is its chunk number."""

    ALLREDUCE = "allreduce"
    REDUCE_SCATTER = "reduce_scatter"  # rank r ends with the full sum of part r
    ALL_GATHER = "all_gather"  # rank r starts with part r, all ranks end with all parts


@dataclass(frozen=True, slots=True)
class Transfer:
    """Rank ``src`` sends slot ``(color, chunk)`` to ``dst``, which copies or reduces it in place."""

    color: int
    chunk: int
    src: int
    dst: int
    op: Op


Step = tuple[Transfer, ...]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One rank's side of a Transfer.

    Attributes:
        step: number of the step in the Schedule.
        chunk: which slot of the color moves.
        peer: the rank at the other end.
        op: None for a send; what to do with the arriving data for a receive.
    """

    step: int
    chunk: int
    peer: int
    op: Op | None

    @property
    def is_send(self) -> bool:
        """True if this rank sends, False if it receives."""
        return self.op is None


@dataclass(frozen=True)
class Program:
    """What one rank does: for each color, its steps in order, each a tuple of Instructions.

    Within one step all sends and receives may be in flight together. When all are complete, receives that
    reduce are applied, in the order listed: so a slot that is sent leaves as it was before the step. Step
    ``i + 1`` of a color begins on this rank when its own part of step ``i`` is complete; there is no barrier
    between ranks or colors.
    """

    rank: int
    colors: tuple[tuple[tuple[Instruction, ...], ...], ...]


@dataclass(frozen=True)
class Schedule:
    """A collective over ``world_size`` ranks.

    Attributes:
        name: the algorithm, e.g. ``"multicolor_ring"``.
        collective: what is computed.
        world_size: number of ranks.
        colors: number of independent colors.
        chunks: number of parts that the payload is cut into.
        steps: the transfers; those of one step and color may run at the same time.
        bit_identical: True if all ranks end with the same bits for floating-point data.
    """

    name: str
    collective: Collective
    world_size: int
    colors: int
    chunks: int
    steps: tuple[Step, ...]
    bit_identical: bool = True

    def span(self, color: int, chunk: int, count: int) -> range:
        """Return the element range of slot ``(color, chunk)`` in a payload of ``count`` elements."""
        part = split(count, self.chunks)[chunk]
        piece = split(len(part), self.colors)[color]
        return range(part.start + piece.start, part.start + piece.stop)

    def program(self, rank: int) -> Program:
        """Return what one rank does, colors separated, empty steps left out."""
        return self._programs(range(rank, rank + 1))[0]

    def programs(self) -> tuple[Program, ...]:
        """Return what every rank does, in the order of the ranks; one pass over the transfers."""
        return self._programs(range(self.world_size))

    def _programs(self, ranks: range) -> tuple[Program, ...]:
        lanes: list[list[list[list[Instruction]]]] = [[[] for _ in range(self.colors)] for _ in ranks]
        for number, step in enumerate(self.steps):
            for t in step:
                if t.src in ranks:
                    _append(lanes[t.src - ranks.start][t.color], Instruction(number, t.chunk, t.dst, None))
                if t.dst in ranks:
                    _append(lanes[t.dst - ranks.start][t.color], Instruction(number, t.chunk, t.src, t.op))
        return tuple(
            Program(rank, tuple(tuple(tuple(step) for step in steps) for steps in colors))
            for rank, colors in zip(ranks, lanes, strict=True)
        )


def _append(steps: list[list[Instruction]], instruction: Instruction) -> None:
    """Add an instruction to its step, which is the last one or a new one."""
    if not steps or steps[-1][0].step != instruction.step:
        steps.append([])
    steps[-1].append(instruction)
