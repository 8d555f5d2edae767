"""Plans of all ranks, run by hand in one process, give the bits that the Schedule promises."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from distrain.comm.messages.plan import Plan, make_plan
from distrain.schedule.ir import Op
from distrain.schedule.registry import generate, names
from distrain.schedule.simulate import simulate

Sent = dict[tuple[int, int, int, int], deque[np.ndarray]]


class Lane:
    """One rank's walk through one segment of one color, as the executors do it."""

    def __init__(self, plan: Plan, rank: int, payload: np.ndarray, color: int, segment: int) -> None:
        self.plan, self.rank, self.payload = plan, rank, payload
        self.color, self.segment = color, segment
        self.step = 0
        self.sent = False

    def advance(self, wires: Sent) -> bool:
        """Go on if the messages of the step are there; return whether anything happened."""
        steps = self.plan.colors[self.color]
        if self.step == len(steps):
            return False
        step, segments = steps[self.step], self.plan.segments
        if not self.sent:
            for move in step.sends:
                start, stop = move.segment(self.segment, segments)
                key = (self.rank, move.peer, self.color, self.segment)
                wires[key].append(self.payload[start:stop].copy())
            self.sent = True
            return True
        needed: dict[int, int] = defaultdict(int)
        for move in step.receives:
            needed[move.peer] += 1
        if any(len(wires[p, self.rank, self.color, self.segment]) < k for p, k in needed.items()):
            return False
        for move in step.receives:
            start, stop = move.segment(self.segment, segments)
            arrived = wires[move.peer, self.rank, self.color, self.segment].popleft()
            assert len(arrived) == stop - start
            if move.op is Op.REDUCE:
                self.payload[start:stop] += arrived
            else:
                self.payload[start:stop] = arrived
        self.step, self.sent = self.step + 1, False
        return True


def run(plans: Sequence[Plan], payloads: Sequence[np.ndarray], choose: st.DataObject) -> None:
    lanes = [
        Lane(plan, rank, payloads[rank], color, segment)
        for rank, plan in enumerate(plans)
        for color in range(len(plan.colors))
        for segment in range(plan.segments)
    ]
    choose.draw(st.randoms(use_true_random=False)).shuffle(lanes)
    wires: Sent = defaultdict(deque)
    while any([lane.advance(wires) for lane in lanes]):
        pass
    assert all(lane.step == len(lane.plan.colors[lane.color]) for lane in lanes)
    assert not any(wires.values())


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(names()),
    size=st.integers(1, 9),
    colors=st.integers(1, 3),
    count=st.integers(0, 150),
    segment_bytes=st.sampled_from([4, 40, 100, 1 << 20]),
    choose=st.data(),
)
def test_plans_give_the_bits_of_the_schedule(
    name: str, size: int, colors: int, count: int, segment_bytes: int, choose: st.DataObject
) -> None:
    schedule = generate(name, size, colors, nodes=[rank // 2 for rank in range(size)])
    noise = np.random.default_rng(count)
    inputs = [noise.standard_normal(count).astype(np.float32) for _ in range(size)]
    plans = [make_plan(schedule, rank, count, 4, segment_bytes, 4) for rank in range(size)]
    payloads = [array.copy() for array in inputs]
    run(plans, payloads, choose)
    for got, expected in zip(payloads, simulate(schedule, inputs), strict=True):
        assert got.tobytes() == expected.tobytes()
