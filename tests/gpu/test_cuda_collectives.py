"""Collectives of GPU tensors: staged through pinned memory, ordered by streams."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module", autouse=True)
def world() -> None:
    import distrain

    if not dist.is_initialized():
        distrain.init_process_group()
    torch.cuda.set_device(dist.get_rank() % torch.cuda.device_count())


def busy_then(value: float) -> torch.Tensor:
    """A tensor that the GPU is still computing when this returns."""
    a = torch.randn(2048, 2048, device="cuda")
    for _ in range(20):
        a = torch.nn.functional.normalize(a @ a)
    return torch.zeros(1_000_003, device="cuda") + a.sum() * 0 + value


def test_all_reduce_waits_for_what_is_being_computed() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    t = busy_then(rank + 1)
    dist.all_reduce(t)
    assert (t * 2).unique().tolist() == [size * (size + 1)]


def test_async_work_orders_the_callers_stream() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    tensors = [busy_then(rank + i) for i in range(3)]
    works = [dist.all_reduce(t, async_op=True) for t in tensors]
    for i, (t, work) in enumerate(zip(tensors, works, strict=True)):
        work.wait()
        assert (t + 0).unique().tolist() == [size * i + size * (size - 1) / 2]


def test_gather_and_scatter_of_gpu_tensors() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    out = torch.empty(2 * size, device="cuda")
    dist.all_gather_into_tensor(out, torch.full((2,), float(rank), device="cuda"))
    assert out.tolist() == [float(s) for s in range(size) for _ in range(2)]
    part = torch.empty(2, device="cuda")
    dist.reduce_scatter_tensor(part, out)
    assert part.tolist() == [float(size * rank)] * 2
    dist.broadcast(part, 0)
    assert part.tolist() == [0.0] * 2


def test_ddp_gradients_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    on_cpu = torch.nn.Linear(40, 30)
    on_gpu = torch.nn.parallel.DistributedDataParallel(
        torch.nn.Linear(40, 30).cuda(), device_ids=[torch.cuda.current_device()]
    )
    on_gpu.module.load_state_dict(on_cpu.state_dict())
    net = torch.nn.parallel.DistributedDataParallel(on_cpu)
    x = torch.randn(16, 40, generator=torch.Generator().manual_seed(dist.get_rank()))
    net(x).square().mean().backward()
    on_gpu(x.cuda()).square().mean().backward()
    for a, b in zip(net.parameters(), on_gpu.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad.cpu(), rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL inside a node needs a GPU for each rank")
def test_nccl_inside_the_node_gives_the_mean() -> None:
    from distrain.comm.settings import CommSettings
    from distrain.comm.sync.synchroniser import make_synchroniser

    rank, size = dist.get_rank(), dist.get_world_size()
    synchroniser = make_synchroniser(CommSettings(inside_node="nccl"))
    net = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 1, bias=False).cuda())
    synchroniser.attach(net)
    for _ in range(3):
        net.zero_grad()
        net(torch.full((1, 3), rank + 1.0, device="cuda")).sum().backward()
        assert net.module.weight.grad.tolist() == [[(size + 1) / 2] * 3]
    synchroniser.close()


def test_a_long_tensor_travels_in_pieces() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    tensor = torch.arange(9_000_001, device="cuda").remainder(1000).float() * (rank + 1)
    dist.all_reduce(tensor)
    expected = torch.arange(9_000_001, device="cuda").remainder(1000).float() * (size * (size + 1) / 2)
    assert torch.equal(tensor, expected)
