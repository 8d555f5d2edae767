"""Methods of a group in all forms that torch's own groups accept: options, or root, op and timeout bare.

``r`` is the rank, ``P`` the number of ranks, ``S = P(P+1)/2``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import AllgatherOptions

from distrain.errors import CommError
from distrain.world import World

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
SOON = timedelta(seconds=30)
MAX = dist.ReduceOp.MAX


def full(value: float, count: int = 3) -> torch.Tensor:
    return torch.full((count,), float(value))


def with_root(options: Any, root: int) -> Any:
    options.rootRank = root
    return options


IN_PLACE: dict[str, tuple[str, Callable[[Any, torch.Tensor, World], Any]]] = {
    "tensor": ("sum", lambda g, t, w: g.allreduce(t)),
    "list": ("sum", lambda g, t, w: g.allreduce([t])),
    "list and op": ("max", lambda g, t, w: g.allreduce([t], MAX)),
    "tensor, op, timeout": ("max", lambda g, t, w: g.allreduce(t, MAX, SOON)),
    "tensor, op by name": ("max", lambda g, t, w: g.allreduce(t, op=MAX)),
    "all by name": ("max", lambda g, t, w: g.allreduce(tensor=t, op=MAX, timeout=SOON)),
    "options by name": ("sum", lambda g, t, w: g.allreduce(tensors=[t], opts=dist.AllreduceOptions())),
    "coalesced": ("sum", lambda g, t, w: g.allreduce_coalesced([t])),
    "broadcast": ("last", lambda g, t, w: g.broadcast(t, w.size - 1)),
    "broadcast in time": ("last", lambda g, t, w: g.broadcast(t, w.size - 1, SOON)),
    "broadcast by name": ("last", lambda g, t, w: g.broadcast(tensor=t, root=w.size - 1)),
    "broadcast of a list": ("first", lambda g, t, w: g.broadcast([t])),
    "broadcast, options": (
        "last",
        lambda g, t, w: g.broadcast([t], opts=with_root(dist.BroadcastOptions(), w.size - 1)),
    ),
    "reduce": ("sum at 0", lambda g, t, w: g.reduce(t, 0)),
    "reduce, op": ("max at 0", lambda g, t, w: g.reduce(t, 0, MAX)),
    "reduce by name": ("max at 0", lambda g, t, w: g.reduce(t, root=0, op=MAX, timeout=SOON)),
}


@pytest.mark.parametrize("form", IN_PLACE)
def test_in_place(world: World, group: Any, form: str) -> None:
    """Rank r gives r+1. sum: S, max and last: P, first: 1; "at 0": rank 0, while others keep r+1."""
    what, call = IN_PLACE[form]
    what, _, at = what.partition(" at ")
    expected = {"sum": world.size * (world.size + 1) / 2, "max": world.size, "last": world.size, "first": 1}
    tensor = full(world.rank + 1)
    assert call(group, tensor, world).wait()
    value = world.rank + 1 if at and world.rank else expected[what]
    assert tensor.tolist() == [value] * 3


GATHERED: dict[str, Callable[[Any, list[torch.Tensor], torch.Tensor], Any]] = {
    "lists": lambda g, o, t: g.allgather([o], [t]),
    "tensor": lambda g, o, t: g.allgather(o, t),
    "timeout": lambda g, o, t: g.allgather(o, t, SOON),
    "by name": lambda g, o, t: g.allgather(output_tensors=o, input_tensor=t, timeout=SOON),
    "options": lambda g, o, t: g.allgather(output_tensors=[o], input_tensors=[t], opts=AllgatherOptions()),
    "coalesced": lambda g, o, t: g.allgather_coalesced([[one] for one in o], [t]),
}


@pytest.mark.parametrize("form", GATHERED)
def test_allgather(world: World, group: Any, form: str) -> None:
    """Rank r gives r; output s is s everywhere."""
    outputs = [full(-1) for _ in range(world.size)]
    GATHERED[form](group, outputs, full(world.rank)).wait()
    assert [one.tolist() for one in outputs] == [[s] * 3 for s in range(world.size)]


@pytest.mark.parametrize("name", ["_allgather_base", "all_gather_single"])
def test_allgather_into_one(world: World, group: Any, name: str) -> None:
    """Rank r gives r; all see 0, 0, 1, 1, 2, 2, ..."""
    for call in (
        lambda o, t: getattr(group, name)(o, t),
        lambda o, t: getattr(group, name)(output=o, input=t, opts=AllgatherOptions()),
        lambda o, t: group.allgather_into_tensor_coalesced([o], [t]),
    ):
        output = full(-1, 2 * world.size)
        call(output, full(world.rank, 2)).wait()
        assert output.tolist() == [s for s in range(world.size) for _ in range(2)]


def test_gather_and_scatter(world: World, group: Any) -> None:
    """Rank r gives r to root P-1, which sees 0, 1, 2, ...; it gives 10d to rank d."""
    root, is_root = world.size - 1, world.rank == world.size - 1
    for more in ((), (SOON,)):
        outputs = [full(-1) for _ in range(world.size)] if is_root else []
        group.gather(outputs, full(world.rank), root, *more).wait()
        assert [one.tolist() for one in outputs] == [[s] * 3 for s in range(len(outputs))]
        output, inputs = full(-1), [full(10 * d) for d in range(world.size)] if is_root else []
        group.scatter(output, inputs, root, *more).wait()
        assert output.tolist() == [10 * world.rank] * 3
    output = full(-1)
    group.scatter(output_tensor=output, input_tensors=inputs, root=root, timeout=SOON).wait()
    assert output.tolist() == [10 * world.rank] * 3


def test_reduce_scatter(world: World, group: Any) -> None:
    """Rank r gives d + r to rank d, which sees Pd + P(P-1)/2, the largest d + P - 1."""
    inputs = [full(d + world.rank) for d in range(world.size)]
    total, largest = world.size * world.rank + world.size * (world.size - 1) / 2, world.rank + world.size - 1
    for expected, call in (
        (total, lambda o: group.reduce_scatter(o, inputs)),
        (total, lambda o: group.reduce_scatter([o], [inputs])),
        (largest, lambda o: group.reduce_scatter(o, inputs, MAX)),
        (largest, lambda o: group.reduce_scatter(output=o, input=inputs, op=MAX, timeout=SOON)),
        (total, lambda o: group._reduce_scatter_base(o, torch.cat(inputs))),
        (total, lambda o: group.reduce_scatter_tensor_coalesced([o], [torch.cat(inputs)])),
    ):
        output = full(-1)
        call(output).wait()
        assert output.tolist() == [expected] * 3


def test_all_to_all(world: World, group: Any) -> None:
    """Rank r gives 10r + d to rank d, which sees d, 10 + d, 20 + d, ..."""
    ones, size = [1] * world.size, world.size
    leaving = torch.arange(size, dtype=torch.float32) + 10 * world.rank
    for call in (
        lambda o: group.alltoall_base(o, leaving, ones, ones),
        lambda o: group.alltoall_base(o, leaving, [], [], SOON),
        lambda o: group.all_to_all_single(
            output=o, input=leaving, output_split_sizes=ones, input_split_sizes=ones, timeout=SOON
        ),
        lambda o: group.alltoall(list(o.split(1)), list(leaving.split(1))),
    ):
        output = full(-1, size)
        call(output).wait()
        assert output.tolist() == [10 * s + world.rank for s in range(size)]


def test_messages_and_barriers(world: World, group: Any) -> None:
    """Rank r sends r to the next one."""
    for tags in ({}, {"tag": 3}):
        arrived, after, before = full(-1), (world.rank + 1) % world.size, (world.rank - 1) % world.size
        sent = group.send(tensors=[full(world.rank)], dstRank=after, **tags)
        group.recv(tensors=[arrived], srcRank=before, **tags).wait()
        sent.wait()
        assert arrived.tolist() == [before] * 3
    for work in (
        group.barrier(),
        group.barrier(SOON),
        group.barrier(timeout=SOON),
        group.barrier(opts=dist.BarrierOptions()),
    ):
        assert work.wait()


def test_what_no_form_has(world: World) -> None:
    group: Any = dist.group.WORLD
    for call in (
        lambda: group.broadcast(full(1), 0, SOON, 5),
        lambda: group.broadcast([full(1)], dist.BroadcastOptions(), root=0),
        lambda: group.reduce(full(1), 0, root=0),
        lambda: group.barrier(root=0),
        lambda: group.send([full(1)], 0, 0, tag=1),
        lambda: group.reduce(root=0),
        lambda: group.allreduce(op=MAX),
    ):
        with pytest.raises(TypeError, match=r"^(broadcast|reduce|barrier|send|allreduce)\(\) "):
            call()


@pytest.mark.ranks(at_least=2)
def test_timeout_of_a_call(world: World, by_messages: Any) -> None:
    """Rank 0 comes when the others have given up waiting: 50 ms are theirs, not those of the group."""
    tensor = full(world.rank + 1)
    if world.rank:
        work = by_messages.allreduce(tensor, timeout=timedelta(milliseconds=50))
        with pytest.raises(CommError, match=r"its timeout of 0\.05 s has passed"):
            work.wait()
    dist.barrier()  # of another group
    if not world.rank:
        work = by_messages.allreduce(tensor)
    work.wait(SOON)
    assert tensor.tolist() == [world.size * (world.size + 1) / 2] * 3


@pytest.mark.ranks(at_least=2)
@pytest.mark.parametrize("way", ["memory", "messages"])
def test_timeout_of_a_call_that_c_has_begun(world: World, by_messages: Any, way: str) -> None:
    """The same where the call itself waits for a while, and leaves the rest to the engine."""
    group, other = (by_messages, dist.group.WORLD) if way == "messages" else (dist.group.WORLD, by_messages)
    options: Any = dist.AllreduceOptions()
    options.asyncOp = False
    for _ in range(2):  # by messages the first call of a size goes the general way
        group.allreduce([full(1)], options).wait()
    tensor = full(world.rank + 1)
    if world.rank:
        options.timeout = timedelta(milliseconds=50)
        work = group.allreduce([tensor], options)
        with pytest.raises(CommError, match=r"its timeout of 0\.05 s has passed"):
            work.wait()
    other.barrier().wait()
    if not world.rank:
        work = group.allreduce([tensor], options)
    work.wait(SOON)
    assert tensor.tolist() == [world.size * (world.size + 1) / 2] * 3


def test_coalesced_tensors_in_one_memory(world: World, group: Any) -> None:
    """Rank r gives r+1 in one tensor twice, and in two views that share the middle: each sum is S, once."""
    total = world.size * (world.size + 1) / 2
    twice = full(world.rank + 1)
    group.allreduce_coalesced([twice, twice]).wait()
    assert twice.tolist() == [total] * 3
    views = full(world.rank + 1)
    group.allreduce_coalesced([views[:2], views[1:]]).wait()
    assert views.tolist() == [total] * 3
    strided = full(world.rank + 1, 8)
    dist.all_reduce_coalesced([strided[::2], strided], group=group)
    assert strided.tolist() == [total] * 8
    with dist._coalescing_manager(group=group):
        dist.all_reduce(twice, group=group)
        dist.all_reduce(twice, group=group)
    assert twice.tolist() == [total * world.size] * 3


def test_a_barrier_waits_for_what_came_before(world: World, group: Any) -> None:
    """Rank r gives r+1 in three large arrays; when the barrier is passed all are complete."""
    works, tensors = [], []
    for _ in range(3):
        tensors.append(full(world.rank + 1, 1 << 22))
        works.append(dist.all_reduce(tensors[-1], group=group, async_op=True))
    works.append(dist.broadcast(full(0), 0, group=group, async_op=True))
    dist.barrier(group=group)
    assert [work.is_completed() for work in works] == [True] * 4
    works[2].wait()  # orders a reader of a GPU tensor; nothing is left to wait for
    assert tensors[-1].unique().tolist() == [world.size * (world.size + 1) / 2]
    small = full(world.rank + 1)
    begun = dist.all_reduce(small, group=group, async_op=True)
    dist.barrier(group=group)
    assert begun.is_completed() and begun.wait() and small.tolist() == [world.size * (world.size + 1) / 2] * 3


def test_collectives_beside_a_barrier(world: World, group: Any) -> None:
    """Called after a barrier that nobody has waited for, and waited for first on some ranks: none hangs."""
    for order in (0, 1):
        barrier = dist.barrier(group=group, async_op=True)
        tensor = full(world.rank + 1, 1 << 16)
        work = dist.all_reduce(tensor, group=group, async_op=True)
        for one in (barrier, work) if (world.rank + order) % 2 else (work, barrier):
            one.wait()
        assert tensor.unique().tolist() == [world.size * (world.size + 1) / 2]
