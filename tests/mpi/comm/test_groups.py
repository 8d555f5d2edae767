"""Subgroups: new_group, several at once, DeviceMesh, and what is built on them."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from distrain.comm.messages import farewell
from distrain.errors import CallError, CommError
from distrain.world import World

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def test_a_group_of_even_and_one_of_odd_ranks(world: World) -> None:
    """Rank r gives r; each group sees the sum of its members."""
    groups = [dist.new_group(list(range(first, world.size, 2))) for first in (0, 1) if first < world.size]
    mine = groups[world.rank % 2]
    t = torch.tensor([float(world.rank)])
    dist.all_reduce(t, group=mine)
    assert t.item() == sum(range(world.rank % 2, world.size, 2))
    members = dist.get_process_group_ranks(mine)
    out: list[object] = [None] * len(members)
    dist.all_gather_object(out, world.rank, group=mine)
    assert out == members
    dist.destroy_process_group(mine)


def test_all_pairs_at_once(world: World) -> None:
    """Every rank is in P-1 groups of two, with collectives in flight in all of them together."""
    pairs = [(a, b) for a in range(world.size) for b in range(a + 1, world.size)]
    groups = {pair: dist.new_group(pair) for pair in pairs}
    running = []
    for pair in pairs:
        if world.rank in pair:
            t = torch.full((5000,), float(world.rank + 1))
            running.append((pair, t, dist.all_reduce(t, group=groups[pair], async_op=True)))
    for (a, b), t, work in reversed(running):
        work.wait()
        assert t.unique().tolist() == [a + b + 2]


@pytest.mark.parametrize("left_out", [0, 1], ids=["all", "a part"])
def test_a_group_that_counts_its_ranks_in_another_order(world: World, left_out: int) -> None:
    """Its rank 0 is the last of its members; roots and parts follow its own count."""
    members = list(range(world.size))[left_out or None :][::-1] or [0]
    group = dist.new_group(members, sort_ranks=False)
    if world.rank not in members:
        return
    assert isinstance(group, dist.ProcessGroup)
    own = torch.tensor([float(world.rank)])
    parts = [torch.empty(1) for _ in members]
    dist.all_gather(parts, own, group=group)
    assert [int(part) for part in parts] == members == dist.get_process_group_ranks(group)
    assert group.rank() == members.index(world.rank)
    told = own.clone()
    dist.broadcast(told, group_src=0, group=group)
    assert told.item() == members[0]
    share = torch.empty(1)
    dist.reduce_scatter_tensor(share, torch.arange(float(len(members))), group=group)
    assert share.item() == len(members) * group.rank()
    sizes = [torch.tensor([float(rank)]) for rank in range(len(members))] if group.rank() == 0 else None
    dist.scatter(share, sizes, group_src=0, group=group)
    assert share.item() == group.rank()
    dist.destroy_process_group(group)


def test_the_store_of_a_group(world: World) -> None:
    """What its members put there is theirs; another group's store has other keys."""
    groups = [dist.new_group(), dist.new_group()]
    for number, group in enumerate(groups):
        assert isinstance(group, dist.ProcessGroup)
        group.get_group_store().set(f"from {world.rank}", f"{number} {world.rank}")
    for number, group in enumerate(groups):
        other = (world.rank + 1) % world.size
        assert group.get_group_store().get(f"from {other}") == f"{number} {other}".encode()
        dist.destroy_process_group(group)


@pytest.mark.ranks(at_least=3)
def test_groups_that_only_their_members_call(world: World) -> None:
    """Ranks 1 and 2 belong to one group more than rank 0, so torch names the next group differently there."""
    dist.new_group([1, 2])
    for pair in ([0, 1], [1, 2]):
        group = dist.new_group(pair, use_local_synchronization=True)
        if world.rank not in pair:
            assert group is None
            continue
        t = torch.tensor([float(world.rank)])
        dist.all_reduce(t, group=group)
        assert t.item() == sum(pair)
        dist.destroy_process_group(group)


@pytest.mark.ranks(2, 3, 4, 5)
def test_a_group_ends_though_a_rank_has_waited_in_vain(world: World) -> None:
    """Rank 0 alone calls a barrier, which times out; all end the group, and the next one works.

    The sum in it is that of all ranks' numbers.
    """
    group = dist.new_group(list(range(world.size)), timeout=timedelta(seconds=0.5))
    if world.rank == 0:
        with pytest.raises(CommError, match=r"timeout of 0\.5 s has passed"):
            dist.barrier(group)
    dist.destroy_process_group(group)
    after = dist.new_group(list(range(world.size)))
    t = torch.tensor([float(world.rank)])
    dist.all_reduce(t, group=after)
    assert t.item() == sum(range(world.size))
    dist.destroy_process_group(after)


def test_group_of_one(world: World) -> None:
    groups = [dist.new_group([rank]) for rank in range(world.size)]
    t = torch.tensor([7.0])
    dist.all_reduce(t, group=groups[world.rank])
    assert t.item() == 7


@pytest.mark.ranks(2, 4)
def test_device_mesh(world: World) -> None:
    """A mesh of P/2 by 2: sums over rows and over columns."""
    mesh = init_device_mesh("cpu", (world.size // 2, 2), mesh_dim_names=("outer", "inner"))
    row, column = divmod(world.rank, 2)
    inner = torch.tensor([world.rank])
    dist.all_reduce(inner, group=mesh.get_group("inner"))
    assert inner.item() == 4 * row + 1
    outer = torch.tensor([world.rank])
    dist.all_reduce(outer, group=mesh.get_group("outer"))
    assert outer.item() == sum(range(column, world.size, 2))


@pytest.mark.ranks(2, 3, 4)
def test_fully_sharded(world: World) -> None:
    """FSDP2 gives the gradients of one process that sees all batches."""
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    single = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))
    torch.manual_seed(0)
    sharded = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))
    mesh = init_device_mesh("cpu", (world.size,))
    fully_shard(sharded, mesh=mesh)
    batches = [torch.randn(6, 8, generator=torch.Generator().manual_seed(r)) for r in range(world.size)]
    sharded(batches[world.rank]).square().mean().backward()
    torch.stack([single(x).square().mean() for x in batches]).mean().backward()
    for ours, expected in zip(sharded.parameters(), single.parameters(), strict=True):
        assert ours.grad is not None and expected.grad is not None
        whole = ours.grad.full_tensor()  # type: ignore[attr-defined]
        torch.testing.assert_close(whole, expected.grad, rtol=1e-5, atol=1e-6)


def test_zero_redundancy_optimizer(world: World) -> None:
    """Sharded optimizer state gives the weights of the plain optimizer."""
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.nn.parallel import DistributedDataParallel

    def run(make: object) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = DistributedDataParallel(nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)))
        optimizer = make(net.parameters())  # type: ignore[operator]
        for step in range(3):
            x = torch.randn(6, 8, generator=torch.Generator().manual_seed(10 * step + world.rank))
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
        return [p.detach().clone() for p in net.parameters()]

    plain = run(lambda params: torch.optim.Adam(params, lr=0.01))
    sharded = run(lambda params: ZeroRedundancyOptimizer(params, torch.optim.Adam, lr=0.01))
    for a, b in zip(plain, sharded, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_functional_collectives(world: World) -> None:
    """The form that DTensor and torch.compile use: sums, gathers and scatters of new tensors."""
    import torch.distributed._functional_collectives as functional

    group = dist.group.WORLD
    t = torch.tensor([world.rank + 1.0])
    assert functional.all_reduce(t, "sum", group).tolist() == [world.size * (world.size + 1) / 2]
    assert functional.all_gather_tensor(t, 0, group).tolist() == [s + 1.0 for s in range(world.size)]
    source = torch.arange(float(world.size)) + world.rank
    scattered = functional.reduce_scatter_tensor(source, "sum", 0, group)
    assert scattered.tolist() == [world.size * world.rank + world.size * (world.size - 1) / 2]


def test_distributed_checkpoint(world: World, tmp_path_factory: pytest.TempPathFactory) -> None:
    """torch.distributed.checkpoint writes and reads over the backend."""
    import torch.distributed.checkpoint as checkpoint

    where = [str(tmp_path_factory.mktemp("checkpoint"))]
    dist.broadcast_object_list(where, src=0)
    state = {"weights": torch.arange(10.0), "step": 3}
    checkpoint.save(state, checkpoint_id=where[0])
    loaded = {"weights": torch.zeros(10), "step": 0}
    checkpoint.load(loaded, checkpoint_id=where[0])
    assert torch.equal(loaded["weights"], state["weights"]) and loaded["step"] == 3
    dist.barrier()


@pytest.mark.parametrize("early", ["scatter", "broadcast"])
def test_groups_that_follow_each_other_do_not_hear_of_each_other(world: World, early: str) -> None:
    """Rank 0 leaves a collective early and ends its group, four times; then all sum r+1 in another: P(P+1)/2.

    What the others have still sent in the ended group must not arrive in the next one.
    """
    for size in range(1, 5):
        group = dist.new_group()
        if world.rank != 0:
            time.sleep(0.02)
        tensor = torch.full((size,), float(world.rank))
        if early == "scatter":
            parts = [torch.full((size,), 7.0)] * world.size if world.rank == 0 else None
            dist.scatter(tensor, parts, 0, group=group)
            assert tensor.tolist() == [7.0] * size
        else:
            dist.broadcast(tensor, 0, group=group)
            assert tensor.tolist() == [0.0] * size
        dist.destroy_process_group(group)
    group = dist.new_group()
    for size in (7, 300_000):
        tensor = torch.full((size,), world.rank + 1.0)
        dist.all_reduce(tensor, group=group, async_op=True).wait()
        assert tensor.unique().tolist() == [world.size * (world.size + 1) / 2]
    dist.destroy_process_group(group)


@pytest.mark.ranks(2, 3)
def test_a_group_ends_although_another_rank_keeps_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 ends it; the others do so a little later, and all go on."""
    monkeypatch.setattr(farewell, "FAREWELL_SECONDS", 0.1)
    group = dist.new_group()
    tensor = torch.full((3,), float(world.rank))
    dist.broadcast(tensor, 0, group=group)
    if world.rank == 0:
        dist.destroy_process_group(group)
    tensor = torch.full((3,), world.rank + 1.0)
    dist.all_reduce(tensor)
    assert tensor.tolist() == [world.size * (world.size + 1) / 2] * 3
    if world.rank != 0:
        dist.destroy_process_group(group)


def test_an_aborted_group_refuses_and_the_world_goes_on(world: World) -> None:
    """`abort` needs no other rank; a group made afterwards sums r+1 to P(P+1)/2."""
    group = dist.new_group()
    tensor = torch.full((3,), float(world.rank))
    dist.broadcast(tensor, 0, group=group)
    assert isinstance(group, dist.ProcessGroup)
    group.abort()
    for count in (3, 300_000):
        with pytest.raises(CallError, match="its group was aborted"):
            dist.all_reduce(torch.ones(count), group=group)
    dist.destroy_process_group(group)
    after = dist.new_group()
    for _ in range(3):
        tensor = torch.full((300_000,), world.rank + 1.0)
        dist.all_reduce(tensor, group=after, async_op=True).wait()
        assert tensor.unique().tolist() == [world.size * (world.size + 1) / 2]
    dist.destroy_process_group(after)
