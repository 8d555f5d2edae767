"""Every collective of torch.distributed, on every rank, with the values that each rank must see.

``r`` is the rank, ``P`` the number of ranks. All ranks hold different data, so a collective that
does nothing, or reaches only some ranks, fails.
"""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from wire_cases import COUNTS, DTYPES, decoding, everyone

from distrain.errors import CommError, UsageError
from distrain.world import World

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def full(value: float, count: int = 3, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full((count,), value, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_reduce_sum(world: World, dtype: torch.dtype) -> None:
    """Rank r gives r+1; all see P(P+1)/2."""
    for count in COUNTS:
        t = full(world.rank + 1, count, dtype)
        dist.all_reduce(t)
        assert t.tolist() == [world.size * (world.size + 1) / 2] * count


def test_all_reduce_other_reductions(world: World) -> None:
    """Rank r gives r+1. AVG: (P+1)/2, MIN: 1, MAX: P, PRODUCT: P!."""
    factorial = 1
    for rank in range(world.size):
        factorial *= rank + 1
    ops = dist.ReduceOp
    for op, expected in (
        (ops.AVG, (world.size + 1) / 2),
        (ops.MIN, 1),
        (ops.MAX, world.size),
        (ops.PRODUCT, factorial),
    ):
        t = full(world.rank + 1)
        dist.all_reduce(t, op=op)
        assert t.tolist() == [expected] * 3, op


def test_all_reduce_bits_and_truth(world: World) -> None:
    """Rank r gives the bit r. BOR: all bits, BAND: none (P > 1), BXOR: all bits; bool: any and all."""
    ops = dist.ReduceOp
    everything = 2**world.size - 1
    for op, expected in (
        (ops.BOR, everything),
        (ops.BAND, 0 if world.size > 1 else 1),
        (ops.BXOR, everything),
    ):
        t = full(1 << world.rank, dtype=torch.int32)
        dist.all_reduce(t, op=op)
        assert t.tolist() == [expected] * 3, op
    for op, expected in ((ops.MAX, True), (ops.MIN, world.size == 1)):
        flag = torch.tensor([world.rank == 0])
        dist.all_reduce(flag, op=op)
        assert flag.item() is expected


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.complex64], ids=str
)
def test_all_reduce_further_types(world: World, dtype: torch.dtype) -> None:
    """Rank r gives r+1; all see P(P+1)/2."""
    t = full(world.rank + 1, 5, dtype)
    dist.all_reduce(t)
    assert t.tolist() == [world.size * (world.size + 1) // 2] * 5


def test_all_reduce_keeps_strides(world: World) -> None:
    """A transposed view and a channels-last tensor: element (i, j) is sum of ranks' element (i, j)."""
    base = torch.arange(12.0).reshape(3, 4) * (world.rank + 1)
    view = base.t()
    dist.all_reduce(view)
    total = world.size * (world.size + 1) / 2
    assert torch.equal(view, torch.arange(12.0).reshape(3, 4).t() * total)
    image = torch.arange(24.0).reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    expected = image * total
    mine = image * (world.rank + 1)
    dist.all_reduce(mine)
    assert torch.equal(mine, expected) and mine.is_contiguous(memory_format=torch.channels_last)


def test_all_reduce_coalesced(world: World) -> None:
    """Tensor i of rank r is i + r; all see P*i + P(P-1)/2."""
    tensors = [full(i + world.rank, i + 1) for i in range(4)]
    with dist._coalescing_manager():
        for t in tensors:
            dist.all_reduce(t)
    for i, t in enumerate(tensors):
        assert t.tolist() == [world.size * i + world.size * (world.size - 1) / 2] * (i + 1)


def test_reduce(world: World) -> None:
    """Rank r gives (P+1)^r; root 0 and root P-1 see the sum of all, the others keep their own."""
    for root in {0, world.size - 1}:
        t = decoding(world.rank, world.size, 7, torch.int64)
        dist.reduce(t, dst=root)
        expected = everyone(world.size) if world.rank == root else (world.size + 1) ** world.rank
        assert t.tolist() == [expected] * 7


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bool, torch.uint8], ids=str)
def test_broadcast(world: World, dtype: torch.dtype) -> None:
    """Rank r holds r % 2; all see that of the root."""
    for root in range(world.size):
        for count in (0, 1, 5):
            t = full(world.rank % 2, count, dtype)
            dist.broadcast(t, src=root)
            assert t.tolist() == [root % 2] * count


def test_all_gather(world: World) -> None:
    """Rank r gives r three times; everybody's list entry s is s three times, also for empty tensors."""
    out = [full(-1) for _ in range(world.size)]
    dist.all_gather(out, full(world.rank))
    assert [t.tolist() for t in out] == [[float(s)] * 3 for s in range(world.size)]
    empty = [torch.empty(0) for _ in range(world.size)]
    dist.all_gather(empty, torch.empty(0))


def test_all_gather_of_different_sizes(world: World) -> None:
    """Rank r gives r+1 elements of value r."""
    out = [full(-1, s + 1) for s in range(world.size)]
    dist.all_gather(out, full(world.rank, world.rank + 1))
    assert [t.tolist() for t in out] == [[float(s)] * (s + 1) for s in range(world.size)]


def test_all_gather_into_tensor(world: World) -> None:
    """Rank r gives [r, 10r]; all see [0, 0, 1, 10, 2, 20, ...]."""
    out = torch.full((2 * world.size,), -1, dtype=torch.int64)
    dist.all_gather_into_tensor(out, torch.tensor([world.rank, 10 * world.rank]))
    assert out.tolist() == [v for s in range(world.size) for v in (s, 10 * s)]
    in_place = torch.full((2 * world.size,), -1, dtype=torch.bfloat16)
    mine = in_place[2 * world.rank : 2 * world.rank + 2]
    mine.fill_(world.rank)
    dist.all_gather_into_tensor(in_place, mine)
    assert in_place.tolist() == [float(s) for s in range(world.size) for _ in range(2)]


def test_all_gather_into_tensor_coalesced(world: World) -> None:
    """Tensor i of rank r is r + 100i; all see one entry of each rank."""
    outs = [torch.empty(world.size) for _ in range(3)]
    with dist._coalescing_manager():
        for i, out in enumerate(outs):
            dist.all_gather_into_tensor(out, torch.tensor([world.rank + 100.0 * i]))
    for i, out in enumerate(outs):
        assert out.tolist() == [s + 100.0 * i for s in range(world.size)]


def test_reduce_scatter(world: World) -> None:
    """Rank r gives (r+1)(d+1) for rank d; rank r sees (r+1) P(P+1)/2. Parts may differ in size."""
    total = world.size * (world.size + 1) / 2
    for sizes in ([4] * world.size, [d + 1 for d in range(world.size)]):
        out = full(-1, sizes[world.rank])
        dist.reduce_scatter(out, [full((world.rank + 1) * (d + 1), sizes[d]) for d in range(world.size)])
        assert out.tolist() == [(world.rank + 1) * total] * sizes[world.rank]


def test_reduce_scatter_tensor(world: World) -> None:
    """Element e of rank r is r + e; rank r sees P*e + P(P-1)/2 for its two e. AVG: e + (P-1)/2."""
    source = torch.arange(2.0 * world.size) + world.rank
    mine = torch.tensor([2.0 * world.rank, 2.0 * world.rank + 1])
    out = torch.empty(2)
    dist.reduce_scatter_tensor(out, source)
    assert torch.equal(out, mine * world.size + world.size * (world.size - 1) / 2)
    dist.reduce_scatter_tensor(out, source, op=dist.ReduceOp.AVG)
    assert torch.allclose(out, mine + (world.size - 1) / 2, rtol=1e-6)
    assert torch.equal(source, torch.arange(2.0 * world.size) + world.rank), "the input is left alone"


def test_all_to_all(world: World) -> None:
    """Rank r sends 10r + d, r + d + 1 times, to rank d; rank r sees 10s + r from each s."""
    r, size = world.rank, world.size
    out = [full(-1, s + r + 1) for s in range(size)]
    dist.all_to_all(out, [full(10 * r + d, r + d + 1) for d in range(size)])
    assert [t.tolist() for t in out] == [[10.0 * s + r] * (s + r + 1) for s in range(size)]


def test_all_to_all_single(world: World) -> None:
    """Rank r sends 10r + d to rank d: rank r sees 10s + r from each s; then with uneven splits."""
    r, size = world.rank, world.size
    out = torch.empty(size, dtype=torch.int64)
    dist.all_to_all_single(out, torch.tensor([10 * r + d for d in range(size)]))
    assert out.tolist() == [10 * s + r for s in range(size)]
    rows = torch.cat([torch.full((d + 1, 2), 10 * r + d) for d in range(size)])
    uneven = torch.empty((size * (r + 1), 2), dtype=rows.dtype)
    dist.all_to_all_single(uneven, rows, [r + 1] * size, [d + 1 for d in range(size)])
    assert torch.equal(uneven, torch.cat([torch.full((r + 1, 2), 10 * s + r) for s in range(size)]))


def test_gather_and_scatter(world: World) -> None:
    """gather: the root sees s from each s. scatter: rank r sees the root's entry 5r."""
    for root in {0, world.size - 1}:
        here = world.rank == root
        out = [full(-1) for _ in range(world.size)] if here else None
        dist.gather(full(world.rank), out, dst=root)
        if out is not None:
            assert [t.tolist() for t in out] == [[float(s)] * 3 for s in range(world.size)]
        target = full(-1)
        dist.scatter(target, [full(5 * d) for d in range(world.size)] if here else None, src=root)
        assert target.tolist() == [5.0 * world.rank] * 3


@pytest.mark.ranks(at_least=2)
def test_send_and_recv_by_tag(world: World) -> None:
    """Rank 0 sends 1 with tag 1 and 2 with tag 2; rank 1 takes tag 2 first. The others only watch."""
    if world.rank == 0:
        works = [dist.isend(full(tag), 1, tag=tag) for tag in (1, 2)]
        for work in works:
            work.wait()
    elif world.rank == 1:
        for tag in (2, 1):
            t = full(-1)
            assert dist.recv(t, 0, tag=tag) == 0
            assert t.tolist() == [float(tag)] * 3


def test_recv_from_any_rank(world: World) -> None:
    """Each rank above 0 sends its number to rank 0, which learns who sent from the call's result."""
    if world.rank:
        dist.send(full(world.rank), 0)
    seen = set()
    for _ in range(world.size - 1 if world.rank == 0 else 0):
        t = full(-1)
        source = dist.recv(t)
        assert t.tolist() == [float(source)] * 3
        seen.add(source)
    if world.rank == 0:
        assert seen == set(range(1, world.size))
    dist.barrier()  # or the next test's messages would find a receive from any rank


def test_batched_ring_exchange(world: World) -> None:
    """Rank r sends r to r+1 and receives r-1 from r-1, by batch_isend_irecv."""
    if world.size == 1:
        return
    right, left = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    t = full(-1)
    ops = [dist.P2POp(dist.irecv, t, left), dist.P2POp(dist.isend, full(world.rank), right)]
    for work in dist.batch_isend_irecv(ops):
        work.wait()
    assert t.tolist() == [float(left)] * 3


def test_object_collectives(world: World) -> None:
    """all_gather: entry s is {"rank": s}; broadcast and scatter come from the last rank; gather goes to 0."""
    last = world.size - 1
    objects: list[object] = [None] * world.size
    dist.all_gather_object(objects, {"rank": world.rank, "text": "x" * (10 * world.rank)})
    assert objects == [{"rank": s, "text": "x" * (10 * s)} for s in range(world.size)]
    some: list[object] = [("from", world.rank), None] if world.rank == last else [None, None]
    dist.broadcast_object_list(some, src=last)
    assert some == [("from", last), None]
    gathered: list[object] | None = [None] * world.size if world.rank == 0 else None
    dist.gather_object(world.rank**2, gathered, dst=0)
    assert gathered is None or gathered == [s**2 for s in range(world.size)]
    mine: list[object] = [None]
    dist.scatter_object_list(mine, [f"for {d}" for d in range(world.size)], src=last)
    assert mine == [f"for {world.rank}"]


def test_barrier_and_monitored_barrier(world: World) -> None:
    """Nobody leaves before everybody came: each adds one to a counter in the store first."""
    store = dist.distributed_c10d._get_default_store()
    group = dist.group.WORLD
    for name, barrier in (
        ("plain", dist.barrier),
        ("monitored", lambda: group.monitored_barrier(timedelta(seconds=30))),
    ):
        store.add(name, 1)
        barrier()
        assert store.add(name, 0) == world.size


@pytest.mark.ranks(at_least=2)
def test_monitored_barrier_names_the_missing(world: World) -> None:
    """The last rank does not come in time: rank 0 names it, the others name rank 0; all can go on."""
    group, missing = dist.group.WORLD, world.size - 1
    if world.rank == missing:
        dist.barrier()
        # Late: it finds nobody. What is sent for this call is never mixed up with a later one.
        with pytest.raises(CommError, match="rank 0"):
            group.monitored_barrier(timedelta(seconds=0.2))
    else:
        who = rf"Ranks {missing} failed to pass monitoredBarrier" if world.rank == 0 else "rank 0"
        with pytest.raises(CommError, match=who):
            group.monitored_barrier(timedelta(seconds=0.3), wait_all_ranks=True)
        dist.barrier()
    group.monitored_barrier(timedelta(seconds=30))


def test_work_and_future(world: World) -> None:
    """async_op: a Work that completes, whose Future holds the tensors; several at once, any order."""
    tensors = [full(world.rank + i, 1000 * i + 1) for i in range(5)]
    works = [dist.all_reduce(t, async_op=True) for t in tensors]
    future = works[3].get_future()
    assert torch.equal(future.wait()[0], tensors[3])
    for i, work in reversed(list(enumerate(works))):
        assert work.wait() and work.is_completed() and work.is_success() and work.exception() is None
        assert tensors[i].unique().tolist() == [world.size * i + world.size * (world.size - 1) / 2]
    doubled = dist.all_reduce(full(1.0), async_op=True).get_future().then(lambda f: f.value()[0] * 2)
    assert doubled.wait().tolist() == [2.0 * world.size] * 3


def test_wrong_use_is_told_before_anything_is_sent(world: World) -> None:
    with pytest.raises(UsageError, match="not defined for"):
        dist.all_reduce(torch.ones(2), op=dist.ReduceOp.BAND)
    with pytest.raises(UsageError, match="tag="):
        dist.isend(full(1), (world.rank + 1) % world.size, tag=-1)
    group = dist.group.WORLD
    with pytest.raises(UsageError, match="one tensor for each rank"):
        group.alltoall([full(0)] * (world.size + 1), [full(0)] * (world.size + 1))
    dist.barrier()


@pytest.mark.ranks(2, 3)
def test_all_to_all_in_place(world: World, group: dist.ProcessGroup) -> None:
    """Rank r gives 10r+d to rank d, where it gets 10s+r. Rank 0 comes late: what it gets is there already."""
    whole = torch.tensor([10.0 * world.rank + d for d in range(world.size)]).repeat_interleave(3)
    late, tensors = torch.zeros(1), list(whole.chunk(world.size))
    if world.rank == 0:
        work = dist.irecv(late, src=1, group=group)  # so its engine looks for messages meanwhile
        time.sleep(0.05)
    dist.all_to_all(tensors, tensors, group=group)
    if world.rank == 1:
        dist.send(late + 1, dst=0, group=group)
    if world.rank == 0:
        assert work is not None and work.wait()
    assert whole[::3].tolist() == [10.0 * s + world.rank for s in range(world.size)]
