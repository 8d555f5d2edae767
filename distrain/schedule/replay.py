"""Run the Programs of all ranks in one thread, with the rules that the executor follows.

Every rank walks through each color on its own: it posts the sends and receives of a step
together, waits until all of them have found their partners, applies the receives in the order
listed, and goes on. A send completes only when its receive is posted (a rendezvous: a queue of
length zero), the strictest MPI there is; what ends here ends with any amount of buffering.

The data is whatever `send` returns: symbols for the verifier, arrays for the simulator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from distrain.schedule.errors import ScheduleError, place
from distrain.schedule.ir import Instruction, Program

V = TypeVar("V")
Send = Callable[[int, int, Instruction], V]
Receive = Callable[[int, int, Instruction, V], None]


@dataclass(slots=True)
class _Lane(Generic[V]):
    """One rank in one color: where it is, and what its current step still waits for."""

    rank: int
    color: int
    steps: tuple[tuple[Instruction, ...], ...]
    position: int = -1
    waiting: int = 0
    arrived: dict[int, V] = field(default_factory=dict)

    @property
    def current(self) -> tuple[Instruction, ...]:
        return self.steps[self.position]


@dataclass(slots=True)
class _Channel(Generic[V]):
    """Messages from one rank to another in one color, oldest first. Never both sides non-empty."""

    sends: deque[tuple[_Lane[V], V]] = field(default_factory=deque)
    receives: deque[tuple[_Lane[V], int]] = field(default_factory=deque)


def replay(programs: Sequence[Program], send: Send[V], receive: Receive[V]) -> None:
    """Run all programs to their end.

    Args:
        programs: one for each rank, in the order of the ranks.
        send: called as ``send(rank, color, instruction)`` when a send is posted; returns the data.
        receive: called as ``receive(rank, color, instruction, data)`` when a receive is applied.

    Raises:
        ScheduleError: some ranks wait for each other for ever; names them and what they wait for.
    """
    lanes = [_Lane[V](p.rank, c, steps) for p in programs for c, steps in enumerate(p.colors)]
    channels: dict[tuple[int, int, int], _Channel[V]] = {}
    ready = deque(lanes)
    while ready:
        lane = ready.popleft()
        if lane.position >= 0:
            _apply(lane, receive)
        lane.position += 1
        if lane.position < len(lane.steps):
            ready.extend(_post(lane, channels, send))
    stuck = [lane for lane in lanes if lane.position < len(lane.steps)]
    if stuck:
        raise _deadlock(stuck)


def _post(lane: _Lane[V], channels: dict[tuple[int, int, int], _Channel[V]], send: Send[V]) -> list[_Lane[V]]:
    """Post the current step of a lane; return the lanes whose step this completed."""
    lane.waiting = len(lane.current)
    complete = []
    for index, instruction in enumerate(lane.current):
        here, there = lane.rank, instruction.peer
        key = (here, there, lane.color) if instruction.is_send else (there, here, lane.color)
        channel = channels.setdefault(key, _Channel())
        if instruction.is_send:
            channel.sends.append((lane, send(here, lane.color, instruction)))
        else:
            channel.receives.append((lane, index))
        if channel.sends and channel.receives:
            sender, data = channel.sends.popleft()
            receiver, slot = channel.receives.popleft()
            receiver.arrived[slot] = data
            for partner in (sender, receiver):
                partner.waiting -= 1
                if partner.waiting == 0:
                    complete.append(partner)
    return complete


def _apply(lane: _Lane[V], receive: Receive[V]) -> None:
    for index, instruction in enumerate(lane.current):
        if not instruction.is_send:
            receive(lane.rank, lane.color, instruction, lane.arrived.pop(index))


def _deadlock(stuck: Sequence[_Lane[V]]) -> ScheduleError:
    def describe(lane: _Lane[V]) -> str:
        peers = sorted({i.peer for i in lane.current})
        return f"{place(lane.rank, lane.color, lane.current[0].step)} waits for ranks {peers}"

    shown = ", ".join(describe(lane) for lane in stuck[:4])
    more = f" and {len(stuck) - 4} more" if len(stuck) > 4 else ""
    return ScheduleError(
        place(stuck[0].rank, stuck[0].color, stuck[0].current[0].step),
        f"deadlock: {shown}{more}",
        "order the steps so that both ends of a transfer come up together",
    )
