"""Runs a Schedule over MPI point to point, and knows no algorithm by name.

A payload's slots are cut into segments; segment ``s`` of all slots runs the same program,
independently of the other segments. A *lane* works through every `window`-th segment of one
color, one after the other. All lanes move on their own: nobody waits for another color or
segment, and that is what pipelines a ring or a tree.

    for each lane:                     tag = base + color * window + slot of the window
        for each of its segments:
            for each step:
                post the receives (reductions into staging, copies into place)
                post the sends
                post the next step's receives too, where the plan allows it
                when all are complete: reduce what came in, in the order of the program

A lane uses one tag for all its messages. Sender and receiver walk through the same segments
and steps in the same order, so MPI's first-in-first-out matching pairs them up.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from distrain import timeline
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.messages.context import MessageContext
from distrain.comm.messages.plan import Plan, PlannedMessage, PlannedStep
from distrain.comm.operation import Operation
from distrain.comm.process.mpi import MPI
from distrain.schedule.ir import Op

Arrival = tuple[Op, int, int, np.ndarray]  # what to do, first element, one past the last, staging area


class Lane:
    """One stream of messages: where it stands, and what it still waits for."""

    __slots__ = (
        "areas",
        "arrivals",
        "color",
        "early_arrivals",
        "entered",
        "open",
        "open_early",
        "segment",
        "step",
        "tag",
    )

    def __init__(self, color: int, segment: int, tag: int) -> None:
        self.color = color
        self.segment = segment
        self.tag = tag
        self.step = 0
        self.open = 0  # requests of the running step that are not complete
        self.open_early = 0  # the same for receives of the next step, posted early
        self.arrivals: list[Arrival] = []
        self.early_arrivals: list[Arrival] | None = None  # None: not posted early
        self.entered = 0.0  # when its running step began
        self.areas: list[np.ndarray] = []  # staging areas that the step's sends read


class ScheduleOperation(Operation):
    """One collective, driven by the engine.

    Args:
        plan: what this rank does, from `make_plan`.
        buffer: the payload; combined in place.
        reduction: how arriving elements are combined.
        context: where its messages travel.
    """

    def __init__(self, plan: Plan, buffer: FlatBuffer, reduction: Reduction, context: MessageContext) -> None:
        self.kind = context.kind
        self.size_bytes = buffer.count * buffer.itemsize
        self.algorithm = plan.title
        self.queue = context.comm.handle
        self._plan, self._buffer, self._comm, self._pool = plan, buffer, context.comm, context.pool
        self._reduce = buffer.reducer(reduction)
        self._divide = reduction is Reduction.AVG
        self._requests: list[MPI.Request] = []
        self._owners: list[tuple[Lane, int]] = []  # the lane and step of each request
        self._lanes = [
            Lane(color, slot, context.first_tag + color * plan.window + slot)
            for color in range(len(plan.colors))
            for slot in range(plan.window)
            if plan.colors[color]
        ]
        self._running = len(self._lanes)

    def start(self) -> None:
        """Begin the first step of every lane."""
        for lane in self._lanes:
            self._enter(lane)
            self._advance(lane)

    def progress(self) -> bool:
        """Collect what is complete and move the lanes concerned."""
        if self._requests:
            done = MPI.Request.Testsome(self._requests)
            if done:
                self.moved += 1
                self._collect(done)
        return not self._running and self._end()

    def _end(self) -> bool:
        """Do what follows the last step; return True once it is done."""
        if self._divide:
            self._divide = False  # first: the error of a signal may come after it, and this be done again
            self._buffer.divide(self._comm.Get_size())
        return True

    def _collect(self, done: list[int]) -> None:
        ready: list[Lane] = []
        for index in done:
            lane, step = self._owners[index]
            if step == lane.step:
                lane.open -= 1
                if lane.open == 0:
                    ready.append(lane)
            else:
                lane.open_early -= 1
        for index in sorted(done, reverse=True):  # close the gaps with the last entries
            if self._requests[index]:  # a send: inactive now, but not gone
                self._requests[index].Free()
            self._requests[index] = self._requests[-1]
            self._owners[index] = self._owners[-1]
            self._requests.pop()
            self._owners.pop()
        for lane in ready:
            self._advance(lane)

    def _advance(self, lane: Lane) -> None:
        """Go on from step to step, and segment to segment, until something must be waited for."""
        while lane.open == 0:
            if timeline.current() is not None:
                self._record(lane)
            for op, start, stop, area in lane.arrivals:
                self._take_in(op, start, stop, area)
            if not self._next_step(lane):
                return

    def _next_step(self, lane: Lane) -> bool:
        """Leave a step whose arrivals are taken in, and enter the next; return False if there is none."""
        for *_, area in lane.arrivals:
            self._pool.give(area)
        for area in lane.areas:
            self._pool.give(area)
        lane.arrivals, lane.areas = [], []
        lane.step += 1
        if lane.step == len(self._plan.colors[lane.color]):
            lane.step = 0
            lane.segment += self._plan.window
            if lane.segment >= self._plan.segments:
                self._running -= 1
                return False
        self._enter(lane)
        return True

    def _enter(self, lane: Lane) -> None:
        """Post the messages of the lane's step, and early receives of the one after it."""
        steps = self._plan.colors[lane.color]
        step = steps[lane.step]
        lane.entered = time.perf_counter()
        if lane.early_arrivals is None:
            lane.open, lane.arrivals = self._post_receives(lane, step, lane.step)
        else:
            lane.open, lane.arrivals = lane.open_early, lane.early_arrivals
        lane.open_early, lane.early_arrivals = 0, None
        for message in step.sends:
            start, stop = message.segment(lane.segment, self._plan.segments)
            if stop > start:
                view = self._outgoing(lane, start, stop)
                # A persistent send, not Isend: Open MPI's Isend asks twice which network card is next,
                # so that on two cards all short messages leave by the same one (measured: half the speed).
                request = self._comm.Send_init([view, MPI.BYTE], message.peer, lane.tag)
                request.Start()
                self._track(request, lane, lane.step)
                lane.open += 1
        if lane.step + 1 < len(steps) and steps[lane.step + 1].early:
            after = steps[lane.step + 1]
            lane.open_early, lane.early_arrivals = self._post_receives(lane, after, lane.step + 1)

    def _record(self, lane: Lane) -> None:
        """Add the step that a lane has just done to the timeline."""
        trace = timeline.current()
        if trace is not None:
            number = self._plan.colors[lane.color][lane.step].number
            name, track = f"segment {lane.segment} step {number}", f"color {lane.color} lane"
            trace.add_parallel(name, track, lane.entered, time.perf_counter(), collective=self.algorithm)

    def _post_receives(self, lane: Lane, step: PlannedStep, number: int) -> tuple[int, list[Arrival]]:
        posted, arrivals = 0, []
        for message in step.receives:
            start, stop = message.segment(lane.segment, self._plan.segments)
            if stop == start:
                continue  # the sender knows too that there is nothing to send
            assert message.op is not None  # a receive
            if message.op is Op.REDUCE or self._stages_copies:
                size_bytes = (stop - start) * self._wire_itemsize
                area = self._pool.take(size_bytes)
                arrivals.append((message.op, start, stop, area))
                view = self._landing(area, size_bytes)
            else:
                view = self._buffer.window(start, stop)
            self._track(self._comm.Irecv([view, MPI.BYTE], message.peer, lane.tag), lane, number)
            posted += 1
        return posted, arrivals

    # What `narrow.py` and `device/pointers.py` do in another way.

    _stages_copies = False  # also what is copied lands in a staging area

    @property
    def _wire_itemsize(self) -> int:
        return self._buffer.itemsize

    def _landing(self, area: np.ndarray, size_bytes: int) -> Any:
        """Return the bytes of a staging area into which MPI receives."""
        return area[:size_bytes]

    def _outgoing(self, lane: Lane, start: int, stop: int) -> np.ndarray:
        """Return the bytes to send for these elements."""
        return self._buffer.window(start, stop)

    def _take_in(self, op: Op, start: int, stop: int, area: np.ndarray) -> None:
        """Combine what has arrived in a staging area with the payload."""
        mine = self._buffer.elements(start, stop)
        self._reduce(mine, self._buffer.typed(area, stop - start), out=mine)

    def _track(self, request: MPI.Request, lane: Lane, step: int) -> None:
        self._requests.append(request)
        self._owners.append((lane, step))

    def waiting_for(self) -> str:
        """Name the steps that are not complete, and the peers they exchange messages with."""
        lines: dict[str, set[int]] = {}
        for lane, index in self._owners:
            step = self._plan.colors[lane.color][index]
            messages: tuple[PlannedMessage, ...] = step.receives + step.sends
            lines.setdefault(f"color {lane.color} step {step.number}", set()).update(m.peer for m in messages)
        return "; ".join(f"{where}: ranks {sorted(peers)}" for where, peers in sorted(lines.items()))
