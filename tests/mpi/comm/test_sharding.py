"""What torch builds on groups and meshes, each against one process that sees all batches."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from distrain.world import World

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 5))


def batch(rank: int, step: int) -> torch.Tensor:
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(100 * step + rank))


def trained_alone(ranks: int, steps: int) -> list[torch.Tensor]:
    """The weights after SGD on the mean loss of all ranks' batches."""
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        torch.stack([net(batch(r, step)).square().mean() for r in range(ranks)]).mean().backward()
        optimizer.step()
    return [p.detach() for p in net.parameters()]


def train(net: nn.Module, rank: int, steps: int) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        net(batch(rank, step)).square().mean().backward()
        optimizer.step()


def assert_trained(net: nn.Module, expected: list[torch.Tensor]) -> None:
    for ours, alone in zip(net.parameters(), expected, strict=True):
        whole = ours.full_tensor() if isinstance(ours, DTensor) else ours
        torch.testing.assert_close(whole.detach(), alone, rtol=1e-5, atol=1e-6)


def test_fully_sharded_training(world: World, group: dist.ProcessGroup) -> None:
    net = make_net()
    mesh = DeviceMesh.from_group(group, "cpu")
    for layer in net:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(net, mesh=mesh)
    train(net, world.rank, steps=3)
    assert_trained(net, trained_alone(world.size, steps=3))


@pytest.mark.ranks(4)
def test_hybrid_sharding(world: World) -> None:
    """Two replicas of two shards (HSDP)."""
    net = make_net()
    fully_shard(net, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    train(net, world.rank, steps=3)
    assert_trained(net, trained_alone(world.size, steps=3))


@pytest.mark.parametrize(
    "options",
    [{}, {"static_graph": True}, {"find_unused_parameters": True}, {"gradient_as_bucket_view": True}],
    ids=["plain", "static_graph", "find_unused", "bucket_view"],
)
def test_data_parallel_training(world: World, group: dist.ProcessGroup, options: dict[str, bool]) -> None:
    net = DistributedDataParallel(make_net(), process_group=group, bucket_cap_mb=0.001, **options)
    train(net, world.rank, steps=3)
    assert_trained(net, trained_alone(world.size, steps=3))


def test_join_divides_by_those_who_are_left(world: World, group: dist.ProcessGroup) -> None:
    """Rank r has r+1 batches; in step s the mean is over the ranks s ... P-1. All end with equal weights."""
    net = DistributedDataParallel(make_net(), process_group=group)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with Join([net], divide_by_initial_world_size=False):
        for step in range(world.rank + 1):
            optimizer.zero_grad()
            net(batch(world.rank, step)).square().mean().backward()
            optimizer.step()
    alone = make_net()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1)
    for step in range(world.size):
        optimizer.zero_grad()
        left = range(step, world.size)
        torch.stack([alone(batch(r, step)).square().mean() for r in left]).mean().backward()
        optimizer.step()
    assert_trained(net.module, [p.detach() for p in alone.parameters()])


def test_distributed_tensor_changes_its_placement(world: World, group: dist.ProcessGroup) -> None:
    """Rows to columns to replicas; every rank holds its part of 0 ... 6P*4-1."""
    mesh = DeviceMesh.from_group(group, "cpu")
    whole = torch.arange(24.0 * world.size).reshape(6 * world.size, 4)
    rows = distribute_tensor(whole, mesh, [Shard(0)])
    assert torch.equal(rows.to_local(), whole[6 * world.rank : 6 * world.rank + 6])
    columns = rows.redistribute(placements=[Shard(1)])
    chunks = torch.chunk(whole, world.size, 1)  # fewer than ranks, if the columns do not suffice
    mine = chunks[world.rank] if world.rank < len(chunks) else whole[:, :0]
    assert torch.equal(columns.to_local(), mine)
    assert torch.equal(columns.redistribute(placements=[Replicate()]).to_local(), whole)
    total = rows.sum().full_tensor()  # sums of parts, reduced over the ranks
    assert isinstance(total, torch.Tensor) and total.item() == whole.sum().item()


@pytest.mark.ranks(at_least=3)
def test_checkpoint_of_two_ranks_is_read_by_three(
    world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    where = [str(tmp_path_factory.mktemp("checkpoint"))]
    dist.broadcast_object_list(where, src=0)
    two, three = dist.new_group([0, 1]), dist.new_group([0, 1, 2])
    whole = torch.arange(70.0).reshape(14, 5)
    if world.rank < 2:
        sharded = distribute_tensor(whole, DeviceMesh.from_group(two, "cpu"), [Shard(0)])
        checkpoint.save({"weights": sharded, "step": 7}, checkpoint_id=where[0], process_group=two)
    dist.barrier()
    if world.rank < 3:
        zeros = distribute_tensor(torch.zeros(14, 5), DeviceMesh.from_group(three, "cpu"), [Shard(0)])
        state = {"weights": zeros, "step": 0}
        checkpoint.load(state, checkpoint_id=where[0], process_group=three)
        assert state["step"] == 7
        assert torch.equal(zeros.to_local(), torch.chunk(whole, 3)[world.rank])
    dist.barrier()


def test_synchronised_batch_norm_is_refused_by_torch_on_cpu(world: World, group: dist.ProcessGroup) -> None:
    """Its kernels exist on GPUs only; torch says so before anything is sent. In evaluation it works."""
    net = nn.SyncBatchNorm.convert_sync_batchnorm(nn.BatchNorm1d(3), process_group=group)
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on GPU"):
        net(x)
    assert torch.allclose(net.eval()(x), x, atol=1e-4)
