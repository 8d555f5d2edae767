"""Dispatch modes see the collectives of a group, and their results are the same.

``r`` is the rank, ``P`` the number of ranks; rank r gives r+1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import FakeWork
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.parallel import DistributedDataParallel
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils._python_dispatch import TorchDispatchMode

from distrain.errors import CallError
from distrain.world import World

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

c10d = torch.ops.c10d


def own(world: World) -> torch.Tensor:
    return torch.full((2,), world.rank + 1.0)


def all_reduce(world: World, group: Any) -> float:
    tensor = own(world)
    dist.all_reduce(tensor, group=group)
    return tensor.sum()


def later_all_reduce(world: World, group: Any) -> float:
    tensor = own(world)
    work = dist.all_reduce(tensor, op=dist.ReduceOp.SUM, group=group, async_op=True)
    return work.get_future().then(lambda future: future.value()[0].sum()).wait()


def short_all_reduce(world: World, group: Any) -> float:
    tensor = own(world)
    group.allreduce(tensor).wait()
    return tensor.sum()


def coalesced_all_reduce(world: World, group: Any) -> float:
    tensors = [own(world)[:1], own(world)[1:]]
    group.allreduce_coalesced(tensors, dist.AllreduceCoalescedOptions()).wait()
    return torch.cat(tensors).sum()


def reduce(world: World, group: Any) -> float:
    tensor = own(world)
    dist.reduce(tensor, 0, group=group)
    return tensor.sum() if world.rank == 0 else world.size * (world.size + 1)


def reduce_scatter(world: World, group: Any) -> float:
    output = torch.empty(2)
    dist.reduce_scatter(output, [own(world) for _ in range(world.size)], group=group)
    return output.sum()


def reduce_scatter_tensor(world: World, group: Any) -> float:
    output = torch.empty(2)
    dist.reduce_scatter_tensor(output, own(world).repeat(world.size), group=group)
    return output.sum()


def coalesced_reduce_scatter(world: World, group: Any) -> float:
    output = torch.empty(2)
    with dist._coalescing_manager(group=group):
        dist.reduce_scatter_tensor(output, own(world).repeat(world.size), group=group)
    return output.sum()


def broadcasts(world: World, group: Any) -> float:
    tensor = own(world)
    dist.broadcast(tensor, world.size - 1, group=group)
    return tensor.sum() / world.size * world.size * (world.size + 1) / 2


def all_gather(world: World, group: Any) -> float:
    parts = [torch.empty(2) for _ in range(world.size)]
    dist.all_gather(parts, own(world), group=group)
    return torch.cat(parts).sum()


def all_gather_into(world: World, group: Any) -> float:
    whole = torch.empty(2 * world.size)
    dist.all_gather_into_tensor(whole, own(world), group=group)
    return whole.sum()


def coalesced_all_gather_into(world: World, group: Any) -> float:
    whole = torch.empty(2 * world.size)
    with dist._coalescing_manager(group=group):
        dist.all_gather_into_tensor(whole, own(world), group=group)
    return whole.sum()


def gather(world: World, group: Any) -> float:
    parts = [torch.empty(2) for _ in range(world.size)] if world.rank == 0 else None
    dist.gather(own(world), parts, 0, group=group)
    return world.size * (world.size + 1) if parts is None else torch.cat(parts).sum()


def scatter(world: World, group: Any) -> float:
    tensor = torch.empty(2)
    parts = [torch.full((2,), float(rank)) for rank in range(world.size)] if world.rank == 0 else None
    dist.scatter(tensor, parts, 0, group=group)
    return (tensor.sum() - 2 * world.rank) + world.size * (world.size + 1)


def all_to_all(world: World, group: Any) -> float:
    outputs = [torch.empty(2) for _ in range(world.size)]
    dist.all_to_all(outputs, [own(world) for _ in range(world.size)], group=group)
    return torch.cat(outputs).sum()


def all_to_all_single(world: World, group: Any) -> float:
    output = torch.empty(2 * world.size)
    dist.all_to_all_single(output, own(world).repeat(world.size), group=group)
    return output.sum()


CALLS = {
    all_reduce: c10d.allreduce_,
    later_all_reduce: c10d.allreduce_,
    short_all_reduce: c10d.allreduce_,
    coalesced_all_reduce: c10d.allreduce_coalesced_,
    reduce: c10d.reduce_,
    reduce_scatter: c10d.reduce_scatter_,
    reduce_scatter_tensor: c10d._reduce_scatter_base_,
    coalesced_reduce_scatter: c10d.reduce_scatter_tensor_coalesced_,
    broadcasts: c10d.broadcast_,
    all_gather: c10d.allgather_,
    all_gather_into: c10d._allgather_base_,
    coalesced_all_gather_into: c10d.allgather_into_tensor_coalesced_,
    gather: c10d.gather_,
    scatter: c10d.scatter_,
    all_to_all: c10d.alltoall_,
    all_to_all_single: c10d.alltoall_base_,
}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.__name__)
def test_a_mode_counts_each_collective_once(
    world: World, group: dist.ProcessGroup, call: Callable[[World, Any], Any]
) -> None:
    with CommDebugMode() as mode:
        result = call(world, group)
    assert float(result) == world.size * (world.size + 1)
    assert dict(mode.get_comm_counts()) == {CALLS[call]: 1}
    assert float(call(world, group)) == world.size * (world.size + 1)
    assert mode.get_total_counts() == 1


def test_what_two_modes_see_and_one_answers(world: World, group: dist.ProcessGroup) -> None:
    class Halves(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is c10d.allreduce_.default:
                args[0][0].mul_(0.5)
            return function(*args, **(kwargs or {}))

    with CommDebugMode() as mode, Halves():
        result = all_reduce(world, group)
    assert float(result) == world.size * (world.size + 1) / 2
    assert mode.get_total_counts() == 1


def test_a_wrong_call_is_refused_as_without_a_mode(world: World, group: dist.ProcessGroup) -> None:
    with CommDebugMode(), pytest.raises(CallError, match="tensors for"):
        dist.all_gather([torch.empty(2)] * (world.size + 1), own(world), group=group)
    assert float(all_reduce(world, group)) == world.size * (world.size + 1)


def test_a_mode_may_answer_in_the_place_of_the_group(world: World, group: dist.ProcessGroup) -> None:
    class Nothing(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is c10d.allreduce_.default:
                return args[0], FakeWork().boxed()
            if function is c10d.alltoall_base_.default:
                return FakeWork().boxed()
            return function(*args, **(kwargs or {}))

    tensor = own(world)
    with Nothing():
        dist.all_reduce(tensor, group=group)
        dist.all_to_all_single(torch.empty(world.size), torch.ones(world.size), group=group)
    assert tensor.tolist() == own(world).tolist()
    assert float(all_reduce(world, group)) == world.size * (world.size + 1)


def test_a_group_of_torch_keeps_its_kernels(world: World) -> None:
    with CommDebugMode():
        all_reduce(world, None)
    gloo = dist.new_group(backend="gloo")
    with CommDebugMode() as mode:
        assert float(all_reduce(world, gloo)) == world.size * (world.size + 1)
    assert mode.get_total_counts() == 1
    assert float(all_gather(world, gloo)) == world.size * (world.size + 1)


def test_sums_of_sparse_tensors(world: World) -> None:
    tensor = torch.tensor([0.0, world.rank + 1.0]).to_sparse()
    with CommDebugMode():
        dist.all_reduce(tensor)
    assert tensor.to_dense().tolist() == [0.0, world.size * (world.size + 1) / 2]


def test_ddp_calls_from_its_own_cpp(world: World) -> None:
    torch.manual_seed(1)
    model = DistributedDataParallel(torch.nn.Linear(3, 2))
    with CommDebugMode() as mode:
        model(torch.ones(1, 3)).sum().backward()
    assert mode.get_comm_counts()[c10d.allreduce_] == 1


def test_types_made_of_tensors_travel_as_those(world: World, group: dist.ProcessGroup) -> None:
    """A type that hands what is done with it to the two tensors in it; the second holds a hundred more."""

    def pair(value: float) -> TwoTensor:
        return TwoTensor(torch.full((2,), value), torch.full((2,), value + 100))

    def held(tensor: TwoTensor) -> list[float]:
        return [tensor.a.unique().item(), tensor.b.unique().item()]

    size, total = world.size, world.size * (world.size + 1) / 2
    tensor = pair(world.rank + 1.0)
    dist.all_reduce(tensor, group=group)
    assert held(tensor) == [total, total + 100 * size]
    tensor = pair(float(world.rank))
    dist.broadcast(tensor, size - 1, group=group)
    assert held(tensor) == [size - 1, size + 99]
    parts = [pair(float(rank)) for rank in range(size)] if world.rank == 0 else None
    tensor = pair(-1.0)
    dist.scatter(tensor, parts, 0, group=group)
    assert held(tensor) == [world.rank, world.rank + 100]
    parts = [pair(-1.0) for _ in range(size)]
    dist.all_gather(parts, pair(float(world.rank)), group=group)
    assert [held(part) for part in parts] == [[rank, rank + 100] for rank in range(size)]
