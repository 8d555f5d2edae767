"""Tensors as if on a GPU: copies wait for what is computed, results wait for what still reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from fake_side import FakeSide
from small_net import check_gradients_of_ddp

from distrain.comm.device import by_host, side
from distrain.comm.process_group import DistrainProcessGroup
from distrain.world import World


@pytest.fixture(autouse=True)
def staged(fake_side: FakeSide, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(side, "side_of", lambda tensor: fake_side)
    yield
    fake_side.computed().order_caller()


def after(seconds: float, fake_side: FakeSide) -> None:
    """Keep the device busy, so that what is given to it next happens late."""
    fake_side.computing.do(lambda: time.sleep(seconds))


def test_what_is_still_being_computed_is_what_travels(
    world: World, by_messages: dist.ProcessGroup, fake_side: FakeSide
) -> None:
    """Rank r will hold r + 1; the sum of all is in every element."""
    tensors = [torch.zeros(1000) for _ in range(3)]
    works = []
    for number, tensor in enumerate(tensors):
        after(0.03, fake_side)
        fake_side.computing.do(lambda t=tensor, n=number: t.fill_(world.rank + 1 + n))  # type: ignore[misc]
        works.append(dist.all_reduce(tensor, group=by_messages, async_op=True))
    assert not works[-1].is_completed()
    for number, (tensor, work) in enumerate(zip(tensors, works, strict=True)):
        work.wait()
        expected = world.size * (world.size + 1) / 2 + number * world.size
        assert tensor.eq(expected).all()


@pytest.mark.ranks(at_least=2)
def test_a_result_waits_for_what_still_reads_its_place(
    world: World, by_messages: dist.ProcessGroup, fake_side: FakeSide
) -> None:
    """Devices but that of rank 0 copy the old contents late; rank 0's must not have come before."""
    tensor, seen = torch.full((5,), float(world.rank)), torch.full((5,), -1.0)
    if world.rank > 0:
        after(0.05, fake_side)
        fake_side.computing.do(lambda: seen.copy_(tensor))
    dist.broadcast(tensor, 0, group=by_messages)
    assert tensor.tolist() == [0.0] * 5
    assert seen.tolist() == [float(world.rank) if world.rank > 0 else -1.0] * 5


@pytest.mark.parametrize("wire", [None, torch.bfloat16])
def test_a_long_payload_travels_in_pieces(
    world: World,
    by_messages: dist.ProcessGroup,
    fake_side: FakeSide,
    monkeypatch: pytest.MonkeyPatch,
    wire: torch.dtype | None,
) -> None:
    """Rank r holds i * (r + 1) at i: small integers, so that bfloat16 is exact too."""
    monkeypatch.setattr(by_host, "STAGED_PIECE_BYTES", 4096)
    before = fake_side.fetched
    tensor = torch.arange(10_003).remainder(16).float() * (world.rank + 1)
    group = by_messages
    assert isinstance(group, DistrainProcessGroup)
    if wire is None:
        work = dist.all_reduce(tensor, group=group, async_op=True)
    else:
        work = group.narrow_allreduce(tensor, wire)
    result = work.get_future().wait()[0]
    assert result.data_ptr() == tensor.data_ptr() and work.is_completed()
    expected = torch.arange(10_003).remainder(16).float() * (world.size * (world.size + 1) / 2)
    assert torch.equal(tensor, expected)
    assert fake_side.fetched - before == 10  # 40,012 bytes


def test_gradients_of_ddp(world: World, by_messages: dist.ProcessGroup, fake_side: FakeSide) -> None:
    before = fake_side.fetched
    check_gradients_of_ddp(world, by_messages)
    assert fake_side.fetched > before
