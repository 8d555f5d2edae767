"""Allreduce in the memory of nodes and by messages between them; the nodes are of the test's making."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from wire_cases import decoding, everyone, noise

from distrain.comm import native, runtime
from distrain.comm.buffers import FlatBuffer, Reduction
from distrain.comm.choice.chooser import Chooser
from distrain.comm.levels import BETWEEN, WHOLE_BYTES, LevelsOperation, open_levels
from distrain.comm.settings import CommSettings
from distrain.comm.supervision.members import Members
from distrain.comm.wire import Wire
from distrain.schedule.ir import Collective
from distrain.world import World

pytestmark = [
    pytest.mark.ranks(4),
    pytest.mark.skipif(not native.build_info()[0], reason=f"exchange in memory: {native.build_info()[1]}"),
]
SHORT, LONG = WHOLE_BYTES // 2 // 8, WHOLE_BYTES // 2 // 8 + 1  # of eight bytes, on nodes of two ranks
COUNTS = (0, 1, 2, 3, 1009, SHORT, LONG, 100_003)
OPS: dict[Reduction, Callable[..., Any]] = {
    Reduction.SUM: torch.add,
    Reduction.MAX: torch.maximum,
    Reduction.PROD: torch.mul,
    Reduction.BXOR: torch.bitwise_xor,
}
LAYOUTS = {"in a row": (0, 0, 1, 1), "in turn": (0, 1, 0, 1), "mirrored": (5, 2, 2, 5)}


def make_wire(algorithm: str, nodes: tuple[int, ...], members: Members | None = None) -> Wire:
    state = runtime.current()
    comm = state.engine.call(state.comm.Dup)
    levels = state.engine.call(lambda: open_levels(comm, nodes))
    settings = CommSettings(algorithm=algorithm, colors=2, segment_bytes=4096)
    return Wire(comm, state.engine, settings, nodes, None, members, None, levels)


@pytest.fixture(scope="module", params=[(name, layout) for name in BETWEEN for layout in LAYOUTS], ids=str)
def wire(request: pytest.FixtureRequest, world: World) -> Iterator[Wire]:
    name, layout = request.param
    wire = make_wire(name, LAYOUTS[layout])
    yield wire
    wire.close()


def execute(wire: Wire, payload: torch.Tensor, reduction: Reduction) -> None:
    operation = wire.reduction(FlatBuffer(payload), reduction)
    assert isinstance(operation, LevelsOperation)
    wire.engine.wait(wire.engine.submit(operation))


def test_every_rank_is_counted_exactly_once(wire: Wire) -> None:
    for count in COUNTS:
        payload = decoding(wire.rank, wire.size, count, torch.int64)
        execute(wire, payload, Reduction.SUM)
        assert payload.eq(everyone(wire.size)).all(), count


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8], ids=str)
def test_integers_are_combined_exactly(wire: Wire, dtype: torch.dtype) -> None:
    for count in (5, LONG):
        inputs = [noise(rank, count, dtype) for rank in range(wire.size)]
        for reduction, operation in OPS.items():
            expected = inputs[0]
            for other in inputs[1:]:
                expected = operation(expected, other)
            payload = inputs[wire.rank].clone()
            execute(wire, payload, reduction)
            assert torch.equal(payload, expected), reduction
        total = sum(x.to(torch.int64) for x in inputs)
        payload = inputs[wire.rank].to(torch.int64)
        execute(wire, payload, Reduction.AVG)
        assert torch.equal(payload, torch.div(total, wire.size, rounding_mode="trunc"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_all_ranks_end_with_the_same_bits(wire: Wire, dtype: torch.dtype, world: World) -> None:
    state = runtime.current()
    for count in (SHORT, 9001):
        inputs = [noise(rank, count, dtype) for rank in range(wire.size)]
        payload = inputs[wire.rank].clone()
        execute(wire, payload, Reduction.AVG)
        exact = torch.stack(inputs).to(torch.float64).mean(0)
        unit = torch.finfo(dtype).eps
        assert (payload.to(torch.float64) - exact).abs().max() <= 8 * unit
        bits = payload.view(torch.uint8).numpy().tobytes()
        assert set(state.engine.call(lambda bits=bits: state.comm.allgather(bits))) == {bits}


def test_one_scatters_while_another_travels(wire: Wire) -> None:
    """Twelve in flight, waited for in another order: each has its own sum."""
    dice = random.Random(3)
    counts = [dice.choice((7, SHORT, LONG, 60_000)) for _ in range(12)]
    payloads = [decoding(wire.rank, wire.size, n, torch.int64) * (i + 1) for i, n in enumerate(counts)]
    flight = [wire.engine.submit(wire.reduction(FlatBuffer(p), Reduction.SUM)) for p in payloads]
    for completion in reversed(flight):
        wire.engine.wait(completion)
    for i, payload in enumerate(payloads):
        assert payload.eq((i + 1) * everyone(wire.size)).all()


def test_other_collectives_and_types_go_by_messages(wire: Wire, world: World) -> None:
    payload = torch.full((world.size,), float(world.rank))
    operation = wire.reduction(FlatBuffer(payload), Reduction.SUM, Collective.REDUCE_SCATTER)
    assert not isinstance(operation, LevelsOperation)
    wire.engine.wait(wire.engine.submit(operation))
    assert payload[world.rank] == sum(range(world.size))


@pytest.mark.parametrize(
    "nodes", [(0, 0, 0, 1), (0, 1, 2, 3), (0, 0, 0, 0)], ids=["uneven", "one rank each", "one node"]
)
def test_groups_of_other_shapes_have_no_levels(world: World, nodes: tuple[int, ...]) -> None:
    wire = make_wire("hierarchical", nodes)
    assert wire.levels is None
    payload = decoding(wire.rank, wire.size, 333, torch.int64)
    wire.engine.wait(wire.engine.submit(wire.reduction(FlatBuffer(payload), Reduction.SUM)))
    assert payload.eq(everyone(wire.size)).all()
    wire.close()


def test_gradients_go_through_the_memory_of_the_nodes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against one process with all samples; and a subgroup that has one rank a node goes by messages."""
    state = runtime.current()
    settings = CommSettings(algorithm="hierarchical")
    monkeypatch.setattr(state, "settings", settings)
    monkeypatch.setattr(state, "chooser", Chooser(settings))
    monkeypatch.setattr(state, "world", World.of(world.rank, ["a", "b", "a", "b"]))
    group, *pairs = (dist.new_group(ranks) for ranks in (None, [0, 1], [2, 3]))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(40, 300), torch.nn.Tanh(), torch.nn.Linear(300, 10))
    samples = torch.randn(8, 40)
    model(samples).square().mean().backward()
    whole = torch.cat([p.grad.reshape(-1) for p in model.parameters()]).clone()
    model.zero_grad()
    parallel = DistributedDataParallel(model, bucket_cap_mb=0.01, process_group=group)
    parallel(samples[2 * world.rank :][:2]).square().mean().backward()
    mine = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    assert torch.allclose(mine, whole, atol=1e-6), (mine - whole).abs().max()
    work = dist.all_reduce(mine, async_op=True, group=group)
    work.wait()
    assert work.algorithm == "memory of the nodes, multicolor_ring between them", work.algorithm
    pair = pairs[world.rank // 2]
    tensor = torch.tensor([10.0**world.rank])
    dist.all_reduce(tensor, group=pair)
    assert tensor.item() == (11.0, 1100.0)[world.rank // 2] and pair._wire.levels is None
    del parallel  # its hooks hold the group
    for made in (group, *pairs):
        if made is not dist.GroupMember.NON_GROUP_MEMBER:
            dist.destroy_process_group(made)
