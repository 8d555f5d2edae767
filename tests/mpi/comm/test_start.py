"""What MPI says about the world, and what a running engine costs and keeps."""

from __future__ import annotations

import gc
import resource
import tracemalloc

import pytest
import torch
import torch.distributed as dist

from distrain.comm import api, runtime
from distrain.comm.process import mpi
from distrain.comm.settings import CommSettings
from distrain.errors import UsageError
from distrain.world import World


def test_the_world_is_that_of_mpi(world: World) -> None:
    comm = runtime.current().comm
    assert (world.rank, world.size) == api.engine().call(lambda: (comm.Get_rank(), comm.Get_size()))
    assert (dist.get_rank(), dist.get_world_size()) == (world.rank, world.size)
    everyone: list[object] = [None] * world.size
    dist.all_gather_object(everyone, world.hosts)
    assert everyone == [world.hosts] * world.size
    node = api.engine().call(lambda: mpi.node_comm(comm))
    assert api.engine().call(node.Get_size) == world.local_size
    assert api.engine().call(node.Get_rank) == world.local_rank
    api.engine().call(node.Free)


def test_start_is_idempotent_but_not_with_other_settings(world: World) -> None:
    assert runtime.start() is runtime.current()
    with pytest.raises(UsageError, match="settings differ"):
        runtime.start(CommSettings(colors=7))
    assert dist.get_backend() == "distrain"


@pytest.mark.ranks(2)
@pytest.mark.parametrize("group", ["memory", "messages"], indirect=True)
def test_memory_does_not_grow(world: World, group: dist.ProcessGroup) -> None:
    """After a warm-up, thousands of collectives leave resident memory and Python objects as they were."""
    tensors = [torch.ones(40_000), torch.ones(33), torch.ones(1)]

    def run(times: int) -> None:
        for _ in range(times):
            maximum = dist.ReduceOp.MAX
            for work in [dist.all_reduce(t, op=maximum, group=group, async_op=True) for t in tensors]:
                work.get_future()
                work.wait()

    run(200)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run(500)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048  # KiB

    def traced() -> int:
        """The least of several looks: a group keeps its last 64 works, more or less of each."""
        sizes = []
        for _ in range(5):
            run(10)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
        return min(sizes)

    gc.collect()
    gc.freeze()  # what is there now need not be searched again
    tracemalloc.start()
    try:
        run(100)
        objects = traced()
        run(250)
        # The least Python object has 56 bytes: one left of each of these 750 would be 42,000.
        assert traced() - objects < 30_000
    finally:
        tracemalloc.stop()
        gc.unfreeze()
