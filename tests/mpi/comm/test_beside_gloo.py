"""The same calls on gloo's group and on ours: equal values for drawn shapes, strides, types and roots.

Values are small whole numbers, so every order of additions gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mpi4py import MPI

from distrain.world import World

pytestmark = [
    pytest.mark.ranks(1, 3),  # alone, and more than a pair: two say nothing that three do not
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning"),
]

TYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16,
    torch.uint8, torch.int8, torch.int32, torch.int64,
)  # fmt: skip
OPS = (dist.ReduceOp.SUM, dist.ReduceOp.PRODUCT, dist.ReduceOp.MIN, dist.ReduceOp.MAX)


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        shape: of this rank's part.
        dtype: of all tensors.
        layout: how the elements lie in memory: in order, transposed, or every other one.
        op: of the reductions.
        root: of the collectives that have one, modulo the number of ranks.
        seed: of the values.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    op: Any
    root: int
    seed: int

    def place(self, *shape: int) -> torch.Tensor:
        """Return zeros of a shape in the layout of the case."""
        if self.layout == "transposed":
            return torch.zeros(shape[::-1], dtype=self.dtype).permute(tuple(range(len(shape)))[::-1])
        if self.layout == "strided" and shape:
            return torch.zeros(*shape[:-1], 2 * shape[-1], dtype=self.dtype)[..., ::2]
        return torch.zeros(shape, dtype=self.dtype)

    def values(self, rank: int, *shape: int) -> torch.Tensor:
        """Return the numbers of a rank in the layout of the case."""
        generator = torch.Generator().manual_seed(1000 * self.seed + rank)
        low = 0 if self.dtype is torch.uint8 else -2
        tensor = self.place(*shape)
        tensor.copy_(torch.randint(low, 3, shape, generator=generator).to(self.dtype))
        return tensor


cases = st.builds(
    Case,
    shape=st.lists(st.integers(0, 4), max_size=3).map(tuple),
    dtype=st.sampled_from(TYPES),
    layout=st.sampled_from(("plain", "transposed", "strided")),
    op=st.sampled_from(OPS),
    root=st.integers(0, 4),
    seed=st.integers(0, 99),
)
Run = Callable[[Case, dist.ProcessGroup, World], list[torch.Tensor]]


def all_reduce(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    t = case.values(world.rank, *case.shape)
    dist.all_reduce(t, op=case.op, group=group)
    return [t]


def broadcast(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    t = case.values(world.rank, *case.shape)
    dist.broadcast(t, case.root % world.size, group=group)
    return [t]


def reduce(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    t = case.values(world.rank, *case.shape)
    dist.reduce(t, case.root % world.size, op=case.op, group=group)
    return [t] if world.rank == case.root % world.size else []


def all_gather(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    out = [case.place(*case.shape) for _ in range(world.size)]
    dist.all_gather(out, case.values(world.rank, *case.shape), group=group)
    return out


def all_gather_into_tensor(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    rows, *rest = (*case.shape, 1)
    out = case.place(world.size * rows, *rest)
    dist.all_gather_into_tensor(out, case.values(world.rank, rows, *rest), group=group)
    return [out]


def reduce_scatter(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    out = case.place(*case.shape)
    parts = [case.values(10 * world.rank + d, *case.shape) for d in range(world.size)]
    dist.reduce_scatter(out, parts, op=case.op, group=group)
    return [out]


def reduce_scatter_tensor(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    rows, *rest = (*case.shape, 1)
    out = case.place(rows, *rest)
    source = case.values(world.rank, world.size * rows, *rest)
    dist.reduce_scatter_tensor(out, source, op=case.op, group=group)
    return [out]


def gather(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    root = case.root % world.size
    out = [case.place(*case.shape) for _ in range(world.size)] if world.rank == root else None
    dist.gather(case.values(world.rank, *case.shape), out, dst=root, group=group)
    return out or []


def scatter(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    root = case.root % world.size
    parts = [case.values(d, *case.shape) for d in range(world.size)] if world.rank == root else None
    out = case.place(*case.shape)
    dist.scatter(out, parts, src=root, group=group)
    return [out]


def all_to_all_single(case: Case, group: dist.ProcessGroup, world: World) -> list[torch.Tensor]:
    """Rank s sends (s + d + seed) % 3 rows to rank d."""
    _, *rest = (*case.shape, 1)
    leaving = [(world.rank + d + case.seed) % 3 for d in range(world.size)]
    arriving = [(s + world.rank + case.seed) % 3 for s in range(world.size)]
    out, source = case.place(sum(arriving), *rest), case.values(world.rank, sum(leaving), *rest)
    dist.all_to_all_single(out, source, arriving, leaving, group=group)
    return [out]


COLLECTIVES: tuple[Run, ...] = (
    all_reduce, broadcast, reduce, all_gather, all_gather_into_tensor, reduce_scatter,
    reduce_scatter_tensor, gather, scatter, all_to_all_single,
)  # fmt: skip


@pytest.fixture(scope="module")
def gloo(world: World) -> dist.ProcessGroup:
    return dist.new_group(backend="gloo")


@pytest.fixture(scope="module")
def beside(world: World) -> MPI.Intracomm:
    """Lets all ranks fail together, so that all of them draw the same next case."""
    return MPI.COMM_WORLD.Dup()


@pytest.mark.parametrize("run", COLLECTIVES, ids=lambda f: f.__name__)
def test_values_equal_those_of_gloo(
    world: World, group: dist.ProcessGroup, gloo: dist.ProcessGroup, beside: MPI.Intracomm, run: Run
) -> None:
    @settings(
        max_examples=25,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def law(case: Case) -> None:
        # gloo refuses some tensors with gaps, and of others it also adds up what lies in the gaps.
        ours, theirs = run(case, group, world), run(replace(case, layout="plain"), gloo, world)
        pairs = list(zip(ours, theirs, strict=True))
        wrong = [(a, b) for a, b in pairs if a.dtype != b.dtype or not torch.equal(a, b)]
        everywhere = beside.allgather(f"rank {world.rank}: {wrong}" if wrong else "")
        assert not any(everywhere), everywhere

    law()
