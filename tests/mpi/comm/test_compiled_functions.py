"""Groups inside functions that torch.compile has compiled, and the functional operators.

``r`` is the rank, ``P`` the number of ranks, ``S = P(P+1)/2``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional

import distrain
from distrain.world import World

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of the compiler, about what it cannot trace
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
OPERATORS = torch.ops._c10d_functional


def by_group(tensor: torch.Tensor) -> torch.Tensor:
    group: Any = dist.group.WORLD
    doubled = tensor * 2
    group.allreduce([doubled]).wait()
    return doubled / 2


def by_bare_tensor(tensor: torch.Tensor) -> torch.Tensor:
    group: Any = dist.group.WORLD
    own = tensor * 1
    group.barrier().wait()
    group.allreduce(own, dist.ReduceOp.SUM).wait()
    return own


def asynchronous(tensor: torch.Tensor) -> torch.Tensor:
    own = tensor * 1
    work = dist.all_reduce(own, async_op=True)
    work.wait()
    return own


def by_future(tensor: torch.Tensor) -> torch.Tensor:
    group: Any = dist.group.WORLD
    future = group.allreduce([tensor * 1]).get_future()
    return future.then(lambda done: done.value()[0]).wait()


def by_array(tensor: torch.Tensor) -> torch.Tensor:
    own = tensor * 1
    distrain.allreduce(own)
    return own


def after_a_barrier(tensor: torch.Tensor) -> torch.Tensor:
    own = tensor * 1
    dist.barrier()
    dist.all_reduce(own)
    return own


def of_objects(tensor: torch.Tensor) -> torch.Tensor:
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, dist.get_rank() + 1)
    return torch.zeros_like(tensor) + sum(found)  # type: ignore[arg-type]


def functional_one(tensor: torch.Tensor) -> torch.Tensor:
    return functional.all_reduce(tensor, "sum", dist.group.WORLD) * 1


def functional_parts(tensor: torch.Tensor) -> torch.Tensor:
    group, size = dist.group.WORLD, dist.get_world_size()
    part = functional.reduce_scatter_tensor(tensor.repeat(size), "sum", 0, group)
    return functional.all_gather_tensor(part, 0, group)[: tensor.numel()] * 1


@pytest.mark.ranks(2)  # the compiler's own import takes seconds
@pytest.mark.seconds(120)
@pytest.mark.parametrize(
    "function",
    [
        by_group,
        by_bare_tensor,
        asynchronous,
        by_future,
        by_array,
        after_a_barrier,
        of_objects,
        functional_one,
        functional_parts,
    ],
)
def test_in_a_compiled_function(world: World, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Rank r gives r+1; all see S, at the first call and at the second."""
    compiled = torch.compile(function, backend="eager")
    for _ in range(2):
        result = compiled(torch.full((3,), world.rank + 1.0))
        assert result.tolist() == [world.size * (world.size + 1) / 2] * 3


@pytest.mark.ranks(2)
@pytest.mark.seconds(120)
def test_names_in_a_compiled_function(world: World) -> None:
    """P + r + the 8 letters of the backend, without a break."""
    group: Any = dist.group.WORLD

    def function(tensor: torch.Tensor) -> torch.Tensor:
        return tensor * 0 + group.size() + group.rank() + len(group.name())

    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert compiled(torch.ones(2)).tolist() == [world.size + world.rank + 8] * 2


def test_all_gather_into_a_given_tensor(world: World, group: Any) -> None:
    """Rank r gives r; all see 0, 0, 1, 1, 2, 2, ..."""
    out = torch.full((2 * world.size,), -1.0)
    given = torch.full((2,), float(world.rank))
    result = OPERATORS.all_gather_into_tensor_out(given, world.size, group.group_name, out=out)
    assert OPERATORS.wait_tensor(result) is out
    assert out.tolist() == [s for s in range(world.size) for _ in range(2)]


def test_reduce_scatter_into_a_given_tensor(world: World, group: Any) -> None:
    """Rank r gives d + 1 to rank d, which sees P(d + 1)."""
    out = torch.full((1,), -1.0)
    given = torch.arange(1.0, world.size + 1)
    OPERATORS.wait_tensor(
        OPERATORS.reduce_scatter_tensor_out(given, "sum", world.size, group.group_name, out=out)
    )
    assert out.tolist() == [world.size * (world.rank + 1)]


def test_messages_at_once(world: World, group: Any) -> None:
    """Rank r sends r to the next one; what is sent has no result."""
    after, before = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    tensors = [torch.full((3,), float(world.rank)), torch.full((3,), -1.0)]
    results = OPERATORS.batch_p2p_ops(["isend", "irecv"], [after, before], [0, 0], tensors, group.group_name)
    sent, arrived = (OPERATORS.wait_tensor(one) for one in results)
    assert sent.numel() == 0 and arrived.tolist() == [before] * 3


def test_operators_of_other_groups(world: World) -> None:
    """gloo's group keeps torch's own kernels: the same results."""
    others: Any = dist.new_group(backend="gloo")
    out = torch.full((world.size,), -1.0)
    given = torch.full((1,), float(world.rank))
    OPERATORS.wait_tensor(OPERATORS.all_gather_into_tensor_out(given, world.size, others.group_name, out=out))
    assert out.tolist() == list(range(world.size))
