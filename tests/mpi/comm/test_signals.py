"""Handlers of signals that raise an error while a collective waits: what comes after is right."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist

import distrain
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.world import World


class Interrupted(BaseException):
    """As KeyboardInterrupt."""


@pytest.fixture
def alarm() -> Iterator[Callable[[float], object]]:
    """Return a function that raises an error after so many seconds, in whatever runs then; 0: never."""

    def ring(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def by_torch(tensor: torch.Tensor, group: Any) -> None:
    dist.all_reduce(tensor, group=group)


def by_array(tensor: torch.Tensor, group: Any) -> None:
    distrain.allreduce(tensor, group=group)


@pytest.mark.ranks(2, 3)
@pytest.mark.parametrize("memory", [True, False], ids=["memory", "messages"])
@pytest.mark.parametrize("combine", [by_torch, by_array])
def test_an_allreduce_interrupted_in_c_is_carried_out_all_the_same(
    world: World,
    by_messages: dist.ProcessGroup,
    alarm: Callable[[float], object],
    combine: Callable[[torch.Tensor, Any], None],
    memory: bool,
) -> None:
    """Rank 0 is interrupted while it waits for the others, who get the sum of r+1; so does the next call."""
    group: Any = dist.group.WORLD if memory else by_messages
    total = world.size * (world.size + 1) / 2
    interrupted = 0
    for count in (5, 70_000):
        combine(torch.ones(count), group)  # from now on it is a call of C
    for count in (5, 70_000) * 3:
        tensor = torch.full((count,), world.rank + 1.0)
        if world.rank != 0:
            time.sleep(0.02)
            combine(tensor, group)
            assert tensor.unique().tolist() == [total]
        before = group._wire.calls
        while world.rank == 0 and group._wire.calls == before:  # it may come before the call has begun
            try:
                alarm(0.0015)
                combine(tensor, group)
                alarm(0)
            except Interrupted:
                interrupted += 1
        after = torch.full((count,), 2.0 * (world.rank + 1))
        combine(after, group)
        assert after.unique().tolist() == [2 * total]
        assert tensor.unique().tolist() == [total]  # it came before
    assert world.rank != 0 or interrupted


@pytest.mark.ranks(2, 3)
def test_a_collective_interrupted_in_the_engine_goes_on(
    world: World, group: dist.ProcessGroup, alarm: Callable[[float], object]
) -> None:
    """Rank 0 is interrupted while it does the engine's work; the others gather 0, 1, ... and the next too."""
    for _ in range(3):
        own, gathered = torch.tensor([float(world.rank)]), torch.zeros(world.size)
        if world.rank != 0:
            time.sleep(0.2)
            dist.all_gather_into_tensor(gathered, own, group=group)
        else:
            with pytest.raises(Interrupted):
                alarm(0.1)
                dist.all_gather_into_tensor(gathered, own, group=group)
        following = torch.zeros(world.size)
        dist.all_gather_into_tensor(following, own + 1, group=group)
        assert following.tolist() == [r + 1.0 for r in range(world.size)]
        assert world.rank == 0 or gathered.tolist() == [float(r) for r in range(world.size)]


@pytest.mark.ranks(2, 3)
def test_a_mean_is_divided_once_though_its_end_is_asked_for_twice(
    world: World, by_messages: dist.ProcessGroup
) -> None:
    """As after the error of a signal in the last step: rank r gives P(r+1), the mean is P(P+1)/2."""
    group: Any = by_messages
    tensor = torch.full((300_000,), world.size * (world.rank + 1.0))
    buffer = FlatBuffer(tensor)
    call = group._wire.number("allreduce", tensor.numel(), tensor.dtype, Reduction.AVG)
    operation = group._wire.reduction(buffer, Reduction.AVG, call=call)
    group._wire.engine.wait(group._wire.engine.submit(operation))
    again = group._wire.engine.call(operation.progress)
    assert again and tensor.unique().tolist() == [world.size * (world.size + 1) / 2]
