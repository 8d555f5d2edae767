"""DistributedDataParallel over the backend: the same gradients as gloo's, in all of DDP's modes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel
from wire_cases import same_bits

from distrain.comm import api
from distrain.world import World


class Net(nn.Module):
    """Two branches, of which an input uses one or both."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(10, 33)
        self.left, self.right = nn.Linear(33, 7), nn.Linear(33, 7)

    def forward(self, x: torch.Tensor, use_right: bool = True) -> torch.Tensor:
        hidden = torch.relu(self.first(x))
        return self.left(hidden) + self.right(hidden) if use_right else self.left(hidden)


def make_net(seed: int) -> Net:
    torch.manual_seed(seed)
    return Net()


def batch(rank: int, step: int) -> torch.Tensor:
    return torch.randn(8, 10, generator=torch.Generator().manual_seed(100 * step + rank))


def gradients(net: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


def one_backward(world: World, group: dist.ProcessGroup | None, **options: object) -> list[torch.Tensor]:
    # Different weights on each rank: DDP must spread those of rank 0.
    net = DistributedDataParallel(make_net(world.rank), process_group=group, bucket_cap_mb=0.001, **options)
    net(batch(world.rank, 0)).square().mean().backward()
    return gradients(net)


@pytest.fixture(scope="module")
def gloo(world: World) -> dist.ProcessGroup:
    return dist.new_group(backend="gloo")


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static_graph"])
def test_gradients_equal_those_of_gloo(world: World, gloo: dist.ProcessGroup, static: bool) -> None:
    ours = one_backward(world, None, static_graph=static)
    theirs = one_backward(world, gloo, static_graph=static)
    assert len(ours) == 6
    for mine, other in zip(ours, theirs, strict=True):
        if world.size <= 2:
            assert same_bits(mine, other)
        else:
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


def test_gradients_are_the_mean_of_all_ranks(world: World) -> None:
    alone = []
    for rank in range(world.size):
        net = make_net(0)
        net(batch(rank, 0)).square().mean().backward()
        alone.append(gradients(net))
    for mine, *single in zip(one_backward(world, None), *alone, strict=True):
        torch.testing.assert_close(mine, torch.stack(single).mean(0), rtol=1e-5, atol=1e-7)


def train(net: nn.Module, loss: Callable[[int], torch.Tensor], steps: int) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step).backward()
        optimizer.step()


def assert_equal_on_all_ranks(net: nn.Module) -> None:
    flat = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    everyone = [torch.empty_like(flat) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, flat)
    assert all(same_bits(flat, other) for other in everyone)


def test_weights_stay_equal_bit_for_bit(world: World) -> None:
    net = DistributedDataParallel(make_net(world.rank), gradient_as_bucket_view=True)
    before = [p.clone() for p in net.parameters()]
    train(net, lambda step: net(batch(world.rank, step)).square().mean(), steps=5)
    assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert_equal_on_all_ranks(net)


def test_unused_parameters(world: World) -> None:
    """Only the last rank uses the right branch: its gradient there counts 1/P on all ranks."""
    net = DistributedDataParallel(make_net(0), find_unused_parameters=True)
    use_right = world.rank == world.size - 1
    train(net, lambda step: net(batch(world.rank, step), use_right).square().mean(), steps=3)
    assert_equal_on_all_ranks(net)


def test_no_sync_accumulates(world: World) -> None:
    """Two micro-batches, of which only the second communicates, equal the sum of both."""
    net = DistributedDataParallel(make_net(0))
    with net.no_sync():
        net(batch(world.rank, 0)).square().mean().backward()
    net(batch(world.rank, 1)).square().mean().backward()
    mine = gradients(net)
    both = [torch.zeros_like(g) for g in mine]
    for step in (0, 1):
        for rank in range(world.size):
            alone = make_net(0)
            alone(batch(rank, step)).square().mean().backward()
            for total, g in zip(both, gradients(alone), strict=True):
                total += g / world.size
    for g, expected in zip(mine, both, strict=True):
        torch.testing.assert_close(g, expected, rtol=1e-5, atol=1e-6)


def test_join_of_uneven_inputs(world: World) -> None:
    """Rank r has r+1 batches; those who are done shadow the collectives of the others."""
    net = DistributedDataParallel(make_net(0))
    with Join([net]):
        for step in range(world.rank + 1):
            net(batch(world.rank, step)).square().mean().backward()
    dist.barrier()


def test_communication_hook_of_torch(world: World) -> None:
    from torch.distributed.algorithms.ddp_comm_hooks import default_hooks

    net = DistributedDataParallel(make_net(0))
    net.register_comm_hook(None, default_hooks.fp16_compress_hook)
    net(batch(world.rank, 0)).square().mean().backward()
    for mine, exact in zip(gradients(net), one_backward_of_seed_zero(world), strict=True):
        torch.testing.assert_close(mine, exact, rtol=0.05, atol=0.01)


def one_backward_of_seed_zero(world: World) -> list[torch.Tensor]:
    net = DistributedDataParallel(make_net(0))
    net(batch(world.rank, 0)).square().mean().backward()
    return gradients(net)


def test_exposed_time_of_a_step_is_measured(world: World) -> None:
    engine = api.engine()
    engine.take_exposed_seconds()
    one_backward(world, None)
    exposed = engine.take_exposed_seconds()
    assert 0 < exposed < 30
    assert engine.take_exposed_seconds() == 0
