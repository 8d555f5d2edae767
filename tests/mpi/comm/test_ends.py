"""How groups end when something in them did not: nobody hangs, and what comes after is right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from distrain.comm import runtime, wire
from distrain.comm.messages import farewell
from distrain.errors import CallError, CommError
from distrain.world import World

SHORT = timedelta(seconds=0.3)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that end a group wait a little for others, not for seconds."""
    for module in (wire, farewell):
        monkeypatch.setattr(module, "FAREWELL_SECONDS", 0.2)


def group_of(memory: bool, timeout: timedelta = SHORT) -> dist.ProcessGroup:
    """All ranks, in the memory of the node or by messages."""
    state = runtime.current()
    usual = state.settings
    if not memory:
        state.settings = usual.model_copy(update={"node_memory": False})
    try:
        return dist.new_group(timeout=timeout)
    finally:
        state.settings = usual


def in_vain(group: dist.ProcessGroup) -> None:
    with pytest.raises(CommError, match=r"timeout of 0\.3 s has passed"):
        dist.all_reduce(torch.ones(1 << 20), group=group)


def several_in_vain(group: dist.ProcessGroup) -> None:
    """More than may be in flight at once, and a barrier behind them."""
    works = [dist.all_reduce(torch.ones(1 << 17), group=group, async_op=True) for _ in range(6)]
    works.append(dist.barrier(group=group, async_op=True))
    for work in works:
        with pytest.raises(CommError, match="timeout"):
            work.wait()


def not_waited_for(group: dist.ProcessGroup) -> None:
    dist.all_reduce(torch.ones(100), group=group, async_op=True)


def works_still(world: World) -> None:
    """A new group, and the world, sum r+1 to P(P+1)/2."""
    group = dist.new_group()
    for each in (group, None):
        for count in (3, 300_000):
            tensor = torch.full((count,), world.rank + 1.0)
            dist.all_reduce(tensor, group=each)
            assert tensor.unique().tolist() == [world.size * (world.size + 1) / 2]
    dist.destroy_process_group(group)


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("memory", [True, False], ids=["memory", "messages"])
@pytest.mark.parametrize("late", [0.0, 1.5], ids=["together", "others later"])
@pytest.mark.parametrize("call", [in_vain, several_in_vain])
def test_a_group_ends_though_a_rank_has_waited_in_vain(
    world: World, call: Callable[[dist.ProcessGroup], None], late: float, memory: bool
) -> None:
    """Rank 0 alone calls, is told so, and ends the group; the others end it at once or later."""
    group = group_of(memory)
    if world.rank == 0:
        call(group)
    else:
        time.sleep(late)
    dist.destroy_process_group(group)
    works_still(world)


@pytest.mark.ranks(2, 3)
def test_a_group_ends_after_a_call_that_others_make_late(world: World) -> None:
    """Rank 0 does not wait for its allreduce and ends the group; the others come to both a second later."""
    group = group_of(memory=True)
    if world.rank != 0:
        time.sleep(1.0)
    not_waited_for(group)
    dist.destroy_process_group(group)
    works_still(world)


@pytest.mark.ranks(2, 3)
def test_who_still_waits_when_a_group_is_aborted_is_told(world: World) -> None:
    """On a receive for which nothing comes; rank 0 also on an allreduce that the others do not call."""
    group = dist.new_group()
    works = [dist.irecv(torch.zeros(3), group=group, group_src=(world.rank + 1) % world.size)]
    if world.rank == 0:
        works.append(dist.all_reduce(torch.ones(3), group=group, async_op=True))
    assert isinstance(group, dist.ProcessGroup)
    group.abort()
    for work in works:
        assert work is not None
        with pytest.raises(CommError, match="its group was aborted"):
            work.wait()
    dist.destroy_process_group(group)
    works_still(world)


def test_a_call_that_is_refused_does_not_count(world: World, group: dist.ProcessGroup) -> None:
    """Rank 0 makes two calls that are refused; the numbers by which ranks compare calls stay the same."""
    if world.rank == 0:
        for tensor, op in (
            (torch.zeros(1).expand(3), dist.ReduceOp.SUM),
            (torch.zeros(3), dist.ReduceOp.BAND),
        ):
            with suppress(ValueError):
                dist.all_reduce(tensor, op, group=group)
                raise AssertionError("was not refused")
    dist.barrier(group=group)
    tensor = torch.full((2,), float(world.rank))
    dist.broadcast(tensor, 0, group=group)
    assert tensor.tolist() == [0.0, 0.0]


def test_a_call_that_is_only_polled_is_carried_out(world: World, group: dist.ProcessGroup) -> None:
    """All ranks ask whether it is complete and do nothing else: r+1 sums to P(P+1)/2."""
    options = dist.AllreduceOptions()
    options.asyncOp = False
    tensor = torch.full((2, 3), world.rank + 1.0).t()
    work = group.allreduce([tensor], options)
    end = time.monotonic() + 60
    while not work.is_completed():
        assert time.monotonic() < end
        time.sleep(0.001)
    work.synchronize()  # of a GPU's tensor: the stream
    assert tensor.unique().tolist() == [world.size * (world.size + 1) / 2]


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("memory", [True, False], ids=["memory", "messages"])
@pytest.mark.parametrize("after", [0.0005, 0.005, 0.05])
def test_a_group_is_aborted_while_a_caller_waits_in_it(world: World, after: float, memory: bool) -> None:
    """By another thread of rank 0, which alone has called: in C, or in the engine already."""
    group = group_of(memory, timedelta(seconds=60))
    assert isinstance(group, dist.ProcessGroup)
    for _ in range(2):
        dist.all_reduce(torch.ones(5), group=group)  # from now on it is a call of C
    abort = threading.Timer(after, group.abort)
    if world.rank == 0:
        abort.start()
        with pytest.raises((CallError, CommError), match="aborted"):
            dist.all_reduce(torch.ones(5), group=group)
        abort.join()
    else:
        group.abort()
    dist.destroy_process_group(group)
    works_still(world)
