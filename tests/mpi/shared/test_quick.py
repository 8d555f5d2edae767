"""Allreduces that are one call of C: types and operations, late ranks, the order among other calls."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

import distrain
from distrain.comm import native, runtime
from distrain.comm.shared.caller import DONE
from distrain.comm.supervision.board import board
from distrain.errors import CallError
from distrain.world import World

pytestmark = [
    pytest.mark.ranks(at_least=2),
    pytest.mark.skipif(not native.build_info()[0], reason=f"exchange in memory: {native.build_info()[1]}"),
]
REALS = ("float16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
COMBINE: dict[str, Any] = {
    "sum": np.add,
    "prod": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
    "band": np.bitwise_and,
    "bor": np.bitwise_or,
    "bxor": np.bitwise_xor,
}


def wire() -> Any:
    return dist.group.WORLD._wire  # type: ignore[union-attr]


def array_of(rank: int, count: int, dtype: str) -> np.ndarray:
    """What a rank puts in: small whole numbers, so that sums and products of few ranks are exact."""
    return np.random.default_rng(100 * rank + count).integers(1, 5, count).astype(dtype)


def combined(world: World, count: int, dtype: str, op: str) -> np.ndarray:
    total = array_of(0, count, dtype)
    for rank in range(1, world.size):
        total = COMBINE["sum" if op == "avg" else op](total, array_of(rank, count, dtype))
    if op != "avg":
        return total.astype(dtype)
    real = total.view(total.real.dtype)  # both halves of a complex number are divided, each by itself
    return (real / real.dtype.type(world.size)).astype(real.dtype).view(dtype)


@pytest.mark.parametrize("count", (1, 1023, 40_000, 700_001))
def test_arrays_of_every_type_and_operation(world: World, count: int) -> None:
    cases = [(dtype, op) for dtype in REALS for op in ("sum", "avg", "prod", "min", "max")]
    cases += [(dtype, op) for dtype in INTEGERS for op in (*COMBINE, "avg")]
    cases += [(dtype, op) for dtype in ("complex64", "complex128") for op in ("sum", "avg")]
    for dtype, op in cases if count < 100_000 else cases[::7]:
        array = array_of(world.rank, count, dtype)
        distrain.allreduce(array, op)
        np.testing.assert_array_equal(array, combined(world, count, dtype, op), f"{dtype} {op}")


def test_truth_values_and_the_type_that_numpy_lacks(world: World) -> None:
    for op, answer in (("sum", [True, True, False]), ("prod", [world.size == 1, True, False])):
        truth = np.array([world.rank == 0, True, False])
        distrain.allreduce(truth, op)
        assert truth.tolist() == answer
    half = torch.full((5,), world.rank + 0.5, dtype=torch.bfloat16)
    distrain.allreduce(half, "max")
    assert half.tolist() == [world.size - 0.5] * 5


def test_any_strides_any_shape_any_view(world: World) -> None:
    total = world.size * (world.size + 1) // 2
    for array in (np.ones((3, 4), order="F"), np.ones((8, 6))[::2, 1:4], np.ones(()), np.ones((0, 3))):
        array *= world.rank + 1
        distrain.allreduce(array)
        np.testing.assert_array_equal(array, np.full(array.shape, float(total)))
    negated = torch.full((3,), world.rank + 1.0)._neg_view()
    dist.all_reduce(negated)
    assert negated.tolist() == [-float(total)] * 3


def test_what_is_refused_is_refused_before_anything_is_sent(world: World) -> None:
    calls = wire().calls
    frozen = np.ones(3)
    frozen.flags.writeable = False
    cases: list[tuple[Any, str, str]] = [
        ([1.0], "sum", "list is no array"),
        (frozen, "sum", "read-only"),
        (np.ones(3), "median", "op='median' is unknown; name one of sum, avg"),
        (np.ones(4)[::-1], "sum", "negative"),
        (np.ones(3, ">f4"), "sum", "array of >f4"),
    ]
    for array, op, said in cases:
        with pytest.raises(CallError, match=said):
            distrain.allreduce(array, op)
    assert wire().calls == calls
    array = np.full(3, world.rank)
    distrain.allreduce(array, "max")
    assert array.tolist() == [world.size - 1] * 3 and wire().calls == calls + 1


@pytest.mark.parametrize("count", (10, 300_000))
def test_a_late_rank_is_waited_for_by_the_engine(world: World, count: int) -> None:
    """Far longer than a call waits by itself; the time shows as waiting for communication."""
    late = world.size - 1
    for call in (dist.all_reduce, distrain.allreduce):
        dist.barrier()
        runtime.current().engine.take_exposed_seconds()
        tensor = torch.full((count,), world.rank + 1.0)
        if world.rank == late:
            time.sleep(0.05)
        call(tensor)
        assert tensor.eq(world.size * (world.size + 1) / 2).all()
        if world.rank != late:
            assert runtime.current().engine.take_exposed_seconds() > 0.01


@pytest.mark.skipif(not native.has_caller(), reason="the C side was compiled without Python's headers")
def test_the_call_itself_carries_it_out(world: World) -> None:
    """Also after the channel was used by the engine, and after a Work that nobody waited for."""
    options = dist.AllreduceOptions()
    options.asyncOp = False
    group: Any = dist.group.WORLD
    for before in (lambda: None, lambda: dist.all_reduce(torch.ones(3_000_000)), self_reduce):
        before()
        for _ in range(40):  # on a busy machine a rank comes so late that the engine takes over
            dist.barrier()  # all come at the same time, so that none has to wait for long
            done = [group.allreduce([torch.ones(10)], options) is DONE for _ in range(50)]
            everywhere = torch.tensor([any(done)])
            dist.all_reduce(everywhere, dist.ReduceOp.MIN)
            if everywhere.item():
                break
        assert everywhere.item()
    assert DONE.wait() and DONE.is_completed() and DONE.is_success() and DONE.exception() is None
    for ask in (DONE.result, DONE.get_future):
        with pytest.raises(CallError, match="asyncOp=False"):
            ask()


def self_reduce() -> None:
    dist.all_reduce(torch.ones(7), async_op=True)


def test_reports_know_the_last_call(world: World) -> None:
    key = wire().members.key
    distrain.allreduce(np.ones(17, np.float64), "max")
    first = board.facts()["calls"][key]
    dist.all_reduce(torch.ones(5))
    second = board.facts()["calls"][key]
    assert first["what"] == "allreduce (max) of 17 elements of float64" and 0 <= first["age"] < 60
    assert second["what"] == "allreduce (sum) of 5 elements of float32"
    dist.barrier()
    assert board.facts()["calls"][key]["what"] == "barrier"
    assert second["number"] == first["number"] + 1 == wire().calls - 1


@pytest.mark.seconds(120)
def test_all_ways_mixed_at_random_are_exact(world: World) -> None:
    dice, flight = random.Random(11), []
    for number in range(600):
        count = dice.choice((dice.randrange(0, 60), dice.randrange(0, 9000), dice.randrange(0, 200_000)))
        base = torch.arange(count) % 97 + number
        tensor = base * (world.rank + 1)
        answer = base * (world.size * (world.size + 1) // 2)
        way = dice.randrange(4)
        if dice.random() < 0.05 and world.rank == number % world.size:
            time.sleep(0.004)
        if way == 0:
            flight.append((dist.all_reduce(tensor, async_op=True), tensor, answer))
            continue
        if way == 1:
            dist.all_reduce(tensor)
        elif way == 2:
            distrain.allreduce(tensor.numpy())
        else:
            parts = [torch.empty_like(tensor) for _ in range(world.size)]
            dist.all_gather(parts, tensor)
            tensor = sum(parts, torch.zeros_like(tensor))
        assert torch.equal(tensor, answer), (number, way, count)
        while len(flight) > dice.randrange(0, 4):
            work, result, expected = flight.pop(0)
            work.wait()
            assert torch.equal(result, expected)
    for work, result, expected in flight:
        work.wait()
        assert torch.equal(result, expected)
