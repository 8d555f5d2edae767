"""GPU tensors whose pointers MPI takes, and the streams that this stands on, which need no such MPI.

Run whole by a job: ``mpirun -np 2 python -m pytest tests/gpu``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

OPERATIONS = ("SUM", "AVG", "PRODUCT", "MIN", "MAX")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int32, torch.int64)


@pytest.fixture(scope="module", autouse=True)
def world() -> None:
    import distrain

    if not dist.is_initialized():
        distrain.init_process_group()
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())


@pytest.fixture
def pointers() -> None:
    from distrain.comm import runtime
    from distrain.comm.process import gpu_aware

    if not runtime.current().pointers:
        pytest.skip(f"no pointers are given to this MPI: {gpu_aware.ask().why}")


def busy_then(tensor: torch.Tensor, value: float) -> torch.Tensor:
    """Fill a tensor with what the GPU is still computing when this returns."""
    a = torch.randn(2048, 2048, device="cuda")
    for _ in range(20):
        a = torch.nn.functional.normalize(a @ a)
    return tensor.copy_((a.sum() * 0 + value).to(tensor.dtype).expand_as(tensor))


def make_side() -> Any:
    from distrain.comm.device.side import side_of

    return side_of(torch.empty(1, device="cuda"))


def test_the_stream_of_sums_waits_for_nothing() -> None:
    """It runs while the caller's stream is busy, in its own order, and a mark tells when it has."""
    side = make_side()
    tensor = torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()
    busy_then(torch.empty(1, device="cuda"), 0)
    caller = side.computed()
    side.combine(lambda: tensor.add_(1))
    mark = side.combine(lambda: tensor.mul_(3))
    while not mark.is_reached():
        pass
    assert not caller.is_reached(), "the sums stood behind what the caller computes"
    assert tensor.unique().tolist() == [3.0]


def test_what_lands_is_seen_by_the_caller_after_the_mark() -> None:
    side = make_side()
    source, target = torch.arange(1_000_000.0, device="cuda"), torch.zeros(1_000_000, device="cuda")
    torch.cuda.synchronize()
    side.land(lambda: target.copy_(source), [source, target])
    side.arrived().order_caller()
    assert torch.equal(target + 0, source)


def test_staging_areas_are_kept() -> None:
    side = make_side()
    area = side.pool.take(1 << 20)
    assert area.is_cuda and area.nbytes == 1 << 20 and not area.is_inference()
    before = side.pool.allocated_bytes
    side.pool.give(area)
    assert side.pool.take(1 << 20).data_ptr() == area.data_ptr()
    assert side.pool.allocated_bytes == before
    side.pool.give(area)


@pytest.mark.parametrize("ranks", [3, 7, 300])
@pytest.mark.parametrize("dtype", [*DTYPES, torch.complex64], ids=str)
def test_averages_are_rounded_as_by_the_host(dtype: torch.dtype, ranks: int) -> None:
    from distrain.comm.buffers import FlatBuffer
    from distrain.comm.device.pointers import DeviceBuffer

    if dtype in (torch.uint8, torch.bfloat16) and ranks > 256:
        pytest.skip(f"{dtype} has no {ranks}")
    generator = torch.Generator().manual_seed(0)
    on_cpu = (torch.randn(100_003, generator=generator, dtype=torch.complex64) * 100).abs().to(dtype)
    on_gpu = on_cpu.cuda()
    FlatBuffer(on_cpu).divide(ranks)
    DeviceBuffer(on_gpu, make_side()).divide(ranks)
    assert torch.equal(on_gpu.cpu(), on_cpu)


@pytest.mark.usefixtures("pointers")
@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_reductions_are_those_of_the_host(dtype: torch.dtype, op: str) -> None:
    """Rank r gives numbers of its own: the same bits as from the memory of the host on two ranks."""
    generator = torch.Generator().manual_seed(dist.get_rank())
    on_cpu = torch.randint(1, 4, (100_003,), generator=generator).to(dtype)
    if dtype.is_floating_point:
        on_cpu += torch.rand(100_003, generator=generator).to(dtype)
    on_gpu = on_cpu.cuda()
    dist.all_reduce(on_gpu, getattr(dist.ReduceOp, op))
    dist.all_reduce(on_cpu, getattr(dist.ReduceOp, op))
    if dist.get_world_size() <= 2:  # with more, the host may add in another order
        assert torch.equal(on_gpu.cpu(), on_cpu)
    else:
        torch.testing.assert_close(on_gpu.cpu(), on_cpu)


@pytest.mark.usefixtures("pointers")
def test_what_is_still_being_computed_travels() -> None:
    """Rank r gives r + 1 by every collective that gets pointers."""
    rank, size = dist.get_rank(), dist.get_world_size()
    ranks = [r + 1.0 for r in range(size)]
    total = sum(ranks)
    long = busy_then(torch.empty(9_000_001, device="cuda"), rank + 1)
    dist.all_reduce(long)
    assert (long + 0).unique().tolist() == [total]
    every = torch.zeros(size, device="cuda")
    dist.all_gather_into_tensor(every, busy_then(torch.empty(1, device="cuda"), rank + 1))
    assert every.tolist() == ranks
    part = torch.zeros(1, device="cuda")
    dist.reduce_scatter_tensor(part, busy_then(torch.empty(size, device="cuda"), rank + 1))
    assert part.item() == total
    every = torch.zeros(size, device="cuda")
    dist.all_to_all_single(every, busy_then(torch.empty(size, device="cuda"), rank + 1))
    assert every.tolist() == ranks
    arrived = torch.zeros(5, device="cuda")
    sent = dist.isend(busy_then(torch.empty(5, device="cuda"), rank + 1), (rank + 1) % size)
    dist.recv(arrived, (rank - 1) % size)
    sent.wait()
    assert arrived.tolist() == [ranks[rank - 1]] * 5


@pytest.mark.usefixtures("pointers")
def test_works_are_waited_for_by_the_stream() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    tensors = [busy_then(torch.empty(1_000_003, device="cuda"), rank + i) for i in range(3)]
    works = [dist.all_reduce(tensor, async_op=True) for tensor in tensors]
    for i, (tensor, work) in enumerate(zip(tensors, works, strict=True)):
        work.wait()
        assert (tensor + 0).unique().tolist() == [size * i + size * (size - 1) / 2]


@pytest.mark.usefixtures("pointers")
def test_results_with_strides() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    base = torch.arange(40.0, device="cuda").reshape(5, 8) * (rank + 1)
    others = base[:, 1::2].clone()
    dist.all_reduce(base[:, ::2])
    expected = torch.arange(40.0).reshape(5, 8)[:, ::2] * (size * (size + 1) / 2)
    assert torch.equal(base[:, ::2].cpu(), expected) and torch.equal(base[:, 1::2], others)


@pytest.mark.usefixtures("pointers")
def test_memory_does_not_grow() -> None:
    tensor = torch.ones(1_000_003, device="cuda")
    for _ in range(5):
        dist.all_reduce(tensor, dist.ReduceOp.AVG)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(50):
        dist.all_reduce(tensor, dist.ReduceOp.AVG)
    torch.cuda.synchronize()
    # How many staging areas are needed at once depends on timing; a payload kept of each call would show.
    assert torch.cuda.memory_allocated() < before + 25 * tensor.nbytes
    assert tensor.unique().tolist() == [1.0]
