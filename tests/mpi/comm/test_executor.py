"""Executed Schedules: right sums, right bits, right halves, for all types and odd sizes."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator

import pytest
import torch
from wire_cases import COUNTS, DTYPES, decoding, everyone, noise, same_bits, simulated

from distrain.comm import runtime
from distrain.comm.buffers import FlatBuffer, Reduction, StagingPool
from distrain.comm.plans import WINDOW
from distrain.comm.settings import CommSettings
from distrain.comm.wire import Wire
from distrain.schedule.ir import Collective
from distrain.schedule.registry import generate, names
from distrain.world import World, split

# In C, as on most machines, and in Python, as where nothing could be compiled.
ALGORITHMS = [(name, colors, True) for name in names() for colors in (1, 3)]
ALGORITHMS += [("multicolor_ring", 3, False), ("multicolor_tree", 3, False), ("halving_doubling", 1, False)]
# Every type is summed; the other reductions need not meet every type.
CASES = [(dtype, Reduction.SUM) for dtype in DTYPES]
CASES += [(dtype, op) for dtype in (torch.bfloat16, torch.int64) for op in (Reduction.AVG, Reduction.MAX)]
# Of larger worlds the Schedules are another matter, the types are not.
UP_TO_THREE = pytest.mark.ranks(1, 2, 3)
CASES_BY_RANKS = [
    pytest.param(*case, marks=[] if case[0] in (torch.float32, torch.bfloat16) else UP_TO_THREE)
    for case in CASES
]


@pytest.fixture(scope="module", params=ALGORITHMS, ids=lambda p: f"{p[0]}-{p[1]}-{'c' if p[2] else 'python'}")
def wire(request: pytest.FixtureRequest, world: World) -> Iterator[Wire]:
    name, colors, compiled = request.param
    state = runtime.current()
    settings = CommSettings(algorithm=name, colors=colors, segment_bytes=256)
    nodes = tuple(0 for _ in range(world.size))
    wire = Wire(state.engine.call(state.comm.Dup), state.engine, settings, nodes)
    if compiled and not wire.compiled:
        pytest.skip("the executor was not compiled here")
    wire.compiled = compiled
    yield wire
    wire.close()


def execute(wire: Wire, payload: torch.Tensor, reduction: Reduction, collective: Collective) -> None:
    operation = wire.reduction(FlatBuffer(payload), reduction, collective)
    wire.engine.wait(wire.engine.submit(operation))


def test_every_rank_is_counted_exactly_once(wire: Wire) -> None:
    for count in COUNTS:
        payload = decoding(wire.rank, wire.size, count, torch.int64)
        execute(wire, payload, Reduction.SUM, Collective.ALLREDUCE)
        assert payload.tolist() == [everyone(wire.size)] * count


@pytest.mark.parametrize(("dtype", "reduction"), CASES_BY_RANKS, ids=str)
def test_executed_equals_simulated_bit_for_bit(wire: Wire, dtype: torch.dtype, reduction: Reduction) -> None:
    s = wire.settings
    schedule = generate(s.algorithm, wire.size, s.colors or 1, nodes=wire.nodes)
    for count in COUNTS:
        inputs = [noise(rank, count, dtype) for rank in range(wire.size)]
        expected = simulated(schedule, wire.rank, inputs, reduction)
        if reduction is Reduction.AVG:
            expected = (
                expected / wire.size
                if dtype.is_floating_point
                else torch.div(expected, wire.size, rounding_mode="trunc")
            )
        payload = inputs[wire.rank].clone()
        execute(wire, payload, reduction, Collective.ALLREDUCE)
        assert same_bits(payload, expected), f"{count} elements"


def test_reduce_scatter_leaves_the_full_sum_in_each_ranks_part(wire: Wire) -> None:
    for count in COUNTS:
        payload = decoding(wire.rank, wire.size, count, torch.int64)
        execute(wire, payload, Reduction.SUM, Collective.REDUCE_SCATTER)
        mine = split(count, wire.size)[wire.rank]
        assert payload[mine.start : mine.stop].tolist() == [everyone(wire.size)] * len(mine)


def test_all_gather_collects_each_ranks_part(wire: Wire) -> None:
    for count in COUNTS:
        parts = split(count, wire.size)
        payload = torch.full((count,), -1, dtype=torch.int64)
        mine = parts[wire.rank]
        payload[mine.start : mine.stop] = wire.rank
        execute(wire, payload, Reduction.SUM, Collective.ALL_GATHER)
        assert payload.tolist() == [rank for rank, part in enumerate(parts) for _ in part]


def test_operations_in_flight_together_do_not_mix(wire: Wire) -> None:
    payloads = [decoding(wire.rank, wire.size, 301 + i, torch.int64) * (i + 1) for i in range(12)]
    completions = [wire.engine.submit(wire.reduction(FlatBuffer(p), Reduction.SUM)) for p in payloads]
    for completion in reversed(completions):
        wire.engine.wait(completion)
    for i, payload in enumerate(payloads):
        assert payload.tolist() == [(i + 1) * everyone(wire.size)] * (301 + i)


def test_steady_state_takes_no_new_staging(wire: Wire) -> None:
    payload = torch.ones(4099)
    wire.pool = StagingPool()
    for _ in range(30):
        execute(wire, payload, Reduction.MAX, Collective.ALLREDUCE)
    # How many areas are needed at once depends on timing, but never more than the window allows:
    # in each lane the receives of a step and, posted early, those of the next; sizes are rounded up to
    # powers of two.
    most_receives = 2 * 2 * wire.size
    assert wire.pool.allocated_bytes <= (wire.settings.colors or 1) * WINDOW * most_receives * 256


@pytest.mark.ranks(3)  # enough for all kinds of steps
def test_collectives_leave_nothing_behind(wire: Wire) -> None:
    """Ten at a time, for which ranks need not wait for each other after each.

    Caches and free lists still grow a little at first, so the least growth of several rounds counts:
    what each collective left would be in all of them.
    """
    payloads = [torch.ones(wire.size * 50) for _ in range(10)]

    def execute_all() -> None:
        reductions = [wire.reduction(FlatBuffer(p), Reduction.MAX, Collective.ALLREDUCE) for p in payloads]
        for completion in [wire.engine.submit(reduction) for reduction in reductions]:
            wire.engine.wait(completion)

    def growth(rounds: int) -> int:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(rounds):
            execute_all()
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    gc.collect()
    gc.freeze()  # what is there now need not be searched again
    tracemalloc.start()
    try:
        growths = [growth(rounds=6) for _ in range(6)]
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    # The least Python object has 56 bytes: one kept of each of 60 collectives would be 3,360.
    assert min(growths) < 3_000
