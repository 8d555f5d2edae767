"""A small network whose gradients every rank can work out for all."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from wire_cases import same_bits

from distrain.world import World


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 33), nn.ReLU(), nn.Linear(33, 7))


def batch(rank: int, step: int) -> torch.Tensor:
    return torch.randn(8, 10, generator=torch.Generator().manual_seed(100 * step + rank))


def step(net: nn.Module, world: World, number: int, precision: float) -> None:
    """Backward on this rank's batch, then compare with the mean of what each rank has alone."""
    net.zero_grad()
    net(batch(world.rank, number)).square().mean().backward()
    alone = []
    for rank in range(world.size):
        single = make_net()
        single(batch(rank, number)).square().mean().backward()
        alone.append([p.grad for p in single.parameters()])
    for mine, *all_ranks in zip((p.grad for p in net.parameters()), *alone, strict=True):
        bound = world.size * precision * torch.stack(all_ranks).abs().mean(0).max().item()
        torch.testing.assert_close(mine, torch.stack(all_ranks).mean(0), rtol=0, atol=bound)


def same_gradients_everywhere(net: nn.Module, world: World) -> bool:
    flat = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
    everyone = [torch.empty_like(flat) for _ in range(world.size)]
    dist.all_gather(everyone, flat)
    return all(same_bits(flat, other) for other in everyone)


def check_gradients_of_ddp(world: World, group: dist.ProcessGroup) -> None:
    """DDP with several buckets has the gradients of one process with all samples."""

    def net() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 5))

    samples = torch.randn(4 * world.size, 12, generator=torch.Generator().manual_seed(1))
    whole = net()
    whole(samples).square().mean().backward()
    parallel = DistributedDataParallel(net(), process_group=group, bucket_cap_mb=0.001)
    for _ in range(2):  # DDP arranges its buckets anew after the first
        parallel.zero_grad()
        parallel(samples[4 * world.rank :][:4]).square().mean().backward()
    for one, other in zip(parallel.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
