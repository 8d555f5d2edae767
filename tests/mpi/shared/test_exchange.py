"""Collectives in the memory of a node: exact sums, one order of addition, any size, type and mixture."""

from __future__ import annotations

import random

import pytest
import torch
import torch.distributed as dist

from distrain.comm import native
from distrain.comm.work import DistrainWork
from distrain.world import World

pytestmark = [
    pytest.mark.ranks(at_least=2),
    pytest.mark.skipif(not native.build_info()[0], reason=f"exchange in memory: {native.build_info()[1]}"),
]
COUNTS = (0, 1, 2, 3, 5, 31, 1009, 4096, 65537, 262147)
REALS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


def data_of(rank: int, count: int, dtype: torch.dtype, top: int = 0) -> torch.Tensor:
    """What a rank puts in: whole numbers below `top`, or else normal ones that round when added."""
    generator = torch.Generator().manual_seed(1000 * rank + count)
    if top:
        return torch.randint(1, top, (count,), generator=generator).to(dtype)
    return torch.randn(count, generator=generator, dtype=torch.float64).to(dtype)


def in_order(world: World, count: int, dtype: torch.dtype) -> torch.Tensor:
    """The documented sum: rank 0 first, half types in float32 and rounded once."""
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    total = data_of(0, count, dtype).to(wide)
    for rank in range(1, world.size):
        total = total + data_of(rank, count, dtype).to(wide)
    return total.to(dtype)


def test_the_group_of_one_node_has_a_channel(world: World) -> None:
    assert dist.group.WORLD._wire.channel is not None  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", REALS, ids=str)
@pytest.mark.parametrize("count", COUNTS)
def test_sums_are_those_of_the_documented_order_bit_for_bit(
    world: World, count: int, dtype: torch.dtype
) -> None:
    tensor = data_of(world.rank, count, dtype)
    dist.all_reduce(tensor)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    assert torch.equal(tensor.view(bits), in_order(world, count, dtype).view(bits))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("count", (1, 1009, 262147))
def test_integers_wrap_and_compare_as_torch_does(world: World, count: int, dtype: torch.dtype) -> None:
    all_data = torch.stack([data_of(rank, count, dtype, top=100) for rank in range(world.size)])
    expected = {
        dist.ReduceOp.SUM: all_data.sum(0, dtype=torch.int64).to(dtype),
        dist.ReduceOp.PRODUCT: all_data.to(torch.int64).prod(0).to(dtype),
        dist.ReduceOp.MIN: all_data.amin(0),
        dist.ReduceOp.MAX: all_data.amax(0),
    }
    for op, answer in expected.items():
        tensor = all_data[world.rank].clone()
        dist.all_reduce(tensor, op)
        assert torch.equal(tensor, answer), op


def test_not_a_number_is_the_result_wherever_it_comes_from(world: World) -> None:
    for op in (dist.ReduceOp.MIN, dist.ReduceOp.MAX, dist.ReduceOp.SUM):
        tensor = torch.full((world.size,), float(world.rank))
        tensor[world.rank] = float("nan")
        dist.all_reduce(tensor, op)
        assert tensor.isnan().all()


@pytest.mark.seconds(150)
def test_many_mixed_collectives_are_exact(world: World) -> None:
    dice, flight = random.Random(7), []
    for number in range(1000 if world.size <= 3 else 300):
        count = dice.choice((dice.randrange(0, 50), dice.randrange(0, 9000), dice.randrange(0, 300_000)))
        tensor = data_of(world.rank, count, torch.int64, top=1000) + number
        total = sum(data_of(rank, count, torch.int64, top=1000) for rank in range(world.size))
        answer = total + number * world.size
        flight.append((dist.all_reduce(tensor, async_op=True), tensor, answer))
        while len(flight) > dice.randrange(0, 6):
            work, result, expected = flight.pop(dice.randrange(len(flight)))
            work.wait()
            assert torch.equal(result, expected), (number, count)
    for work, result, expected in flight:
        work.wait()
        assert torch.equal(result, expected)


def test_a_small_one_begins_in_the_calling_thread_a_large_one_does_not(world: World) -> None:
    dist.barrier()
    for count, through_engine in ((100, False), (1_000_000, True)):
        tensor = torch.full((count,), world.rank)
        work = dist.all_reduce(tensor, async_op=True)
        work.wait()
        assert isinstance(work, DistrainWork) is through_engine
        assert torch.equal(tensor, torch.full((count,), world.size * (world.size - 1) // 2))


def test_an_unfinished_small_one_may_be_dropped_polled_or_called_back(world: World) -> None:
    dropped = torch.full((4,), world.rank)
    dist.all_reduce(dropped, async_op=True)
    polled, called = torch.full((4,), 10 * world.rank), torch.full((4,), 100 * world.rank)
    work = dist.all_reduce(polled, async_op=True)
    future = dist.all_reduce(called, async_op=True).get_future()
    assert torch.equal(future.wait()[0], torch.full((4,), 50 * world.size * (world.size - 1)))
    work.wait()
    assert work.is_completed() and work.is_success() and work.exception() is None
    assert torch.equal(polled, torch.full((4,), 5 * world.size * (world.size - 1)))
    dist.barrier()
