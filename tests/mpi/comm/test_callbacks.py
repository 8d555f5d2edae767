"""Collectives that callbacks of Futures call: matched by the callback, whenever it runs."""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import ddp_zero_hook as hooks
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook as powersgd
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

from distrain.comm import turns
from distrain.world import World

COUNT = 6


def later(world: World, index: int) -> None:
    """Wait for a time of this rank's own, so that ranks call back in different orders."""
    time.sleep(random.Random(f"{world.rank} {index}").random() * 0.05)


def summed(world: World, index: int, group: dist.ProcessGroup) -> torch.Tensor:
    tensor = torch.full((300,), 10.0 * index + world.rank)
    dist.all_reduce(tensor, group=group)
    return tensor


def gathered(world: World, index: int, group: dist.ProcessGroup) -> torch.Tensor:
    whole = torch.empty(world.size)
    dist.all_gather_into_tensor(whole, torch.full((1,), 10.0 * index + world.rank), group=group)
    return whole.sum().expand(300)


def spread(world: World, index: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Each rank in turn is the root of a broadcast."""
    total = torch.zeros(300)
    for root in range(world.size):
        part = torch.full((300,), 10.0 * index + world.rank)
        dist.broadcast(part, root, group=group)
        total += part
    return total


def met(world: World, index: int, group: dist.ProcessGroup) -> torch.Tensor:
    dist.barrier(group=group)
    return summed(world, index, group)


def by_mpi(world: World, index: int, group: Any) -> torch.Tensor:
    tensor = torch.full((300,), 10.0 * index + world.rank)
    group.mpi_allreduce(tensor).wait()
    return tensor


@pytest.mark.parametrize("collective", [summed, gathered, spread, met, by_mpi])
def test_each_callback_meets_its_own_on_other_ranks(
    world: World, group: dist.ProcessGroup, collective: Callable[..., torch.Tensor]
) -> None:
    def chained(index: int) -> torch.futures.Future:
        work = dist.all_reduce(torch.ones(5), group=group, async_op=True)

        def back(future: torch.futures.Future) -> torch.Tensor:
            later(world, index)
            return collective(world, index, group)

        return work.get_future().then(back)

    futures = [chained(index) for index in range(COUNT)]
    meanwhile = summed(world, 100, group)  # in the order of the group, beside them
    for index, future in enumerate([*futures, None]):
        found = meanwhile if future is None else future.wait()
        which = 100 if future is None else index
        assert found.unique().tolist() == [sum(10.0 * which + rank for rank in range(world.size))]


def test_a_callback_of_a_callback(world: World, group: dist.ProcessGroup) -> None:
    def outer(index: int) -> torch.futures.Future:
        def back(future: torch.futures.Future) -> torch.Tensor:
            later(world, index)
            work = dist.all_reduce(future.value()[0], group=group, async_op=True)
            return (
                work.get_future().then(lambda inner: inner.value()[0] + summed(world, index, group)[0]).wait()
            )

        work = dist.all_reduce(torch.full((4,), float(index)), group=group, async_op=True)
        return work.get_future().then(back)

    futures = [outer(index) for index in range(COUNT)]
    for index, future in enumerate(futures):
        nested = sum(10.0 * index + rank for rank in range(world.size))
        assert future.wait().unique().tolist() == [index * world.size**2 + nested]


def test_powersgd_with_several_buckets(world: World, group: dist.ProcessGroup) -> None:
    torch.manual_seed(5)
    net = nn.Sequential(*(nn.Linear(24, 24) for _ in range(6)))
    model = DistributedDataParallel(net, process_group=group, bucket_cap_mb=0.003)
    state = powersgd.PowerSGDState(process_group=group, matrix_approximation_rank=1, start_powerSGD_iter=2)
    model.register_comm_hook(state, powersgd.powerSGD_hook)
    for step in range(6):
        model.zero_grad()
        own = torch.Generator().manual_seed(100 * step + world.rank)
        model(torch.randn(8, 24, generator=own)).square().mean().backward()
        time.sleep(random.Random(f"{world.rank} {step}").random() * 0.01)
        mine = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
        all_of_them = [torch.empty_like(mine) for _ in range(world.size)]
        dist.all_gather(all_of_them, mine, group=group)
        assert all(torch.equal(mine, theirs) for theirs in all_of_them)
        assert mine.abs().sum() > 0


def test_callbacks_do_not_run_into_each_other(world: World, group: dist.ProcessGroup) -> None:
    """Each counts without a lock; so may those that run at once, in the thread that asks for them."""
    counted = 0

    def back(_: torch.futures.Future) -> None:
        nonlocal counted
        before = counted
        time.sleep(0.01)
        counted = before + 1

    works = [dist.all_reduce(torch.ones(5), group=group, async_op=True) for _ in range(COUNT)]
    futures = [work.get_future() for work in works]
    chained = [future.then(back) for future in futures]
    futures[-1].wait()
    chained.append(futures[-1].then(back))
    torch.futures.wait_all(chained)
    assert counted == COUNT + 1


WAITS = {"wait": lambda future: future.wait(), "wait_all": lambda future: torch.futures.wait_all([future])}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_a_callback_that_waits_lets_another_run(
    group: dist.ProcessGroup, wait: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "TURN_PATIENCE_SECONDS", threading.TIMEOUT_MAX)
    awaited: torch.futures.Future = torch.futures.Future()
    has_begun = threading.Event()

    def first(_: torch.futures.Future) -> object:
        has_begun.set()
        return wait(awaited)

    def second(_: torch.futures.Future) -> torch.Tensor:
        tensor = torch.ones(300)
        dist.all_reduce(tensor, group=group)
        return tensor

    works = [dist.all_reduce(torch.ones(5), group=group, async_op=True) for _ in range(2)]
    threading.Thread(target=works[0].get_future().then, args=[first]).start()
    has_begun.wait()
    result = works[1].get_future().then(second).wait()
    assert result.unique().tolist() == [group.size()]
    awaited.set_result(result)


@pytest.mark.filterwarnings("ignore:.*is deprecated")
@pytest.mark.parametrize("shard_buckets", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
def test_ddp_steps_the_sharded_optimizer_in_its_hook(
    world: World, group: dist.ProcessGroup, interleaved: bool, shard_buckets: bool
) -> None:
    torch.manual_seed(5)
    net = nn.Sequential(*(nn.Linear(24, 24) for _ in range(8)))
    alone = copy.deepcopy(net)
    model = DistributedDataParallel(net, process_group=group, bucket_cap_mb=0.003)
    zero = ZeroRedundancyOptimizer(
        model.parameters(),
        torch.optim.SGD,
        process_group=group,
        overlap_with_ddp=True,
        lr=0.1,
        momentum=0.9,
    )
    stepping = hooks.hook_with_zero_step_interleaved if interleaved else hooks.hook_with_zero_step
    model.register_comm_hook(None, stepping(allreduce_hook, model, zero, shard_buckets))
    usual = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.9)
    every = torch.randn(world.size, 8, 24, generator=torch.Generator().manual_seed(9))
    for step in range(12):
        model.zero_grad()
        model(every[world.rank]).square().mean().backward()
        if step < 2:
            continue  # torch takes no step before DDP has made its buckets anew
        usual.zero_grad()
        alone(every.view(-1, 24)).square().mean().backward()
        usual.step()
    for one, other in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_what_a_callback_raises_reaches_whoever_waits(world: World, group: dist.ProcessGroup) -> None:
    def back(future: torch.futures.Future) -> None:
        raise ValueError("no such luck")

    work = dist.all_reduce(torch.ones(3), group=group, async_op=True)
    chained = work.get_future().then(back).then(lambda future: future.value())
    with pytest.raises(RuntimeError, match="ValueError: no such luck"):
        chained.wait()
    assert summed(world, 1, group).unique().tolist() == [sum(10.0 + rank for rank in range(world.size))]


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
def test_what_a_communication_hook_raises_is_in_the_error_of_backward(
    world: World, group: dist.ProcessGroup, error: type[Exception]
) -> None:
    model = DistributedDataParallel(nn.Linear(3, 3), process_group=group)

    def hook(state: object, bucket: dist.GradBucket) -> torch.futures.Future:
        def back(future: torch.futures.Future) -> torch.Tensor:
            raise error("no such luck")

        return dist.all_reduce(bucket.buffer(), group=group, async_op=True).get_future().then(back)

    model.register_comm_hook(None, lambda state, bucket: hook(state, bucket))
    place = rf"{error.__name__}: no such luck, at .*test_callbacks\.py:\d+ in back"
    with pytest.raises(RuntimeError, match=place):
        model(torch.ones(2, 3)).sum().backward()


def test_a_group_with_ranks_that_have_no_such_callback_keeps_its_order(world: World) -> None:
    """Between nodes behind what was done inside: the causes differ from node to node."""
    pairs = [tuple(range(first, min(first + 2, world.size))) for first in range(0, world.size, 2)]
    groups = [dist.new_group(list(pair)) for pair in pairs]
    mine = groups[world.rank // 2]
    if world.rank < 2:  # one more call in one of the groups: the numbers differ too
        dist.all_reduce(torch.ones(1), group=mine)
    work = dist.all_reduce(torch.full((2,), float(world.rank)), group=mine, async_op=True)

    def back(future: torch.futures.Future) -> torch.Tensor:
        total = future.value()[0]
        dist.all_reduce(total)
        return total

    assert work.get_future().then(back).wait().tolist() == [sum(sum(p) * len(p) for p in pairs)] * 2


def test_callbacks_count_in_each_group_by_itself(world: World) -> None:
    leaders, everybody = dist.new_group([0]), dist.new_group(list(range(world.size)))

    def back(future: torch.futures.Future) -> float:
        if world.rank == 0:
            dist.all_reduce(torch.ones(3), group=leaders)
        part = torch.full((3,), float(world.rank + 1))
        dist.broadcast(part, 0, group=everybody)
        dist.barrier(group=everybody)
        return float(part[0])

    work = dist.all_reduce(torch.ones(5), async_op=True)
    assert work.get_future().then(back).wait() == 1.0


def test_collected_twice(world: World, group: dist.ProcessGroup) -> None:
    works = [dist.all_reduce(torch.ones(5), group=group, async_op=True) for _ in range(3)]
    futures = [work.get_future() for work in works]

    def behind(index: int) -> torch.futures.Future:
        def back(_: torch.futures.Future) -> torch.Tensor:
            later(world, index)
            return summed(world, index, group)

        return torch.futures.collect_all(futures).then(back)

    for index, future in enumerate([behind(index) for index in range(COUNT)]):
        assert future.wait().unique().tolist() == [sum(10.0 * index + rank for rank in range(world.size))]


def test_whatever_ends_a_callback_its_future_ends(world: World, group: dist.ProcessGroup) -> None:
    def back(future: torch.futures.Future) -> None:
        raise SystemExit(3)

    work = dist.all_reduce(torch.ones(3), group=group, async_op=True)
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        work.get_future().then(back).wait()
