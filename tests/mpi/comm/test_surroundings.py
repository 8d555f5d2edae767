"""Collectives called from unusual places: inference mode, callbacks, another default device, chosen timeouts.

``r`` is the rank, ``P`` the number of ranks; rank r gives r+1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook

from distrain.errors import CallError
from distrain.world import World

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def empties(world: World) -> list[torch.Tensor]:
    return [torch.empty(5) for _ in range(world.size)]


def all_reduce(world: World, x: torch.Tensor) -> object:
    dist.all_reduce(x)
    return x[0].item()


def average(world: World, x: torch.Tensor) -> object:
    dist.all_reduce(x, op=dist.ReduceOp.AVG)
    return x[0].item() * world.size


def small_floats(world: World, x: torch.Tensor) -> object:
    y = x.to(torch.bfloat16)
    dist.all_reduce(y)
    return y[0].item()


def reduce_to_all(world: World, x: torch.Tensor) -> object:
    for root in range(world.size):
        y = x.clone()
        dist.reduce(y, root)
        if root == world.rank:
            mine = y
    return mine[-1].item()


def all_gather(world: World, x: torch.Tensor) -> object:
    parts = empties(world)
    dist.all_gather(parts, x)
    return sum(part[4].item() for part in parts)


def all_gather_into(world: World, x: torch.Tensor) -> object:
    whole = torch.empty(5 * world.size)
    dist.all_gather_into_tensor(whole, x.contiguous())
    return whole[::5].sum().item()


def gather_everywhere(world: World, x: torch.Tensor) -> object:
    for root in range(world.size):
        parts = empties(world) if root == world.rank else None
        dist.gather(x, parts, dst=root)
        if parts is not None:
            mine = sum(part[0].item() for part in parts)
    return mine


def all_to_all(world: World, x: torch.Tensor) -> object:
    y = torch.empty(world.size)
    dist.all_to_all_single(y, x[:1].repeat(world.size))
    return y.sum().item()


def reduce_scatter(world: World, x: torch.Tensor) -> object:
    y = torch.empty(5)
    dist.reduce_scatter(y, [x.clone() for _ in range(world.size)])
    return y[2].item()


def broadcast_each(world: World, x: torch.Tensor) -> object:
    total = 0.0
    for root in range(world.size):
        y = x.clone().expand(2, 5).t().contiguous().t()  # not contiguous
        dist.broadcast(y, root)
        total += y[1, 4].item()
    return total


def objects(world: World, x: torch.Tensor) -> object:
    found: list[object] = [None] * world.size
    dist.all_gather_object(found, x[0].item())
    return sum(float(str(one)) for one in found)


COLLECTIVES = [
    all_reduce, average, small_floats, reduce_to_all, all_gather, all_gather_into, gather_everywhere,
    all_to_all, reduce_scatter, broadcast_each, objects,
]  # fmt: skip


@pytest.mark.parametrize("strided", [False, True], ids=["contiguous", "strided"])
@pytest.mark.parametrize("collective", COLLECTIVES)
def test_in_inference_mode(
    world: World, collective: Callable[[World, torch.Tensor], object], strided: bool
) -> None:
    """Every one adds up to P(P+1)/2, and what it gives can be written, there and with gradients on."""
    with torch.inference_mode():
        x = torch.full((5, 2) if strided else (5,), world.rank + 1.0)
        assert collective(world, x[:, 0] if strided else x) == world.size * (world.size + 1) / 2
    x = torch.full((5,), world.rank + 1.0)
    assert collective(world, x) == world.size * (world.size + 1) / 2
    x.mul_(2)


@pytest.mark.parametrize("count", [3, 300_000])
def test_a_callback_may_wait_for_another_collective(world: World, count: int) -> None:
    """As torch's PowerSGD hook does: the second sum is of the first one's result, P times P(P+1)/2."""
    first = torch.full((count,), world.rank + 1.0)

    def again(future: torch.futures.Future) -> torch.Tensor:
        (summed,) = future.value()
        assert work.is_completed()
        return dist.all_reduce(summed, async_op=True).get_future().wait()[0]

    work = dist.all_reduce(first, async_op=True)
    result = work.get_future().then(again).wait()
    assert result.unique().tolist() == [world.size * world.size * (world.size + 1) / 2]
    result.requires_grad_(True).sum().backward()  # made by the program, not in the engine's inference mode


def test_a_callback_of_collected_futures_may_communicate(world: World) -> None:
    """It is chained behind a Future of torch's C++ side, before a message of this rank to itself arrives."""
    group = dist.new_group(timeout=timedelta(seconds=20))
    arriving = torch.zeros(3)
    receive = dist.irecv(arriving, world.rank, group=group)
    assert receive is not None

    def again(_: torch.futures.Future) -> torch.Tensor:
        total = torch.full((3,), world.rank + 1.0)
        dist.all_reduce(total, group=group)
        return total

    both = torch.futures.collect_all([receive.get_future(), receive.get_future()]).then(again)
    dist.isend(torch.ones(3), world.rank, group=group)
    assert both.wait().tolist() == [world.size * (world.size + 1) / 2] * 3
    assert arriving.tolist() == [1.0] * 3
    dist.destroy_process_group(group)


def test_a_callback_inside_a_callback(world: World) -> None:
    """A callback waits for what another callback gives: 2P(P+1)/2."""

    def outer(future: torch.futures.Future) -> torch.Tensor:
        tensor = torch.full((100_000,), world.rank + 1.0)
        inner = dist.all_reduce(tensor, async_op=True).get_future()
        return inner.then(lambda done: done.value()[0] * 2).wait()

    result = dist.all_reduce(torch.ones(100_000), async_op=True).get_future().then(outer).wait()
    assert result.unique().tolist() == [world.size * (world.size + 1)]


def test_the_powersgd_hook(world: World) -> None:
    """It waits for collectives in callbacks; all ranks get the same gradients from different data."""
    torch.manual_seed(1)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(300, 300))
    state = powerSGD_hook.PowerSGDState(None, start_powerSGD_iter=2, orthogonalization_epsilon=1e-6)
    model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    for step in range(4):
        generator = torch.Generator().manual_seed(10 * step + world.rank)
        model.zero_grad()
        model(torch.randn(8, 300, generator=generator)).square().sum().backward()
    sums: list[object] = [None] * world.size
    dist.all_gather_object(sums, [parameter.grad.double().sum().item() for parameter in model.parameters()])
    assert all(one == sums[0] for one in sums) and sums[0][0] != 0


def test_an_error_of_a_callback_is_that_of_its_future(world: World) -> None:
    def fails(future: torch.futures.Future) -> None:
        raise ValueError("mine")

    future = dist.all_reduce(torch.ones(100_000), async_op=True).get_future().then(fails)
    with pytest.raises(Exception, match="mine"):
        future.wait()


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


def test_another_default_device(world: World) -> None:
    """Memory that the backend takes for itself is the host's, whatever the program makes by default."""
    x, parts = torch.full((5,), world.rank + 1.0), empties(world)
    out = torch.empty(5)
    sources = [torch.full((5,), world.rank + 1.0) for _ in range(world.size)]
    with default_device("meta"):
        dist.group.WORLD.allgather([parts], [x]).wait()
        dist.group.WORLD.reduce_scatter([out], [sources]).wait()
    assert [part[0].item() for part in parts] == [rank + 1.0 for rank in range(world.size)]
    assert out.tolist() == [world.size * (world.size + 1) / 2] * 5


def test_a_chosen_timeout_is_longer_than_what_ends_the_job(world: World) -> None:
    """A collective of a group with a timeout of 2 hours is not ended after `comm.abort_seconds`."""
    group = dist.new_group(timeout=timedelta(hours=2))
    tensor = torch.ones(300_000)
    work = dist.all_reduce(tensor, group=group, async_op=True)
    patience = [completion.operation.patience_seconds for completion in work._completions]
    work.wait()
    assert all(seconds is not None and seconds > 7200 for seconds in patience)
    dist.destroy_process_group(group)


def test_a_destroyed_group_refuses(world: World) -> None:
    """Collectives of all sizes and point to point; the rest of the world goes on."""
    group = dist.new_group()
    assert isinstance(group, dist.ProcessGroup)
    tensor = torch.ones(4)
    dist.all_reduce(tensor, group=group)
    dist.destroy_process_group(group)
    for call in (
        lambda: group.allreduce([tensor]),
        lambda: group.allreduce([torch.ones(300_000)]),
        lambda: group.barrier(),
        lambda: group.send([tensor], 0, 1),
        lambda: group.allgather([[tensor] * world.size], [tensor]),
    ):
        with pytest.raises(CallError, match="its group was destroyed"):
            call()
    dist.all_reduce(tensor)
    assert tensor.tolist() == [world.size * world.size] * 4


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int16], ids=str
)
@pytest.mark.parametrize("count", [3, 200_000])
def test_averages_of_integers(world: World, dtype: torch.dtype, count: int) -> None:
    """Rank r gives 2r+2: the average is P+1."""
    tensor = torch.full((count,), 2 * world.rank + 2, dtype=dtype)
    dist.all_reduce(tensor, op=dist.ReduceOp.AVG)
    assert set(tensor.tolist()) == {world.size + 1}
