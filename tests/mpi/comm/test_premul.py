"""PREMUL_SUM: the sum of what the ranks give, each multiplied by a factor of its own first.

Rank r gives r+1 and multiplies by 1/2 (r even) or 2 (r odd).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from distrain.errors import CallError
from distrain.world import World


def factor(rank: int) -> float:
    return 2.0 if rank % 2 else 0.5


def operation(world: World, as_tensor: bool = False) -> Any:
    own = factor(world.rank)
    return dist.ReduceOp.PREMUL_SUM(torch.tensor([own]) if as_tensor else own)  # type: ignore[operator]


def total(world: World) -> float:
    return sum((rank + 1) * factor(rank) for rank in range(world.size))


@pytest.mark.parametrize("count", [3, 300_000])
@pytest.mark.parametrize("as_tensor", [False, True], ids=["number", "tensor"])
def test_all_collectives_that_sum(
    world: World, group: dist.ProcessGroup, count: int, as_tensor: bool
) -> None:
    op, mine = operation(world, as_tensor), world.rank + 1.0
    tensor = torch.full((count,), mine)
    dist.all_reduce(tensor, op, group=group)
    assert tensor.unique().tolist() == [total(world)]
    tensor = torch.full((count,), mine)
    dist.reduce(tensor, 0, op, group=group)
    assert tensor.unique().tolist() == [total(world) if world.rank == 0 else mine]
    whole, part = torch.full((world.size * count,), mine), torch.empty(count)
    dist.reduce_scatter_tensor(part, whole, op, group=group)
    assert part.unique().tolist() == [total(world)]
    assert whole.unique().tolist() == [mine]
    dist.reduce_scatter(part, list(whole.split(count)), op, group=group)
    assert part.unique().tolist() == [total(world)]


def test_integers_are_refused(world: World) -> None:
    numbers, op, refused = torch.ones(3, dtype=torch.int64), operation(world), r"PREMUL_SUM of torch\.int64"
    with pytest.raises(CallError, match=refused):
        dist.all_reduce(numbers, op)
    with pytest.raises(CallError, match=refused):
        dist.reduce(numbers, 0, op)
    with pytest.raises(CallError, match=refused):
        dist.reduce_scatter_tensor(numbers, torch.ones(3 * world.size, dtype=torch.int64), op)
    dist.all_reduce(numbers)  # nothing was sent, and all goes on
    assert numbers.tolist() == [world.size] * 3


def test_a_chosen_divisor_of_fsdp2(world: World) -> None:
    """Gradients of ones: the sum of P ranks divided by 4P."""
    mesh = init_device_mesh("cpu", (world.size,))
    model = fully_shard(nn.Linear(4, 8, bias=False), mesh=mesh)
    model.set_gradient_divide_factor(4.0 * world.size)
    model(torch.ones(1, 4)).sum().backward()
    assert model.weight.grad.full_tensor().unique().tolist() == [0.25]
