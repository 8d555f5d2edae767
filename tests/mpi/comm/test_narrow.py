"""Sixteen bits on the wire: the same bits on all ranks, and an error within its bound."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from wire_cases import noise, same_bits

from distrain.comm import runtime
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.messages.narrow import WIRE_DTYPES
from distrain.comm.settings import CommSettings
from distrain.comm.wire import Wire
from distrain.errors import UsageError
from distrain.schedule.registry import names
from distrain.world import World


@pytest.fixture(scope="module", params=names())
def wire(request: pytest.FixtureRequest, world: World) -> Iterator[Wire]:
    state = runtime.current()
    settings = CommSettings(algorithm=request.param, colors=2, segment_bytes=256)
    wire = Wire(state.engine.call(state.comm.Dup), state.engine, settings, (0,) * world.size)
    yield wire
    wire.close()


@pytest.mark.parametrize("name", WIRE_DTYPES)
@pytest.mark.parametrize("reduction", [Reduction.SUM, Reduction.AVG])
def test_all_ranks_hold_the_same_bits_near_the_sum(wire: Wire, name: str, reduction: Reduction) -> None:
    """Rank r gives its own noise. Each of at most P roundings errs by half a unit of the partial sums."""
    for count in (0, 1, 97, 1009):
        inputs = [noise(rank, count, torch.float32) for rank in range(wire.size)]
        payload = inputs[wire.rank].clone()
        operation = wire.reduction(FlatBuffer(payload), reduction, wire_dtype=WIRE_DTYPES[name])
        wire.engine.wait(wire.engine.submit(operation))
        others = [torch.empty_like(payload) for _ in range(wire.size)]
        dist.all_gather(others, payload)
        assert all(same_bits(payload, other) for other in others)
        divisor = wire.size if reduction is Reduction.AVG else 1
        exact = torch.stack(inputs).double().sum(0) / divisor
        largest = torch.stack(inputs).double().abs().sum(0) / divisor
        bound = wire.size * torch.finfo(WIRE_DTYPES[name]).eps / 2 * largest + 1e-6
        assert ((payload.double() - exact).abs() <= bound).all()


def test_sums_are_added_in_float32(wire: Wire) -> None:
    """1 + 2^-9 is lost in a bf16 sum. Each addend fits; the sum of all does where no hop rounds it."""
    if wire.size != 2:
        return
    payload = torch.tensor([1.0, 256.0]) if wire.rank == 0 else torch.tensor([2.0**-9, 1.0])
    operation = wire.reduction(FlatBuffer(payload), Reduction.SUM, wire_dtype=torch.float16)
    wire.engine.wait(wire.engine.submit(operation))
    assert payload.tolist() == [1 + 2.0**-9, 257.0]


def test_other_payloads_are_refused(wire: Wire) -> None:
    with pytest.raises(UsageError, match="sums and averages of float32"):
        wire.reduction(FlatBuffer(torch.ones(3)), Reduction.MAX, wire_dtype=torch.bfloat16)
    with pytest.raises(UsageError, match="sums and averages of float32"):
        wire.reduction(FlatBuffer(torch.ones(3).double()), Reduction.SUM, wire_dtype=torch.bfloat16)
