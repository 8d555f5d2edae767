"""Each synchroniser gives DDP the mean of the ranks' gradients."""

from __future__ import annotations

import sys
import time
import types

import pytest
import torch
import torch.distributed as dist
from small_net import batch, make_net, same_gradients_everywhere, step
from torch.nn.parallel import DistributedDataParallel

from distrain.comm import runtime
from distrain.comm.settings import CommSettings
from distrain.comm.sync.synchroniser import make_synchroniser
from distrain.errors import ConfigError
from distrain.world import World

CASES = {
    "distrain": (CommSettings(), 1e-6),
    "gloo": (CommSettings(sync="gloo"), 1e-6),
    "mpi": (CommSettings(sync="mpi"), 1e-6),
    "bf16": (CommSettings(wire_dtype="bf16"), 2.0**-8),
    "fp16": (CommSettings(wire_dtype="fp16"), 2.0**-10),
}


@pytest.mark.parametrize("name", CASES)
def test_mean_gradients(world: World, name: str) -> None:
    settings, precision = CASES[name]
    synchroniser = make_synchroniser(settings)
    net = DistributedDataParallel(
        make_net(), process_group=synchroniser.group, bucket_cap_mb=0.001, gradient_as_bucket_view=True
    )
    synchroniser.attach(net)
    for number in range(3):  # DDP arranges its buckets anew after the first
        step(net, world, number, precision)
    assert same_gradients_everywhere(net, world)
    synchroniser.close()


@pytest.mark.ranks(2)
@pytest.mark.parametrize("name", CASES)
def test_waiting_for_gradients_is_seen(world: World, name: str) -> None:
    """Rank 1 begins its step 0.2 s late: rank 0 waits for it, and says so."""
    synchroniser = make_synchroniser(CASES[name][0])
    net = DistributedDataParallel(make_net(), process_group=synchroniser.group)
    synchroniser.attach(net)
    for number in range(2):  # DDP arranges its buckets anew in the second
        net(batch(world.rank, number)).square().mean().backward()
    dist.barrier()
    engine = runtime.current().engine
    engine.take_exposed_seconds()
    if world.rank == 1:
        time.sleep(0.2)
    begin = time.perf_counter()
    net(batch(world.rank, 2)).square().mean().backward()
    seconds = time.perf_counter() - begin
    waited = engine.take_exposed_seconds()
    assert (0.1 if world.rank == 0 else 0) <= waited <= seconds
    synchroniser.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_nccl_without_gpus_is_refused(world: World) -> None:
    with pytest.raises(ConfigError, match="torch sees none"):
        make_synchroniser(CommSettings(sync="nccl"))
    with pytest.raises(ConfigError, match=r"inside_node: .*torch sees none"):
        make_synchroniser(CommSettings(inside_node="nccl"))


def test_where_horovod_is_absent_the_error_says_how_to_get_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "horovod", None)
    monkeypatch.setitem(sys.modules, "horovod.torch", None)
    with pytest.raises(ConfigError, match="make horovod"):
        make_synchroniser(CommSettings(sync="horovod"))


def test_a_horovod_of_another_mpi_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts, as a world of its own, and would average with nobody."""
    alone = types.SimpleNamespace(init=lambda: None, size=lambda: world.size + 1)
    monkeypatch.setitem(sys.modules, "horovod", types.SimpleNamespace(torch=alone))
    monkeypatch.setitem(sys.modules, "horovod.torch", alone)
    with pytest.raises(ConfigError, match=f"world of {world.size + 1} is not this job's of {world.size}"):
        make_synchroniser(CommSettings(sync="horovod"))


def test_wire_types_are_distrains_own() -> None:
    with pytest.raises(ValueError, match="needs sync=distrain"):
        CommSettings(sync="gloo", wire_dtype="bf16")
    with pytest.raises(ValueError, match="needs sync=distrain"):
        CommSettings(sync="gloo", inside_node="nccl")
