"""Plans: every element of a payload is moved as often as the Schedule says, none twice."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import hypothesis.strategies as st
from hypothesis import given, settings

from distrain.comm.messages.plan import make_plan
from distrain.schedule.ir import Op
from distrain.schedule.registry import generate, names


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 7),
    colors=st.integers(1, 3),
    count=st.integers(0, 300),
    segment_bytes=st.sampled_from([4, 64, 100, 1 << 20]),
)
def test_segments_cover_each_slot_once(size: int, colors: int, count: int, segment_bytes: int) -> None:
    schedule = generate("multicolor_ring", size, colors)
    for rank in range(size):
        plan = make_plan(schedule, rank, count, 4, segment_bytes, 4)
        sent: Counter[int] = Counter()
        for steps in plan.colors:
            for step in steps:
                for move in step.sends:
                    for number in range(plan.segments):
                        start, stop = move.segment(number, plan.segments)
                        assert (stop - start) * 4 <= max(segment_bytes, 4)
                        sent.update(range(start, stop))
        expected: Counter[int] = Counter()
        for transfer in (t for step in schedule.steps for t in step if t.src == rank):
            expected.update(schedule.span(transfer.color, transfer.chunk, count))
        assert sent == expected


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(names()),
    size=st.integers(2, 9),
    colors=st.integers(1, 3),
    count=st.integers(0, 200),
    segment_bytes=st.sampled_from([4, 40, 100, 1 << 20]),
)
def test_both_sides_of_a_message_cut_alike(
    name: str, size: int, colors: int, count: int, segment_bytes: int
) -> None:
    schedule = generate(name, size, colors, nodes=[rank // 2 for rank in range(size)])
    plans = [make_plan(schedule, rank, count, 4, segment_bytes, 4) for rank in range(size)]
    sent: dict[tuple[int, int, int, int], list[tuple[int, int]]] = {}
    received: dict[tuple[int, int, int, int], list[tuple[int, int]]] = {}
    for rank, plan in enumerate(plans):
        for color, steps in enumerate(plan.colors):
            for step in steps:
                for move in step.sends:
                    key = (color, step.number, rank, move.peer)
                    sent.setdefault(key, []).append((move.start, move.stop))
                for move in step.receives:
                    key = (color, step.number, move.peer, rank)
                    received.setdefault(key, []).append((move.start, move.stop))
    assert sent == received


def test_neighbouring_short_slots_travel_together() -> None:
    plan = make_plan(generate("halving_doubling", 8), 0, 64, 4, 1 << 20, 4)
    # halving: ranks 4..7, then 2..3, then 1; doubling the other way round
    sizes = [[move.stop - move.start for move in step.sends] for step in plan.colors[0]]
    assert sizes == [[32], [16], [8], [8], [16], [32]]
    short = make_plan(generate("halving_doubling", 8), 0, 64, 4, 64, 4)  # 16 elements a message
    assert [len(step.sends) for step in short.colors[0]] == [2, 1, 1, 1, 1, 2]


@settings(max_examples=40, deadline=None)
@given(size=st.integers(2, 7), colors=st.integers(1, 3), count=st.integers(1, 300))
def test_early_copies_touch_nothing_that_is_in_use(size: int, colors: int, count: int) -> None:
    for name in ("multicolor_ring", "ring"):
        for rank in range(size):
            plan = make_plan(generate(name, size, colors), rank, count, 4, 1 << 20, 4)
            for steps in plan.colors:
                for before, step in pairwise(steps):
                    if not step.early:
                        continue
                    busy = {e for m in before.sends + before.receives for e in range(m.start, m.stop)}
                    lands = {e for m in step.receives if m.op is Op.COPY for e in range(m.start, m.stop)}
                    assert not busy & lands


def test_all_ranks_cut_alike() -> None:
    schedule = generate("ring", 3)
    plans = [make_plan(schedule, rank, 1000, 4, 256, 4) for rank in range(3)]
    assert {plan.segments for plan in plans} == {6}  # slots of 334, 333 and 333 elements, 64 per segment
    assert {plan.lanes for plan in plans} == {4}
