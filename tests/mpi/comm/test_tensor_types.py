"""Types of tensors that handle operations themselves: what holds no memory is waited for, or refused.

``r`` is the rank, ``P`` the number of ranks; rank r gives r+1.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
from torch._subclasses import FakeTensorMode
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from distrain.errors import CallError
from distrain.world import World

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

Collective = Callable[[World, torch.Tensor], object]
CALLS: dict[str, Collective] = {
    "all_reduce": lambda world, x: dist.all_reduce(x),
    "all_reduce in the engine": lambda world, x: dist.all_reduce(x, async_op=True),
    "reduce": lambda world, x: dist.reduce(x, 0),
    "broadcast": lambda world, x: dist.broadcast(x, 0),
    "all_gather": lambda world, x: dist.all_gather([torch.zeros(x.shape) for _ in range(world.size)], x),
    "all_gather_into_tensor": lambda world, x: dist.all_gather_into_tensor(
        torch.zeros(world.size, *x.shape), x
    ),
    "reduce_scatter_tensor": lambda world, x: dist.reduce_scatter_tensor(
        x, torch.zeros(world.size, *x.shape)
    ),
    "all_to_all_single": lambda world, x: dist.all_to_all_single(torch.zeros(x.shape), x),
    "isend": lambda world, x: dist.isend(x, world.rank),
    "irecv": lambda world, x: dist.irecv(x, world.rank),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_distributed_tensor_is_refused(world: World, name: str) -> None:
    """A DTensor has no memory, and its part is not what the caller named. Nothing was sent: all go on."""
    mesh = init_device_mesh("cpu", (world.size,))
    tensor = distribute_tensor(torch.ones(2 * world.size, 3), mesh, [Shard(0)])
    with pytest.raises(CallError, match="DTensor has no memory"):
        CALLS[name](world, tensor)
    after = torch.full((3,), world.rank + 1.0)
    dist.all_reduce(after)
    assert after.tolist() == [world.size * (world.size + 1) / 2] * 3


def test_a_fake_tensor_is_refused(world: World) -> None:
    """Of small and of large ones; the real ones of the next call are summed."""
    for count in (3, 400_000):
        with FakeTensorMode():
            fake = torch.ones(count)
        for call in (
            lambda: dist.all_reduce(fake),  # noqa: B023
            lambda: dist.all_reduce(fake, async_op=True),  # noqa: B023
            lambda: dist.broadcast(fake, 0),  # noqa: B023
        ):
            with pytest.raises(CallError, match="FakeTensor has no memory"):
                call()
        real = torch.full((count,), world.rank + 1.0)
        dist.all_reduce(real)
        assert real.unique().tolist() == [world.size * (world.size + 1) / 2]


@pytest.mark.parametrize("count", [3, 400_000])
def test_results_of_functional_collectives_travel(world: World, count: int) -> None:
    """They may still be on their way. The sum S = P(P+1)/2; summed again P*S; gathered again S from all."""
    total = world.size * (world.size + 1) / 2
    given = torch.full((count,), world.rank + 1.0)
    summed = functional.all_reduce(given, "sum", dist.group.WORLD)
    assert isinstance(summed, functional.AsyncCollectiveTensor)
    dist.all_reduce(summed)
    assert (summed + 0).unique().tolist() == [world.size * total]

    parts = torch.zeros(world.size * count)
    dist.all_gather_into_tensor(parts, functional.all_reduce(given, "sum", dist.group.WORLD))
    assert parts.unique().tolist() == [total]


def test_ordinary_subclasses_travel(world: World) -> None:
    class Labelled(torch.Tensor):
        """Handles no operations itself."""

    tensor = torch.full((3,), world.rank + 1.0).as_subclass(Labelled)
    dist.all_reduce(tensor)
    assert isinstance(tensor, Labelled) and tensor.tolist() == [world.size * (world.size + 1) / 2] * 3
