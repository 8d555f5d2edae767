"""Tensors as if on a GPU whose pointers MPI takes: nothing goes to the host, and nothing is used too early.

The device is made of threads, slow on purpose, and its memory is that of the host, so any MPI takes it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fake_side import FakeSide
from small_net import check_gradients_of_ddp
from wire_cases import noise, same_bits, simulated

from distrain.comm import runtime
from distrain.comm.buffers import Reduction
from distrain.comm.device import side
from distrain.comm.device.by_pointers import NOT_COMBINED, DevicePayloads, payloads_for
from distrain.comm.device.pointers import DeviceBuffer
from distrain.comm.settings import CommSettings
from distrain.comm.wire import Wire
from distrain.errors import CallError
from distrain.schedule.ir import Collective
from distrain.schedule.registry import generate, names
from distrain.world import World, split

INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
ARITHMETIC = ("SUM", "AVG", "PRODUCT", "MIN", "MAX")
CASES = [(dtype, op) for dtype in (*FLOATS, *INTEGERS) for op in ARITHMETIC]
CASES += [(dtype, op) for dtype in INTEGERS for op in ("BAND", "BOR", "BXOR")]
CASES += [(dtype, op) for dtype in (torch.complex64, torch.complex128) for op in ("SUM", "AVG")]


@pytest.fixture(autouse=True)
def on_device(fake_side: FakeSide, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(side, "side_of", lambda tensor: fake_side)
    yield
    fake_side.computed().order_caller()


@pytest.fixture(params=names())
def wire(request: pytest.FixtureRequest, world: World) -> Iterator[Wire]:
    """Short segments, so that a lane has several and uses its staging areas again."""
    state = runtime.current()
    settings = CommSettings(algorithm=request.param, colors=2, segment_bytes=128)
    wire = Wire(state.engine.call(state.comm.Dup), state.engine, settings, (0,) * world.size)
    yield wire
    wire.close()


def execute(wire: Wire, payload: torch.Tensor, own: FakeSide, reduction: Reduction, what: Collective) -> None:
    operation = wire.reduction(DeviceBuffer(payload, own), reduction, what)
    wire.engine.wait(wire.engine.submit(operation))


@pytest.mark.parametrize("reduction", [Reduction.SUM, Reduction.AVG, Reduction.MAX])
def test_executed_equals_simulated_bit_for_bit(wire: Wire, fake_side: FakeSide, reduction: Reduction) -> None:
    schedule = generate(wire.settings.algorithm, wire.size, 2, nodes=wire.nodes)
    for count in (0, 1, 7, 1009):
        inputs = [noise(rank, count, torch.float32) for rank in range(wire.size)]
        expected = simulated(schedule, wire.rank, inputs, reduction)
        if reduction is Reduction.AVG:
            expected = expected / wire.size
        payload = inputs[wire.rank].clone()
        execute(wire, payload, fake_side, reduction, Collective.ALLREDUCE)
        assert same_bits(payload, expected), f"{count} elements"


def test_halves_of_a_schedule(wire: Wire, fake_side: FakeSide) -> None:
    """Reduce-scatter leaves the sum in each rank's part; all-gather collects it."""
    part = split(203, wire.size)[wire.rank]
    payload = torch.arange(203) * (wire.rank + 1)
    execute(wire, payload, fake_side, Reduction.SUM, Collective.REDUCE_SCATTER)
    expected = torch.arange(203) * (wire.size * (wire.size + 1) // 2)
    assert torch.equal(payload[part.start : part.stop], expected[part.start : part.stop])
    execute(wire, payload, fake_side, Reduction.SUM, Collective.ALL_GATHER)
    assert torch.equal(payload, expected)


def test_operations_in_flight_together_do_not_mix(wire: Wire, fake_side: FakeSide) -> None:
    payloads = [torch.arange(301) * (wire.rank + 1) + i for i in range(8)]
    buffers = [DeviceBuffer(payload, fake_side) for payload in payloads]
    completions = [wire.engine.submit(wire.reduction(buffer, Reduction.SUM)) for buffer in buffers]
    for i, (payload, completion) in enumerate(zip(payloads, completions, strict=True)):
        wire.engine.wait(completion)
        assert torch.equal(payload, torch.arange(301) * (wire.size * (wire.size + 1) // 2) + i * wire.size)


def values(rank: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(257, generator=generator, dtype=torch.complex64).to(dtype)
    return torch.randint(0, 2 if dtype is torch.bool else 100, (257,), generator=generator).to(dtype)


@pytest.mark.parametrize(("dtype", "op"), CASES, ids=str)
@pytest.mark.filterwarnings("ignore:Casting complex values")
def test_every_reduction_of_every_type_as_on_the_host(
    world: World,
    by_messages: dist.ProcessGroup,
    by_pointers: dist.ProcessGroup,
    fake_side: FakeSide,
    monkeypatch: pytest.MonkeyPatch,
    dtype: torch.dtype,
    op: str,
) -> None:
    """The same bits."""
    tensor, other = values(world.rank, dtype), values(world.rank, dtype)
    before = fake_side.fetched
    dist.all_reduce(tensor, getattr(dist.ReduceOp, op), group=by_pointers, async_op=True).wait()
    assert fake_side.fetched == before
    with monkeypatch.context() as patch:
        patch.setattr(side, "side_of", lambda tensor: None)
        dist.all_reduce(other, getattr(dist.ReduceOp, op), group=by_messages, async_op=True).wait()
    assert same_bits(tensor, other)


@pytest.mark.parametrize("dtype", sorted(NOT_COMBINED, key=str), ids=str)
def test_types_that_torch_does_not_add_go_by_the_host(
    world: World, by_pointers: dist.ProcessGroup, fake_side: FakeSide, dtype: torch.dtype
) -> None:
    tensor, before = torch.tensor([world.rank + 1, 7]).to(dtype), fake_side.fetched
    dist.all_reduce(tensor, group=by_pointers, async_op=True).wait()
    assert tensor.tolist() == [world.size * (world.size + 1) // 2, 7 * world.size]
    assert fake_side.fetched == before + 1
    every = torch.empty(2 * world.size, dtype=dtype)
    dist.all_gather_into_tensor(every, tensor, group=by_pointers)  # moved they are as all others
    assert every.tolist() == tensor.tolist() * world.size and fake_side.fetched == before + 1


def late(fake_side: FakeSide, tensor: torch.Tensor, value: float, seconds: float = 0.03) -> torch.Tensor:
    """Let the device compute the contents of a tensor, and finish late."""
    fake_side.computing.do(lambda: time.sleep(seconds))
    fake_side.computing.do(lambda: tensor.fill_(value))
    return tensor


def test_what_is_still_being_computed_is_what_is_summed(
    world: World, by_pointers: dist.ProcessGroup, fake_side: FakeSide
) -> None:
    """Rank r will hold r + 1 + i."""
    tensors = [late(fake_side, torch.zeros(1000), world.rank + 1 + i) for i in range(3)]
    works = [dist.all_reduce(tensor, group=by_pointers, async_op=True) for tensor in tensors]
    assert not works[-1].is_completed()
    for i, (tensor, work) in enumerate(zip(tensors, works, strict=True)):
        work.wait()
        assert tensor.eq(world.size * (world.size + 1) / 2 + i * world.size).all()


def test_what_is_still_being_computed_is_what_moves(
    world: World, by_pointers: dist.ProcessGroup, fake_side: FakeSide
) -> None:
    """Rank r will hold r + 1, and scatter, gather and exchange it."""
    ranks, before = [float(r + 1) for r in range(world.size)], fake_side.fetched
    every = torch.zeros(world.size)
    dist.all_gather_into_tensor(every, late(fake_side, torch.zeros(1), world.rank + 1), group=by_pointers)
    assert every.tolist() == ranks
    part = torch.zeros(1)
    whole = late(fake_side, torch.zeros(world.size), world.rank + 1)
    dist.reduce_scatter_tensor(part, whole, group=by_pointers)
    assert part.item() == sum(ranks)
    every = torch.zeros(world.size)
    dist.all_to_all_single(every, late(fake_side, torch.zeros(world.size), world.rank + 1), group=by_pointers)
    assert every.tolist() == ranks
    places = [torch.zeros(2) for _ in ranks] if world.rank == 0 else None
    dist.gather(late(fake_side, torch.zeros(2), world.rank + 1), places, 0, group=by_pointers)
    assert places is None or [t.tolist() for t in places] == [[r, r] for r in ranks]
    right, left = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    arrived = torch.zeros(3)
    sent = dist.isend(late(fake_side, torch.zeros(3), world.rank + 1), right, group=by_pointers)
    dist.recv(arrived, left, group=by_pointers)
    sent.wait()
    assert arrived.tolist() == [ranks[left]] * 3
    assert fake_side.fetched == before


@pytest.mark.ranks(at_least=2)
def test_a_result_waits_for_what_still_reads_its_place(
    world: World, by_pointers: dist.ProcessGroup, fake_side: FakeSide
) -> None:
    """The device of rank 0 copies the old contents late; MPI must not have received there before."""
    place, seen = torch.full((5,), 8.0), torch.full((5,), -1.0)
    if world.rank == 0:
        fake_side.computing.do(lambda: time.sleep(0.05))
        fake_side.computing.do(lambda: seen.copy_(place))
        dist.recv(place, 1, group=by_pointers)
        assert place.tolist() == [3.0] * 5 and seen.tolist() == [8.0] * 5
    elif world.rank == 1:
        dist.send(torch.full((5,), 3.0), 0, group=by_pointers)


def test_results_with_strides(world: World, by_pointers: dist.ProcessGroup, fake_side: FakeSide) -> None:
    """Element (i, j) of rank r is (r + 1) times that of rank 0; every second column is none of it."""
    base = torch.arange(40.0).reshape(5, 8)
    expected = base[:, ::2] * (world.size * (world.size + 1) / 2)
    others = base[:, 1::2] * (world.rank + 1)
    fake_side.computing.do(lambda: time.sleep(0.03))
    fake_side.computing.do(lambda: base.mul_(world.rank + 1))
    dist.all_reduce(base[:, ::2], group=by_pointers, async_op=True).wait()
    assert torch.equal(base[:, ::2], expected) and torch.equal(base[:, 1::2], others)
    wide = torch.zeros(5, 2 * world.size)
    parts = [wide[:, 2 * r] for r in range(world.size)]
    dist.all_gather(parts, torch.full((5,), world.rank + 1.0), group=by_pointers)
    assert wide[:, ::2].tolist() == [[r + 1.0 for r in range(world.size)]] * 5
    assert not wide[:, 1::2].any()


def test_only_the_root_gets_the_sum(world: World, by_pointers: dist.ProcessGroup) -> None:
    for root in range(world.size):
        tensor = torch.full((9,), world.rank + 1.0)
        dist.reduce(tensor, root, group=by_pointers)
        expected = world.size * (world.size + 1) / 2 if world.rank == root else world.rank + 1
        assert tensor.tolist() == [expected] * 9


def test_in_place(world: World, by_pointers: dist.ProcessGroup) -> None:
    """Output and input of all_to_all are one tensor; the input of all_gather is a part of its output."""
    tensor = torch.tensor([float(world.rank)] * world.size)
    dist.all_to_all_single(tensor, tensor, group=by_pointers)
    assert tensor.tolist() == [float(r) for r in range(world.size)]
    whole = torch.full((world.size * 3,), float(world.rank))
    mine = whole[3 * world.rank : 3 * world.rank + 3]
    dist.all_gather_into_tensor(whole, mine, group=by_pointers)
    assert whole.tolist() == [float(r) for r in range(world.size) for _ in range(3)]


def test_a_long_payload_is_one_operation(
    world: World, by_pointers: dist.ProcessGroup, fake_side: FakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Staged, it would travel in pieces. Rank r holds i (r + 1) at i."""
    monkeypatch.setattr("distrain.comm.device.by_host.STAGED_PIECE_BYTES", 4096)
    group: Any = by_pointers
    before = group._get_sequence_number_for_group()
    tensor = torch.arange(10_003.0).remainder(16) * (world.rank + 1)
    result = dist.all_reduce(tensor, group=group, async_op=True).get_future().wait()[0]
    assert result.data_ptr() == tensor.data_ptr()
    expected = torch.arange(10_003.0).remainder(16) * (world.size * (world.size + 1) / 2)
    assert torch.equal(tensor, expected)
    assert group._get_sequence_number_for_group() == before + 1


def test_wrong_tensors_are_refused(by_pointers: dist.ProcessGroup) -> None:
    with pytest.raises(CallError, match="several elements in one place"):
        dist.all_reduce(torch.zeros(1).expand(4), group=by_pointers)
    with pytest.raises(CallError, match="not defined for"):
        dist.all_reduce(torch.zeros(4), dist.ReduceOp.BAND, group=by_pointers, async_op=True)


def test_tensors_of_several_devices_go_by_the_host(
    fake_side: FakeSide, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there, host = torch.zeros(1), torch.zeros(1), torch.zeros(1)
    sides = {id(here): fake_side, id(there): FakeSide(), id(host): None}
    monkeypatch.setattr(side, "side_of", lambda tensor: sides[id(tensor)])
    assert isinstance(payloads_for([here, here], combines=True), DevicePayloads)
    for mixed in ([here, there], [here, host], [host], []):
        assert not isinstance(payloads_for(mixed, combines=False), DevicePayloads)


@pytest.mark.ranks(at_least=2)
def test_gradients_of_ddp(world: World, by_pointers: dist.ProcessGroup, fake_side: FakeSide) -> None:
    before = fake_side.pointed
    check_gradients_of_ddp(world, by_pointers)
    assert fake_side.pointed > before
