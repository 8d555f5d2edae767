"""How long a Schedule takes on a described machine, by running it in model time.

The model follows the executor: each color is cut into segments, `window` of which are in flight
together, and each goes from step to step when its own messages are complete. A message is posted by
the rank's communication thread (`message_seconds`), leaves through a port and enters through a port;
a port serves one message after the other in the order in which they come, so messages that meet at a
port share it. Latency delays the first byte; bytes then stream through both ports at once. What
reduces is added by the rank's thread when all messages of the step are there, one after the other.

For a single message that is the Hockney model ``alpha + beta m``; with nothing to meet, the sum over
steps gives the textbook formulas, which the tests compare.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from distrain.errors import UsageError
from distrain.schedule.ir import Instruction, Op, Schedule
from distrain.schedule.topology import Machine, Port

Event = Callable[[float], None]


@dataclass(frozen=True)
class Prediction:
    """What the model says about one collective.

    Attributes:
        seconds: until the last rank is done.
        messages: number of messages in all.
        network_bytes: bytes that leave a node, all nodes together.
    """

    seconds: float
    messages: int
    network_bytes: int


def predict(
    schedule: Schedule,
    machine: Machine,
    payload_bytes: int,
    segment_bytes: int = 1 << 20,
    window: int = 4,
) -> Prediction:
    """Return the predicted time of a collective.

    Costs about 10 microseconds of host time a message: fine up to some 100,000 messages.

    Args:
        schedule: what runs.
        machine: where; its ranks are those of the Schedule.
        payload_bytes: size of the whole payload.
        segment_bytes: longest message; slots are cut into equally many segments below it.
        window: segments of one color in flight together, at least 1.

    Raises:
        UsageError: machine and Schedule have different numbers of ranks.
    """
    if machine.world_size != schedule.world_size:
        raise UsageError(
            "cost",
            f"the machine has {machine.world_size} ranks, the schedule {schedule.world_size}",
            "describe the machine that the schedule is made for",
        )
    return _Run(schedule, machine, payload_bytes, segment_bytes, window).run()


@dataclass(slots=True)
class _Lane:
    """One rank's stream of steps: every `window`-th segment of one color, one after the other."""

    rank: int
    color: int
    slot: int
    segment: int
    step: int = -1
    waiting: int = 0


@dataclass(slots=True)
class _Channel:
    """Posted ends of messages that have not met yet, oldest first. Never both sides non-empty."""

    sends: deque[tuple[_Lane, int]] = field(default_factory=deque)
    receives: deque[_Lane] = field(default_factory=deque)


class _Run:
    """One collective in model time: a queue of events, and when each thread and port is free again."""

    def __init__(
        self, schedule: Schedule, machine: Machine, payload_bytes: int, segment_bytes: int, window: int
    ) -> None:
        self.machine = machine
        self.steps = [program.colors for program in schedule.programs()]
        self.lengths = {
            (color, chunk): len(schedule.span(color, chunk, payload_bytes))
            for color in range(schedule.colors)
            for chunk in range(schedule.chunks)
        }
        self.segments = max(1, -(-max(self.lengths.values()) // segment_bytes))
        self.window = min(window, self.segments)
        self.events: list[tuple[float, int, Event]] = []
        self.made = 0  # events so far: of equal times the older comes first
        self.channels: dict[tuple[int, int, int, int], _Channel] = {}
        self.thread_free = [0.0] * schedule.world_size
        self.port_free: dict[Port, float] = {}
        self.routes: dict[tuple[int, int], tuple[Port, Port, float]] = {}
        self.end, self.messages, self.network_bytes = 0.0, 0, 0

    def run(self) -> Prediction:
        """Let all events happen in the order of their times."""
        for rank, colors in enumerate(self.steps):
            for color, steps in enumerate(colors):
                for slot in range(self.window if steps else 0):
                    self.at(0.0, partial(self.advance, _Lane(rank, color, slot, slot)))
        while self.events:
            time, _, event = heapq.heappop(self.events)
            self.end = max(self.end, time)
            event(time)
        return Prediction(self.end, self.messages, self.network_bytes)

    def at(self, time: float, event: Event) -> None:
        """Let an event happen at a time."""
        self.made += 1
        heapq.heappush(self.events, (time, self.made, event))

    def bytes_of(self, lane: _Lane, instruction: Instruction) -> int:
        """Return the length of one segment of a slot."""
        length = self.lengths[lane.color, instruction.chunk]
        return length * (lane.segment + 1) // self.segments - length * lane.segment // self.segments

    def advance(self, lane: _Lane, time: float) -> None:
        """Begin the next step of a lane, or the first one of its next segment."""
        steps = self.steps[lane.rank][lane.color]
        while lane.waiting == 0:
            lane.step += 1
            if lane.step == len(steps):
                lane.step, lane.segment = 0, lane.segment + self.window
            if lane.segment >= self.segments:
                return
            for instruction in steps[lane.step]:
                size = self.bytes_of(lane, instruction)
                if size:  # empty segments are neither sent nor received
                    lane.waiting += 1
                    posted = self.work(lane.rank, time, self.machine.message_seconds)
                    self.at(posted, partial(self.post, lane, instruction, size))

    def work(self, rank: int, time: float, seconds: float) -> float:
        """Occupy a rank's communication thread; return when it is done."""
        done = self.thread_free[rank] = max(time, self.thread_free[rank]) + seconds
        return done

    def post(self, lane: _Lane, instruction: Instruction, size: int, time: float) -> None:
        """Make one end of a message known; where the other end is known already, it starts."""
        here, there = lane.rank, instruction.peer
        ends = (here, there) if instruction.is_send else (there, here)
        channel = self.channels.setdefault((*ends, lane.color, lane.slot), _Channel())
        if instruction.is_send:
            channel.sends.append((lane, size))
        else:
            channel.receives.append(lane)
        if channel.sends and channel.receives:
            sender, size = channel.sends.popleft()
            self.leave(sender, channel.receives.popleft(), size, time)

    def leave(self, sender: _Lane, receiver: _Lane, size: int, time: float) -> None:
        """Send a message through the port of its source."""
        ends = (sender.rank, receiver.rank)
        if ends not in self.routes:
            self.routes[ends] = (*self.machine.ports(*ends), self.machine.latency(*ends))
        out, into, latency = self.routes[ends]
        self.messages += 1
        self.network_bytes += size if out.kind == "out" else 0
        gone = self.serve(out, time, size)
        first_byte = gone - size / out.bytes_per_second + latency
        self.at(gone, partial(self.complete, sender))
        self.at(first_byte, partial(self.enter, receiver, into, size, gone + latency))

    def enter(self, receiver: _Lane, port: Port, size: int, last_byte: float, time: float) -> None:
        """Take a message in through the port of its destination, no faster than it was sent."""
        self.at(max(self.serve(port, time, size), last_byte), partial(self.complete, receiver))

    def serve(self, port: Port, time: float, size: int) -> float:
        """Let a port carry a message after those that came before; return when it is done."""
        seconds = size / port.bytes_per_second
        done = self.port_free[port] = max(time, self.port_free.get(port, 0.0)) + seconds
        return done

    def complete(self, lane: _Lane, time: float) -> None:
        """Count a finished message; after the last one of the step add up what came, and go on."""
        lane.waiting -= 1
        if lane.waiting:
            return
        step = self.steps[lane.rank][lane.color][lane.step]
        arrived = sum(self.bytes_of(lane, i) for i in step if i.op is Op.REDUCE)
        seconds = arrived / self.machine.reduce_bytes_per_second
        self.at(self.work(lane.rank, time, seconds) if arrived else time, partial(self.advance, lane))
