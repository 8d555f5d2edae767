"""Allreduces between nodes that are one call of C: bits of the general way, late ranks, other traffic."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from wire_cases import everyone, noise

import distrain
from distrain.comm import native, runtime
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.levels import WHOLE_BYTES, open_levels
from distrain.comm.process_group import DistrainProcessGroup
from distrain.comm.routes import MOST_ROUTES
from distrain.comm.settings import CommSettings
from distrain.comm.shared.caller import DONE
from distrain.comm.supervision.board import board
from distrain.comm.supervision.members import Members
from distrain.comm.wire import Wire
from distrain.world import World

pytestmark = [
    pytest.mark.ranks(at_least=2),
    pytest.mark.skipif(
        not native.build_info()[0] or not native.has_caller(), reason="compiled without Python's headers"
    ),
]
OPTIONS: Any = dist.AllreduceOptions()
OPTIONS.asyncOp = False
SHORT = WHOLE_BYTES // 2 // 8  # the most elements of eight bytes that each of two ranks carries whole
CASES = [
    (dtype, op) for dtype in (torch.float32, torch.bfloat16, torch.int64) for op in ("sum", "avg", "max")
]
CASES += [(torch.float16, "prod"), (torch.uint8, "bxor"), (torch.bool, "avg")]


@pytest.fixture(scope="module", params=["ring", "halving_doubling", "multicolor_tree", "hierarchical"])
def group(request: pytest.FixtureRequest, world: World) -> Iterator[Any]:
    """A group of all ranks, each on a node of its own; of two nodes for `hierarchical`."""
    layered = request.param == "hierarchical"
    if layered and world.size != 4:
        pytest.skip("two nodes of two ranks are made of four")
    nodes = tuple(rank // 2 if layered else rank for rank in range(world.size))
    state = runtime.current()
    comm = state.engine.call(state.comm.Dup)
    levels = state.engine.call(lambda: open_levels(comm, nodes))
    members = Members(f"routes {request.param}", tuple(range(world.size)), world)
    settings = CommSettings(algorithm=request.param, colors=2, segment_bytes=4096)
    wire = Wire(comm, state.engine, settings, nodes, None, members, None, levels)
    assert wire.routes is not None and (wire.levels is not None) is layered
    group = DistrainProcessGroup(wire, timedelta(seconds=60), dist.HashStore())
    yield group
    group.shutdown()


def meet(group: Any) -> None:
    """Come together, so that none has to wait for long; and with an engine that has put its house in order.

    Who waits for a barrier has it before the engine's thread says that it has nothing left to do; until then
    calls go the general way. `time_limit` ends a wait in vain.
    """
    group.barrier().wait()
    gate = runtime.current().engine.gate
    while gate.busy or gate.works:
        time.sleep(1e-4)


def is_quick(group: Any, tensor: torch.Tensor) -> bool:
    """Sum once, all ranks at the same time; return whether it was one call of C."""
    meet(group)
    before = group._wire.quick.calls
    group.allreduce([tensor], OPTIONS).wait()
    return bool(group._wire.quick.calls > before)


def test_the_second_call_is_one_of_c(group: Any) -> None:
    count = 1000 + random.Random(group._wire.calls).randrange(10)
    for number in range(4):
        tensor = torch.full((count,), float(group.rank() + 1))
        assert is_quick(group, tensor) is (number > 0)
        assert tensor.eq(sum(range(1, group.size() + 1))).all()


@pytest.mark.parametrize(("dtype", "op"), CASES, ids=str)
def test_it_computes_the_same_bits_as_the_general_way(group: Any, dtype: torch.dtype, op: str) -> None:
    for count in (1, 3, 1009, SHORT + 1):
        values = noise(group.rank(), count, torch.float32).mul(3).to(dtype)
        general, quick = values.clone(), values.clone()
        options: Any = dist.AllreduceOptions()  # asyncOp: not in one call
        options.reduceOp = getattr(dist.ReduceOp, {"prod": "PRODUCT"}.get(op, op.upper()))
        group.allreduce([general], options).wait()
        distrain.allreduce(values.clone(), op, group)
        meet(group)
        before = group._wire.quick.calls
        distrain.allreduce(quick, op, group)
        assert group._wire.quick.calls == before + 1
        assert torch.equal(quick.view(-1).view(torch.uint8), general.view(-1).view(torch.uint8)), count


def test_arrays_of_numpy_too(group: Any) -> None:
    for _ in range(3):
        array = np.full((7, 11), (group.size() + 1) ** group.rank())
        distrain.allreduce(array, "sum", group)
        assert (array == everyone(group.size())).all()


@pytest.mark.parametrize("count", (10, 300_000))
def test_a_late_rank_is_waited_for_by_the_engine(group: Any, count: int) -> None:
    """Later than a call waits by itself; the time shows as waiting for communication."""
    late = group.size() - 1
    group.allreduce([torch.zeros(count)], OPTIONS).wait()
    for _ in range(2):  # the route serves again afterwards
        meet(group)
        runtime.current().engine.take_exposed_seconds()
        tensor = torch.full((count,), group.rank() + 1.0)
        if group.rank() == late:
            time.sleep(0.25)  # far longer than the others may come late on a busy machine
        work = group.allreduce([tensor], OPTIONS)
        assert work.wait() and tensor.eq(group.size() * (group.size() + 1) / 2).all()
        if group.rank() != late:
            assert work is not DONE
            assert runtime.current().engine.take_exposed_seconds() > 0.02
    assert is_quick(group, torch.ones(count))


def test_reports_know_the_last_call(group: Any) -> None:
    for _ in range(2):
        distrain.allreduce(torch.ones(17, dtype=torch.float64), "max", group)
    last = board.facts()["calls"][group._wire.members.key]
    assert last["what"] == "allreduce (max) of 17 elements of float64" and last["number"] == group._wire.calls


def test_another_thread_sends_meanwhile(group: Any, world: World) -> None:
    """Its messages end calls that wait; the engine does the rest, and both are right."""
    state, errors = runtime.current(), []
    comm = state.engine.call(state.comm.Dup)
    other = Wire(comm, state.engine, CommSettings(node_memory=False), tuple(range(world.size)))

    def talk() -> None:
        for number in range(60):
            payload = torch.full((500,), number + world.rank)
            other.engine.wait(other.engine.submit(other.reduction(FlatBuffer(payload), Reduction.SUM)))
            if not payload.eq(number * world.size + sum(range(world.size))).all():
                errors.append(number)

    thread = threading.Thread(target=talk)
    thread.start()
    for number in range(200):
        tensor = torch.full((number % 3 * 4000 + 5,), float(number * (group.rank() + 1)))
        group.allreduce([tensor], OPTIONS).wait()
        assert tensor.eq(number * sum(range(1, group.size() + 1))).all()
    thread.join()
    assert errors == []
    other.close()


@pytest.mark.seconds(120)
def test_all_ways_mixed_at_random_are_exact(group: Any) -> None:
    dice, flight, size = random.Random(5), [], group.size()
    for number in range(300):
        count = dice.choice((3, 200, 1000, SHORT, SHORT + 1, 20_000))
        base = torch.arange(count) % 97 + number
        tensor, answer = base * (group.rank() + 1), base * (size * (size + 1) // 2)
        if dice.random() < 0.03 and group.rank() == number % size:
            time.sleep(0.03)
        if dice.random() < 0.3:
            flight.append((group.allreduce([tensor]), tensor, answer))
            continue
        if dice.random() < 0.1:
            meet(group)
        group.allreduce([tensor], OPTIONS).wait()
        assert torch.equal(tensor, answer), (number, count)
        while len(flight) > dice.randrange(0, 5):
            work, result, expected = flight.pop(0)
            work.wait()
            assert torch.equal(result, expected)
    for work, result, expected in flight:
        work.wait()
        assert torch.equal(result, expected)


def test_of_many_sizes_the_last_are_kept(group: Any) -> None:
    for count in (*range(2, MOST_ROUTES + 20), 2):
        for _ in range(2):
            tensor = torch.full((count,), float(group.rank()))
            group.allreduce([tensor], OPTIONS).wait()
            assert tensor.eq(sum(range(group.size()))).all()
    assert len(group._wire.routes._routes) == MOST_ROUTES
    assert is_quick(group, torch.ones(2)) and not is_quick(group, torch.ones(3))
