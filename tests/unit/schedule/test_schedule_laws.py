"""The laws of the Schedule contract, for every algorithm, collective and world."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.schedule.ir import Collective, Schedule
from distrain.schedule.registry import family, generate, names
from distrain.schedule.simulate import simulate
from distrain.schedule.text import parse, to_text
from distrain.schedule.verify import verify

OFFERS = [(name, collective) for name in names() for collective in family(name).collectives]


@st.composite
def schedules(draw: st.DrawFn, ranks: int = 33, colors: int = 6) -> Schedule:
    name, collective = draw(st.sampled_from(OFFERS))
    size = draw(st.integers(1, ranks))
    nodes = draw(st.none() | st.lists(st.integers(0, 4), min_size=size, max_size=size))
    return generate(name, size, draw(st.integers(1, colors)), collective, nodes)


@pytest.mark.parametrize("size", range(1, 34))
@pytest.mark.parametrize("name", names())
def test_every_world_up_to_33_keeps_the_laws(name: str, size: int) -> None:
    for collective in family(name).collectives:
        verify(generate(name, size, 1 + size % 3, collective))


@settings(max_examples=60, deadline=None)
@given(schedules())
def test_any_colors_and_nodes_keep_the_laws(schedule: Schedule) -> None:
    verify(schedule)
    assert schedule.bit_identical


@settings(max_examples=25, deadline=None)
@given(schedules(ranks=12))
def test_text_form_round_trips(schedule: Schedule) -> None:
    assert parse(to_text(schedule)) == schedule


def decoded(value: int, size: int) -> list[int]:
    """How often each rank was added into a sum of contributions (size+1)**rank."""
    return [value // (size + 1) ** rank % (size + 1) for rank in range(size)]


@settings(max_examples=40, deadline=None)
@given(schedules(ranks=15, colors=4), st.integers(0, 67), st.integers(1, 4))
def test_simulated_sums_count_every_rank_once(schedule: Schedule, count: int, segments: int) -> None:
    size = schedule.world_size  # 16**15 still fits int64
    arrays = [np.full(count, (size + 1) ** rank, np.int64) for rank in range(size)]
    results = simulate(schedule, arrays, segments)
    for rank, result in enumerate(results):
        for chunk in range(schedule.chunks):
            if schedule.collective is Collective.REDUCE_SCATTER and chunk != rank:
                continue
            gathers = schedule.collective is Collective.ALL_GATHER
            expected = [int(r == chunk) for r in range(size)] if gathers else [1] * size
            for color in range(schedule.colors):
                for value in result[slice_of(schedule, color, chunk, count)]:
                    assert decoded(int(value), size) == expected
    assert all((array == (size + 1) ** rank).all() for rank, array in enumerate(arrays))


def slice_of(schedule: Schedule, color: int, chunk: int, count: int) -> slice:
    span = schedule.span(color, chunk, count)
    return slice(span.start, span.stop)


@settings(max_examples=30, deadline=None)
@given(schedules(ranks=12, colors=4), st.integers(1, 60), st.integers(1, 3))
def test_floats_end_with_the_same_bits_on_all_ranks(schedule: Schedule, count: int, segments: int) -> None:
    if schedule.collective is not Collective.ALLREDUCE:
        return
    generator = np.random.default_rng(count)
    arrays = [generator.standard_normal(count).astype(np.float32) for _ in range(schedule.world_size)]
    results = simulate(schedule, arrays, segments)
    exact = np.sum(np.stack(arrays).astype(np.float64), axis=0)
    np.testing.assert_allclose(results[0], exact, rtol=1e-4, atol=1e-5)
    for result in results[1:]:
        assert result.tobytes() == results[0].tobytes()


@settings(max_examples=40, deadline=None)
@given(schedules(), st.integers(0, 10_000))
def test_slots_tile_the_payload(schedule: Schedule, count: int) -> None:
    spans = [
        schedule.span(color, chunk, count)
        for chunk in range(schedule.chunks)
        for color in range(schedule.colors)
    ]
    assert spans[0].start == 0
    assert all(left.stop == right.start for left, right in pairwise(spans))
    assert spans[-1].stop == count


@pytest.mark.parametrize("name", names())
def test_a_world_of_one_rank_has_nothing_to_do(name: str) -> None:
    for collective in family(name).collectives:
        schedule = generate(name, 1, 3, collective)
        assert schedule.steps == ()
        (result,) = simulate(schedule, [np.arange(5)])
        assert result.tolist() == [0, 1, 2, 3, 4]


@settings(max_examples=20, deadline=None)
@given(schedules(ranks=9))
def test_programs_of_all_ranks_are_the_programs_of_each(schedule: Schedule) -> None:
    assert schedule.programs() == tuple(schedule.program(r) for r in range(schedule.world_size))
