"""Reduce-scatter inside nodes, allreduce between them, all-gather inside: as DDP's hook."""

from __future__ import annotations

import time

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from wire_cases import same_bits

from distrain.comm.node_first import NodeFirst
from distrain.errors import ConfigError
from distrain.world import World


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 33), nn.ReLU(), nn.Linear(33, 7))


def batch(rank: int, step: int) -> torch.Tensor:
    return torch.randn(8, 10, generator=torch.Generator().manual_seed(100 * step + rank))


@pytest.mark.ranks(2, 4)
@pytest.mark.parametrize("wire", [None, torch.bfloat16])
def test_mean_gradients(world: World, wire: torch.dtype | None) -> None:
    """4 ranks on nodes a, b, a, b, or 2 on one; sizes that two ranks do not divide; rank 1 is late."""
    nodes = World.of(world.rank, "abab" if world.size == 4 else "aa")
    hook = NodeFirst(nodes, "distrain", wire)
    net = DistributedDataParallel(make_net(), bucket_cap_mb=0.001, gradient_as_bucket_view=True)
    net.register_comm_hook(None, lambda state, bucket: hook.average(state, bucket))
    precision = 1e-6 if wire is None else 2.0**-7
    for step in range(4):  # DDP arranges its buckets anew after the first
        if world.rank == 1:
            time.sleep(0.02)
        net.zero_grad()
        net(batch(world.rank, step)).square().mean().backward()
        alone = []
        for rank in range(world.size):
            single = make_net()
            single(batch(rank, step)).square().mean().backward()
            alone.append([p.grad for p in single.parameters()])
        for mine, *all_ranks in zip((p.grad for p in net.parameters()), *alone, strict=True):
            bound = world.size * precision * torch.stack(all_ranks).abs().mean(0).max().item()
            torch.testing.assert_close(mine, torch.stack(all_ranks).mean(0), rtol=0, atol=bound)
    flat = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
    everyone = [torch.empty_like(flat) for _ in range(world.size)]
    dist.all_gather(everyone, flat)
    assert all(same_bits(flat, other) for other in everyone)
    hook.close()


@pytest.mark.ranks(3)
def test_nodes_of_different_sizes_are_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="nodes have 2, 1 ranks"):
        NodeFirst(World.of(world.rank, "aab"), "distrain")
    with pytest.raises(ConfigError, match="nodes have 1, 1, 1 ranks"):
        NodeFirst(World.of(world.rank, "abc"), "distrain")


@pytest.mark.ranks(2)
def test_what_fails_in_a_stage_reaches_backward(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = NodeFirst(World.of(world.rank, "aa"), "distrain")
    net = DistributedDataParallel(make_net())
    net.register_comm_hook(None, lambda state, bucket: hook.average(state, bucket))

    def broken(part: torch.Tensor) -> dist.Work:
        raise ConfigError("x", "y is broken", "z")

    monkeypatch.setattr(hook, "_allreduce", broken)
    with pytest.raises(RuntimeError, match="y is broken"):
        net(batch(world.rank, 0)).square().mean().backward()
    hook.close()
