"""DDP cuts the gradients where distrain says."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import distrain
from distrain.comm import runtime
from distrain.comm.sync.buckets import ddp_arguments, largest_bytes
from distrain.world import World

WIDTHS = (600, 500, 400, 300, 200, 10)


def net() -> nn.Module:
    return nn.Sequential(*(nn.Linear(*pair) for pair in pairwise(WIDTHS)))


def sizes_of(module: nn.Module) -> list[int]:
    return [parameter.nbytes for parameter in reversed(list(module.parameters()))]


@pytest.mark.parametrize("unused", [False, True], ids=["reordered", "find_unused_parameters"])
def test_the_buckets_of_a_step_are_those_advised(world: World, unused: bool) -> None:
    module, advised = net(), [8040, 1_525_600, 1_200_000]
    arguments = ddp_arguments(module, lambda sizes: advised, unused)
    if "bucket_cap_mb_list" not in arguments:
        pytest.skip("this torch knows buckets of one size only")
    model = DistributedDataParallel(module, find_unused_parameters=unused, **arguments)
    seen: list[int] = []

    def hook(state, bucket):  # type: ignore[no-untyped-def]  # torch reads annotations, and these are text
        seen.append(bucket.buffer().nbytes)
        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda f: f.value()[0])

    model.register_comm_hook(None, hook)
    for step in range(2):  # DDP orders gradients by what it saw in the first
        seen.clear()
        generator = torch.Generator().manual_seed(step + world.rank)
        model(torch.randn(4, WIDTHS[0], generator=generator)).sum().backward()
    assert sum(seen) == sum(sizes_of(module)) == sum(advised)
    assert seen == advised


def test_gradients_of_a_model_with_such_buckets_are_the_mean(world: World) -> None:
    torch.manual_seed(1)
    model = DistributedDataParallel(net(), **distrain.ddp_buckets(net()))
    for step in range(3):
        model.zero_grad()
        value = torch.randn(4, WIDTHS[0], generator=torch.Generator().manual_seed(10 * step + world.rank))
        model(value).square().mean().backward()
    expected = [torch.zeros_like(p) for p in model.module.parameters()]
    for rank in range(world.size):
        alone = net()
        alone.load_state_dict(model.module.state_dict())
        alone(
            torch.randn(4, WIDTHS[0], generator=torch.Generator().manual_seed(20 + rank))
        ).square().mean().backward()
        for sum_, parameter in zip(expected, alone.parameters(), strict=True):
            assert parameter.grad is not None
            sum_ += parameter.grad / world.size
    for parameter, mean in zip(model.module.parameters(), expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, mean, rtol=1e-4, atol=1e-6)


def test_the_size_that_was_set_is_that_of_all(world: World) -> None:
    chosen = runtime.current().settings.model_copy(update={"bucket_bytes": 3 << 20})
    before = runtime.current().settings
    runtime.current().settings = chosen
    try:
        arguments = distrain.ddp_buckets(net())
    finally:
        runtime.current().settings = before
    assert largest_bytes(arguments) == 3 << 20


def test_the_reducer_in_python_takes_one_size(world: World) -> None:
    """DDP raises AssertionError where it is given a size for each bucket."""
    sizes = distrain.ddp_buckets(net())
    with torch._dynamo.config.patch(optimize_ddp="python_reducer"):
        arguments = distrain.ddp_buckets(net())
    assert [*arguments] == ["bucket_cap_mb"] and largest_bytes(arguments) == largest_bytes(sizes)


def test_what_has_no_gradients_has_no_buckets(world: World) -> None:
    module = net().requires_grad_(False)
    assert distrain.ddp_buckets(module) == {}


def test_gradients_of_the_most_common_type_count(world: World) -> None:
    module = nn.ParameterList(
        [nn.Parameter(torch.zeros(100, dtype=torch.float64)), nn.Parameter(torch.zeros(300))]
    )
    seen: list[int] = []
    ddp_arguments(module, lambda sizes: seen.extend(sizes) or [1])
    assert seen == [1200]
