"""A Schedule made concrete: one rank, one payload size, byte limits applied.

Nothing here depends on the data, so the plan of a gradient bucket is made once and used every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distrain.schedule.ir import Op, Program, Schedule


@dataclass(frozen=True, slots=True)
class PlannedMessage:
    """One message of a step: elements ``[start, stop)``, of all segments together.

    They are a slot, or several neighbouring ones.
    """

    peer: int
    op: Op | None  # None: a send
    start: int
    stop: int

    def segment(self, number: int, segments: int) -> tuple[int, int]:
        """Return the element range of one segment of this slot; lengths differ by at most one."""
        length = self.stop - self.start
        return self.start + length * number // segments, self.start + length * (number + 1) // segments


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What one rank does in one step of one color.

    Attributes:
        number: the step's number in the Schedule.
        receives: in the order in which they are reduced.
        sends: in the order in which the receivers expect them.
        early: the receives may be posted while the step before is still running.
    """

    number: int
    receives: tuple[PlannedMessage, ...]
    sends: tuple[PlannedMessage, ...]
    early: bool


@dataclass(frozen=True)
class Plan:
    """One rank's work for one payload.

    Attributes:
        name: the Schedule's name.
        count: elements of the payload.
        colors: for each color its steps.
        segments: into how many segments every slot is cut; the same number on all ranks.
        window: segments of one color that may be in flight together.
    """

    name: str
    count: int
    colors: tuple[tuple[PlannedStep, ...], ...]
    segments: int
    window: int

    @property
    def title(self) -> str:
        """The algorithm for people, e.g. ``multicolor_ring/2``: the number is that of its colors."""
        return self.name if len(self.colors) == 1 else f"{self.name}/{len(self.colors)}"

    @property
    def lanes(self) -> int:
        """Number of independent streams of messages, each with its own tag."""
        return len(self.colors) * self.window


def _overlap(a: PlannedMessage, b: PlannedMessage) -> bool:
    return a.start < b.stop and b.start < a.stop


def _early(receives: Sequence[PlannedMessage], before: Sequence[PlannedMessage]) -> bool:
    """A copy may land early only where the running step neither reads nor writes.

    What reduces lands in a staging area first and so may always come early.
    """
    return not any(r.op is Op.COPY and _overlap(r, message) for r in receives for message in before)


def _merged(messages: list[PlannedMessage], most: int) -> list[PlannedMessage]:
    """Join neighbouring slots that travel between the same two ranks into messages of `most` elements.

    Sender and receiver list the slots between them in the same order, so both cut them alike.
    """
    by_peer: dict[int, list[PlannedMessage]] = {}
    for message in messages:
        row = by_peer.setdefault(message.peer, [])
        last = row[-1] if row else None
        if (
            last is not None
            and last.stop == message.start
            and last.op is message.op
            and message.stop - last.start <= most
        ):
            row[-1] = PlannedMessage(message.peer, message.op, last.start, message.stop)
        else:
            row.append(message)
    return [message for row in by_peer.values() for message in row]


def _mergeable(schedule: Schedule, color: int) -> frozenset[int]:
    """Return the steps in which no rank adds to a slot twice: joining cannot change an order of additions."""
    steps = []
    for number, transfers in enumerate(schedule.steps):
        targets = [(t.dst, t.chunk) for t in transfers if t.color == color]
        if len(set(targets)) == len(targets):
            steps.append(number)
    return frozenset(steps)


def _steps(
    program: Program, color: int, schedule: Schedule, count: int, most: int
) -> tuple[PlannedStep, ...]:
    """Plan the steps of one color; with `most` > 0 slots are joined up to so many elements."""
    planned: list[PlannedStep] = []
    mergeable = _mergeable(schedule, color) if most else frozenset()
    before: tuple[PlannedMessage, ...] = ()
    for instructions in program.colors[color]:
        receives: list[PlannedMessage] = []
        sends: list[PlannedMessage] = []
        for instruction in instructions:
            span = schedule.span(color, instruction.chunk, count)
            message = PlannedMessage(instruction.peer, instruction.op, span.start, span.stop)
            (sends if instruction.is_send else receives).append(message)
        if instructions[0].step in mergeable:
            receives, sends = _merged(receives, most), _merged(sends, most)
        step = (tuple(receives), tuple(sends))
        planned.append(PlannedStep(instructions[0].step, *step, early=_early(receives, before)))
        before = step[0] + step[1]
    return tuple(planned)


def make_plan(
    schedule: Schedule, rank: int, count: int, itemsize: int, segment_bytes: int, window: int
) -> Plan:
    """Return what `rank` does for a payload of `count` elements.

    Args:
        schedule: the algorithm; its `world_size` contains `rank`.
        rank: this rank in the communicator.
        count: elements of the whole payload, equal on all ranks.
        itemsize: bytes of an element.
        segment_bytes: longest message; slots are cut into equally many segments below it, or, where
            all are shorter, joined with their neighbours.
        window: segments of one color in flight together, at least 1.
    """
    program = schedule.program(rank)
    longest = -(-count // (schedule.chunks * schedule.colors))  # elements of the longest slot
    segments = max(1, -(-longest * itemsize // segment_bytes))
    most = segment_bytes // itemsize if segments == 1 else 0
    colors = tuple(_steps(program, color, schedule, count, most) for color in range(schedule.colors))
    return Plan(schedule.name, count, colors, segments, min(window, segments))
