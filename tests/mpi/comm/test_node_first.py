"""Reduce-scatter inside nodes, allreduce between them, all-gather inside: as DDP's hook."""

from __future__ import annotations

import time

import pytest
import torch
import torch.distributed as dist
from small_net import batch, make_net, same_gradients_everywhere, step
from torch.nn.parallel import DistributedDataParallel

from distrain.comm.sync.node_first import NodeFirst
from distrain.errors import ConfigError
from distrain.world import World


@pytest.mark.ranks(2, 4)
@pytest.mark.parametrize("wire", [None, torch.bfloat16])
def test_mean_gradients(world: World, wire: torch.dtype | None) -> None:
    """4 ranks on nodes a, b, a, b, or 2 on one; sizes that two ranks do not divide; rank 1 is late."""
    nodes = World.of(world.rank, "abab" if world.size == 4 else "aa")
    hook = NodeFirst(nodes, "distrain", wire)
    net = DistributedDataParallel(make_net(), bucket_cap_mb=0.001, gradient_as_bucket_view=True)
    net.register_comm_hook(None, lambda state, bucket: hook.average(state, bucket))
    precision = 1e-6 if wire is None else 2.0**-7
    for number in range(4):  # DDP arranges its buckets anew after the first
        if world.rank == 1:
            time.sleep(0.02)
        step(net, world, number, precision)
    assert same_gradients_everywhere(net, world)
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
